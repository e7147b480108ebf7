"""Plays an avatar as a track with a constant frame rate: idle cycle and speech in turn.

For outputs that need a clock: H.264, RTMP, WebRTC, a video file. Each tick has exactly one picture
and the audio that belongs to it. Pure: it reads no clock and has no threads; the caller asks for
the next tick, or for the ticks that are due at a given time. Pictures may be of any type.

* Between speeches it plays the idle cycle and silence.
* A speech starts when its first picture has arrived or was dropped, or `PATIENCE_S` after its first
  audio. Its pictures continue the idle cycle, and the idle cycle continues after its last picture.
* Audio is never dropped or repeated. If a tick's audio has not arrived, the last picture is held
  over silence, and the speech continues later.
* A picture that was dropped or is late is replaced by the previous one.
* `Player.clear` interrupts: the next tick is idle. The end of each speech is reported once, with
  the position that was reached.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Generic, Protocol, TypeVar

import numpy as np

from wsavatar.avatars.avatar import cycle_index
from wsavatar.errors import WsavatarError

__all__ = ["MAX_AHEAD_S", "Cycle", "Finished", "Player", "PlayerError", "Speech", "Tick"]

PATIENCE_S = 1.0
MAX_AHEAD_S = 60.0
"""Limit of the audio and pictures buffered for one speech; more raises PlayerError."""
MAX_WAITING = 8
"""Limit of the speeches that wait for the current one."""

Picture = TypeVar("Picture")
Picture_co = TypeVar("Picture_co", covariant=True)


class Cycle(Protocol[Picture_co]):
    """The pictures of an idle cycle: a sequence, an array, or what decodes them on demand."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Picture_co: ...


class PlayerError(WsavatarError, RuntimeError):
    """A speech was given more than it may buffer, or audio after its end."""


@dataclass(frozen=True, slots=True)
class Tick(Generic[Picture]):
    """One picture of the track and its audio: float32 [samples, channels]."""

    index: int
    picture: Picture
    audio: np.ndarray
    speaking: bool


@dataclass(frozen=True, slots=True)
class Finished:
    """A speech has ended: ``position_s`` of its audio was played."""

    position_s: float
    interrupted: bool


class Speech(Generic[Picture]):
    """The audio and pictures of one response; made by `Player.begin`.

    Audio is pushed in order, pictures by their index at the player's frame rate; then `end`.
    """

    def __init__(
        self,
        first_cycle_index: int,
        rate: int,
        fps: Fraction,
        channels: int,
        on_finished: Callable[[Finished], None],
    ) -> None:
        self.first_cycle_index = first_cycle_index
        self._rate, self._fps, self._channels = rate, fps, channels
        self._on_finished = on_finished
        self._pieces: deque[np.ndarray] = deque()
        self._in_hand = 0  # samples
        self._heard = 0  # samples
        self._ticks = 0
        self._pictures: dict[int, Picture | None] = {}  # not shown yet; None: dropped
        self._shown: Picture | None = None
        self._started = self._ended = self._over = False
        self._waited = 0  # ticks with audio, without a picture

    @property
    def position_s(self) -> float:
        """Seconds of its audio played so far."""
        return self._heard / self._rate

    @property
    def ahead_s(self) -> float:
        """Seconds of its audio buffered."""
        return self._in_hand / self._rate

    @property
    def over(self) -> bool:
        """It was played to its end, or interrupted. Further pushes are ignored."""
        return self._over

    def push_audio(self, samples: np.ndarray) -> None:
        """Add float32 [n] or [n, channels]. Raises PlayerError beyond `MAX_AHEAD_S` or its end."""
        if self._over:
            return
        if self._ended:
            raise PlayerError("the audio of this speech has already ended")
        if self.ahead_s > MAX_AHEAD_S:
            raise PlayerError(f"a speech may be {MAX_AHEAD_S:g} s ahead: wait until it is played")
        if len(samples):
            self._pieces.append(samples.reshape(len(samples), self._channels))
            self._in_hand += len(samples)

    def push_picture(self, index: int, picture: Picture | None) -> None:
        """Add a picture; None: it was dropped. A late one is not shown.

        Raises PlayerError beyond `MAX_AHEAD_S`.
        """
        if self._over or index < self._index:
            return
        if index > self._index + MAX_AHEAD_S * self._fps:
            raise PlayerError(f"a picture may be {MAX_AHEAD_S:g} s ahead: wait until it is due")
        self._pictures[index] = picture

    def end(self) -> None:
        """All audio was pushed."""
        self._ended = True

    # For Player.

    @property
    def _index(self) -> int:
        """Index of the picture that belongs to the next audio."""
        return round(self._heard * self._fps / self._rate)

    def _has_picture(self) -> bool:
        """Whether the next picture has arrived or was dropped."""
        return self._index in self._pictures

    def _has_audio(self, samples: int) -> bool:
        return self._in_hand >= samples or self._ended

    def _may_start(self, samples: int) -> bool:
        if not self._has_audio(samples):
            return False
        self._waited += 1
        patience = PATIENCE_S * self._fps
        self._started = self._has_picture() or self._waited > patience
        return self._started

    def _take_picture(self) -> Picture | None:
        """The newest picture that is due; None before the first."""
        index = self._index
        for due in sorted(number for number in self._pictures if number <= index):
            picture = self._pictures.pop(due)
            self._shown = self._shown if picture is None else picture
        self._ticks += 1
        return self._shown

    def _take_audio(self, samples: int) -> np.ndarray:
        """The next audio, padded with silence after its end: float32 [samples, channels]."""
        audio = np.zeros((samples, self._channels), np.float32)
        filled = 0
        while filled < samples and self._pieces:
            piece = self._pieces.popleft()
            used = min(len(piece), samples - filled)
            audio[filled : filled + used] = piece[:used]
            if used < len(piece):
                self._pieces.appendleft(piece[used:])
            filled += used
        self._in_hand -= filled
        self._heard += filled
        return audio

    def _finish(self, *, interrupted: bool) -> None:
        self._over = True
        self._pieces.clear()
        self._pictures.clear()
        self._in_hand = 0
        self._on_finished(Finished(self.position_s, interrupted))


class Player(Generic[Picture]):
    """One avatar's track. ``idle``: the pictures of its idle cycle, forward, at ``idle_fps``.

    Audio is float32 [n, channels] at ``sample_rate``. Not thread-safe.
    """

    def __init__(
        self,
        idle: Cycle[Picture],
        idle_fps: Fraction,
        *,
        fps: Fraction,
        sample_rate: int,
        channels: int = 1,
    ) -> None:
        if not len(idle):
            raise ValueError("an idle cycle has one picture or more")
        self._idle = idle
        self._step = idle_fps / fps
        self._fps = fps
        self._rate = sample_rate
        self._channels = channels
        self._cycle = Fraction(0)  # where the idle cycle is, in its pictures
        self._speeches: deque[Speech[Picture]] = deque()
        self._ticks = 0
        self._origin_s: float | None = None

    @property
    def speaking(self) -> bool:
        """A speech is being played or waits."""
        return bool(self._speeches)

    @property
    def waiting(self) -> bool:
        """The picture or audio of the next tick has not arrived."""
        if not self._speeches:
            return False
        speech = self._speeches[0]
        return not (speech._has_audio(self._samples()) and speech._has_picture())

    def begin(
        self,
        first_cycle_index: int,
        on_finished: Callable[[Finished], None] = lambda finished: None,
    ) -> Speech[Picture]:
        """Add a speech after those that wait. ``first_cycle_index``: of its first picture.

        Raises PlayerError where `MAX_WAITING` wait already.
        """
        if len(self._speeches) > MAX_WAITING:
            raise PlayerError(f"{MAX_WAITING} speeches wait already")
        speech: Speech[Picture] = Speech(
            first_cycle_index, self._rate, self._fps, self._channels, on_finished
        )
        self._speeches.append(speech)
        return speech

    def cycle_index_in(self, seconds: float) -> int:
        """The idle cycle's index after so many idle seconds: for `begin`."""
        return int(self._cycle + round(seconds * self._fps) * self._step)

    def clear(self) -> None:
        """Interrupt: end all speeches. The next tick is idle."""
        while self._speeches:
            self._speeches.popleft()._finish(interrupted=True)

    def tick(self) -> Tick[Picture]:
        """The next picture and its audio."""
        samples = self._samples()
        while self._speeches and self._is_over(self._speeches[0]):
            self._speeches.popleft()._finish(interrupted=False)
        speech = self._speeches[0] if self._speeches else None
        if speech is not None and not speech._started and speech._may_start(samples):
            self._cycle = Fraction(speech.first_cycle_index)
        if speech is None or not speech._started:
            made = self._rest(samples)
        elif speech._has_audio(samples):
            made = self._speak(speech, samples)
        else:
            held = self._at_rest if speech._shown is None else speech._shown
            made = self._made(held, self._silence(samples), speaking=True)
        self._ticks += 1
        return made

    def until(self, now_s: float) -> Iterator[Tick[Picture]]:
        """All ticks that are due by ``now_s``; the first call starts the track."""
        if self._origin_s is None:
            self._origin_s = now_s
        while self._ticks <= (now_s - self._origin_s) * self._fps:
            yield self.tick()

    @property
    def _at_rest(self) -> Picture:
        return self._idle[cycle_index(int(self._cycle), len(self._idle))]

    def _rest(self, samples: int) -> Tick[Picture]:
        picture = self._at_rest
        self._cycle += self._step
        return self._made(picture, self._silence(samples), speaking=False)

    def _speak(self, speech: Speech[Picture], samples: int) -> Tick[Picture]:
        picture = speech._take_picture()
        made = self._made(
            self._at_rest if picture is None else picture,
            speech._take_audio(samples),
            speaking=True,
        )
        self._cycle += self._step
        if self._is_over(speech):
            self._speeches.popleft()._finish(interrupted=False)
        return made

    def _is_over(self, speech: Speech[Picture]) -> bool:
        return speech._ended and not speech._in_hand

    def _made(self, picture: Picture, audio: np.ndarray, *, speaking: bool) -> Tick[Picture]:
        return Tick(self._ticks, picture, audio, speaking)

    def _silence(self, samples: int) -> np.ndarray:
        return np.zeros((samples, self._channels), np.float32)

    def _samples(self) -> int:
        """Samples of the next tick; they add up to the sample rate, at any frame rate."""
        return int((self._ticks + 1) * self._rate / self._fps) - int(
            self._ticks * self._rate / self._fps
        )

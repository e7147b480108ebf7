"""A voice on its way to the listener, and the frames that the server makes of it.

The server (mode ``mirror`` without turn detection) answers audio with frames for it. The audio that
is played is the one that was pushed here, never the server's copy: a slow or lost server costs
frames, not voice. Pure: no sockets, no asyncio; times are arguments, in seconds of one clock.

Positions count samples of the voice since the beginning. A *response* covers a stretch of them:
from the first sample that the server got to the commit. Speech that follows without a pause joins
the response, because a commit would make the server finish the one before first. *Slots* divide a
response into its frames: slot k is heard from k / fps on, while frame k is seen.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from wsavatar.protocol.binary import BinaryMessage, MessageType

__all__ = ["Step", "Timeline"]

_log = logging.getLogger(__name__)

START_S = 0.24
"""Frames that are there before speech starts, so that it does not run out of them."""
PATIENCE_S = 1.0
"""Longest time that speech waits for its first frames."""
STALL_S = 0.5
"""Pause within speech after which the face goes to rest."""
COMMIT_AHEAD_S = 1.0
"""The end of speech is committed this long before it is heard: the server's last chunk is shorter
than the others, and needs the commit to be complete."""
SEND_AHEAD_S = 8.0
"""Voice that the server has in advance. Below what it would hold back by itself."""
REPORT_S = 0.5
_MESSAGE_S = 0.1
"""Longest audio in one message."""

Outgoing = bytes | dict[str, Any]


@dataclass(frozen=True, slots=True)
class Step:
    """What is due in one slot.

    ``content``: voice (PCM16) and marks in order. ``frame``: the picture to show; None: none is
    due, or it did not come in time. ``index``: the frame's number in its response, which began at
    ``first_cycle`` in the avatar's idle cycle. ``speaking`` and no ``frame``: the picture stays;
    not ``speaking``: the idle cycle goes on.
    """

    speaking: bool
    content: tuple[Any, ...] = ()
    frame: bytes | None = None
    index: int = 0
    first_cycle: int | None = None


@dataclass(slots=True)
class _Response:
    start: int
    end: int | None = None
    """None: more may come."""
    id: str = ""
    generation: int = -1
    first_cycle: int | None = None
    done: bool = False
    frames: dict[int, bytes] = field(default_factory=dict)
    shown: int = 0
    late: int = 0
    reported: bool = False
    """The server knows that it was heard to its end."""


class _Voice:
    """Voice that was pushed and not taken yet, and marks between its samples."""

    def __init__(self) -> None:
        self.taken = 0
        self.ended = True  # the last segment is complete
        self._pcm = bytearray()
        self._marks: deque[tuple[int, Any]] = deque()

    @property
    def pushed(self) -> int:
        return self.taken + len(self._pcm) // 2

    @property
    def empty(self) -> bool:
        return not self._pcm and not self._marks

    def push(self, pcm: bytes) -> None:
        self._pcm += pcm
        self.ended = False

    def mark(self, what: Any) -> None:
        self._marks.append((self.pushed, what))

    def peek(self, start: int, end: int) -> bytes:
        """Samples from ``start`` to ``end``; they stay."""
        return bytes(self._pcm[2 * (start - self.taken) : 2 * (end - self.taken)])

    def take(self, end: int) -> list[Any]:
        """Samples up to ``end`` and the marks among them and at their end, in order."""
        content: list[Any] = []
        while self._marks and self._marks[0][0] <= end:
            position, what = self._marks.popleft()
            self._take_samples(position, content)
            content.append(what)
        self._take_samples(end, content)
        return content

    def clear(self) -> list[Any]:
        """Forget everything; returns the marks."""
        marks = [what for _, what in self._marks]
        self._pcm.clear()
        self._marks.clear()
        self.ended = True
        return marks

    def _take_samples(self, end: int, content: list[Any]) -> None:
        if end > self.taken:
            size = 2 * (end - self.taken)
            content.append(bytes(self._pcm[:size]))
            del self._pcm[:size]
            self.taken = end


class Timeline:
    """PCM16 mono at ``rate`` in; voice, marks and frames out, a `Step` for each slot.

    ``lead_s``: how long before it is heard a step is taken.
    """

    def __init__(self, rate: int, fps: int, lead_s: float = 0.0) -> None:
        self.rate = rate
        self.fps = fps
        self.lead_s = lead_s
        self.connected = False
        self._voice = _Voice()
        self._sent = 0  # position up to which the server has the voice
        self._responses: deque[_Response] = deque()  # not played to the end yet, in order
        self._clearing = False  # the server is to forget what it has; nothing is sent meanwhile
        self._cleared = False  # it has forgotten the audio
        self._active = ""  # the server's response in progress
        self._control: list[Outgoing] = []  # events to send first
        self._speaking = False
        self._waits_since: float | None = None  # speech waits for frames, or for voice
        self._stepped_s = 0.0  # when the newest voice was taken
        self._reported_s = 0.0

    # -- the voice --------------------------------------------------------------------------------

    @property
    def empty(self) -> bool:
        """Whether everything that was pushed was taken."""
        return self._voice.empty

    @property
    def buffered_s(self) -> float:
        """Seconds of voice that were not taken yet."""
        return (self._voice.pushed - self._voice.taken) / self.rate

    def push(self, pcm: bytes) -> None:
        """Add voice: whole samples of PCM16."""
        if len(pcm) % 2:
            raise ValueError(f"PCM16 has two bytes a sample; these are {len(pcm)} bytes")
        if pcm:
            self._voice.push(pcm)

    def mark(self, what: Any) -> None:
        """Give this back when all voice before it was taken."""
        self._voice.mark(what)

    def end_segment(self) -> None:
        """The speech is complete; what follows is another."""
        self._voice.ended = True

    def interrupt(self) -> list[Any]:
        """Forget all voice that was not taken, and its frames. Returns the forgotten marks."""
        marks = self._voice.clear()
        self._sent = self._voice.taken
        self._speaking = False
        self._waits_since = None
        if any(not one.done for one in self._responses):
            self._clearing, self._cleared = True, False
            self._control = [{"type": "response.cancel"}, {"type": "input_audio_buffer.clear"}]
        self._responses.clear()
        return marks

    # -- the server -------------------------------------------------------------------------------

    def connection_opened(self) -> None:
        """A new session, which knows nothing: what was not played yet is sent again."""
        self.connection_lost()
        self.connected = True

    def connection_lost(self) -> None:
        """The voice goes on without frames."""
        self.connected = False
        self._responses.clear()
        self._control.clear()
        self._clearing = False
        self._active = ""
        self._sent = self._voice.taken

    def outgoing(self) -> list[Outgoing]:
        """What is to be sent now: events, and audio for binary messages."""
        out, self._control = self._control, []
        if not self.connected or self._clearing:
            return out
        newest = self._responses[-1] if self._responses else None
        if newest is not None and newest.end is not None and not newest.done:
            return out  # the server first finishes what was committed
        if self._sent < self._voice.taken:  # the voice did not wait
            if newest is not None and newest.end is None:
                newest.end = self._sent
                return [*out, {"type": "input_audio_buffer.commit"}]
            self._sent = self._voice.taken
        limit = min(self._voice.pushed, self._voice.taken + int(SEND_AHEAD_S * self.rate))
        step = int(_MESSAGE_S * self.rate)
        while self._sent < limit:
            if newest is None or newest.end is not None:
                newest = _Response(self._sent)
                self._responses.append(newest)
            end = min(self._sent + step, limit)
            out.append(self._voice.peek(self._sent, end))
            self._sent = end
        if newest is not None and newest.end is None and self._is_complete():
            newest.end = self._sent
            out.append({"type": "input_audio_buffer.commit"})
        return out

    def _is_complete(self) -> bool:
        """Whether the open response gets no more: its speech ends soon, or does not go on."""
        left = self._voice.pushed - self._voice.taken
        if self._sent < self._voice.pushed:
            return False
        if self._voice.ended:
            return left <= COMMIT_AHEAD_S * self.rate
        return not self._speaking and left == 0

    def receive(self, message: dict[str, Any] | BinaryMessage) -> None:
        """An event or a binary message of the server."""
        if isinstance(message, BinaryMessage):
            if message.type is MessageType.FRAME:
                self._receive_frame(message)
            return
        match message["type"]:
            case "response.created":
                self._created(message["response"])
            case "session.avatar.switch_to_speaking":
                for one in self._responses:
                    if one.generation == message["generation"]:
                        one.first_cycle = message["cycle_index"]
            case "input_audio_buffer.cleared" if self._clearing:
                self._cleared = True
                if self._active:  # it began after the cancel, with audio from before the clear
                    self._control.append({"type": "response.cancel"})
                self._clearing = bool(self._active)
            case "response.done":
                self._done(message["response"])
            case "error" if message["error"]["code"] != "response_cancel_not_active":
                _log.warning("the avatar's server: %s", message["error"]["message"])

    def _created(self, response: dict[str, Any]) -> None:
        self._active = response["id"]
        newest = self._responses[-1] if self._responses else None
        if newest is not None and not newest.id and not self._clearing:
            newest.id, newest.generation = response["id"], response["generation"]

    def _done(self, response: dict[str, Any]) -> None:
        if self._active == response["id"]:
            self._active = ""
            if self._clearing and self._cleared:
                self._clearing = False
        for one in self._responses:
            if one.id == response["id"]:
                one.done = True
                if one.end is None:
                    one.end = self._sent
        if response["status"] == "failed":
            why = response["status_details"]["error"]["message"]
            _log.warning("the avatar's server made no more frames: %s", why)

    def _receive_frame(self, frame: BinaryMessage) -> None:
        for one in self._responses:
            if one.generation == frame.generation:
                if self._speaking and one is self._playing() and frame.index < self._slot(one):
                    one.late += 1
                else:
                    one.frames[frame.index] = frame.payload

    # -- playing ----------------------------------------------------------------------------------

    def step(self, now_s: float) -> Step:
        """What is due in the next slot. To be called once a slot; time stands still between."""
        self._forget_played()
        playing = self._playing()
        if self._voice.pushed == self._voice.taken:
            return self._pause(now_s)
        if not self._speaking:
            self._waits_since = now_s if self._waits_since is None else self._waits_since
            if not self._may_start(playing, now_s - self._waits_since):
                return Step(speaking=False, content=tuple(self._voice.take(self._voice.taken)))
            self._speaking, self._waits_since = True, None
        end = self._slot_end(playing)
        if self._voice.pushed < end:
            if not self._voice.ended:
                return self._pause(now_s)
            end = self._voice.pushed
        self._waits_since = None
        self._stepped_s = now_s
        if playing is None:
            return Step(True, tuple(self._voice.take(end)))
        if playing.end == end:
            self._speaking = False  # what follows waits for its own first frames
        index = self._slot(playing)
        frame = self._take_frame(playing, index)
        return Step(True, tuple(self._voice.take(end)), frame, index, playing.first_cycle)

    def report(self, now_s: float) -> dict[str, Any] | None:
        """The `avatar.playback` that is due, at most one every half second."""
        one = self._responses[0] if self._responses else None
        if one is None or not one.id or not self.connected or self._voice.taken == one.start:
            return None  # before it is played a report would say that it has begun
        ahead_s = max(0.0, self.lead_s - (now_s - self._stepped_s))
        heard = max(0, self._voice.taken - one.start - int(ahead_s * self.rate))
        finished = one.end is not None and heard >= one.end - one.start
        if one.reported or not (finished or now_s - self._reported_s >= REPORT_S):
            return None
        if finished and one.end is not None:
            heard, one.reported = one.end - one.start, True
        self._reported_s = now_s
        return {
            "type": "avatar.playback",
            "response_id": one.id,
            "position_ms": 1000 * heard / self.rate,
            "frames_shown": one.shown,
            "frames_late": one.late,
        }

    def _playing(self) -> _Response | None:
        """The response that has the next sample."""
        for one in self._responses:
            if one.end is None or one.end > self._voice.taken:
                return one if one.start <= self._voice.taken else None
        return None

    def _forget_played(self) -> None:
        while self._responses:
            one = self._responses[0]
            if one.end is None or one.end > self._voice.taken or not (one.done and one.reported):
                return
            self._responses.popleft()

    def _slot(self, one: _Response) -> int:
        return (self._voice.taken - one.start) * self.fps // self.rate

    def _slot_end(self, playing: _Response | None) -> int:
        """Where the slot ends that has the next sample."""
        if playing is None:
            return self._voice.taken + -(-self.rate // self.fps)
        end = playing.start - (-(self._slot(playing) + 1) * self.rate // self.fps)
        return end if playing.end is None else min(end, playing.end)

    def _may_start(self, playing: _Response | None, waited_s: float) -> bool:
        if self._voice.pushed < self._slot_end(playing) and not self._voice.ended:
            return False
        if not self.connected or waited_s >= PATIENCE_S:
            return True
        if playing is None:
            return False
        first = self._slot(playing)
        wanted = int(START_S * self.fps)
        if self._voice.ended or playing.end is not None:
            end = self._voice.pushed if playing.end is None else playing.end
            wanted = min(wanted, -(-(end - playing.start) * self.fps // self.rate) - first)
        return all(index in playing.frames for index in range(first, first + wanted))

    def _take_frame(self, playing: _Response, index: int) -> bytes | None:
        for old in [one for one in playing.frames if one < index]:
            del playing.frames[old]  # not shown: the voice went on without it
        frame = playing.frames.pop(index, None)
        playing.shown += frame is not None
        return frame

    def _pause(self, now_s: float) -> Step:
        """There is no voice for a whole slot: the picture stays for a while, then rests."""
        content = tuple(self._voice.take(self._voice.taken))
        if self._voice.ended and self._voice.pushed == self._voice.taken:
            self._speaking, self._waits_since = False, None
        elif self._speaking:
            self._waits_since = now_s if self._waits_since is None else self._waits_since
            if now_s - self._waits_since >= STALL_S:
                self._speaking, self._waits_since = False, None
        return Step(self._speaking, content)

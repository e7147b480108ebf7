"""The responses of one session, one after another: which is in progress, which may still be heard.

A new response replaces the one before. The idle cycle goes on between them. This module knows the
configuration and the avatar that the next response gets, and neither the client's events nor who
asks for a response.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from wsavatar.dialogue.base import SPEECH_RATE, ResponseRequest
from wsavatar.protocol import events as wire
from wsavatar.protocol.events import CancelReason, SessionConfig
from wsavatar.session.dependencies import Dependencies
from wsavatar.session.engine import AvatarInfo
from wsavatar.session.played import PlayedAudio
from wsavatar.session.response import SpokenResponse
from wsavatar.session.response_format import ResponseFormat
from wsavatar.session.timeline import IdleClock

__all__ = ["MAX_GENERATION", "Responses"]

MAX_GENERATION = 0xFFFF


class Responses:
    """Of one session. `configure` before the first."""

    def __init__(self, dependencies: Dependencies) -> None:
        self._deps = dependencies
        self.for_avatars = False
        """The client knows avatars: later responses have frames."""
        self.latest: SpokenResponse | None = None
        """Over or not."""
        self._played = deque[PlayedAudio](maxlen=2)  # of the newest responses
        self._generation = 0
        self._reports_playback = False
        self._config: SessionConfig
        self._avatar: AvatarInfo | None = None
        self._idle: IdleClock

    def configure(self, config: SessionConfig, avatar: AvatarInfo) -> None:
        """What later responses get. Another avatar's idle cycle begins now; not that of the same
        avatar before another background."""
        self._config = config
        if self._avatar is None or avatar.id != self._avatar.id:
            self._idle = IdleClock(avatar.frame_count, avatar.fps, self._deps.clock())
        self._avatar = avatar

    # -- state ------------------------------------------------------------------------------------

    @property
    def in_progress(self) -> SpokenResponse | None:
        return None if self.latest is None or self.latest.over else self.latest

    @property
    def speaking(self) -> bool:
        """Whether one is in progress or still played."""
        return self.latest is not None and (not self.latest.over or self.latest.audible)

    @property
    def playing(self) -> bool:
        """Whether the client still has audio to play."""
        return self.latest is not None and self.latest.playing

    @property
    def playing_audio(self) -> Sequence[PlayedAudio]:
        """Of those whose echo the microphone may still bring."""
        return [played for played in self._played if played.may_be_heard]

    # -- beginning and ending ---------------------------------------------------------------------

    def begin(
        self,
        request: ResponseRequest | None = None,
        *,
        rate: int = SPEECH_RATE,
        response_id: str | None = None,
        stopped: Callable[[int], None] | None = None,
    ) -> SpokenResponse:
        """As `wsavatar.dialogue.base.DialogueSession.respond`."""
        assert self._avatar is not None
        self.stop(None)
        self._generation = self._generation % MAX_GENERATION + 1
        form = ResponseFormat.of(
            self._config, request or ResponseRequest(), rate, for_avatars=self.for_avatars
        )
        self.latest = SpokenResponse(
            self._deps,
            form,
            generation=self._generation,
            avatar=self._avatar,
            idle=self._idle,
            reports=self._reports_playback,
            response_id=response_id,
            stopped=stopped,
        )
        self._played.append(self.latest.played)
        return self.latest

    def cancel(self, response_id: str | None) -> bool:
        """For the client: end the one in progress, if it has this id (None: any); says whether."""
        response = self.in_progress
        if response is None or response_id not in (None, response.id):
            return False
        response.cancel("client_cancelled")
        return True

    def stop(self, reason: CancelReason | None) -> None:
        """Stop the latest, in progress or only still played. None: another replaces it."""
        if self.latest is not None:
            self.latest.stop(reason)

    def abandon(self) -> None:
        """The session has ended: free the renderer, send nothing."""
        if self.latest is not None:
            self.latest.abandon()

    # -- the client -------------------------------------------------------------------------------

    def playback(self, report: wire.AvatarPlayback) -> None:
        """The client says what it plays; from now on it is one that does."""
        self._reports_playback = True
        if self.latest is not None and self.latest.id == report.response_id:
            position_s = report.position_ms / 1000
            self.latest.playback(position_s, report.frames_shown, report.frames_late)

    def reconnected(self) -> None:
        """The client is back after a connection was lost."""
        if self.latest is not None:
            self.latest.reconnected()

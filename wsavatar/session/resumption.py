"""What lets a client go on with its session over another connection.

A client that knows avatars gets a secret (``avatar.resumable``). With it, and the number of
messages it has got, its next connection goes on: it is told first how many of its own messages
arrived (``avatar.resumed``), then gets what it missed. Knows counts and the outbox, not sockets.
"""

from __future__ import annotations

import secrets

from wsavatar.protocol import events as wire
from wsavatar.session.downlink import Downlink

__all__ = ["Resumption"]


class Resumption:
    """Of one session. ``within_s``: how long it waits without a connection; 0: it does not."""

    def __init__(self, downlink: Downlink, within_s: float) -> None:
        self.token = secrets.token_urlsafe(24)
        self.within_s = within_s
        self.received = 0
        """Messages of the client so far."""
        self._downlink = downlink
        self._is_offered = False

    @property
    def is_possible(self) -> bool:
        """Whether the client knows how to come back."""
        return self._is_offered

    def offer(self) -> None:
        """Give the client the secret, and keep what is sent from now on."""
        if self._is_offered or not self.within_s:
            return
        self._is_offered = True
        self._downlink.outbox.replay.keep()
        self._downlink.event(wire.AvatarResumable(token=self.token, within_s=self.within_s))

    def resume(self, received: int) -> None:
        """The client is back with so many messages of the server. Raises ReplayError."""
        dropped = self._downlink.outbox.resume(received)
        resumed = wire.AvatarResumed(received=self.received, frames_dropped=dropped)
        self._downlink.outbox.put_first(resumed.to_json())

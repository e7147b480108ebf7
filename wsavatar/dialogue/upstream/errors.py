"""Why the upstream does not answer, in words for a client."""

from __future__ import annotations

from wsavatar.errors import WsavatarError
from wsavatar.protocol.events import ProtocolError

__all__ = ["UpstreamError"]


class UpstreamError(WsavatarError):
    """The upstream does not do what it is asked.

    ``code``: ``upstream_missing`` (a setting), ``upstream_unauthorized``, ``upstream_unreachable``,
    ``upstream_timeout``, ``upstream_lost`` (the connection ended), ``upstream_failed`` (it said
    why). ``lasting``: to try again by itself does not help.
    """

    def __init__(self, code: str, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.code = code
        self.lasting = lasting

    def to_protocol(self, param: str | None = None) -> ProtocolError:
        """As a client is told."""
        return ProtocolError(self.code, str(self), param=param, type="server_error")

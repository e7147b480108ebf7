"""Who may connect, and who may change the list of avatars. Pure: headers in, yes or no out."""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from websockets.datastructures import Headers

from wsavatar.config import Settings

__all__ = ["Admission", "offered_subprotocols"]

_TOKEN_PROTOCOL = "openai-insecure-api-key."


class Admission:
    """The rules of one server's settings."""

    def __init__(self, settings: Settings) -> None:
        self._server = settings.server
        self._uploads = settings.avatars.uploads

    def may_enter(self, headers: Headers) -> bool:
        """Whether the request has one of the tokens, where there are any."""
        tokens = self._server.auth_tokens
        if not tokens:
            return True
        offered = [
            value[7:].strip()
            for value in headers.get_all("Authorization")
            if value[:7].lower() == "bearer "
        ]
        offered += [
            name.removeprefix(_TOKEN_PROTOCOL)
            for name in offered_subprotocols(headers)
            if name.startswith(_TOKEN_PROTOCOL)
        ]
        # All tokens are compared, in constant time.
        matches = [
            hmac.compare_digest(one.encode("utf-8", "replace"), token.encode("utf-8", "replace"))
            for one in offered
            for token in tokens
        ]
        return any(matches)

    def is_welcome_origin(self, headers: Headers) -> bool:
        """Whether the page that connects is allowed.

        Browsers let any page connect to any WebSocket. Without tokens, only the server's own page,
        the origins in the settings, and clients without an Origin (no browsers) may connect.
        """
        origins = headers.get_all("Origin")
        if not origins or self._server.auth_tokens:
            return True
        host = headers.get("Host", "")
        allowed = self._server.allowed_origins
        return all(urlsplit(one).netloc == host or one in allowed for one in origins)

    def may_change_avatars(self, host: str) -> bool:
        """Whether a client that entered may make, rename and delete avatars.

        ``host``: the request's header. By default a client that has shown a token may, and without
        tokens one of this machine. The address of the peer says less than it seems: behind a proxy
        it is the proxy's, and a web page can make its own host name point to this machine. Both
        show in ``Host``.
        """
        if self._uploads != "auto":
            return self._uploads == "on"
        if self._server.auth_tokens:
            return True
        return _is_this_machine(self._server.host) and _is_this_machine(_name_of(host))


def offered_subprotocols(headers: Headers) -> list[str]:
    """The subprotocols of a handshake, in order."""
    lines = headers.get_all("Sec-WebSocket-Protocol")
    return [name.strip() for line in lines for name in line.split(",")]


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_this_machine(name: str) -> bool:
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False

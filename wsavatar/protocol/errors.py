"""Why a client event is refused, as the wire's ``error`` event says it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from wsavatar.errors import WsavatarError, without_folders

__all__ = ["ErrorMessage", "ErrorType", "ProtocolError"]

ErrorType = Literal["invalid_request_error", "server_error"]
ErrorMessage = Annotated[str, AfterValidator(without_folders)]
"""Why something failed, for people. No event with one names a folder of the server."""


class ProtocolError(WsavatarError):
    """A client event is refused. It changed nothing; the session continues.

    ``code`` is stable and for programs; ``param`` is the path of the field at fault; ``event_id``
    is the client's own, if it sent one.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        param: str | None = None,
        event_id: str | None = None,
        type: ErrorType = "invalid_request_error",
    ) -> None:
        super().__init__(message)
        self.type: ErrorType = type
        self.code = code
        self.message = message
        self.param = param
        self.event_id = event_id

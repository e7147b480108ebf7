"""The base class of the errors that wsavatar defines. Each is defined beside its raiser."""

from __future__ import annotations

__all__ = ["WsavatarError"]


class WsavatarError(Exception):
    """An expected failure. The message tells the user what to do."""

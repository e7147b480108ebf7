"""What every engine of a conversation has in common. Knows no engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

from wsavatar.errors import WsavatarError

__all__ = ["EngineError", "EngineStatus", "Kind", "SharedEngine"]

Kind = Literal["asr", "llm", "tts", "upstream"]


class EngineError(WsavatarError, RuntimeError):
    """An engine cannot do what it is asked; the message says why, and what to do.

    ``code`` is for programs: ``engine_missing`` (not installed, or no model),
    ``engine_unreachable``, ``engine_unauthorized``, ``engine_timeout``, ``engine_failed``. Neither
    has a key, a prompt or what somebody said.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """An engine as the page and ``doctor`` show it. ``problem`` empty: it works."""

    kind: Kind
    name: str
    """As "faster-whisper, base.en, on the CPU"."""
    problem: str = ""
    """Why it does not work, and what to type."""
    note: str = ""
    """What a user should know of it: "a 135 M model; for a better one: …"."""
    ready: bool = False
    """It has started and works."""


class SharedEngine(Protocol):
    """An engine of the server, which its sessions use at the same time."""

    @property
    def name(self) -> str:
        """For people."""

    @property
    def note(self) -> str:
        """What a user should know of it; often empty."""

    async def start(self) -> None:
        """Load what takes long. Raises EngineError; `start` may be called again later."""

    async def check(self) -> str:
        """Use it once; returns in one sentence what came back. Raises EngineError."""

    async def close(self) -> None: ...

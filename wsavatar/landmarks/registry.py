"""The landmark detectors, by the name that ``avatars.landmarks`` gives. One line adds one."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol, cast

from wsavatar.config import Settings
from wsavatar.landmarks.base import LandmarkDetector

__all__ = ["DETECTORS", "load_landmarks"]

DETECTORS = {
    "embedded": "wsavatar.landmarks.embedded",
    "dwpose": "wsavatar.landmarks.dwpose",
}
"""Name -> module with ``load(settings, device)``."""


class _Module(Protocol):
    def load(self, settings: Settings, device: str) -> LandmarkDetector: ...


def load_landmarks(settings: Settings, device: str | None = None) -> LandmarkDetector:
    """Load the configured detector on ``device`` (``cpu``, ``cuda:0``), by default the CPU.

    Takes a second or two. The detector may be used from any thread. Raises a WsavatarError that
    says what is missing.
    """
    module = cast("_Module", import_module(DETECTORS[settings.avatars.landmarks]))
    return module.load(settings, device or "cpu")

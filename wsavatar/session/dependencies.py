"""Shared objects that the responses of one session need."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from wsavatar.config import AudioSettings
from wsavatar.dialogue.conversation import Conversation
from wsavatar.metrics import Metrics
from wsavatar.session.downlink import Downlink
from wsavatar.session.engine import Renderer

__all__ = ["Dependencies"]


@dataclass(frozen=True, slots=True)
class Dependencies:
    """Of one session."""

    downlink: Downlink
    conversation: Conversation
    renderer: Renderer
    audio: AudioSettings
    metrics: Metrics
    clock: Callable[[], float] = time.monotonic

"""The server's counters, for Prometheus and for ``/api/stats``.

Each server has a registry of its own, so that two servers in one process (or two tests) share no
counter. This module knows the meaning of the numbers, not who counts them.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, is_dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

__all__ = ["Metrics"]

_LATENCY_BUCKETS_S = (0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0)
_TURN_BUCKETS_S = (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 20.0)
_RECENT = 512
"""Number of recent latencies kept for the percentiles of ``/api/stats``."""


class Metrics:
    """Counters, gauges and the latency histogram of one server."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started_s = clock()
        self.registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"wsavatar_{name}", text, labels, registry=self.registry)

        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"wsavatar_{name}", text, registry=self.registry)

        self.sessions = gauge("sessions", "Open sessions.")
        self.sessions_total = counter("sessions_opened", "Sessions opened.")
        self.resumed = counter("sessions_resumed", "Sessions that went on over another connection.")
        self.refused = counter("connections_refused", "Connections refused.", "reason")
        self.responses = counter("responses", "Responses ended.", "status")
        self.frames_sent = counter("frames_sent", "Frames handed to a socket.")
        self.frames_dropped = counter("frames_dropped", "Frames dropped.", "reason")
        self.client_shown = counter("client_frames_shown", "Frames that clients report as shown.")
        self.client_late = counter(
            "client_frames_late", "Of the frames shown, those that were late."
        )
        self.audio_in_s = counter("audio_in_seconds", "Audio received.")
        self.audio_out_s = counter("audio_out_seconds", "Audio sent.")
        self.errors = counter("errors", "Error events sent.", "code")
        self.first_frame_s = Histogram(
            "wsavatar_first_frame_seconds",
            "From a response's first complete chunk to its first frame in the outbox.",
            buckets=_LATENCY_BUCKETS_S,
            registry=self.registry,
        )
        self._recent_first_frames_s: deque[float] = deque(maxlen=_RECENT)
        self.turn_s = Histogram(
            "wsavatar_turn_seconds",
            "From the end of the user's speech to a stage of the answer.",
            ("stage",),
            buckets=_TURN_BUCKETS_S,
            registry=self.registry,
        )
        self._recent_turns_s: dict[str, deque[float]] = {}
        self._depths: Callable[[], Mapping[str, float]] = dict
        self._renderer_stats: Callable[[], object] = dict
        self.registry.register(_Live(self))

    def observe_first_frame(self, seconds: float) -> None:
        self.first_frame_s.observe(seconds)
        self._recent_first_frames_s.append(seconds)

    def observe_turn(self, stages: Mapping[str, float]) -> None:
        """The times of one turn: seconds from the end of the user's speech to each stage."""
        for stage, seconds in stages.items():
            self.turn_s.labels(stage).observe(seconds)
            self._recent_turns_s.setdefault(stage, deque(maxlen=_RECENT)).append(seconds)

    def watch_queues(self, depths: Callable[[], Mapping[str, float]]) -> None:
        """Set the function that gives queue depths by name; it is called at each scrape."""
        self._depths = depths

    def watch_renderer(self, stats: Callable[[], object]) -> None:
        """Set the function that gives the renderer's numbers, a dataclass or a mapping."""
        self._renderer_stats = stats

    def prometheus(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)

    def snapshot(self) -> dict[str, Any]:
        """The same numbers as JSON, with percentiles of the recent first-frame latencies."""
        return {
            "uptime_s": round(self._clock() - self._started_s, 3),
            "sessions": {
                "open": int(_value(self.sessions)),
                "opened": int(_value(self.sessions_total)),
                "refused": _by_label(self.refused),
            },
            "responses": _by_label(self.responses),
            "frames": {
                "sent": int(_value(self.frames_sent)),
                "dropped": _by_label(self.frames_dropped),
                "client_shown": int(_value(self.client_shown)),
                "client_late": int(_value(self.client_late)),
            },
            "audio": {
                "in_s": round(_value(self.audio_in_s), 3),
                "out_s": round(_value(self.audio_out_s), 3),
            },
            "first_frame_ms": _percentiles_ms(self._recent_first_frames_s),
            "turn_ms": {
                stage: _percentiles_ms(recent) for stage, recent in self._recent_turns_s.items()
            },
            "queues": dict(self._depths()),
            "errors": _by_label(self.errors),
            "renderer": _plain(self._renderer_stats()),
        }

    def live(self) -> dict[str, float]:
        """Queue depths and the renderer's numbers as a flat mapping of Prometheus names."""
        flat = {f"queue_{name}": float(value) for name, value in self._depths().items()}
        _flatten("renderer", _plain(self._renderer_stats()), flat)
        return flat


class _Live(Collector):
    """Gauges that are read at each scrape."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> list[Metric]:
        return [
            GaugeMetricFamily(f"wsavatar_{name}", "Read from the running server.", value)
            for name, value in sorted(self._metrics.live().items())
        ]


def _percentiles_ms(recent: Iterable[float]) -> dict[str, float | int | None]:
    ordered = sorted(recent)

    def at(share: float) -> float | None:
        if not ordered:
            return None
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 1)

    return {"count": len(ordered), "p50": at(0.5), "p95": at(0.95), "p99": at(0.99)}


def _plain(value: object) -> Any:
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _flatten(prefix: str, value: Any, into: dict[str, float]) -> None:
    if isinstance(value, bool | int | float):
        into[prefix] = float(value)
    elif isinstance(value, Mapping):
        for key, item in value.items():
            _flatten(f"{prefix}_{_name(key)}", item, into)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _flatten(f"{prefix}_{index}", item, into)


def _name(key: object) -> str:
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in str(key))


def _value(metric: Counter | Gauge) -> float:
    for family in metric.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                return sample.value
    return 0.0


def _by_label(metric: Counter) -> dict[str, int]:
    return {
        next(iter(sample.labels.values())): int(sample.value)
        for family in metric.collect()
        for sample in family.samples
        if sample.name.endswith("_total")
    }

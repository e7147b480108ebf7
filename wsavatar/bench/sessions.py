"""``bench --sessions N``: N people speak to one server at once, in real time, and are counted.

Every client mirrors: it streams real speech as a microphone does, without turn detection, so that
the server owes it frames for every moment of it. Clients begin evenly spread over one chunk's time:
no two chunks are complete at the same moment by design. They run in processes of their own
(`clients`), at most five in each; this one starts them and adds up.

A run whose clients lagged behind themselves is not valid: its figures may be the clients' own.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsavatar.bench.clients import RATE, ClientResult, Orders, Results
from wsavatar.bench.figures import BenchError
from wsavatar.bench.server_process import child_environment, fetch_json
from wsavatar.bench.viewer import plan_chunks
from wsavatar.media.audio import encode
from wsavatar.speech.chunker import FeatureGrid

__all__ = [
    "LAG_LIMIT_MS",
    "Encoding",
    "Scene",
    "SessionsReport",
    "run_sessions",
    "sessions_table",
    "summarize",
]

CLIENTS_PER_PROCESS = 5
PACKET_MS = 20
START_IN_S = 1.0
SETUP_S = 90.0
LAG_LIMIT_MS = 10.0
"""At the 99th percentile. Beyond it first-frame latencies say little of the server."""
Encoding = Literal["json", "binary"]


@dataclass(frozen=True, slots=True)
class Scene:
    """Who speaks to whom, how long, and what the server is known to do with it."""

    sessions: int
    seconds: float
    url: str
    stats_url: str
    token: str
    encoding: Encoding
    avatar: str
    fps: int
    chunk_ms: int
    grid: FeatureGrid

    @property
    def packets(self) -> int:
        """Of `PACKET_MS` each."""
        return math.ceil(1000 * self.seconds / PACKET_MS)

    @property
    def frames(self) -> int:
        """Frames that the server owes all clients together."""
        return self.sessions * math.ceil(self.packets * PACKET_MS * self.fps / 1000)


@dataclass(frozen=True, slots=True)
class SessionsReport:
    """What all clients saw. Latencies as `wsavatar.bench.viewer` defines them."""

    valid: bool
    invalid_because: tuple[str, ...]
    sessions: int
    seconds: float
    encoding: Encoding
    frames_expected: int
    frames_received: int
    frames_dropped: int
    frames_late: int
    frames_missing: int
    """Owed for what was said, and neither received nor reported as dropped."""
    in_time_share: float
    """Of all frames expected: received, and not late."""
    worst_late_ms: float
    frames_per_s: float
    bytes_per_s: float
    """Of frames."""
    first_frame_ms: dict[str, float]
    """planned: chunks of all clients; count: those of which a frame arrived, and over these p50,
    p95, p99, max."""
    audio_gaps: int
    underruns: int
    errors: tuple[str, ...]
    load: dict[str, float]
    """How far the clients themselves lagged, in milliseconds."""
    clients: tuple[dict[str, Any], ...]
    server: dict[str, Any]
    """``/api/stats`` as the last client fell silent."""


def run_sessions(
    scene: Scene,
    speech: np.ndarray,
    directory: Path,
    say: Callable[[str], None] = lambda text: None,
) -> SessionsReport:
    """Play the scene. ``speech``: float32 mono at 24 kHz; ``directory``: for files in passing.

    Raises BenchError where clients could not be started. What clients met is in the report.
    """
    recording = directory / "speech.pcm"
    recording.write_bytes(encode(speech, "audio/pcm"))
    orders = _orders(scene, recording)
    say(f"{scene.sessions} sessions for {scene.seconds:g} s, in {len(orders)} processes")
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "wsavatar.bench.clients"],
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in orders
    ]
    try:
        results, stats = _play(scene, orders, children, say)
    finally:
        for child in children:
            child.kill()
            child.communicate()
    return summarize(scene, results, stats)


def _play(
    scene: Scene,
    orders: Sequence[Orders],
    children: Sequence[subprocess.Popen[str]],
    say: Callable[[str], None],
) -> tuple[list[Results], dict[str, Any]]:
    for order, child in zip(orders, children, strict=True):
        assert child.stdin is not None
        child.stdin.write(json.dumps(asdict(order)) + "\n")
        child.stdin.flush()
    for child in children:
        assert child.stdout is not None
        if child.stdout.readline().strip() != "ready":
            raise BenchError(f"a process of clients ended at once, with code {child.wait()}")
    start_s = time.monotonic() + START_IN_S
    say("the clients speak")
    for child in children:
        assert child.stdin is not None
        child.stdin.write(f"{start_s!r}\n")
        child.stdin.flush()
    time.sleep(max(0.0, start_s + scene.seconds - time.monotonic()))
    stats = fetch_json(scene.stats_url, scene.token)
    results = []
    for child in children:
        try:
            told, _ = child.communicate(timeout=SETUP_S)
            results.append(_parse(told))
        except (ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
            raise BenchError(f"a process of clients gave no results ({error})") from error
    return results, stats


def _parse(told: str) -> Results:
    found = json.loads(told)
    clients = [ClientResult(**one) for one in found.pop("clients")]
    return Results(clients, **found)


def _orders(scene: Scene, recording: Path) -> list[Orders]:
    packet_samples = RATE * PACKET_MS // 1000
    plan = plan_chunks(scene.packets, packet_samples, RATE, scene.grid, scene.fps, scene.chunk_ms)
    pcm = {"format": {"type": "audio/pcm", "rate": RATE}}
    session = {
        "type": "realtime",
        "audio": {"input": pcm | {"turn_detection": None}, "output": pcm},
        "avatar": {
            "id": scene.avatar,
            "mode": "mirror",
            "video": {"encoding": scene.encoding, "region": "full", "fps": scene.fps},
        },
    }
    processes = math.ceil(scene.sessions / CLIENTS_PER_PROCESS)
    return [
        Orders(
            scene.url,
            scene.token,
            session,
            scene.encoding,
            str(recording),
            scene.fps,
            scene.packets,
            packet_samples,
            PACKET_MS / 1000,
            [[chunk.first_frame, chunk.frame_count, chunk.packet] for chunk in plan],
            [number * scene.chunk_ms / 1000 / scene.sessions for number in numbers],
            list(numbers),
        )
        for numbers in (range(first, scene.sessions, processes) for first in range(processes))
    ]


def summarize(scene: Scene, results: Sequence[Results], stats: dict[str, Any]) -> SessionsReport:
    """Add the clients up, and judge whether they may be believed."""
    clients = sorted((c for one in results for c in one.clients), key=lambda c: c.number)
    first_frame_ms = [ms for client in clients for ms in client.first_frame_ms]
    loop_lag_ms = [ms for one in results for ms in one.loop_lag_ms]
    send_lag_ms = [ms for one in results for ms in one.send_lag_ms]
    load = {
        "loop_lag_p99_ms": percentile(loop_lag_ms, 0.99),
        "loop_lag_max_ms": max(loop_lag_ms, default=0.0),
        "send_lag_p99_ms": percentile(send_lag_ms, 0.99),
        "send_lag_max_ms": max(send_lag_ms, default=0.0),
    }
    reasons = _doubts(clients, load)
    received = sum(client.frames for client in clients)
    late = sum(client.late for client in clients)
    return SessionsReport(
        valid=not reasons,
        invalid_because=tuple(reasons),
        sessions=scene.sessions,
        seconds=scene.seconds,
        encoding=scene.encoding,
        frames_expected=scene.frames,
        frames_received=received,
        frames_dropped=sum(client.dropped for client in clients),
        frames_late=late,
        frames_missing=sum(client.missing for client in clients),
        in_time_share=round((received - late) / scene.frames, 5),
        worst_late_ms=max((client.worst_late_ms for client in clients), default=0.0),
        frames_per_s=round(received / scene.seconds, 1),
        bytes_per_s=round(sum(client.bytes for client in clients) / scene.seconds),
        first_frame_ms={
            "planned": sum(client.planned_chunks for client in clients),
            "count": len(first_frame_ms),
            "p50": percentile(first_frame_ms, 0.5),
            "p95": percentile(first_frame_ms, 0.95),
            "p99": percentile(first_frame_ms, 0.99),
            "max": max(first_frame_ms, default=0.0),
        },
        audio_gaps=sum(client.audio_gaps for client in clients),
        underruns=sum(client.underruns for client in clients),
        errors=tuple(f"client {c.number}: {error}" for c in clients for error in c.errors),
        load=load,
        clients=tuple(_brief(client) for client in clients),
        server=stats,
    )


def _doubts(clients: Sequence[ClientResult], load: dict[str, float]) -> list[str]:
    """Why the figures may not be the server's."""
    doubts = []
    absent = sum(not client.began for client in clients)
    if absent:
        doubts.append(f"{absent} clients could not begin, so the load was less than asked for")
    broken = sum(client.began and not client.complete for client in clients)
    if broken:
        doubts.append(f"{broken} clients broke off, so the load was less than asked for")
    lag_ms = max(load["loop_lag_p99_ms"], load["send_lag_p99_ms"])
    if lag_ms > LAG_LIMIT_MS:
        doubts.append(
            f"the clients lagged: {lag_ms:.1f} ms at p99, over {LAG_LIMIT_MS:g}; "
            "this machine is too busy to load and to measure"
        )
    if any(client.unplanned for client in clients):
        doubts.append(
            "frames came before their sound was sent: the server runs with another audio.chunk_ms, "
            "model or fps than this command was given"
        )
    return doubts


def _brief(client: ClientResult) -> dict[str, Any]:
    values = asdict(client)
    latencies = values.pop("first_frame_ms")
    return values | {"first_frame_p50_ms": percentile(latencies, 0.5)}


def percentile(values: Iterable[float], share: float) -> float:
    """The nearest rank; 0 of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def sessions_table(report: SessionsReport) -> str:
    """The report for a reader."""
    first, load = report.first_frame_ms, report.load
    share = f"{100 * report.in_time_share:.2f} %"
    renderer = report.server.get("renderer", {})
    lines = [
        f"{report.sessions} sessions, {report.seconds:g} s of speech each, {report.encoding}",
        *(f"NOT VALID: {reason}" for reason in report.invalid_because),
        "",
        f"frames       {report.frames_received} of {report.frames_expected} received, {share} in "
        f"time; {report.frames_late} late (worst {report.worst_late_ms:.0f} ms), "
        f"{report.frames_dropped} dropped, {report.frames_missing} missing",
        f"rate         {report.frames_per_s:.1f} frames/s, {report.bytes_per_s / 1e6:.1f} MB/s",
        f"first frame  p50 {first['p50']:.1f}, p95 {first['p95']:.1f}, p99 {first['p99']:.1f}, "
        f"greatest {first['max']:.1f} ms after a complete chunk ({first['count']:.0f} of "
        f"{first['planned']:.0f} chunks)",
        f"sound        {report.audio_gaps} gaps, {report.underruns} times run dry",
        f"clients      loop lag p99 {load['loop_lag_p99_ms']:.1f} ms, packets sent late p99 "
        f"{load['send_lag_p99_ms']:.1f} ms",
    ]
    for name, device in renderer.get("devices", {}).items():
        lines.append(
            f"{name:<12} batches {device.get('batches_by_size', {})}, "
            f"ms a frame {device.get('stage_ms', {})}"
        )
    lines += [f"error        {error}" for error in report.errors[:10]]
    return "\n".join(lines)

"""``bench --sessions N``: N clients speak to one server at the same time, in real time.

Every client uses mode ``mirror``: it streams speech like a microphone, without turn detection, so
the server has to send frames for all of it. The starts are spread evenly over the time of one
chunk, so that chunks are not complete at the same moment. Clients run in processes of their own
(`clients`), at most five in each; this module starts them and adds up their results.

A run whose clients were late themselves is not valid.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Literal

import numpy as np

from wsavatar.bench.clients import RATE, ClientJob, ClientResult, Results
from wsavatar.bench.report import BenchError
from wsavatar.bench.server_process import child_environment, fetch_json
from wsavatar.bench.viewer import plan_chunks
from wsavatar.faces.base import SpeechWindows
from wsavatar.media.audio import encode

__all__ = [
    "LAG_LIMIT_MS",
    "Encoding",
    "Workload",
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
"""At the 99th percentile. Above it, latencies do not describe the server."""
Encoding = Literal["json", "binary"]


@dataclass(frozen=True, slots=True)
class Workload:
    """The clients, their server, and the server's settings."""

    sessions: int
    seconds: float
    url: str
    stats_url: str
    token: str
    encoding: Encoding
    avatar: str
    fps: int
    chunk_ms: int
    first_ms: int
    windows: SpeechWindows

    @property
    def packets(self) -> int:
        """Of `PACKET_MS` each."""
        return math.ceil(1000 * self.seconds / PACKET_MS)

    @property
    def frames(self) -> int:
        """Frames that the server has to send to all clients together."""
        return self.sessions * math.ceil(self.packets * PACKET_MS * self.fps / 1000)


@dataclass(frozen=True, slots=True)
class SessionsReport:
    """Results of all clients. `wsavatar.bench.viewer` defines the latencies."""

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
    """Expected for the audio sent, but neither received nor reported as dropped."""
    in_time_share: float
    """Frames received in time, as a share of those expected."""
    worst_late_ms: float
    frames_per_s: float
    bytes_per_s: float
    """Of frames."""
    first_frame_ms: dict[str, float]
    """planned: chunks of all clients; count: chunks of which a frame arrived; p50, p95, p99 and max
    of these."""
    audio_gaps: int
    underruns: int
    told_over_capacity: int
    """Clients that the server told that it was over its capacity."""
    errors: tuple[str, ...]
    load: dict[str, float]
    """Lags of the clients themselves, in milliseconds."""
    clients: tuple[dict[str, Any], ...]
    server: dict[str, Any]
    """``/api/stats`` at the end of the speech."""


def run_sessions(
    workload: Workload,
    speech: np.ndarray,
    directory: Path,
    say: Callable[[str], None] = lambda text: None,
) -> SessionsReport:
    """Run the workload. ``speech``: float32 mono at 24 kHz; ``directory``: for temporary files.

    Raises BenchError where clients could not be started. Their errors are in the report.
    """
    recording = directory / "speech.pcm"
    recording.write_bytes(encode(speech, "audio/pcm"))
    job = _client_jobs(workload, recording)
    say(f"{workload.sessions} sessions for {workload.seconds:g} s, in {len(job)} processes")
    children = [
        subprocess.Popen(
            [sys.executable, "-m", "wsavatar.bench.clients"],
            env=child_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in job
    ]
    try:
        results, stats = _run_processes(workload, job, children, say)
    finally:
        for child in children:
            child.kill()
            child.communicate()
    return summarize(workload, results, stats)


def _run_processes(
    workload: Workload,
    job: Sequence[ClientJob],
    children: Sequence[subprocess.Popen[str]],
    say: Callable[[str], None],
) -> tuple[list[Results], dict[str, Any]]:
    for order, child in zip(job, children, strict=True):
        assert child.stdin is not None
        child.stdin.write(json.dumps(asdict(order)) + "\n")
        child.stdin.flush()
    for child in children:
        assert child.stdout is not None
        if child.stdout.readline().strip() != "ready":
            raise BenchError(f"a process of clients ended with code {child.wait()}")
    start_s = time.monotonic() + START_IN_S
    say("the clients speak")
    for child in children:
        assert child.stdin is not None
        child.stdin.write(f"{start_s!r}\n")
        child.stdin.flush()
    time.sleep(max(0.0, start_s + workload.seconds - time.monotonic()))
    stats = fetch_json(workload.stats_url, workload.token)
    results = []
    for child in children:
        try:
            output, _ = child.communicate(timeout=SETUP_S)
            results.append(_parse(output))
        except (ValueError, KeyError, TypeError, subprocess.TimeoutExpired) as error:
            raise BenchError(f"a process of clients gave no results ({error})") from error
    return results, stats


def _parse(output: str) -> Results:
    found = json.loads(output)
    clients = [ClientResult(**one) for one in found.pop("clients")]
    return Results(clients, **found)


def _client_jobs(workload: Workload, recording: Path) -> list[ClientJob]:
    packet_samples = RATE * PACKET_MS // 1000
    chunker = workload.windows.open_chunker(
        Fraction(workload.fps), workload.chunk_ms, workload.first_ms
    )
    plan = plan_chunks(workload.packets, packet_samples, RATE, chunker)
    pcm = {"format": {"type": "audio/pcm", "rate": RATE}}
    session = {
        "type": "realtime",
        "audio": {"input": pcm | {"turn_detection": None}, "output": pcm},
        "avatar": {
            "id": workload.avatar,
            "mode": "mirror",
            "video": {"encoding": workload.encoding, "region": "full", "fps": workload.fps},
        },
    }
    processes = math.ceil(workload.sessions / CLIENTS_PER_PROCESS)
    return [
        ClientJob(
            workload.url,
            workload.token,
            session,
            workload.encoding,
            str(recording),
            workload.fps,
            workload.packets,
            packet_samples,
            PACKET_MS / 1000,
            [[chunk.first_frame, chunk.frame_count, chunk.packet] for chunk in plan],
            [number * workload.chunk_ms / 1000 / workload.sessions for number in numbers],
            list(numbers),
        )
        for numbers in (range(first, workload.sessions, processes) for first in range(processes))
    ]


def summarize(
    workload: Workload, results: Sequence[Results], stats: dict[str, Any]
) -> SessionsReport:
    """Add up the clients' results and decide whether the run is valid."""
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
    reasons = _invalid_reasons(clients, load)
    received = sum(client.frames for client in clients)
    late = sum(client.late for client in clients)
    return SessionsReport(
        valid=not reasons,
        invalid_because=tuple(reasons),
        sessions=workload.sessions,
        seconds=workload.seconds,
        encoding=workload.encoding,
        frames_expected=workload.frames,
        frames_received=received,
        frames_dropped=sum(client.dropped for client in clients),
        frames_late=late,
        frames_missing=sum(client.missing for client in clients),
        in_time_share=round((received - late) / workload.frames, 5),
        worst_late_ms=max((client.worst_late_ms for client in clients), default=0.0),
        frames_per_s=round(received / workload.seconds, 1),
        bytes_per_s=round(sum(client.bytes for client in clients) / workload.seconds),
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
        told_over_capacity=sum(client.told_over_capacity for client in clients),
        errors=tuple(f"client {c.number}: {error}" for c in clients for error in c.errors),
        load=load,
        clients=tuple(_brief(client) for client in clients),
        server=stats,
    )


def _invalid_reasons(clients: Sequence[ClientResult], load: dict[str, float]) -> list[str]:
    """Reasons why the figures may not describe the server."""
    reasons = []
    absent = sum(not client.began for client in clients)
    if absent:
        reasons.append(f"{absent} clients could not begin, so the load was less than asked for")
    broken = sum(client.began and not client.complete for client in clients)
    if broken:
        reasons.append(f"{broken} clients ended early, so the load was less than asked for")
    lag_ms = max(load["loop_lag_p99_ms"], load["send_lag_p99_ms"])
    if lag_ms > LAG_LIMIT_MS:
        reasons.append(
            f"the clients lagged: {lag_ms:.1f} ms at p99, over {LAG_LIMIT_MS:g}; "
            "this machine is too busy to load and to measure"
        )
    if any(client.unplanned for client in clients):
        reasons.append(
            "frames came before their sound was sent: the server runs with another "
            "audio.live_chunk_ms, model or fps than this command was given"
        )
    return reasons


def _brief(client: ClientResult) -> dict[str, Any]:
    values = asdict(client)
    latencies = values.pop("first_frame_ms")
    return values | {"first_frame_p50_ms": percentile(latencies, 0.5)}


def percentile(values: Iterable[float], share: float) -> float:
    """By nearest rank; 0 without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


def sessions_table(report: SessionsReport) -> str:
    """The report as a text table."""
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
        f"sound        {report.audio_gaps} gaps, {report.underruns} underruns",
        f"capacity     {report.told_over_capacity} clients were told that the server is over it",
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

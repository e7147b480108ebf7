"""A process of WebSocket clients that speak in real time and count what they get.

Started by `sessions` as ``python -m wsavatar.bench.clients``. It reads its `ClientJob` as one line
of JSON, connects every client, prints ``ready``, reads the start time (`time.monotonic`, which all
processes of a machine share), and at the end prints its `Results` as one line of JSON. Errors are
part of the results.

It measures its own lag too: where its event loop is late, its figures do not describe the server.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from wsavatar.bench.viewer import PlannedChunk, Viewer
from wsavatar.protocol.binary import MessageType, unpack

__all__ = ["ClientResult", "ClientJob", "Results", "main", "run_client"]

RATE = 24_000
BYTES_PER_SAMPLE = 2
REPORT_S = 0.5
LAG_PROBE_S = 0.02
SETUP_S = 60.0
"""Limit for connecting and configuring."""
DRAIN_S = 20.0
"""Limit for the rest of the response after the last packet."""
MAX_ERRORS = 10
"""Errors kept of one client."""
_UNREADABLE = (ValueError, KeyError, TypeError)
"""Raised by reading a message that does not follow the protocol."""


@dataclass(frozen=True, slots=True)
class ClientJob:
    """The work of one process. Times in seconds."""

    url: str
    token: str
    session: dict[str, Any]
    """The patch of ``session.update``."""
    encoding: str
    speech: str
    """A file of PCM16 at 24 kHz, played in a loop from another position for each client."""
    fps: int
    packets: int
    packet_samples: int
    packet_s: float
    plan: list[list[int]]
    """`PlannedChunk` fields."""
    phases_s: list[float]
    """For each client, its delay after the common start."""
    numbers: list[int]
    """The clients' numbers among the clients of all processes."""


@dataclass(slots=True)
class ClientResult:
    """Counts of one client."""

    number: int
    began: bool = False
    """Whether it was connected and configured."""
    frames: int = 0
    dropped: int = 0
    late: int = 0
    worst_late_ms: float = 0.0
    duplicates: int = 0
    missing: int = 0
    unplanned: int = 0
    bytes: int = 0
    audio_gaps: int = 0
    missing_audio_ms: float = 0.0
    underruns: int = 0
    told_over_capacity: bool = False
    """The server said at some time that it was over its capacity."""
    complete: bool = False
    planned_chunks: int = 0
    """Chunks that the server should have cut from this client's audio."""
    first_frame_ms: list[float] = field(default_factory=list)
    """Latencies of those chunks of which a frame arrived."""
    errors: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Results:
    """Results of all clients of a process, and the lags of the process."""

    clients: list[ClientResult]
    loop_lag_ms: list[float]
    send_lag_ms: list[float]


def main() -> int:
    """Run one process of clients, over standard input and output."""
    job = ClientJob(**json.loads(sys.stdin.readline()))
    print(json.dumps(asdict(asyncio.run(_run_clients(job)))), flush=True)
    return 0


async def _run_clients(job: ClientJob) -> Results:
    results = [ClientResult(number) for number in job.numbers]
    async with AsyncExitStack() as stack:
        sockets: list[ClientConnection | None] = []
        for result in results:
            sockets.append(await _open(job, stack, result))
        print("ready", flush=True)
        start_s = float(await asyncio.to_thread(sys.stdin.readline))
        speech = await asyncio.to_thread(Path(job.speech).read_bytes)
        send_lag_ms: list[float] = []
        loop_lag_ms: list[float] = []
        probe = asyncio.create_task(_probe_loop(loop_lag_ms), name="loop lag")
        async with asyncio.TaskGroup() as tasks:
            for socket, result, phase_s in zip(sockets, results, job.phases_s, strict=True):
                if socket is not None:
                    tasks.create_task(
                        run_client(socket, job, start_s + phase_s, speech, result, send_lag_ms),
                        name=f"client {result.number}",
                    )
        probe.cancel()
        return Results(results, loop_lag_ms, send_lag_ms)


async def _open(
    job: ClientJob, stack: AsyncExitStack, result: ClientResult
) -> ClientConnection | None:
    """Connect and configure. Returns None on failure, with the reason in ``result``."""
    headers = {"Authorization": f"Bearer {job.token}"} if job.token else {}
    try:
        async with asyncio.timeout(SETUP_S):
            socket = await stack.enter_async_context(
                connect(job.url, additional_headers=headers, compression=None, max_size=2**26)
            )
            await socket.send(json.dumps({"type": "session.update", "session": job.session}))
            while True:
                event = json.loads(await socket.recv())
                if event["type"] == "error":
                    raise ConnectionError(event["error"]["message"])
                if event["type"] == "session.updated":
                    result.began = True
                    return socket
    except (OSError, TimeoutError, WebSocketException) as error:
        result.errors.append(f"could not begin: {error or type(error).__name__}")
    except _UNREADABLE as error:
        result.errors.append(f"could not begin: a message that cannot be read: {error!r}")
    return None


async def run_client(
    socket: ClientConnection,
    job: ClientJob,
    start_s: float,
    speech: bytes,
    result: ClientResult,
    send_lag_ms: list[float],
) -> None:
    """Run one client from ``start_s`` (`time.monotonic`) to the end of its response.

    Fills ``result``. An error ends this client only.
    """
    viewer = Viewer(job.fps, [PlannedChunk(*row) for row in job.plan])
    receiver = _Receiver(viewer, result)
    listening = asyncio.create_task(receiver.listen(socket), name="listen")
    try:
        reporting = asyncio.create_task(_report(socket, receiver), name="report")
        await _speak(socket, job, start_s, speech, viewer, result.number, send_lag_ms)
        async with asyncio.timeout(DRAIN_S):
            await listening
        result.complete = True
    except TimeoutError:
        result.errors.append(f"the response did not end within {DRAIN_S:g} s of its speech")
    except ConnectionClosed as error:
        result.errors.append(f"connection lost: {error}")
    except _UNREADABLE as error:
        result.errors.append(f"a message that cannot be read: {error!r}")
    finally:
        for task in (listening, reporting):
            task.cancel()
        await asyncio.gather(listening, reporting, return_exceptions=True)
    result.frames, result.bytes = viewer.frames, viewer.bytes
    result.late, result.worst_late_ms = viewer.late, round(viewer.worst_late_ms, 1)
    result.duplicates, result.unplanned = viewer.duplicates, viewer.unplanned
    spoken = viewer.packets_sent * job.packet_samples
    result.missing = viewer.missing(-(-spoken * job.fps // RATE), result.dropped)
    result.audio_gaps, result.underruns = viewer.audio_gaps, viewer.playback.underruns
    sent = job.packets * job.packet_samples
    result.missing_audio_ms = round(1000 * (sent - viewer.samples) / RATE, 1)
    result.planned_chunks = len(viewer.plan)
    result.first_frame_ms = [round(ms, 2) for ms in viewer.first_frame_ms]


class _Receiver:
    """Reads the server's messages up to the end of the response."""

    def __init__(self, viewer: Viewer, result: ClientResult) -> None:
        self.viewer = viewer
        self.response_id = ""
        self._result = result

    async def listen(self, socket: ClientConnection) -> None:
        while True:
            message = await socket.recv()
            now_s = time.monotonic()
            if isinstance(message, bytes):
                self._binary(message, now_s)
            elif self._event(json.loads(message), len(message), now_s):
                return

    def _binary(self, message: bytes, now_s: float) -> None:
        got = unpack(message)
        if got.type is MessageType.FRAME:
            self.viewer.frame(got.index, got.pts_us, len(message), now_s)
        else:
            self.viewer.sound(got.index, len(got.payload) // BYTES_PER_SAMPLE, RATE, now_s)

    def _event(self, event: dict[str, Any], size: int, now_s: float) -> bool:
        """Count an event. Returns True at the end of the response."""
        match event["type"]:
            case "response.created":
                self.response_id = event["response"]["id"]
            case "response.video.delta":
                pts_us = round(1000 * event["pts_ms"])
                self.viewer.frame(event["frame_index"], pts_us, size, now_s)
            case "response.output_audio.delta":
                samples = len(base64.b64decode(event["delta"])) // BYTES_PER_SAMPLE
                self.viewer.sound(None, samples, RATE, now_s)
            case "response.output_audio.done":
                self.viewer.end(now_s)
            case "response.video.done":
                self._result.dropped = event["frames_dropped"]
            case "avatar.capacity":
                self._result.told_over_capacity |= event["over"]
            case "error" if len(self._result.errors) < MAX_ERRORS:
                self._result.errors.append(event["error"]["message"])
            case "response.done":
                return True
        return False


async def _speak(
    socket: ClientConnection,
    job: ClientJob,
    start_s: float,
    speech: bytes,
    viewer: Viewer,
    number: int,
    send_lag_ms: list[float],
) -> None:
    """Send packets like a microphone: each at the time of its last sample."""
    for packet, data in enumerate(_packets(job, speech, number)):
        due_s = start_s + (packet + 1) * job.packet_s
        await asyncio.sleep(max(0.0, due_s - time.monotonic()))
        now_s = time.monotonic()
        send_lag_ms.append(round(1000 * (now_s - due_s), 2))
        viewer.sent(packet, now_s)
        if job.encoding == "binary":
            await socket.send(data)
        else:
            audio = base64.b64encode(data).decode()
            await socket.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
    await socket.send(json.dumps({"type": "input_audio_buffer.commit"}))


def _packets(job: ClientJob, speech: bytes, number: int) -> Iterator[bytes]:
    size = job.packet_samples * BYTES_PER_SAMPLE
    at = number * 7 * RATE * BYTES_PER_SAMPLE % max(1, len(speech))  # another start for each client
    at -= at % BYTES_PER_SAMPLE
    for _ in range(job.packets):
        data = speech[at : at + size]
        while len(data) < size:
            data += speech[: size - len(data)]
        yield data
        at = (at + size) % len(speech)


async def _report(socket: ClientConnection, receiver: _Receiver) -> None:
    """Report the playback position, as the page does."""
    while True:
        await asyncio.sleep(REPORT_S)
        viewer, now_s = receiver.viewer, time.monotonic()
        if not viewer.playback.started:
            continue
        report = {
            "type": "avatar.playback",
            "response_id": receiver.response_id,
            "position_ms": 1000 * viewer.playback.position(now_s),
            "frames_shown": viewer.shown(now_s),
            "frames_late": viewer.late,
        }
        await socket.send(json.dumps(report))


async def _probe_loop(lag_ms: list[float]) -> None:
    """Record the lag of this event loop, fifty times a second."""
    while True:
        due_s = time.monotonic() + LAG_PROBE_S
        await asyncio.sleep(LAG_PROBE_S)
        lag_ms.append(round(1000 * (time.monotonic() - due_s), 2))


if __name__ == "__main__":
    sys.exit(main())

"""The load test: the counts of a simulated viewer, and of a client at a real socket."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import serve

from tests import helpers
from tests.fake_dialogue import tone
from wsavatar.bench.clients import (
    RATE,
    ClientJob,
    ClientResult,
    Results,
    _open,
    _Receiver,
    run_client,
)
from wsavatar.bench.server_process import free_port
from wsavatar.bench.sessions import Workload, _client_jobs, percentile, sessions_table, summarize
from wsavatar.bench.speech import recorded_speech
from wsavatar.bench.viewer import PlannedChunk, Playback, Viewer, plan_chunks
from wsavatar.cli import main
from wsavatar.config import AudioSettings
from wsavatar.media.audio import encode
from wsavatar.protocol.binary import pack_audio, pack_frame
from wsavatar.speech.chunker import FeatureGrid

GRID = FeatureGrid()


# -- playback -------------------------------------------------------------------------------------


def started(at_s: float = 10.0) -> Playback:
    """A playback that starts at ``at_s`` with a second of audio and frames buffered."""
    playback = Playback()
    playback.sound(1.0, at_s)
    playback.reach(1.0, at_s)
    return playback


def test_playback_starts_with_audio_and_frames_buffered() -> None:
    """It waits for 650 ms of both, like the page in live speech, then runs in real time."""
    playback = Playback()
    playback.sound(0.7, 10.0)
    playback.reach(0.64, 10.1)
    assert not playback.started and playback.position(10.2) == 0
    playback.reach(0.68, 10.3)
    assert playback.started and playback.position(10.4) == pytest.approx(0.1)


def test_missing_frames_delay_playback_by_a_limited_time() -> None:
    """1.3 s after the audio would have sufficed, playback starts without frames."""
    playback = Playback()
    playback.sound(2.0, 10.0)
    playback.sound(0.02, 11.94)
    assert not playback.started
    playback.sound(0.02, 11.96)
    assert playback.started


def test_a_short_response_starts_when_complete() -> None:
    """When the audio has ended, playback waits for its frames only."""
    playback = Playback()
    playback.sound(0.2, 10.0)
    playback.end(10.0)
    playback.reach(0.16, 10.1)
    assert not playback.started
    playback.reach(0.2, 10.2)
    assert playback.started


def test_an_underrun_stops_playback_until_audio_is_buffered() -> None:
    """The underrun counts once and the position stays; 60 ms of audio resume it."""
    playback = started(10.0)
    assert playback.position(11.5) == 1.0 and playback.underruns == 1
    playback.sound(0.05, 11.6)
    assert playback.position(11.7) == 1.0
    playback.sound(0.05, 11.8)
    assert playback.position(11.85) == pytest.approx(1.05)
    assert playback.underruns == 1


def test_the_end_of_the_audio_is_no_underrun() -> None:
    """Playback that reaches the end of a complete response is not an underrun."""
    playback = started(10.0)
    playback.end(10.5)
    assert playback.position(12.0) == 1.0 and playback.underruns == 0


# -- a viewer's counts ----------------------------------------------------------------------------


def test_a_frame_is_late_if_playback_has_passed_it() -> None:
    """Lateness is the playback position at arrival minus the pts, in milliseconds."""
    viewer = Viewer(25, [], playback=started(10.0))
    viewer.sound(0, 24_000, 24_000, 10.0)
    viewer.frame(0, 0, 100, 10.0)
    viewer.frame(5, 200_000, 100, 10.199)
    assert viewer.late == 0
    viewer.frame(6, 240_000, 100, 10.3)
    assert viewer.late == 1 and viewer.worst_late_ms == pytest.approx(60)
    assert (viewer.frames, viewer.bytes) == (3, 300)


def test_no_frame_is_late_before_playback() -> None:
    """Playback waits for the first frames, however long they take."""
    viewer = Viewer(25, [])
    viewer.sound(0, 12_000, 24_000, 10.0)
    viewer.frame(0, 0, 1, 12.0)
    assert viewer.late == 0


def test_the_first_frame_is_counted_from_the_packet_that_completed_its_chunk() -> None:
    """One latency for each chunk, of its first frame that arrives, whichever that is.

    Frames beyond the plan (cut when the speech had ended) have none.
    """
    viewer = Viewer(25, [PlannedChunk(0, 3, 24), PlannedChunk(3, 12, 49)])
    viewer.sent(24, 10.0)
    viewer.sent(49, 10.5)
    for index, now_s in ((1, 10.03), (0, 10.04), (4, 10.55), (5, 10.6), (15, 11.0)):
        viewer.frame(index, index * 40_000, 1, now_s)
    assert viewer.first_frame_ms == pytest.approx([30, 50])
    assert viewer.unplanned == 0


def test_a_frame_before_its_audio_shows_a_wrong_plan() -> None:
    """The server then cuts other chunks than planned, so latencies would be wrong."""
    viewer = Viewer(25, [PlannedChunk(0, 3, 24)])
    viewer.frame(0, 0, 1, 10.0)
    assert viewer.unplanned == 1 and viewer.first_frame_ms == []


def test_gaps_duplicates_and_losses_are_counted() -> None:
    """A gap in the audio, a repeated frame, a frame neither received nor reported as dropped."""
    viewer = Viewer(25, [])
    viewer.sound(0, 480, 24_000, 10.0)
    viewer.sound(480, 480, 24_000, 10.0)
    assert viewer.audio_gaps == 0
    viewer.sound(1440, 480, 24_000, 10.0)
    assert viewer.audio_gaps == 1
    for index in (0, 1, 1, 4):
        viewer.frame(index, index * 40_000, 1, 10.0)
    assert viewer.duplicates == 1
    assert (viewer.missing(5, dropped=2), viewer.missing(5, dropped=1)) == (0, 1)


def test_frames_count_as_shown_when_they_are_due() -> None:
    """The count that the page reports twice a second."""
    viewer = Viewer(25, [], playback=started(10.0))
    for index in range(10):
        viewer.frame(index, index * 40_000, 1, 10.0)
    assert viewer.shown(10.0) == 1 and viewer.shown(10.1) == 3


# -- the plan, and a real socket ------------------------------------------------------------------


def test_the_plan_finds_the_packet_that_completes_a_chunk() -> None:
    """A chunk of 0.5 s is cut within a packet after 0.5 s of audio, not before."""
    plan = plan_chunks(100, RATE // 50, RATE, GRID.open_chunker(Fraction(25), 500))
    assert [chunk.packet // 25 for chunk in plan] in ([1, 2, 3], [0, 1, 2, 3])
    starts = [chunk.first_frame for chunk in plan]
    assert starts == list(np.cumsum([0] + [chunk.frame_count for chunk in plan])[:-1])


@pytest.fixture
def job(tmp_path: Path) -> ClientJob:
    """1.3 s of a tone for one client, sent twenty times as fast as speech."""
    (tmp_path / "speech.pcm").write_bytes(encode(tone(0.9, 220), "audio/pcm"))
    workload = Workload(1, 1.3, "", "", "", "binary", "ada", 25, 500, 500, GRID)
    [job] = _client_jobs(workload, tmp_path / "speech.pcm")
    return replace(job, packet_s=0.001)


@pytest.mark.parametrize("encoding", ["binary", "json"])
async def test_a_client_gets_everything_from_a_server(job: ClientJob, encoding: Any) -> None:
    """Every frame and every sample of its speech, no gap, and a latency for each chunk."""
    job.session["avatar"]["video"]["encoding"] = encoding
    result, lag_ms = await watched(replace(job, encoding=encoding))
    assert result.complete and result.errors == []
    assert result.frames == 33 and result.dropped == result.missing == result.duplicates == 0
    assert (result.audio_gaps, result.missing_audio_ms, result.unplanned) == (0, 0.0, 0)
    assert len(result.first_frame_ms) == result.planned_chunks == len(job.plan) >= 2
    assert min(result.first_frame_ms) > 0 and result.bytes > 0
    assert len(lag_ms) == job.packets


async def test_another_chunk_length_on_the_server_is_detected(job: ClientJob) -> None:
    """A server with shorter chunks than planned sends frames before their planned packet."""
    result, _ = await watched(replace(job, packet_s=0.01), chunk_ms=200)
    assert result.unplanned > 0


async def test_a_lost_connection_is_an_error_in_the_result(job: ClientJob) -> None:
    """The counts until then are kept, and nothing is raised."""
    engine = helpers.fake_engine(create_dialogue=helpers.real_dialogues())
    async with helpers.running(engine) as server:
        socket = await joined(server, job)
        await socket.close()
        result = ClientResult(0)
        await run_client(socket, job, time.monotonic(), speech_of(job), result, [])
    assert not result.complete and "connection lost" in result.errors[0]


@contextlib.asynccontextmanager
async def scripted(*messages: str | bytes) -> AsyncIterator[str]:
    """The URL of a server that reads everything and sends the given messages."""

    async def answer(socket: Any) -> None:
        for message in messages:
            await socket.send(message)
        async for _ in socket:
            pass

    async with serve(answer, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_response_that_ends_early_has_missing_frames(job: ClientJob) -> None:
    """Missing frames are counted up to the audio sent, not up to the last frame received."""
    frames = [pack_frame(0, index, index * 40_000, (0, 0, 1, 1), b"") for index in range(3)]
    dropped = {"type": "response.video.done", "frames_dropped": 2}
    done = {"type": "response.done"}
    result = ClientResult(0)
    async with (
        scripted(*frames, json.dumps(dropped), json.dumps(done)) as url,
        connect(url) as socket,
    ):
        await run_client(socket, job, time.monotonic(), speech_of(job), result, [])
    assert result.complete and (result.frames, result.dropped) == (3, 2)
    assert result.missing == 33 - 3 - 2


@pytest.mark.parametrize(
    "message", ["nonsense", "[1]", '{"no": "type"}', b"\x01", pack_audio(0, 0, 0, b"")[:8]]
)
async def test_an_unreadable_message_ends_one_client_only(
    job: ClientJob, message: str | bytes
) -> None:
    """It is an error in that client's result; the other clients go on."""
    result, refused = ClientResult(0), ClientResult(1)
    async with scripted(message) as url, contextlib.AsyncExitStack() as stack:
        assert await _open(replace(job, url=url), stack, refused) is None
        socket = await stack.enter_async_context(connect(url))
        await run_client(socket, job, time.monotonic(), speech_of(job), result, [])
    assert not result.complete and result.missing == 33
    assert "cannot be read" in result.errors[0] and "could not begin" in refused.errors[0]


async def watched(job: ClientJob, chunk_ms: int = 500) -> tuple[ClientResult, list[float]]:
    """One client's run against a server with a fake model."""
    engine = helpers.fake_engine(create_dialogue=helpers.real_dialogues())
    chosen = helpers.settings(audio=AudioSettings(live_chunk_ms=chunk_ms, first_chunk_ms=chunk_ms))
    result, lag_ms = ClientResult(0), list[float]()
    async with helpers.running(engine, chosen) as server:
        socket = await joined(server, job)
        await run_client(socket, job, time.monotonic(), speech_of(job), result, lag_ms)
        await socket.close()
    return result, lag_ms


async def joined(server: Any, job: ClientJob) -> Any:
    socket = await connect(f"ws://127.0.0.1:{server.port}/v1/realtime")
    client = helpers.Client(socket)
    await client.send("session.update", session=job.session)
    await client.until("session.updated")
    return socket


def speech_of(job: ClientJob) -> bytes:
    return Path(job.speech).read_bytes()


# -- all clients together -------------------------------------------------------------------------

WORKLOAD = Workload(2, 10.0, "ws://x", "http://x", "", "binary", "ada", 25, 500, 500, GRID)


def results(**lag: list[float]) -> list[Results]:
    first = ClientResult(0, frames=250, late=1, worst_late_ms=12.0, bytes=1000)
    second = ClientResult(1, frames=245, dropped=5, bytes=3000, errors=["render_failed"])
    first.first_frame_ms, second.first_frame_ms = [10.0, 20.0], [30.0, 40.0]
    first.planned_chunks, second.planned_chunks = 2, 3
    for client in (first, second):
        client.began = client.complete = True
    quiet = {"loop_lag_ms": [0.1] * 100, "send_lag_ms": [0.2] * 100} | lag
    return [Results([second], **quiet), Results([first], **quiet)]


def test_a_client_notes_that_the_server_is_over_its_capacity() -> None:
    """However often the server says so and takes it back, the client counts as told."""
    result = ClientResult(0)
    receiver = _Receiver(Viewer(25, []), result)
    for over in (True, False):
        rates = {"frames_per_s_wanted": 100, "frames_per_s_made": 50}
        assert not receiver._event({"type": "avatar.capacity", "over": over, **rates}, 0, 1.0)
    assert result.told_over_capacity


def test_results_of_clients_are_added_up() -> None:
    """Sums of counts, latencies over all chunks, and every error with its client."""
    report = summarize(WORKLOAD, results(), {"renderer": {"devices": {"cpu": {"stage_ms": {}}}}})
    assert report.valid and report.frames_expected == 500
    assert (report.frames_received, report.frames_dropped, report.frames_late) == (495, 5, 1)
    assert report.in_time_share == pytest.approx(494 / 500)
    assert (report.frames_per_s, report.bytes_per_s, report.worst_late_ms) == (49.5, 400, 12.0)
    latencies = {"p50": 20.0, "p95": 40.0, "p99": 40.0, "max": 40.0}
    assert report.first_frame_ms == {"planned": 5, "count": 4} | latencies
    assert report.errors == ("client 1: render_failed",)
    table = sessions_table(report)
    assert "495 of 500" in table and "p99 40.0" in table and "4 of 5 chunks" in table
    assert "cpu" in table and "NOT" not in table


@pytest.mark.parametrize("lag", ["loop_lag_ms", "send_lag_ms"])
def test_clients_that_lag_make_a_run_invalid(lag: str) -> None:
    """A client lag over 10 ms at p99 makes the run invalid."""
    report = summarize(WORKLOAD, results(**{lag: [0.1] * 98 + [11.0, 12.0]}), {})
    assert not report.valid and "the clients lagged" in report.invalid_because[0]
    assert "NOT VALID" in sessions_table(report)


def test_settings_other_than_the_servers_make_a_run_invalid() -> None:
    """Latencies would be measured from the wrong packets."""
    found = results()
    found[0].clients[0].unplanned = 3
    assert "audio.live_chunk_ms" in summarize(WORKLOAD, found, {}).invalid_because[0]


def test_clients_that_cannot_start_make_a_run_invalid() -> None:
    """The load was lower than asked for."""
    found = results()
    found[1].clients[0].began = False
    assert "1 clients could not begin" in summarize(WORKLOAD, found, {}).invalid_because[0]


def test_clients_that_end_early_make_a_run_invalid() -> None:
    """A client that ends halfway is no load for the rest of the run."""
    found = results()
    found[0].clients[0].complete = False
    report = summarize(WORKLOAD, found, {})
    assert not report.valid and "1 clients ended early" in report.invalid_because[0]


async def test_a_refused_client_reports_the_reason(job: ClientJob) -> None:
    """Without a server the result has the reason, and nothing is raised."""
    result = ClientResult(0)
    async with contextlib.AsyncExitStack() as stack:
        assert await _open(replace(job, url="ws://127.0.0.1:9/v1"), stack, result) is None
    assert not result.began and "could not begin" in result.errors[0]


def test_clients_are_spread_over_processes_and_over_a_chunks_time(tmp_path: Path) -> None:
    """Twenty clients in four processes; no two complete their chunks at the same moment."""
    job = _client_jobs(replace(WORKLOAD, sessions=20), tmp_path / "speech.pcm")
    assert [len(order.numbers) for order in job] == [5, 5, 5, 5]
    phases_s = sorted(phase for order in job for phase in order.phases_s)
    assert phases_s == pytest.approx([n * 0.025 for n in range(20)])
    json.dumps(job[0].session)


def test_percentiles_are_measured_values() -> None:
    """By nearest rank; 0 without values."""
    assert percentile(range(1, 101), 0.99) == 99 and percentile([7.0], 0.5) == 7.0
    assert percentile([], 0.5) == 0


def test_a_servers_port_is_not_given_to_others_before_it_starts() -> None:
    """It can be listened on, and is below those that connections get by themselves."""
    port = free_port()
    assert 1024 < port < 32_768
    with socket.create_server(("127.0.0.1", port)):
        assert free_port() != port


def test_a_recording_may_have_any_rate(tmp_path: Path) -> None:
    """Stereo at 8 kHz becomes mono at 24 kHz of the same length."""
    import soundfile

    soundfile.write(tmp_path / "a.wav", np.zeros((8000, 2), np.float32), 8000)
    assert recorded_speech(tmp_path / "a.wav").shape == (24_000,)


@pytest.mark.slow
def test_sessions_against_a_server_of_its_own(tmp_path: Path, capsys) -> None:
    """`bench --sessions` starts a server and a process of clients and prints a JSON report."""
    from tests.page_server import light_settings

    # On a busy machine frames may be late, but they come.
    chosen = [*light_settings(tmp_path), "render.max_lateness_ms=10000"]
    settings = [word for setting in chosen for word in ("--set", setting)]
    code = main(["bench", "--sessions", "2", "--seconds", "2", "--json", *settings])
    out, log = capsys.readouterr()
    assert out, log
    report = json.loads(out)
    assert code == (0 if report["valid"] else 1)
    assert report["frames_expected"] == 100
    seen = report["frames_received"] + report["frames_dropped"] + report["frames_missing"]
    assert seen == 100 and report["frames_missing"] == 0 and report["frames_received"] > 0
    assert report["audio_gaps"] == 0 and report["errors"] == []
    assert report["first_frame_ms"]["count"] > 0 and report["server"]["renderer"]["devices"]

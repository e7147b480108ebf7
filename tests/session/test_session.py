"""One session without a socket or a clock: the order of things, pacing, the idle cycle, items."""

from __future__ import annotations

import asyncio
import json
from fractions import Fraction

import numpy as np
import pytest

from tests.fake_dialogue import FakeSpeech, tone
from tests.fake_renderer import GRID, FakeRenderer
from tests.helpers import fake_engine, settings
from tests.session.held import holding
from wsavatar.dialogue.conversation import (
    MAX_AUDIO_BYTES,
    MAX_ITEM_BYTES,
    MAX_ITEMS,
    Conversation,
    Entry,
    Recording,
)
from wsavatar.metrics import Metrics
from wsavatar.protocol.events import (
    AudioFormat,
    InputTextPart,
    ProtocolError,
    UserMessage,
    user_item,
)
from wsavatar.serve.websocket import Goodbye
from wsavatar.session.downlink import Downlink
from wsavatar.session.inbox import Inbox, Pending
from wsavatar.session.outbox import Outbox
from wsavatar.session.session import Session
from wsavatar.session.timeline import (
    PATIENCE_S,
    PREROLL_S,
    IdleClock,
    PlaybackEstimate,
    SpeechTimeline,
)
from wsavatar.speech.chunker import Chunker

# -- pacing ---------------------------------------------------------------------------------------


async def test_speech_runs_at_most_ten_seconds_ahead_and_is_never_cut() -> None:
    """A minute of speech waits for the client's playback; in the end all of it was sent."""
    async with holding() as held:
        line = held.line
        line.say("avatar.speak", text="440 60")
        response = (await line.until("response.created"))["response"]
        sent_s = 0.0
        for heard_s in range(0, 60, 5):
            # chunks of 0.5 s: more than 10 s ahead of what is heard is never sent
            await line.until("response.output_audio.delta", min(120, int((heard_s + 10.5) * 2)))
            sent_s = held.metrics.snapshot()["audio"]["out_s"]
            assert sent_s == min(60.0, heard_s + 10.5)
            held.clock.now_s += 5
            line.say(
                "avatar.playback",
                response_id=response["id"],
                position_ms=1000 * (heard_s + 5),
                frames_shown=0,
                frames_late=0,
            )
        done = await line.until("response.done")
        assert done["response"]["status"] == "completed"
        assert held.metrics.snapshot()["audio"]["out_s"] == 60.0
        assert line.of("response.video.done")[0]["frames_sent"] == 60 * 25


async def test_what_the_client_shows_is_counted_once_and_never_beyond_what_was_sent() -> None:
    """Reports count up to what was sent of their response; older and foreign ones add nothing."""
    async with holding() as held:
        line = held.line
        line.say("avatar.speak", text="440 1")
        response = (await line.until("response.created"))["response"]
        await line.until("response.done")
        for whose, shown, late in (
            (response["id"], 10, 1),
            (response["id"], 4, 0),
            ("resp_of_another", 20, 20),
            (response["id"], 10**12, 2),
        ):
            line.say(
                "avatar.playback",
                response_id=whose,
                position_ms=400,
                frames_shown=shown,
                frames_late=late,
            )
        line.say("input_audio_buffer.clear")
        await line.until("input_audio_buffer.cleared")
        frames = held.metrics.snapshot()["frames"]
        assert (frames["sent"], frames["client_shown"], frames["client_late"]) == (25, 25, 2)
        text = held.metrics.prometheus().decode()
        assert "wsavatar_client_frames_shown_total 25.0" in text
        assert "wsavatar_client_frames_late_total 2.0" in text


async def test_an_interruption_does_not_wait_for_the_renderer_or_the_speaker() -> None:
    """A response that is paced, with nothing rendered yet, ends the moment it is cancelled."""
    async with holding(face=FakeRenderer(held=True)) as held:
        held.line.say("avatar.speak", text="440 60")
        await held.line.until("response.output_audio.delta", 21)
        held.line.say("response.cancel")
        done = await held.line.until("response.done")
        assert done["response"]["status"] == "cancelled"
        submitted = len(held.face.streams[0].indices)
        video = held.line.of("response.video.done")[0]
        assert (video["frames_sent"], video["frames_dropped"]) == (0, submitted)
        assert held.metrics.snapshot()["frames"]["dropped"] == {"cancelled": submitted}
        # The dialogue, let go, takes the next thing.
        held.face.held = False
        held.line.say("avatar.speak", text="440 1")
        again = await held.line.until("response.done", 2)
        assert again["response"]["status"] == "completed"


async def test_a_new_response_takes_the_place_of_the_one_in_progress() -> None:
    """Speaking anew cancels what is being said; generations count on."""
    async with holding() as held:
        held.line.say("avatar.speak", text="hum 300")
        held.line.say("avatar.speak", text="440 1")
        await held.line.until("response.done", 2)
        first, second = (one["response"] for one in held.line.of("response.done"))
        assert (first["status"], second["status"]) == ("cancelled", "completed")
        assert first["status_details"] == {"type": "cancelled", "reason": None, "error": None}
        assert second["generation"] == first["generation"] + 1


async def test_a_response_that_fails_says_why() -> None:
    """response.done carries the reason, no error event is sent, and the session goes on."""
    async with holding() as held:
        held.line.say("avatar.speak", text="fail")
        done = (await held.line.until("response.done"))["response"]
        assert done["status"] == "failed"
        error = done["status_details"]["error"]
        assert (error["type"], error["code"]) == ("server_error", "tts_failed")
        assert held.line.of("error") == []
        assert held.metrics.snapshot()["errors"] == {"tts_failed": 1}
        held.line.say("avatar.speak", text="440 1")
        await held.line.until("response.done", 2)


async def test_frames_the_renderer_gives_up_are_counted_and_the_audio_is_whole() -> None:
    """A response completes once every frame is accounted for, as sent or as dropped."""
    async with holding(face=FakeRenderer(held=True)) as held:
        held.line.say("avatar.speak", text="440 2")
        await held.line.until("response.output_audio.done")
        stream = held.face.streams[0]
        stream.drop(3, "late")
        stream.drop(1, "failed")
        assert not held.line.of("response.done")
        stream.render()
        await held.line.until("response.done")
        video = held.line.of("response.video.done")[0]
        assert (video["frames_sent"], video["frames_dropped"]) == (46, 4)
        assert held.metrics.snapshot()["frames"]["dropped"] == {"late": 3, "failed": 1}
        assert held.line.of("error") == []


async def test_speech_continues_the_idle_cycle_and_idle_continues_speech() -> None:
    """The first frame shows what idle would show then; after N frames idle goes on N later."""
    async with holding() as held:  # 8 frames at 25/s: a cycle of 14
        held.clock.now_s += 0.24
        held.line.say("avatar.speak", text="440 1")
        speaking = await held.line.until("session.avatar.switch_to_speaking")
        idle = await held.line.until("session.avatar.switch_to_idle")
        first = int((0.24 + PREROLL_S) * 25) % 14
        assert (speaking["frame_index"], speaking["cycle_index"]) == (0, first)
        assert held.face.streams[0].first_cycle_index == first
        assert (idle["frame_index"], idle["cycle_index"]) == (25, (first + 25) % 14)
        await held.line.until("response.done")
        # The response is heard PREROLL_S after its first frame, for 1 s; 0.2 s of idle follow.
        held.clock.now_s += PREROLL_S + 1 + 0.2
        held.line.say("avatar.speak", text="440 1")
        again = await held.line.until("session.avatar.switch_to_speaking", 2)
        assert again["cycle_index"] == (first + 25 + int((0.2 + PREROLL_S) * 25)) % 14


async def test_a_client_that_reads_nothing_is_let_go() -> None:
    """Audio is never dropped: past the outbox's bound the connection itself is given up."""
    downlink = Downlink(Outbox(frame_bytes=1000, message_bytes=5000), Metrics())
    watching = asyncio.create_task(downlink.overflowed())
    for _ in range(10):
        downlink.error(ProtocolError("x", "y" * 1000))  # never raises where it is called
    with pytest.raises(Exception, match="does not read"):
        await asyncio.wait_for(watching, 30)


async def test_a_session_that_ends_frees_the_renderer_and_closes_its_dialogue() -> None:
    """When the socket goes, the response in progress is cancelled and no task is left."""
    async with holding(face=FakeRenderer(held=True)) as held:
        held.line.say("avatar.speak", text="440 60")
        await held.line.until("response.output_audio.delta", 21)
    assert held.task.result() == Goodbye(None)
    assert held.face.streams[0].cancelled
    assert held.face.streams[0].closed
    assert held.dialogues.made[0][1].closed
    assert [t.get_name() for t in asyncio.all_tasks() if "sess_" in t.get_name()] == []


# -- configuration and items ----------------------------------------------------------------------


async def test_a_new_mode_replaces_the_dialogue_after_what_was_said_to_the_old() -> None:
    """What was asked before the update is done by the old dialogue; then that is closed."""
    async with holding() as held:
        held.line.say("avatar.speak", text="440 1")
        held.line.say("session.update", session={"avatar": {"mode": "mirror"}})
        held.line.say("avatar.speak", text="440 2")
        await held.line.until("response.done", 2)
        (old_mode, old), (new_mode, new) = held.dialogues.made
        assert (old_mode, new_mode) == ("parrot", "mirror")
        assert old.closed
        assert not new.closed
        assert old.response is not None and new.response is not None


async def test_turn_detection_reaches_the_dialogue() -> None:
    """A change of turn detection configures the dialogue in place: it is not begun anew."""
    async with holding() as held:
        detection = {"threshold": 0.8, "silence_duration_ms": 700}
        held.line.say("session.update", session={"audio": {"input": {"turn_detection": detection}}})
        await held.line.until("session.updated")
        held.line.say("session.update", session={"audio": {"input": {"turn_detection": None}}})
        await held.line.until("session.updated", 2)
        held.line.say("avatar.speak", text="440 1")
        await held.line.until("response.done")
        ((_, dialogue),) = held.dialogues.made
        assert dialogue.calls == ["configure", "configure", "speak"]
        assert not dialogue.config.settings.turn_detection
        held.line.say("session.update", session={"audio": {"input": {"turn_detection": detection}}})
        await held.line.until("session.updated", 3)
        told = dialogue.config.settings
        assert (told.turn_detection, told.vad_threshold, told.vad_silence_ms) == (True, 0.8, 700)


async def test_uncommitted_audio_beyond_the_bound_is_refused_whole() -> None:
    """Where the client alone commits, a full buffer is an error, and what is in it stays."""
    async with holding(audio={"max_buffer_s": 2}) as held:
        held.line.say("session.update", session={"audio": {"input": {"turn_detection": None}}})
        held.line.inbox.put_nowait(bytes(2 * 24_000))
        held.line.inbox.put_nowait(bytes(2 * 24_000 * 2))
        held.line.say("input_audio_buffer.commit")
        await held.line.until("input_audio_buffer.committed")
        assert held.line.of("error")[0]["error"]["code"] == "buffer_full"
        held.line.say("avatar.speak", text="440 1")
        await held.line.until("response.done")
        dialogue = held.dialogues.made[-1][1]
        assert [samples for _, samples in dialogue.commits] == [24_000]


async def test_a_written_item_is_what_a_response_answers() -> None:
    """conversation.item.create then response.create: the last user text reaches the dialogue."""
    async with holding() as held:
        content = [{"type": "input_text", "text": "523 1"}]
        item = {"type": "message", "role": "user", "content": content}
        held.line.say("conversation.item.create", item=item)
        added = await held.line.until("conversation.item.added")
        held.line.say("response.create")
        await held.line.until("response.done")
        assert held.dialogues.made[0][1].response is not None
        assert held.line.of("response.output_audio_transcript.done")[0]["transcript"] == "523 1"
        held.line.say("conversation.item.retrieve", item_id=added["item"]["id"])
        found = await held.line.until("conversation.item.retrieved")
        assert found["item"]["content"] == content


async def test_two_responses_at_once_cannot_be_asked_for() -> None:
    """response.create while one is in progress is refused, and that one goes on."""
    async with holding() as held:
        held.line.say("avatar.speak", text="hum 300")
        await held.line.until("response.output_audio.delta")
        held.line.say("response.create")
        error = (await held.line.until("error"))["error"]
        assert error["code"] == "conversation_already_has_active_response"
        assert held.access.speaking


async def test_truncation_sets_the_idle_cycle_to_what_was_shown() -> None:
    """A client that stopped after 0.4 s has shown 10 frames; idle goes on from there."""
    async with holding() as held:
        held.line.say("avatar.speak", text="440 5")
        done = await held.line.until("response.done")
        first = held.line.of("session.avatar.switch_to_speaking")[0]["cycle_index"]
        item = done["response"]["output"][0]["id"]
        fields = {"item_id": item, "content_index": 0}
        held.line.say("conversation.item.truncate", **fields, audio_end_ms=400)
        await held.line.until("conversation.item.truncated")
        held.line.say("avatar.speak", text="440 1")
        again = await held.line.until("session.avatar.switch_to_speaking", 2)
        assert again["cycle_index"] == (first + 10 + int(PREROLL_S * 25)) % 14
        held.line.say("conversation.item.truncate", **fields, audio_end_ms=9000)
        assert (await held.line.until("error"))["error"]["param"] == "audio_end_ms"


def test_items_stand_where_they_were_put() -> None:
    """previous_item_id inserts, ``root`` puts first, an unknown or a known id is an error."""

    def text(item_id: str) -> Entry:
        return Entry(UserMessage(id=item_id, content=(InputTextPart(text=item_id),)))

    kept = Conversation()
    assert kept.insert(text("a"), None) is None
    assert kept.insert(text("c"), None) == "a"
    assert kept.insert(text("b"), "a") == "a"
    assert kept.insert(text("z"), "root") is None
    assert [entry.id for entry in kept] == ["z", "a", "b", "c"]
    kept.delete("c")
    assert kept.last_id == "b"
    with pytest.raises(ProtocolError, match="does not exist"):
        kept.insert(text("d"), "nobody")
    with pytest.raises(ProtocolError, match="already") as duplicate:
        kept.insert(text("a"), None)
    assert duplicate.value.code == "item_create_duplicate_item_id"
    with pytest.raises(ProtocolError, match="Only what the avatar said"):
        kept.truncate("a", 0, 10)
    for number in range(2 * MAX_ITEMS):
        kept.insert(text(f"n{number}"), None)
    assert len(kept) == MAX_ITEMS


def test_the_audio_of_old_items_is_forgotten_before_the_items() -> None:
    """A session remembers a bounded amount of audio; the newest item always has its own."""

    def spoken(item_id: str, nbytes: int) -> Entry:
        return Entry(user_item(item_id), Recording(np.zeros(nbytes // 4, np.float32), 24_000))

    kept = Conversation()
    for name in ("a", "b", "c"):
        kept.add(spoken(name, MAX_AUDIO_BYTES // 2))
    assert [entry.audio is not None for entry in kept] == [False, True, True]
    kept.add(spoken("d", 2 * MAX_AUDIO_BYTES))
    assert [entry.audio is not None for entry in kept] == [False, False, False, True]


def test_items_are_bounded_by_what_is_in_them() -> None:
    """A client that writes megabytes an item makes the session forget the oldest, not grow."""
    kept = Conversation()
    for number in range(5):
        part = InputTextPart(text="x" * (MAX_ITEM_BYTES // 3))
        kept.add(Entry(UserMessage(id=f"n{number}", content=(part,))))
    assert [entry.id for entry in kept] == ["n3", "n4"]


async def test_a_full_inbox_makes_the_reader_wait_and_loses_nothing() -> None:
    """Past its bound `put` waits until the session has taken something."""
    inbox, taken = Inbox(max_size=100), []

    async def fill() -> None:
        for number in range(10):
            await inbox.put(Pending(bytes([number] * 50), size=50))

    filling = asyncio.create_task(fill())
    await asyncio.sleep(0)
    for _ in range(10):
        assert inbox.size <= 100
        taken.append((await asyncio.wait_for(inbox.take(), 30)).event)
    await filling
    assert taken == [bytes([number] * 50) for number in range(10)]


async def test_a_busy_session_does_not_collect_a_clients_large_events() -> None:
    """Of texts and pictures too no more is taken than of audio: then its socket is not read."""
    session = Session(fake_engine(), settings(), Metrics())  # nothing is worked through
    part = {"type": "input_text", "text": "x" * 2_000_000}
    item = {"type": "message", "role": "user", "content": [part]}
    message = json.dumps({"type": "conversation.item.create", "item": item})
    taken = 0
    while not session.is_full:
        await session.receive(message)
        taken += 1
        assert taken < 20
    waiting = asyncio.create_task(session.receive(message))
    await asyncio.sleep(0)
    assert not waiting.done()
    waiting.cancel()


# -- clocks ---------------------------------------------------------------------------------------


def test_playback_is_guessed_until_it_is_told() -> None:
    """Nothing is late before a frame is out; then playing starts; reports correct the guess."""
    playback = PlaybackEstimate()
    assert playback.position_s(5.0) == 0
    playback.sent(4.0, 10.0)
    playback.rendering(10.5)
    assert playback.due_s(0.0, 10.5) == 10.5 + PATIENCE_S
    playback.showing(10.7)
    assert playback.due_s(2.0, 10.7) == pytest.approx(10.7 + PREROLL_S + 2)
    assert playback.position_s(10.7 + PREROLL_S + 1) == pytest.approx(1.0)
    playback.reported(0.5, 12.0)
    assert playback.due_s(1.0, 12.0) == pytest.approx(12.5)
    assert playback.ahead_s(13.0) == pytest.approx(2.5)
    playback.reported(99.0, 13.0)  # nobody hears what was not sent
    assert playback.position_s(13.0) == 4.0
    playback.sent(1.0, 20.0)  # it had run dry
    assert playback.ahead_s(20.0) == pytest.approx(1.0)


def test_the_idle_cycle_counts_on_and_resumes() -> None:
    """Index by the avatar's own rate, within one period; resumed ahead of time it waits."""
    idle = IdleClock(frame_count=4, fps=10, now_s=0.0)  # 0 1 2 3 2 1 | 0 1 …
    assert [idle.index_at(t / 10 + 0.01) for t in range(8)] == [0, 1, 2, 3, 4, 5, 0, 1]
    idle.resume(20, now_s=5.0)
    assert idle.index_at(4.0) == 2
    assert idle.index_at(5.11) == 3


@pytest.mark.parametrize("rate", [16_000, 24_000, 48_000])
def test_wire_audio_and_frames_measure_the_same_time(rate: int) -> None:
    """However speech is cut, the client's samples and the frames add up to its length."""
    timeline = SpeechTimeline(24_000, AudioFormat(rate=rate), Chunker(GRID, Fraction(25), 8000))
    speech, wire, frames, offset = tone(2.52, 300), 0, [], 0
    pieces = np.array_split(speech, [1, 777, 9001, 30_000])
    for spoken in [*map(timeline.push, pieces), timeline.flush()]:
        assert spoken.offset == offset
        offset += len(spoken.wire) // 2
        wire += len(spoken.wire) // 2
        for chunk in spoken.chunks:
            frames += range(chunk.first_frame, chunk.first_frame + chunk.frame_count)
    assert wire == round(2.52 * rate)
    assert frames == list(range(63))
    assert timeline.seconds == 2.52


@pytest.mark.parametrize(("converse", "mode"), [(True, "chat"), (False, "parrot")])
async def test_a_session_begins_as_a_conversation_where_one_is_possible(
    converse: bool, mode: str
) -> None:
    """Mode auto: chat where recognition and a language model work, else parrot."""
    async with holding(speech=FakeSpeech(converse=converse)) as held:
        created = held.line.of("session.created")[0]
        assert created["session"]["avatar"]["mode"] == mode

"""Readings of growing turns: when, of what, in which order, and what becomes of their texts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pytest

from tests.dialogue.fakes import wait_for
from wsavatar.dialogue.asr import ASR_RATE, Heard
from wsavatar.dialogue.asr.growing import MAX_UNREAD_S, Growing, Growth, Slots, quietest
from wsavatar.dialogue.engine import EngineError


def voice(seconds: float) -> np.ndarray:
    return np.full(round(seconds * ASR_RATE), 0.5, np.float32)


@dataclass
class Reading:
    seconds: float
    prompt: str
    language: str
    done: asyncio.Future[str]


@dataclass
class Reader:
    """An engine whose readings end when the test says so; ``cost_s`` is what its clock says."""

    readings: list[Reading] = field(default_factory=list)
    now_s: float = 0.0

    async def __call__(
        self,
        samples: np.ndarray,
        *,
        language: str,
        prompt: str,
        on_text: Callable[[str], None],
    ) -> str:
        self.on_text = on_text
        done: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.readings.append(Reading(len(samples) / ASR_RATE, prompt, language, done))
        return await done

    def clock(self) -> float:
        return self.now_s

    @property
    def open(self) -> list[Reading]:
        return [one for one in self.readings if not one.done.done()]

    async def answer(self, text: str | Exception, cost_s: float = 0.0) -> None:
        """The oldest reading in progress ends."""
        await wait_for(lambda: bool(self.open))
        self.now_s += cost_s
        done = self.open[0].done
        if isinstance(text, Exception):
            done.set_exception(text)
        else:
            done.set_result(text)
        await settled()


async def settled() -> None:
    """All tasks have done what they can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Turn(Growing):
    """A turn that keeps what was heard."""

    def __init__(
        self, reader: Reader, slots: Slots, growth: Growth | None = None, **options: object
    ):
        self.heard: list[Heard] = []
        super().__init__(
            reader,
            slots,
            growth or Growth(),
            self.heard.append,
            clock=reader.clock,
            **options,  # type: ignore[arg-type]
        )


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def slots() -> Slots:
    return Slots(1)


async def test_a_turn_is_read_while_it_grows(reader: Reader, slots: Slots) -> None:
    """One reading at a time, each of all audio so far; words that two agree on are stable."""
    turn = Turn(reader, slots)
    turn.push(voice(0.5))
    await settled()
    assert reader.readings == []
    turn.push(voice(0.2))
    await settled()
    assert [one.seconds for one in reader.readings] == [pytest.approx(0.7)]
    turn.push(voice(1))
    turn.push(voice(1))
    await reader.answer("it is a")
    assert reader.readings[1].seconds == pytest.approx(2.7)
    await reader.answer("it is the best")
    assert turn.heard == [Heard("it is a", ""), Heard("it is the best", "it is", whole=True)]
    assert len(reader.readings) == 2
    turn.cancel()


async def test_the_end_of_a_turn_needs_one_reading(reader: Reader, slots: Slots) -> None:
    """Of what was not read yet."""
    turn = Turn(reader, slots)
    turn.push(voice(0.3))
    end = asyncio.create_task(turn.finish())
    await reader.answer("hello")
    assert await end == "hello" and len(reader.readings) == 1


async def test_a_turn_that_was_read_at_a_pause_ends_at_once(reader: Reader, slots: Slots) -> None:
    """The reading starts as the voice ends; without more audio it is the last one."""
    turn = Turn(reader, slots)
    turn.push(voice(0.3))
    turn.voice_ended()
    await reader.answer("hello")
    assert turn.heard == [Heard("hello", "", whole=True)]
    assert await turn.finish() == "hello" and len(reader.readings) == 1


async def test_a_reading_that_is_in_progress_may_be_the_last(reader: Reader, slots: Slots) -> None:
    """A turn that ends while it is read at a pause waits for that reading only."""
    turn = Turn(reader, slots)
    turn.push(voice(0.3))
    turn.voice_ended()
    await settled()
    end = asyncio.create_task(turn.finish())
    await reader.answer("hello")
    assert await end == "hello" and len(reader.readings) == 1


async def test_voice_after_a_pause_is_read_too(reader: Reader, slots: Slots) -> None:
    """The text of the pause is not the last word."""
    turn = Turn(reader, slots)
    turn.push(voice(0.3))
    turn.voice_ended()
    await reader.answer("hello")
    turn.push(voice(0.3))
    end = asyncio.create_task(turn.finish())
    await reader.answer("hello there")
    assert await end == "hello there"
    assert [one.seconds for one in reader.readings] == [pytest.approx(0.3), pytest.approx(0.6)]


async def test_a_turn_without_audio_has_no_words(reader: Reader, slots: Slots) -> None:
    """Nothing is read."""
    turn = Turn(reader, slots)
    turn.voice_ended()
    assert await turn.finish() == "" and reader.readings == []


async def test_a_slow_engine_reads_less_often(reader: Reader, slots: Slots) -> None:
    """While turns are spoken, readings take at most half of the time."""
    turn = Turn(reader, slots)
    turn.push(voice(0.6))
    await reader.answer("a", cost_s=1.0)
    turn.push(voice(1.9))
    await settled()
    assert len(reader.readings) == 1
    turn.push(voice(0.2))
    await settled()
    assert len(reader.readings) == 2
    turn.cancel()


async def test_several_sessions_share_that_time(reader: Reader, slots: Slots) -> None:
    """With two turns, each is read half as often."""
    turns = [Turn(reader, slots), Turn(reader, slots)]
    for turn in turns:
        turn.push(voice(0.6))
    await reader.answer("a", cost_s=1.0)
    await reader.answer("a", cost_s=1.0)
    for turn in turns:
        turn.push(voice(3.9))
    await settled()
    assert len(reader.readings) == 2
    for turn in turns:
        turn.push(voice(0.2))
    await settled()
    await reader.answer("b", cost_s=1.0)
    assert len(reader.readings) == 4
    for turn in turns:
        turn.cancel()


async def test_turns_that_are_over_come_first(reader: Reader, slots: Slots) -> None:
    """Then those that pause, then the others, who waits longest first."""
    busy, spoken, other, paused, over = (Turn(reader, slots) for _ in range(5))
    busy.push(voice(1))
    await settled()
    for turn, seconds in ((spoken, 2), (other, 3), (paused, 4), (over, 5)):
        turn.push(voice(seconds))
        await settled()
    paused.voice_ended()
    end = asyncio.create_task(over.finish())
    for _ in range(5):
        await reader.answer("text")
    assert [round(one.seconds) for one in reader.readings] == [1, 5, 4, 2, 3]
    assert await end == "text"
    for turn in (busy, spoken, other, paused):
        turn.cancel()


async def test_no_turn_is_starved_by_another(reader: Reader, slots: Slots) -> None:
    """Two turns that always have something to read take turns."""
    one, other = Turn(reader, slots), Turn(reader, slots)
    one.push(voice(1))
    other.push(voice(1.01))
    order = []
    for _ in range(6):
        await wait_for(lambda: bool(reader.open))
        order.append(round(reader.open[0].seconds * 100) % 100)
        one.push(voice(1))
        other.push(voice(1))
        await reader.answer("text")
    assert sorted(order[:2]) == sorted(order[2:4]) == sorted(order[4:6]) == [0, 1]
    one.cancel()
    other.cancel()


async def test_a_pause_that_is_over_is_not_read(reader: Reader, slots: Slots) -> None:
    """Where the engine had no time for it: the turn goes on and is read later."""
    busy, turn = Turn(reader, slots), Turn(reader, slots)
    busy.push(voice(1))
    await settled()
    turn.push(voice(0.3))
    turn.voice_ended()
    await settled()
    turn.push(voice(0.1))
    await reader.answer("text")
    assert len(reader.readings) == 1
    turn.push(voice(0.3))
    await settled()
    assert reader.readings[-1].seconds == pytest.approx(0.7)
    busy.cancel()
    turn.cancel()


async def test_an_engine_may_read_several_turns_at_once(reader: Reader) -> None:
    """As many as it has slots; a turn that is cancelled gives its slot back."""
    slots = Slots(2)
    turns = [Turn(reader, slots) for _ in range(4)]
    for turn in turns:
        turn.push(voice(1))
    await settled()
    assert len(reader.readings) == 2
    turns[0].cancel()
    turns[2].cancel()  # waits
    await settled()
    assert len(reader.readings) == 3
    await reader.answer("text")
    await reader.answer("text")
    assert slots.spoken == 2
    turns[1].cancel()
    turns[3].cancel()
    await settled()
    assert slots.spoken == 0


async def test_a_part_that_is_finished_is_not_read_again(reader: Reader, slots: Slots) -> None:
    """A long turn is cut at a pause; the text goes on, and the engine is told what came before."""
    turn = Turn(reader, slots, Growth(finish_s=10), prompt="Ada.", language="en")
    turn.push(voice(11))
    await reader.answer("one two")
    turn.push(voice(1))
    turn.voice_ended()
    await reader.answer("One, two three.")
    turn.push(voice(2))
    await reader.answer("four")
    assert [one.seconds for one in reader.readings] == [11, 12, 2]
    assert turn.heard[-1].text == "One, two three. four"
    assert turn.heard[-1].stable == "One, two three"
    assert [one.prompt for one in reader.readings] == ["Ada.", "Ada.", "Ada. One, two three."]
    assert {one.language for one in reader.readings} == {"en"}
    turn.push(voice(1))
    end = asyncio.create_task(turn.finish())
    await reader.answer("Four five.")
    assert await end == "One, two three. Four five."


async def test_a_turn_without_pauses_is_cut_where_it_is_quietest(
    reader: Reader, slots: Slots
) -> None:
    """So a minute of speech is read in parts that fit the engine, and every sample is read once at
    the end."""
    turn = Turn(reader, slots, Growth(finish_s=10, longest_s=25, while_spoken=False))
    speech = voice(61)
    for dip in (18.0, 40.0):
        speech[int(dip * ASR_RATE) : int((dip + 0.2) * ASR_RATE)] = 0.001
    turn.push(speech)
    end = asyncio.create_task(turn.finish())
    for text in ("one", "two", "three"):
        await reader.answer(text)
    assert await end == "one two three"
    lengths = [one.seconds for one in reader.readings]
    assert lengths[0] == pytest.approx(18.1, abs=0.05)
    assert lengths[1] == pytest.approx(22.0, abs=0.05)
    assert sum(lengths) == pytest.approx(61)


async def test_an_engine_that_reads_at_pauses_only(reader: Reader, slots: Slots) -> None:
    """``while_spoken`` False, as for an endpoint that charges by the second."""
    turn = Turn(reader, slots, Growth(while_spoken=False))
    turn.push(voice(5))
    await settled()
    assert reader.readings == []
    turn.voice_ended()
    await settled()
    assert len(reader.readings) == 1
    turn.cancel()


async def test_a_failure_in_between_costs_partial_texts_only(reader: Reader, slots: Slots) -> None:
    """The end tries again; if that fails too, it says why."""
    for last in ("hello", EngineError("engine_failed", "no")):
        turn = Turn(reader, slots)
        turn.push(voice(1))
        await reader.answer(EngineError("engine_unreachable", "gone"))
        turn.push(voice(1))
        turn.voice_ended()
        await settled()
        assert reader.open == []
        end = asyncio.create_task(turn.finish())
        await reader.answer(last)
        if isinstance(last, str):
            assert await end == last
        else:
            with pytest.raises(EngineError, match="no"):
                await end


async def test_an_engine_that_does_not_answer_is_not_waited_for(
    reader: Reader, slots: Slots
) -> None:
    """After ``timeout_s`` the end fails, and the slot is free."""
    turn = Turn(reader, slots, timeout_s=0.01)
    turn.push(voice(1))
    with pytest.raises(EngineError) as failed:
        await turn.finish()
    assert failed.value.code == "engine_timeout"
    other = Turn(reader, slots)
    other.push(voice(2))
    await wait_for(lambda: reader.readings[-1].seconds == 2)
    other.cancel()


async def test_a_turn_that_is_minutes_behind_fails(reader: Reader, slots: Slots) -> None:
    """Its audio is bounded; the message says what to do."""
    turn = Turn(reader, slots)
    for _ in range(int(MAX_UNREAD_S) + 1):
        turn.push(voice(1))
    with pytest.raises(EngineError, match="smaller model") as failed:
        await turn.finish()
    assert failed.value.code == "engine_timeout"


async def test_the_beginning_of_a_reading_is_heard(reader: Reader, slots: Slots) -> None:
    """An engine that streams tells its text before the reading ends; it may still change."""
    turn = Turn(reader, slots, Growth(finish_s=1))
    turn.push(voice(1))
    turn.voice_ended()
    await reader.answer("one two")
    turn.push(voice(1))
    await settled()
    reader.on_text("three")
    assert turn.heard[-1] == Heard("one two three", "one two")
    await reader.answer("three four")
    assert turn.heard[-1] == Heard("one two three four", "one two", whole=True)
    turn.cancel()


async def test_a_cancelled_turn_says_nothing_more(reader: Reader, slots: Slots) -> None:
    """Its reading is given up."""
    turn = Turn(reader, slots)
    turn.push(voice(1))
    await settled()
    turn.cancel()
    await settled()
    assert reader.readings[0].done.cancelled() and turn.heard == []


def test_the_quietest_place_is_found() -> None:
    """Its middle, within the range; a range too short for a choice ends where it ends."""
    speech = voice(10)
    speech[int(4 * ASR_RATE) : int(4.2 * ASR_RATE)] = 0
    speech[:1000] = 0
    assert quietest(speech, ASR_RATE, 9 * ASR_RATE) == pytest.approx(4.1 * ASR_RATE, abs=400)
    assert quietest(speech, 100, 200) == 200

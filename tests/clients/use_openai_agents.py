"""The OpenAI Agents SDK: a realtime agent with a tool, by its runner."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import scenario
from agents import function_tool, set_tracing_disabled
from agents.realtime import RealtimeAgent, RealtimeRunner, RealtimeSession, RealtimeSessionEvent

set_tracing_disabled(True)


@function_tool
def weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


class Talk:
    """A session, and a task that reads its events. An error event fails the scenario."""

    def __init__(self, session: RealtimeSession) -> None:
        self.session = session
        self.log: list[RealtimeSessionEvent] = []
        self._news = asyncio.Condition()

    async def listen(self) -> None:
        async for event in self.session:
            async with self._news:
                self.log.append(event)
                self._news.notify_all()

    def count(self, kind: str) -> int:
        return sum(event.type == kind for event in self.log)

    @property
    def audio_s(self) -> float:
        """Seconds of sound so far."""
        size = sum(len(event.audio.data) for event in self.log if event.type == "audio")
        return size / 2 / scenario.RATE

    async def until(self, happened: Callable[[], bool]) -> None:
        async with self._news:
            await self._news.wait_for(lambda: happened() or self.count("error") > 0)

    def errors(self) -> list[str]:
        return sorted({str(event.error)[:600] for event in self.log if event.type == "error"})


@contextlib.asynccontextmanager
async def _talk(visit: scenario.Visit, **settings: Any) -> AsyncIterator[Talk]:
    agent = RealtimeAgent(name="Host", instructions="Be a friendly host.", tools=[weather])
    runner = RealtimeRunner(agent)
    session = await runner.run(
        model_config={
            "api_key": "any",
            "url": f"{visit.url}?model=gpt-realtime",
            "initial_model_settings": settings,
        }
    )
    async with session:
        talk = Talk(session)
        listening = asyncio.create_task(talk.listen())
        try:
            yield talk
            await asyncio.sleep(0.3)  # what is still on its way is looked at too
            assert talk.errors() == [], "\n".join(talk.errors())
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening


async def a_voice_is_answered(visit: scenario.Visit) -> None:
    """Recorded voice goes in by `send_audio`; audio comes, and the turn ends."""
    async with _talk(visit) as talk:
        for packet in visit.packets():
            await talk.session.send_audio(packet)
        await talk.until(lambda: talk.count("agent_end") > 0)
        assert talk.audio_s > 1.0 and talk.count("audio_end") == 1


async def a_message_is_answered(visit: scenario.Visit) -> None:
    """`send_message` is answered with sound; both sides stand in the history."""
    async with _talk(visit, voice="alloy", output_modalities=["audio"]) as talk:
        await talk.session.send_message("One two three.")
        await talk.until(lambda: talk.count("agent_end") > 0)
        assert talk.audio_s > 0.5
        added = [event.item for event in talk.log if event.type == "history_added"]
        assert [item.role for item in added] == ["user", "assistant"]
        last = [event for event in talk.log if event.type == "history_updated"][-1]
        assert "three" in last.history[-1].content[0].transcript


async def an_answer_is_interrupted(visit: scenario.Visit) -> None:
    """`interrupt()` cuts the answer, truncates its item, and retrieves what is left of it."""
    async with _talk(visit) as talk:
        await talk.session.send_message("This sentence is long enough. " * 12)
        await talk.until(lambda: talk.audio_s > 2.0)
        await talk.session.interrupt()
        await talk.until(lambda: talk.count("agent_end") > 0)
        assert talk.count("audio_interrupted") == 1
        await talk.session.send_message("One two three.")
        await talk.until(lambda: talk.count("agent_end") > 1)


async def speech_interrupts_an_answer(visit: scenario.Visit) -> None:
    """Speaking into an answer interrupts it; the SDK truncates, and the next turn is answered."""
    async with _talk(visit) as talk:
        await talk.session.send_message("This sentence is long enough. " * 12)
        await talk.until(lambda: talk.audio_s > 2.0)
        for packet in visit.packets():
            await talk.session.send_audio(packet)
        await talk.until(lambda: talk.count("agent_end") > 1)
        assert talk.count("audio_interrupted") >= 1


async def a_telephone_call(visit: scenario.Visit) -> None:
    """G.711 in both directions, as telephone bridges use it."""
    import audioop

    async with _talk(
        visit, input_audio_format="g711_ulaw", output_audio_format="g711_ulaw", voice="cedar"
    ) as talk:
        state = None
        for packet in visit.packets():
            narrow, state = audioop.ratecv(packet, 2, 1, scenario.RATE, 8000, state)
            await talk.session.send_audio(audioop.lin2ulaw(narrow, 2))
        await talk.until(lambda: talk.count("agent_end") > 0)
        size = sum(len(event.audio.data) for event in talk.log if event.type == "audio")
        assert size / 8000 > 1.0


async def the_agent_changes(visit: scenario.Visit) -> None:
    """`update_agent` in mid-session gives new instructions and tools; the conversation goes on."""
    async with _talk(visit) as talk:
        await talk.session.send_message("One two three.")
        await talk.until(lambda: talk.count("agent_end") > 0)
        await talk.session.update_agent(
            RealtimeAgent(name="Second", instructions="Be brief.", tools=[])
        )
        await talk.session.send_message("Four five six.")
        await talk.until(lambda: talk.count("agent_end") > 1)


async def turns_are_the_clients(visit: scenario.Visit) -> None:
    """Without turn detection, `send_audio(commit=True)` and a raw `response.create`."""
    async with _talk(visit, turn_detection=None, input_audio_transcription=None) as talk:
        await talk.session.send_audio(visit.voice, commit=True)
        await talk.session.model.send_event(_raw("response.create"))
        await talk.until(lambda: talk.count("agent_end") > 0)
        assert talk.audio_s > 1.0


def _raw(kind: str) -> Any:
    from agents.realtime.model_inputs import RealtimeModelSendRawMessage

    return RealtimeModelSendRawMessage(message={"type": kind})


if __name__ == "__main__":
    scenario.run(__name__)

"""What of a conversation a language model is told."""

from __future__ import annotations

from typing import Any

import pytest

from wsavatar.dialogue.conversation import Entry
from wsavatar.dialogue.llm.history import messages, tool_choice, tools
from wsavatar.protocol.events import (
    AssistantMessage,
    FunctionCall,
    FunctionCallOutput,
    FunctionTool,
    InputAudioPart,
    InputImagePart,
    InputTextPart,
    Item,
    OutputAudioPart,
    SystemMessage,
    ToolChoiceFunction,
    UserMessage,
    user_item,
)


def spoken(text: str | None) -> UserMessage:
    return UserMessage(content=(InputAudioPart(transcript=text),))


def said(text: str, status: Any = "completed") -> AssistantMessage:
    return AssistantMessage(status=status, content=(OutputAudioPart(transcript=text),))


def told(*items: Item, instructions: str = "", max_tokens: int = 1000) -> list[tuple[str, Any]]:
    made = messages([Entry(item) for item in items], instructions, max_tokens)
    return [(one["role"], one["content"]) for one in made]


def test_a_conversation_in_order() -> None:
    """Instructions, system messages, what was typed and what was said."""
    system = SystemMessage(content=(InputTextPart(text="It is noon."),))
    assert told(
        system, spoken("Hi."), said("Hello."), user_item("a", text="And?"), instructions="Be kind."
    ) == [
        ("system", "Be kind."),
        ("system", "It is noon."),
        ("user", "Hi."),
        ("assistant", "Hello."),
        ("user", "And?"),
    ]


@pytest.mark.parametrize("text", [None, "", "  "])
def test_what_has_no_words_is_left_out(text: str | None) -> None:
    """Audio without a transcript, coughs, and answers of which nothing was heard."""
    assert told(spoken(text), said("", "incomplete"), spoken("Hi.")) == [("user", "Hi.")]


def test_an_answer_that_was_interrupted_and_went_on_is_one() -> None:
    """What was heard of it, in one message."""
    assert told(spoken("Go."), said("Once upon", "incomplete"), spoken(""), said("a time.")) == [
        ("user", "Go."),
        ("assistant", "Once upon a time."),
    ]


def test_the_oldest_is_left_out_first_and_the_newest_turn_never() -> None:
    """Above the bound messages go from the beginning; the user's last one always stays."""
    many = [one for n in range(50) for one in (spoken(f"Question {n}."), said(f"Answer {n}."))]
    kept = told(*many, spoken("Last."), max_tokens=100)
    assert kept[-1] == ("user", "Last.") and 4 < len(kept) < 20
    assert kept == told(*many, spoken("Last."), max_tokens=100_000)[-len(kept) :]
    assert told(*many, spoken("x" * 9999), max_tokens=64)[0][1] == "x" * 9999


def test_wide_characters_count_as_tokens() -> None:
    """A Chinese text fills the history four times as fast as an English one of the same length."""

    def kept(text: str) -> int:
        return len(told(*[spoken(text)] * 40, max_tokens=400))

    assert kept("你好吗朋友们今天天气好") < kept("hello there ")


def test_calls_and_their_outputs_stand_or_fall_together() -> None:
    """A pair is two messages; an orphan of either kind is left out."""
    call = FunctionCall(call_id="1", name="time", arguments="{}")
    orphan = FunctionCall(call_id="2", name="time", arguments="{}")
    output = FunctionCallOutput(call_id="1", output="noon")
    lost = FunctionCallOutput(call_id="3", output="lost")
    made = messages([Entry(one) for one in (spoken("Time?"), call, orphan, output, lost)], "", 900)
    assert [one["role"] for one in made] == ["user", "assistant", "tool"]
    assert made[1]["tool_calls"][0]["id"] == made[2]["tool_call_id"] == "1"
    assert made[2]["content"] == "noon"


def test_images_are_passed_on() -> None:
    """As parts of the user's message."""
    item = UserMessage(
        content=(
            InputTextPart(text="What is it?"),
            InputImagePart(image_url="data:image/png;base64,AA=="),
        )
    )
    content = told(item)[0][1]
    assert content[0] == {"type": "text", "text": "What is it?"}
    assert content[1]["image_url"]["url"] == "data:image/png;base64,AA=="


def test_tools_in_the_shape_of_chat_completions() -> None:
    """A function without parameters takes none."""
    made = tools([FunctionTool(name="now")])[0]
    assert made["function"]["parameters"] == {"type": "object", "properties": {}}
    assert tool_choice("required") == "required"
    assert tool_choice(ToolChoiceFunction(name="now"))["function"] == {"name": "now"}

"""A conversation in a real browser: captions of both sides, states, interruption, push to talk.

The server's answers are real; where a test needs a language model's or a recogniser's events, the
page receives them from outside.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser import FAKE_DEVICE, generations, microphone, report_of, wait_for_event
from tests.browser_sync import WIRE_RATE, locate, output_of, response_audio

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = pytest.mark.browser

SENTENCE = "Good morning. The quick brown fox jumps over the lazy dog, and nobody minds at all."
ENGINES = [
    {"kind": "asr", "name": "an asr", "problem": "", "note": "", "ready": True},
    {"kind": "llm", "name": "an llm", "problem": "", "note": "A 135 M model.", "ready": True},
    {"kind": "tts", "name": "a voice", "problem": "", "note": "", "ready": True},
]
# The page's own messages, and what the server is said to answer in chat mode.
SENT = """
  window.sent = [];
  const send = WebSocket.prototype.send;
  WebSocket.prototype.send = function (data) {
    if (typeof data === "string") sent.push(JSON.parse(data));
    else if (sent.at(-1) !== "audio") sent.push("audio");
    if (typeof data !== "string" || !data.includes('"mode":"chat"')) return send.call(this, data);
    return send.call(this, data.replace('"mode":"chat"', '"mode":"parrot"'));
  };
"""

OpenPage = Callable[..., Any]


def say(page: Any, text: str) -> None:
    page.fill("#speak-text", text)
    page.press("#speak-text", "Enter")


def receive(page: Any, kind: str, **fields: Any) -> None:
    page.evaluate("event => watch.receive(event)", {"type": kind, **fields})


def sent(page: Any, kind: str) -> list[dict[str, Any]]:
    every: list[dict[str, Any]] = page.evaluate(
        "kind => sent.filter(one => one.type === kind)", kind
    )
    return every


@pytest.fixture
def open_chat(open_page: OpenPage) -> OpenPage:
    """The page of a server whose engines all work."""

    def open_one(query: str = "", engines: Any = ENGINES, **kwargs: Any) -> Any:
        answers = {"api/engines": engines, "api/voices": [{"name": "joe"}, {"name": "amy"}]}
        script = f"""{SENT}
          const answers = {json.dumps(answers)};
          const ask = window.fetch.bind(window);
          window.fetch = async (url, ...rest) =>
            url in answers ? new Response(JSON.stringify(answers[url])) : ask(url, ...rest);"""
        return open_page(query, script=script, **kwargs)

    return open_one


# -- captions -------------------------------------------------------------------------------------


def test_words_light_up_as_they_are_heard(open_page: OpenPage) -> None:
    """The caption has the whole sentence; its words are lit one after the other, then all are."""
    page = open_page("?mode=parrot")
    say(page, SENTENCE)
    page.evaluate(
        """() => {
          window.lit = [];
          const spoken = document.querySelector("#said span");
          new MutationObserver(() => lit.push(spoken.textContent)).observe(
            spoken, { childList: true, characterData: true, subtree: true });
        }"""
    )
    expect(page.locator("#status")).to_have_text("Speaking", timeout=30_000)
    expect(page.locator("#said")).to_have_text(SENTENCE)
    expect(page.locator("#status")).to_have_text("Connected", timeout=30_000)
    lit = page.evaluate("lit")
    assert all(SENTENCE.startswith(text) for text in lit)
    assert len({len(text) for text in lit}) > 8, "the words came together"
    expect(page.locator("#log li")).to_have_count(1)
    expect(page.locator("#log .avatar span")).to_have_text(SENTENCE)
    assert page.complaints == []


def test_what_was_heard_is_what_the_server_says_was_said_by_then(open_page: OpenPage) -> None:
    """Interrupted, the conversation keeps the words that had begun at the place that was heard."""
    page = open_page("?mode=parrot", script=SENT)
    say(page, SENTENCE)
    page.wait_for_function("watch.playback.at(-1)?.position_ms > 1400", timeout=30_000)
    page.keyboard.press("Escape")
    expect(page.locator("#log .avatar")).to_have_attribute("data-state", "cut")
    heard_ms = sent(page, "conversation.item.truncate")[0]["audio_end_ms"]
    begun = [word for word, start_ms in page.evaluate("watch.words") if start_ms <= heard_ms]
    kept = page.locator("#log .avatar span").text_content()
    words = [word.strip(".,") for word in kept.split()]
    assert len(words) >= 2
    assert abs(len(words) - len(begun)) <= 1, (kept, begun, "a frame may lie between")
    assert words == [word.strip(".,") for word in SENTENCE.split()][: len(words)]


def test_what_you_say_is_shown_while_you_say_it(open_chat: OpenPage) -> None:
    """Partial transcripts come before the turn is over; the final one takes their place."""
    page = open_chat("?mode=parrot")
    say(page, "One.")
    expect(page.locator("#status")).to_have_text("Connected", timeout=30_000)
    receive(page, "input_audio_buffer.speech_started", item_id="item_1", audio_start_ms=0)
    expect(page.locator("#picture")).to_have_attribute("data-phase", "hearing")
    transcription = "conversation.item.input_audio_transcription"
    receive(page, f"{transcription}.delta", item_id="item_1", delta="what is ")
    receive(page, f"{transcription}.delta", item_id="item_1", delta="the wether")
    expect(page.locator("#heard")).to_have_text("what is the wether")
    receive(page, "input_audio_buffer.speech_stopped", item_id="item_1", audio_end_ms=900)
    receive(page, "input_audio_buffer.committed", item_id="item_1")
    expect(page.locator("#status")).to_have_text("Thinking")
    completed = {"item_id": "item_1", "transcript": "What is the weather?"}
    receive(page, f"{transcription}.completed", **completed)
    expect(page.locator("#heard")).to_have_text("What is the weather?")
    expect(page.locator("#log .user span")).to_have_text("What is the weather?")
    failed = {"item_id": "item_2", "error": {"message": "The recogniser does not answer."}}
    receive(page, f"{transcription}.failed", **failed)
    expect(page.locator("#notice")).to_contain_text("The recogniser does not answer.")


# -- chat -----------------------------------------------------------------------------------------


def test_chat_comes_first_and_its_note_is_shown(open_chat: OpenPage) -> None:
    """With all engines the page opens in chat, and says what is to be known of them."""
    page = open_chat()
    first = page.locator(".modes label:visible input").first
    expect(first).to_have_value("chat")
    expect(first).to_be_checked()
    expect(page.locator("#notes")).to_have_text("A 135 M model.")
    expect(page.locator("#speak-send")).to_have_text("Send")


def test_a_typed_message_is_the_users(open_chat: OpenPage) -> None:
    """In chat a typed text is an item of the user's, and an answer is asked for."""
    page = open_chat("?mode=chat")
    say(page, "What is the capital of France?")
    expect(page.locator("#log .user span")).to_have_text("What is the capital of France?")
    page.wait_for_function("sent.some(({ type }) => type === 'response.create')")
    [item] = [event["item"] for event in sent(page, "conversation.item.create")]
    assert item["role"] == "user"
    assert item["content"] == [{"type": "input_text", "text": "What is the capital of France?"}]
    assert sent(page, "avatar.speak") == []
    expect(page.locator("#status")).to_have_text("Speaking", timeout=30_000)
    assert page.complaints == []


def test_without_a_language_model_the_page_says_what_to_type(open_chat: OpenPage) -> None:
    """Chat cannot be chosen, what is missing stands there, and the other modes go on working."""
    engines = [
        ENGINES[0],
        {"kind": "llm", "name": "", "problem": "Type: ollama serve", "note": "", "ready": False},
        ENGINES[2],
    ]
    page = open_chat(engines=engines)
    expect(page.locator("input[value=chat]")).to_be_disabled()
    expect(page.locator("#missing")).to_have_text("The language model: Type: ollama serve")
    expect(page.locator("input[value=mirror]")).to_be_checked()
    say(page, "One.")
    page.wait_for_function("watch.draws.length > 0", timeout=60_000)


# -- interruption ---------------------------------------------------------------------------------


def test_speech_over_the_avatar_silences_the_page(open_page: OpenPage) -> None:
    """At `speech_started` what waits is thrown away with a short fade; the server is told where."""
    page = open_page("?mode=parrot", script=SENT)
    say(page, SENTENCE)
    page.wait_for_function("watch.playback.at(-1)?.position_ms > 1400", timeout=30_000)
    frame = page.evaluate(
        """() => {
          watch.receive({ type: "input_audio_buffer.speech_started", item_id: "item_u" });
          return watch.context.currentTime;
        }"""
    )
    expect(page.locator("#status")).to_have_text("Listening")
    wait_for_event(page, "conversation.item.truncated")
    report = report_of(page)
    audio = response_audio(report, generations(report)[0])
    output = output_of(report)
    start_s, _ = locate(output, audio[:WIRE_RATE])
    after = np.abs(output.samples[int(frame * output.rate) - output.first :])
    silent_ms = int(np.flatnonzero(after > 1e-3).max(initial=0)) * 1000 / output.rate
    print(f"silent {silent_ms:.0f} ms of sound after speech_started")
    assert silent_ms < 60
    [truncated] = sent(page, "conversation.item.truncate")
    stopped_ms = (frame - start_s) * 1000
    assert stopped_ms - 150 < truncated["audio_end_ms"] < stopped_ms + 30, "heard, not rendered"
    assert sent(page, "response.cancel") == [], "the server interrupts by itself"
    assert page.evaluate("document.querySelector('#log .avatar').dataset.state") == "cut"


def test_an_answer_goes_on_after_a_cough(open_page: OpenPage) -> None:
    """A response that follows without a turn of the user's continues the same entry."""
    page = open_page("?mode=parrot")
    say(page, SENTENCE)
    page.wait_for_function("watch.playback.at(-1)?.position_ms > 900", timeout=30_000)
    receive(page, "input_audio_buffer.speech_started", item_id="item_u", audio_start_ms=0)
    expect(page.locator("#log .avatar")).to_have_attribute("data-state", "cut")
    cut = page.locator("#log .avatar span").text_content()
    assert cut and SENTENCE.startswith(cut)
    page.evaluate("document.querySelector('#speak-text').value = 'And it goes on.'")
    page.evaluate("document.querySelector('#speak').requestSubmit()")
    expect(page.locator("#log .avatar span")).to_have_text(f"{cut} And it goes on.", timeout=30_000)
    expect(page.locator("#log li")).to_have_count(1)


# -- push to talk ---------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["space", "button"])
def test_a_turn_lasts_as_long_as_the_key_is_held(
    open_page: OpenPage, spoken_wav: Path, by: str
) -> None:
    """Held, the microphone is sent; let go, the turn is committed and answered."""
    page = open_page("?mode=parrot", flags=microphone(spoken_wav), script=SENT)
    page.locator("#hold").check()
    page.click("#start")
    expect(page.locator("#status")).to_have_text("Hold to talk", timeout=30_000)
    page.wait_for_timeout(300)
    assert page.evaluate("sent.includes('audio')") is False
    if by == "space":
        page.keyboard.down(" ")  # the controls that were clicked do not keep it
        page.wait_for_timeout(1200)
        page.keyboard.up(" ")
    else:
        page.locator("#talk").hover()
        page.mouse.down()
        page.wait_for_timeout(1200)
        page.mouse.up()
    wait_for_event(page, "input_audio_buffer.committed")
    wait_for_event(page, "response.created")
    last = page.evaluate("sent.filter((one) => one === 'audio' || one.type !== 'avatar.playback')")
    kinds = [one if one == "audio" else one["type"] for one in last]
    assert kinds[-3:] == ["audio", "input_audio_buffer.commit", "response.create"]
    assert sent(page, "session.update")[-1]["session"]["audio"]["input"]["turn_detection"] is None
    page.locator("#hold").uncheck()
    page.wait_for_function(
        "sent.filter(({ type }) => type === 'session.update').at(-1)"
        ".session.audio.input.turn_detection?.type"
    )
    assert page.complaints == []


# -- between visits -------------------------------------------------------------------------------


def test_choices_are_kept_between_visits(open_chat: OpenPage) -> None:
    """Avatar, mode, voice, microphone and hold to talk are as they were at the last visit."""
    page = open_chat(flags=(FAKE_DEVICE, "--use-fake-ui-for-media-stream"))
    page.click("#start")
    expect(page.locator("#status")).to_have_text("Listening", timeout=30_000)
    page.locator("input[value=noor]").check(force=True)
    page.locator("input[value=parrot]").check(force=True)
    page.select_option("#voice", "amy")
    microphones = page.locator("#microphone option")
    assert microphones.count() > 1
    second = microphones.nth(1).get_attribute("value")
    page.select_option("#microphone", second)
    page.locator("#hold").check()
    # It is kept once it is shown.
    page.wait_for_function("localStorage.getItem('wsavatar.avatar') === 'noor'")
    page.reload()
    page.wait_for_selector("#start:enabled", timeout=60_000)
    expect(page.locator("input[value=noor]")).to_be_checked()
    expect(page.locator("input[value=parrot]")).to_be_checked()
    expect(page.locator("#voice")).to_have_value("amy")
    expect(page.locator("#hold")).to_be_checked()
    expect(page.locator("#microphone")).to_have_value(second)


def test_remembered_choices_that_are_gone_are_not_used(open_chat: OpenPage) -> None:
    """An avatar, voice or microphone of another time, or nonsense, changes nothing."""
    page = open_chat(flags=(FAKE_DEVICE, "--use-fake-ui-for-media-stream"))
    page.evaluate(
        """() => {
          for (const key of ["avatar", "mode", "voice", "microphone", "hold"]) {
            localStorage.setItem(`wsavatar.${key}`, "../../etc/passwd");
          }
        }"""
    )
    page.reload()
    page.wait_for_selector("#start:enabled", timeout=60_000)
    expect(page.locator("input[name=avatar]").first).to_be_checked()
    expect(page.locator("input[value=chat]")).to_be_checked()
    expect(page.locator("#voice")).to_have_value("")
    page.click("#start")
    expect(page.locator("#status")).to_have_text("Listening", timeout=30_000)
    expect(page.locator("#notice")).to_be_hidden()

"""Mode chat in a real browser: a real server, whose language model and recognition are a script."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser import microphone, wait_for_event
from tests.cut_proxy import CutProxy
from tests.dialogue.scripted_endpoint import Answer, Pause, ScriptedEndpoint
from tests.page_server import PageServer

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = pytest.mark.browser

OpenPage = Callable[..., Any]


@pytest.fixture(autouse=True)
def plain_answers(scripted: ScriptedEndpoint) -> None:
    """Each test begins with the same script."""
    scripted.chat[:] = [Answer("Paris is the capital", " of France.")]
    scripted.transcriptions[:] = [Answer("What is the capital of France?")]


@pytest.fixture
def proxy(server: PageServer) -> Iterator[CutProxy]:
    one = CutProxy(server.port)
    yield one
    one.close()


def send(page: Any, text: str) -> None:
    page.fill("#speak-text", text)
    page.press("#speak-text", "Enter")


def avatar_said(page: Any) -> Any:
    return page.locator("#log .avatar span")


def test_a_spoken_question_is_heard_understood_and_answered(
    open_page: OpenPage, turn_wav: Path
) -> None:
    """You speak; your words and the answer are in the conversation, and the turn has its times."""
    page = open_page("", flags=microphone(turn_wav))
    expect(page.locator("input[value=chat]")).to_be_checked()
    page.click("#start")
    expect(avatar_said(page).first).to_have_text("Paris is the capital of France.", timeout=60_000)
    expect(page.locator("#log .user span").first).to_have_text("What is the capital of France?")
    kinds = page.locator("#log li").evaluate_all("rows => rows.map(row => row.className)")
    assert kinds[:2] == ["user", "avatar"]
    page.click(".numbers summary")
    steps = ("decided", "transcript", "token", "sound", "frame", "heard")
    for step in steps:
        expect(page.locator(f"#t-{step}")).to_have_text(re.compile(r"^\d+ ms$"))
    times = [page.locator(f"#t-{step}").text_content() for step in ("decided", "token", "heard")]
    decided, token, heard = (int(time.removesuffix(" ms")) for time in times)
    assert 0 < decided <= token <= heard
    assert page.complaints == []


def test_a_typed_question_is_answered(open_page: OpenPage, scripted: ScriptedEndpoint) -> None:
    """A typed message reaches the language model as the user's, and the answer is spoken."""
    page = open_page("?mode=chat")
    send(page, "And of Italy?")
    expect(avatar_said(page)).to_have_text("Paris is the capital of France.", timeout=60_000)
    asked = [one for one in scripted.asked if one.path.endswith("/chat/completions")]
    assert asked[-1].body["messages"][-1] == {"role": "user", "content": "And of Italy?"}
    send(page, "Once more")
    expect(avatar_said(page)).to_have_count(2, timeout=60_000)


def test_a_language_model_that_fails_is_explained(
    open_page: OpenPage, scripted: ScriptedEndpoint
) -> None:
    """The page says what went wrong, and the next message is answered."""
    page = open_page("?mode=chat")
    scripted.chat[:] = [Answer("the model is broken", status=400)]
    send(page, "Are you there?")
    expect(page.locator("#notice")).to_be_visible(timeout=60_000)
    expect(page.locator("#notice")).to_contain_text("HTTP 400")
    scripted.chat[:] = [Answer("Now I am.")]
    send(page, "And now?")
    expect(avatar_said(page).last).to_have_text("Now I am.", timeout=60_000)


def test_a_slow_answer_is_waited_for_visibly(
    open_page: OpenPage, scripted: ScriptedEndpoint
) -> None:
    """While the model thinks, so does the avatar."""
    page = open_page("?mode=chat")
    scripted.chat[:] = [Answer(Pause(3), "Well, it is so.")]
    send(page, "Why?")
    expect(page.locator("#status")).to_have_text("Thinking", timeout=30_000)
    expect(page.locator("#picture")).to_have_attribute("data-phase", "thinking")
    expect(avatar_said(page)).to_have_text("Well, it is so.", timeout=60_000)


# -- a connection that is lost --------------------------------------------------------------------


def test_a_lost_connection_goes_on_where_it_broke(
    open_page: OpenPage, proxy: CutProxy, scripted: ScriptedEndpoint
) -> None:
    """Cut in the middle of an answer: all of it is heard, to its end, once the network is back."""
    text = "The first sentence is long enough. So is the second one, which follows it at once."
    scripted.chat[:] = [Answer(text)]
    page = open_page("?mode=chat", of=proxy)
    send(page, "Tell me something.")
    page.wait_for_function("watch.playback.at(-1)?.position_ms > 300", timeout=60_000)
    proxy.cut()
    page.wait_for_timeout(2500)
    proxy.mend()
    expect(avatar_said(page)).to_have_text(text, timeout=60_000)
    expect(page.locator("#log .avatar")).to_have_attribute("data-state", "done", timeout=30_000)
    expect(page.locator("#notice")).to_be_hidden()
    assert page.evaluate("watch.events.filter(one => one === 'session.created').length") == 1
    assert page.evaluate("watch.events.includes('avatar.resumed')")
    assert page.complaints == []


def test_what_is_typed_while_the_connection_is_lost_is_answered(
    open_page: OpenPage, proxy: CutProxy
) -> None:
    """The page says that it reconnects, keeps what you type, and sends it once it is back."""
    page = open_page("?mode=chat", of=proxy)
    send(page, "One.")
    wait_for_event(page, "avatar.resumable")
    expect(page.locator("#status")).to_have_text("Connected", timeout=60_000)
    proxy.cut()
    expect(page.locator("#status")).to_have_text("Reconnecting")
    expect(page.locator("#notice")).to_contain_text("connection to the server was lost")
    send(page, "Two.")
    proxy.mend()
    expect(page.locator("#log .user span").last).to_have_text("Two.", timeout=60_000)
    expect(avatar_said(page)).to_have_count(2, timeout=60_000)
    expect(page.locator("#notice")).to_be_hidden()


def test_a_session_that_is_gone_is_begun_anew(
    open_page: OpenPage, server: PageServer, proxy: CutProxy
) -> None:
    """A server that was started again knows nothing: the page says so, and goes on talking."""
    page = open_page("?mode=chat", of=proxy)
    send(page, "One.")
    expect(avatar_said(page)).to_have_count(1, timeout=60_000)
    server.stop()
    server.start()
    expect(page.locator("#log .note span")).to_contain_text("new conversation", timeout=60_000)
    send(page, "Two.")
    expect(avatar_said(page)).to_have_count(2, timeout=60_000)

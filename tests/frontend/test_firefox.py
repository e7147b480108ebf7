"""The page in Firefox, with a sound card that is not there: what it plays, hears and shows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.browser import WATCH, assert_in_step, generations, once_more
from tests.firefox import Firefox, SoundCard, firefox, running, sound_card
from tests.page_server import PageServer

pytestmark = pytest.mark.browser

SENTENCE = "Good morning. The quick brown fox jumps over the lazy dog, and nobody minds at all."


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SoundCard]:
    firefox()
    with sound_card(tmp_path_factory.mktemp("sound")) as one:
        yield one


@pytest.fixture(scope="module")
def browser(card: SoundCard, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Firefox]:
    with running(tmp_path_factory.mktemp("firefox"), card) as one:
        one.before_each_page(WATCH.read_text())
        one.size(1280, 800)
        yield one


def open_page(browser: Firefox, server: PageServer, query: str) -> None:
    browser.goto(server.url + query)
    browser.wait_for("!document.querySelector('#start').disabled", 60)


def say(browser: Firefox, text: str) -> None:
    """Type it, and wait until it was said."""
    done = "watch.events.filter((one) => one === 'response.done').length"
    before = browser.evaluate(done)
    browser.evaluate(f"document.querySelector('#speak-text').value = {json.dumps(text)}")
    browser.evaluate("document.querySelector('#speak').requestSubmit()")
    browser.wait_for(f"{done} > {before}", 60)
    browser.wait_for("document.querySelector('#status').textContent === 'Connected'")


def test_firefox_keeps_face_and_speech_in_step(
    browser: Firefox, server: PageServer, quiet: Callable[[], None]
) -> None:
    """A typed text is said, its frames are shown once, within a refresh of their sound."""

    def check() -> None:
        open_page(browser, server, "?mode=parrot")
        quiet()
        say(browser, "One, two, three, four.")  # the first decodes of a page are slow
        say(browser, SENTENCE)
        browser.evaluate("new Promise((done) => setTimeout(done, 700))")
        report = browser.evaluate("watch.report()")
        assert_in_step(report, generations(report)[1], 100, within_ms=16, may_skip=True)

    once_more(check)
    assert browser.complaints == []


def test_firefox_hears_and_answers(
    browser: Firefox, server: PageServer, card: SoundCard, turn_wav: Path
) -> None:
    """What the microphone hears is transcribed and answered."""
    open_page(browser, server, "?mode=chat")
    browser.click("#start")
    browser.wait_for("document.querySelector('#status').textContent === 'Listening'")
    playing = card.play(turn_wav)
    try:
        browser.wait_for("document.querySelector('#log .user')", 60)
        browser.wait_for("document.querySelector('#log .avatar')", 60)
        browser.wait_for("watch.draws.length > 10", 60)
    finally:
        playing.terminate()
        playing.wait()
    assert browser.complaints == []


def test_firefox_is_interrupted_by_escape(browser: Firefox, server: PageServer) -> None:
    """Escape stops the answer, and the conversation keeps what was heard."""
    open_page(browser, server, "?mode=parrot")
    browser.evaluate(f"document.querySelector('#speak-text').value = {json.dumps(SENTENCE)}")
    browser.evaluate("document.querySelector('#speak').requestSubmit()")
    browser.wait_for("watch.playback.at(-1)?.position_ms > 1000", 60)
    browser.key("\ue00c")
    browser.wait_for("document.querySelector('#log .avatar')?.dataset.state === 'cut'")
    kept = browser.evaluate("document.querySelector('#log .avatar span').textContent")
    assert kept and SENTENCE.startswith(kept) and len(kept) < len(SENTENCE)

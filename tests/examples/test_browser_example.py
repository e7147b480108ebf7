"""The JavaScript example in a real browser, as a page that a reader would copy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser import FLAGS, chromium, microphone
from tests.examples.test_examples import EXAMPLES
from tests.fake_renderer import FakeRenderer
from tests.helpers import fake_engine, real_dialogues, running, settings
from tests.recorded_voice import RATE, spoken, write_wav

async_api = pytest.importorskip("playwright.async_api", reason="playwright is not installed")

pytestmark = pytest.mark.browser


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    """What the browser's microphone hears, again and again: a sentence and three seconds."""
    return write_wav(tmp_path / "in.wav", spoken("Hello. How do you do?") + bytes(6 * RATE))


async def test_the_page_speaks_hears_and_is_interrupted(wav: Path) -> None:
    """Its button speaks a text, its microphone is answered, and both play with reports."""
    engine = fake_engine(
        FakeRenderer(), create_dialogue=real_dialogues(tts={"engines": ("espeak",)})
    )
    async with (
        running(engine, settings(), EXAMPLES / "js") as server,
        async_api.async_playwright() as playwright,
    ):
        browser = await playwright.chromium.launch(
            executable_path=chromium(), args=[*FLAGS, *microphone(wav)]
        )
        page = await browser.new_page()
        sent: list[Any] = []
        faults: list[Any] = []
        page.on("pageerror", lambda error: faults.append(error))
        page.on("console", lambda message: message.type == "error" and faults.append(message.text))
        page.on("websocket", lambda socket: socket.on("framesent", lambda m: sent.append(m)))
        url = f"ws://127.0.0.1:{server.port}/v1/realtime"
        await page.goto(f"http://127.0.0.1:{server.port}/?url={url}")

        await page.wait_for_timeout(500)
        await page.fill("#text", "Hello, I am your avatar.")
        await page.click("text=Say it")
        await page.wait_for_function("Number(face.dataset.frames) > 25")
        assert await page.text_content("#captions") == "avatar: Hello, I am your avatar."

        shown = await page.evaluate("Number(face.dataset.frames)")
        await page.click("#mic")
        await page.wait_for_function(f"Number(face.dataset.frames) > {shown} + 25")
        await page.click("#stop")
        await browser.close()
    texts = [str(message) for message in sent if not isinstance(message, bytes)]
    assert sum("avatar.playback" in text for text in texts) >= 2
    assert [fault for fault in faults if "404" not in str(fault)] == []  # the favicon

"""The page in a real browser, against a real server: what a user sees, hears and is told.

Sync is measured from outside the player (``browser_watch.js``, ``browser_sync.py``).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.browser import (
    FAKE_DEVICE,
    assert_in_step,
    generations,
    microphone,
    once_more,
    report_of,
    wait_for_event,
)
from tests.browser_sync import WIRE_RATE, locate, output_of, response_audio
from tests.page_server import OTHER_ORIGIN, PageServer

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = pytest.mark.browser

SENTENCE = "Good morning. The quick brown fox jumps over the lazy dog, and nobody minds at all."

OpenPage = Callable[..., Any]


# -- sync -----------------------------------------------------------------------------------------


def test_speech_and_face_are_in_step(
    open_page: OpenPage, quiet: Callable[[], None], spoken_wav: Path
) -> None:
    """You speak, and each frame is on the screen within 10 ms of the sound it belongs to."""

    def check() -> None:
        page = open_page("?mode=mirror", flags=microphone(spoken_wav))
        quiet()
        page.click("#start")
        page.wait_for_timeout(15_000)
        report = report_of(page)
        page.close()
        assert_in_step(report, generations(report)[0], at_least_frames=300)

    once_more(check)


# -- what a user does -----------------------------------------------------------------------------


def test_typed_text_is_said_and_then_it_rests(
    open_page: OpenPage, quiet: Callable[[], None]
) -> None:
    """Without a microphone you type; it is said whole, in step, captioned, and then it rests."""

    def check() -> None:
        page = open_page("?mode=parrot")
        quiet()
        page.fill("#speak-text", SENTENCE)
        page.press("#speak-text", "Enter")
        expect(page.locator("#status")).to_have_text("Speaking", timeout=30_000)
        expect(page.locator("#said")).to_have_text(SENTENCE)
        expect(page.locator("#status")).to_have_text("Connected", timeout=30_000)
        report = report_of(page)
        page.close()
        generation = generations(report)[0]
        frames = [index for own, index, _ in report["received"] if own == generation]
        assert_in_step(report, generation, at_least_frames=len(frames))
        audio = response_audio(report, generation)
        assert len(frames) == int(np.ceil(len(audio) / WIRE_RATE * 25 - 1e-6))

    once_more(check)


# Compares every fifth frame, once no dissolve is over it, with the idle picture it was drawn on.
LAID = """async () => {
  const url = `avatars/${document.querySelector("input[name=avatar]:checked").value}`;
  const bytes = new DataView(await (await fetch(`${url}/idle.bin`)).arrayBuffer());
  const pixels = async (jpeg) => {
    const bitmap = await createImageBitmap(new Blob([jpeg], { type: "image/jpeg" }));
    const context = new OffscreenCanvas(bitmap.width, bitmap.height).getContext("2d");
    context.drawImage(bitmap, 0, 0);
    return context.getImageData(0, 0, bitmap.width, bitmap.height).data;
  };
  const idle = [];
  for (let at = 0; at < bytes.byteLength; ) {
    const length = bytes.getUint32(at, true);
    idle.push(await pixels(bytes.buffer.slice(at + 28, at + 4 + length)));
    at += 4 + length;
  }
  const canvas = document.querySelector("#face");
  window.laid = [];
  const compare = (timestamp) => {
    requestAnimationFrame(compare);
    const [, index, us, paint] = watch.draws.at(-1) ?? [];
    if (paint !== timestamp || watch.dissolved === paint || index % 5) return;
    const position = watch.cycleIndex + Math.floor((us * 25) / 1e6 + 1e-4);
    const turn = position % (2 * (idle.length - 1));
    const below = idle[turn < idle.length ? turn : 2 * (idle.length - 1) - turn];
    const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
    const [x, y, w, h] = watch.regions[index];
    let outside = 0;
    let inside = 0;
    for (let i = 0; i < data.length; i += 4) {
      const column = (i / 4) % canvas.width;
      const row = Math.floor(i / 4 / canvas.width);
      const difference = Math.abs(data[i + 1] - below[i + 1]);
      if (column >= x && column < x + w && row >= y && row < y + h) inside += difference;
      else outside = Math.max(outside, difference);
    }
    laid.push([index, outside, inside / (w * h), (w * h) / (canvas.width * canvas.height)]);
  };
  requestAnimationFrame(compare);
}"""


def test_the_mouth_is_laid_on_the_picture_it_was_drawn_on(open_page: OpenPage) -> None:
    """Only the mouth is sent; around it is the idle picture of that frame, to the last pixel."""
    page = open_page("?mode=parrot")
    page.evaluate(LAID)
    page.fill("#speak-text", SENTENCE)
    page.click("#speak-send")
    expect(page.locator("#status")).to_have_text("Speaking", timeout=30_000)
    expect(page.locator("#status")).to_have_text("Connected", timeout=30_000)
    assert page.complaints == []
    laid = np.array(page.evaluate("laid"))
    assert len(laid) >= 2  # a slow machine shows some of the frames only
    _, outside, inside, share = laid.T
    assert share.max() < 0.5
    assert outside.max() <= 1, f"around the mouth is another picture: {laid}"
    assert inside.mean() > 1, "the mouth is not there"


def test_whole_frames_can_be_sent(open_page: OpenPage, quiet: Callable[[], None]) -> None:
    """With `?region=full` whole pictures come, and are as much in step."""

    def check() -> None:
        page = open_page("?mode=parrot&region=full")
        quiet()
        page.fill("#speak-text", "Ten green bottles.")
        page.click("#speak-send")
        expect(page.locator("#status")).to_have_text("Speaking", timeout=30_000)
        expect(page.locator("#status")).to_have_text("Connected", timeout=30_000)
        report = report_of(page)
        page.close()
        assert_in_step(report, generations(report)[0], at_least_frames=15)

    once_more(check)


def test_escape_interrupts_at_once(open_page: OpenPage) -> None:
    """Escape: silence within 100 ms of sound, and the server is told, also what was shown."""
    page = open_page("?mode=parrot")
    page.fill("#speak-text", SENTENCE)
    page.click("#speak-send")
    expect(page.locator("#status")).to_have_text("Speaking", timeout=30_000)
    page.wait_for_function("watch.playback.at(-1)?.position_ms > 1200", timeout=30_000)
    frame = page.evaluate(
        """() => {
          document.dispatchEvent(new KeyboardEvent("keydown", { key: "Escape" }));
          return watch.context.currentTime;
        }"""
    )
    expect(page.locator("#status")).to_have_text("Connected")
    wait_for_event(page, "conversation.item.truncated")
    report = report_of(page)
    shown = {draw[1] for draw in report["draws"] if draw[0] == generations(report)[0]}
    assert report["playback"][-1]["frames_shown"] == len(shown) > 0
    output = output_of(report)
    audio = response_audio(report, generations(report)[0])
    start_s, _ = locate(output, audio[:WIRE_RATE])  # the second before Escape
    assert start_s < frame
    after = output.samples[int((frame + 0.1) * output.rate) - output.first :]
    assert len(after) > output.rate // 4
    assert np.abs(after).max() < 1e-3


def test_parrot_says_back_what_it_heard(open_page: OpenPage, turn_wav: Path) -> None:
    """In parrot mode the server finds the end of what you said and says it back."""
    page = open_page("?mode=parrot", flags=microphone(turn_wav))
    page.click("#start")
    expect(page.locator("#status")).to_have_text("Listening", timeout=30_000)
    wait_for_event(page, "input_audio_buffer.speech_started")
    wait_for_event(page, "response.created", timeout_ms=60_000)
    page.wait_for_function("watch.draws.length > 0", timeout=30_000)
    assert page.complaints == []


def test_the_level_meter_shows_that_you_are_heard(open_page: OpenPage, spoken_wav: Path) -> None:
    """The meter moves with the microphone."""
    page = open_page("?mode=mirror", flags=microphone(spoken_wav))
    page.click("#start")
    page.wait_for_function("+document.querySelector('#level').ariaValueNow > 30", timeout=20_000)


# -- what a user is told --------------------------------------------------------------------------


def test_a_refused_microphone_is_explained(open_page: OpenPage) -> None:
    """Permission denied: what to do stands there, and typing still works."""
    page = open_page("", flags=(FAKE_DEVICE,))
    devtools = page.context.browser.new_browser_cdp_session()
    devtools.send(
        "Browser.setPermission", {"permission": {"name": "microphone"}, "setting": "denied"}
    )
    page.click("#start")
    expect(page.locator("#notice")).to_contain_text("microphone is blocked", timeout=20_000)
    expect(page.locator("#start-label")).to_have_text("Start")
    page.fill("#speak-text", "I can still talk.")
    page.click("#speak-send")
    expect(page.locator("#status")).to_have_text("Speaking", timeout=30_000)


def test_a_missing_microphone_is_explained(open_page: OpenPage) -> None:
    """No microphone at all: the page says so."""
    page = open_page()
    page.evaluate(
        """() => {
          navigator.mediaDevices.getUserMedia = async () => {
            throw new DOMException("none", "NotFoundError");
          };
        }"""
    )
    page.click("#start")
    expect(page.locator("#notice")).to_contain_text("No microphone was found")


def test_a_lost_connection_is_said_and_mended(
    open_page: OpenPage, server: PageServer, spoken_wav: Path
) -> None:
    """The server goes away and comes back: the page says so, reconnects, and goes on talking."""
    page = open_page("?mode=mirror", flags=microphone(spoken_wav))
    page.click("#start")
    expect(page.locator("#status")).to_have_text("Speaking", timeout=30_000)
    server.stop()
    expect(page.locator("#notice")).to_contain_text("connection to the server was lost")
    expect(page.locator("#status")).to_have_text("Reconnecting")
    server.start()
    expect(page.locator("#notice")).to_be_hidden(timeout=60_000)
    expect(page.locator("#status")).to_have_text("Speaking", timeout=30_000)
    assert page.complaints == []


def test_a_server_that_loads_is_waited_for(open_page: OpenPage, server: PageServer) -> None:
    """While the model loads the page says so, and is ready when the server is."""
    page = open_page()
    page.route("**/readyz", lambda route: route.fulfill(status=503, json={"ready": False}))
    page.goto(server.url)
    expect(page.locator("#status")).to_have_text("The server is loading its model")
    expect(page.locator("#start")).to_be_disabled()
    page.unroute("**/readyz")
    expect(page.locator("#start")).to_be_enabled(timeout=30_000)


# -- for everyone ---------------------------------------------------------------------------------


def test_nothing_runs_off_the_screen(open_page: OpenPage) -> None:
    """From a small phone to a desk: no sideways scrolling, every control within the page."""
    page = open_page()
    for width in (320, 390, 820, 1280):
        page.set_viewport_size({"width": width, "height": 800})
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for control in page.locator("button:visible, input:visible, select:visible").all():
            place = control.bounding_box()
            assert place and place["x"] >= -1 and place["x"] + place["width"] <= width + 1


def test_everything_is_reached_by_keyboard(open_page: OpenPage) -> None:
    """Tab reaches the start button, the text box, avatars, modes and microphone, visibly."""
    page = open_page()
    reached = set()
    for _ in range(14):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.id || document.activeElement.name"))
    assert {"start", "speak-text", "speak-send", "avatar", "mode", "microphone"} <= reached


def test_the_page_asks_only_its_own_server(open_page: OpenPage, server: PageServer) -> None:
    """No request leaves for anyone else, not even for a font."""
    page = open_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.reload()
    expect(page.locator("#start")).to_be_enabled(timeout=30_000)
    page.wait_for_timeout(300)
    assert asked
    assert [url for url in asked if not url.startswith((server.url, "data:", "blob:"))] == []


ELSEWHERE = """async (url) => {
  const listed = await fetch(url + "api/avatars").then((answer) => answer.json());
  const idle = await fetch(url + listed.avatars[0].urls.idle_frames);
  const session = await new Promise((resolve, reject) => {
    const socket = new WebSocket(url.replace("http", "ws") + "v1/realtime");
    socket.onmessage = ({ data }) => resolve(JSON.parse(data).type);
    socket.onerror = () => reject(new Error("the WebSocket was refused"));
  });
  return [listed.avatars.length, (await idle.arrayBuffer()).byteLength > 1000, session];
}"""


@pytest.mark.parametrize("origin", [OTHER_ORIGIN, "http://localhost:10"])
def test_a_page_elsewhere_needs_to_be_listed(
    open_page: OpenPage, server: PageServer, origin: str
) -> None:
    """A listed page, isolated too, reads lists and pictures and connects; another one does not."""
    # The page below has no network address: Chromium would ask before it may reach this machine.
    page = open_page(flags=("--disable-features=LocalNetworkAccessChecks",))
    isolated = {"Cross-Origin-Embedder-Policy": "require-corp"}
    page.route(f"{origin}/**", lambda route: route.fulfill(body="<html>", headers=isolated))
    page.goto(f"{origin}/")
    if origin == OTHER_ORIGIN:
        assert page.evaluate(ELSEWHERE, server.url) == [2, True, "session.created"]
    else:
        with pytest.raises(sync_api.Error, match="Failed to fetch"):
            page.evaluate(ELSEWHERE, server.url)


# -- the product, for as long as it takes to drift -----------------------------------

# Last, because its server is a second one beside the one that the tests above measure.


@pytest.mark.slow
def test_a_minute_of_speech_stays_in_step(
    open_page: OpenPage, quiet: Callable[[], None], product: PageServer, spoken_wav: Path
) -> None:
    """With the model that ships, nothing drifts, drops or doubles in 60 s of real speech."""
    page = open_page("?mode=mirror", flags=microphone(spoken_wav), of=product)
    quiet()
    page.click("#start")
    page.wait_for_timeout(63_000)
    report = report_of(page)
    assert_in_step(report, generations(report)[0], at_least_frames=1450)

"""Sound that is not there: paused by the system, without a device; and a server out of its depth.

The system's part is played by the browser: a context is suspended from outside, or cannot start.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.browser import generations, once_more, report_of
from tests.browser_sync import WIRE_RATE, locate, measure, output_of, response_audio

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = pytest.mark.browser

SENTENCE = "Good morning. The quick brown fox jumps over the lazy dog, and nobody minds at all."
# resume() neither settles nor starts anything, until `device.plug()`: Firefox without a device.
NO_DEVICE = """
  const Native = window.AudioContext;
  window.device = { plugged: false, plug: () => (device.plugged = true) };
  window.AudioContext = class extends Native {
    constructor(...args) {
      super(...args);
      void super.suspend();
    }
    resume() {
      return device.plugged ? super.resume() : new Promise(() => {});
    }
  };
"""
NO_CONTEXT = """
  window.AudioContext = class {
    constructor() {
      throw new DOMException("no output device", "NotSupportedError");
    }
  };
"""
NO_WORKLET = """
  const native = AudioWorklet.prototype.addModule;
  AudioWorklet.prototype.addModule = function (url) {
    if (String(url).includes("playback")) return Promise.reject(new Error("not here"));
    return native.call(this, url);
  };
"""
# Whether the last response has begun to be heard, with a picture or without.
HEARD = """() => {
  const told = watch.playback.at(-1);
  return told !== undefined && told.response_id === watch.response.id && told.position_ms > 0;
}"""

OpenPage = Callable[..., Any]


def say(page: Any, text: str) -> None:
    page.fill("#speak-text", text)
    page.press("#speak-text", "Enter")


def pause_in_the_middle(page: Any) -> None:
    """Let it speak for two seconds, then stop its sound as a phone call would."""
    say(page, SENTENCE)
    page.wait_for_function("watch.playback.at(-1)?.position_ms > 1600", timeout=30_000)
    page.evaluate("watch.context.suspend()")
    expect(page.locator("#status")).to_have_text("Sound paused")


def test_paused_sound_is_said_and_nothing_moves(open_page: OpenPage) -> None:
    """The page says that sound was paused, and the position it reports stands at what was heard."""
    page = open_page("?mode=parrot")
    pause_in_the_middle(page)
    expect(page.locator("#resume")).to_be_visible()
    expect(page.locator("#resume")).to_contain_text("Sound was paused by the system")
    expect(page.locator("#resume")).to_contain_text("tap anywhere to go on")
    told = page.evaluate("watch.playback.length")
    page.wait_for_function("told => watch.playback.length >= told + 4", arg=told)
    report = report_of(page)
    later = [event["position_ms"] for event in report["playback"][told:]]
    assert len(set(later)) == 1, f"the position moves while nothing is heard: {later}"
    audio = response_audio(report, generations(report)[0])
    output = output_of(report)
    start_s, _ = locate(output, audio[:WIRE_RATE])
    rendered_ms = (output.first + len(output.samples)) / output.rate * 1000 - start_s * 1000
    assert 1600 < later[0] <= rendered_ms + 300, "blocks of 0.27 s of the recording are outstanding"


GESTURES: dict[str, Callable[[Any], None]] = {
    "a click": lambda page: page.mouse.click(5, 5),
    "a key": lambda page: page.keyboard.press("Shift"),
    "the page comes to the front": lambda page: page.evaluate(
        "document.dispatchEvent(new Event('visibilitychange'))"
    ),
}


@pytest.mark.parametrize("gesture", GESTURES)
def test_paused_sound_goes_on_in_step(
    open_page: OpenPage, quiet: Callable[[], None], gesture: str
) -> None:
    """It goes on where it stopped, without a gap, and frames are within 10 ms of it again."""

    def check() -> None:
        page = open_page("?mode=parrot")
        quiet()
        pause_in_the_middle(page)
        page.wait_for_timeout(2000)
        resumed_ms = page.evaluate("performance.now()")
        GESTURES[gesture](page)
        expect(page.locator("#status")).to_have_text("Speaking")
        expect(page.locator("#resume")).to_be_hidden()
        expect(page.locator("#status")).to_have_text("Connected", timeout=30_000)
        report = report_of(page)
        page.close()
        generation = generations(report)[0]
        sync = measure(report, generation)
        late = int(np.sum(np.abs(sync.errors_ms) > 10))
        print(
            f"{len(sync.indices)} frames, |pts - heard| p99 {sync.percentile(99):.1f} ms, "
            f"max {sync.percentile(100):.1f} ms, {late} beyond 10 ms"
        )
        assert sync.wander_ms < 0.5, "sound was lost"
        assert sync.indices == sorted(set(sync.indices)), "a frame came back"
        assert late <= max(1, len(sync.indices) // 100)
        received = [index for own, index, _ in report["received"] if own == generation]
        assert len(sync.indices) >= len(received) - 2, "one may be due while sound starts"
        first = min(draw[3] for draw in report["draws"] if draw[3] > resumed_ms)
        assert first - resumed_ms < 1000, "the face waited"
        audio = response_audio(report, generation)
        assert abs(report["playback"][-1]["position_ms"] - len(audio) / WIRE_RATE * 1000) <= 1

    once_more(check)


def test_a_pause_between_responses_loses_nothing(open_page: OpenPage) -> None:
    """What is said while sound is paused is heard from its beginning once sound goes on."""
    page = open_page("?mode=parrot")
    say(page, "One.")
    page.wait_for_function(HEARD, timeout=30_000)
    expect(page.locator("#status")).to_have_text("Connected", timeout=30_000)
    page.evaluate("watch.context.suspend()")
    expect(page.locator("#status")).to_have_text("Sound paused")
    page.evaluate("document.querySelector('#speak-text').value = 'Ten green bottles.'")
    page.evaluate("document.querySelector('#speak').requestSubmit()")
    page.wait_for_function(
        "watch.events.filter(one => one === 'response.output_audio.done').length === 2"
    )
    page.wait_for_timeout(1000)
    page.mouse.click(5, 5)
    page.wait_for_function(HEARD, timeout=30_000)
    expect(page.locator("#status")).to_have_text("Connected", timeout=30_000)
    report = report_of(page)
    generation = generations(report)[1]
    _, wander_ms = locate(output_of(report), response_audio(report, generation))
    assert wander_ms < 0.5


@pytest.mark.parametrize(
    "script", [NO_DEVICE, NO_CONTEXT, NO_WORKLET], ids=["no device", "no context", "no worklet"]
)
def test_without_a_device_the_face_speaks_all_the_same(
    open_page: OpenPage, quiet: Callable[[], None], script: str
) -> None:
    """No sound can start: the page says what is missing, and face and captions go on in time."""
    page = open_page("?mode=parrot", script=script)
    quiet()
    say(page, "Ten green bottles, standing on the wall.")
    expect(page.locator("#status")).to_have_text("Speaking, no sound", timeout=30_000)
    expect(page.locator("#sound-note")).to_contain_text("Connect a loudspeaker or headphones")
    expect(page.locator("#said")).to_have_text("Ten green bottles, standing on the wall.")
    expect(page.locator("#status")).to_have_text("Connected", timeout=30_000)
    page.wait_for_timeout(700)
    assert page.complaints == []
    draws = np.array(page.evaluate("watch.draws.map(([, , us, paint]) => [us / 1000, paint])"))
    assert np.all(np.diff(draws[:, 0]) >= 0), "a frame came back"
    offsets = draws[:, 1] - draws[:, 0]
    assert np.median(np.abs(offsets - np.median(offsets))) < 20, (
        "frames are not shown in their time"
    )
    audio_ms = page.evaluate(
        "Object.values(watch.responses)[0].reduce((n, [, b]) => n + b.length, 0) / 48"
    )
    assert abs(page.evaluate("watch.playback.at(-1).position_ms") - audio_ms) <= 1


def test_a_device_that_comes_later_is_used(open_page: OpenPage) -> None:
    """Headphones are plugged in and the user taps: the note goes, the next response is heard."""
    page = open_page("?mode=parrot", script=NO_DEVICE)
    say(page, "One.")
    expect(page.locator("#sound-note")).to_be_visible(timeout=30_000)
    expect(page.locator("#status")).to_have_text("Connected", timeout=30_000)
    page.evaluate("device.plug()")
    page.mouse.click(5, 5)
    expect(page.locator("#sound-note")).to_be_hidden()
    say(page, "Ten green bottles.")
    page.wait_for_function("watch.events.filter(one => one === 'response.created').length === 2")
    page.wait_for_function(HEARD, timeout=30_000)
    expect(page.locator("#status")).to_have_text("Connected", timeout=30_000)
    report = report_of(page)
    _, wander_ms = locate(output_of(report), response_audio(report, generations(report)[1]))
    assert wander_ms < 0.5


# -- what the server says of itself ---------------------------------------------------------------


def test_a_server_over_its_capacity_is_named(open_page: OpenPage) -> None:
    """A quiet note says why there are fewer pictures, for as long as it is so."""
    page = open_page("?mode=parrot")
    say(page, "One.")
    expect(page.locator("#status")).to_have_text("Connected", timeout=30_000)
    note = page.locator("#capacity")
    expect(note).to_be_hidden()
    over = {"type": "avatar.capacity", "over": True}
    page.evaluate("event => watch.receive(event)", over)
    expect(note).to_have_text("The server is over its capacity: fewer pictures")
    page.evaluate("event => watch.receive(event)", {**over, "over": False})
    expect(note).to_be_hidden()
    page.evaluate("event => watch.receive(event)", over)
    page.evaluate("watch.sockets.at(-1).close()")
    expect(note).to_be_hidden()


def test_a_response_that_ends_early_is_heard_to_its_end(open_page: OpenPage) -> None:
    """`incomplete`: what was received is played. `failed`: the reason is shown as well."""
    page = open_page("?mode=parrot")
    say(page, SENTENCE)
    expect(page.locator("#status")).to_have_text("Speaking", timeout=30_000)
    done = """([status, details]) => watch.receive({ type: "response.done",
      response: { ...watch.response, status, status_details: details } })"""
    page.evaluate(done, ["incomplete", {"type": "incomplete", "reason": "max_output_tokens"}])
    page.wait_for_timeout(300)
    expect(page.locator("#status")).to_have_text("Speaking")
    expect(page.locator("#notice")).to_be_hidden()
    error = {"type": "server_error", "code": "tts_failed", "message": "The voice broke off."}
    page.evaluate(done, ["failed", {"type": "failed", "error": error}])
    expect(page.locator("#notice")).to_contain_text("The voice broke off.")
    expect(page.locator("#status")).to_have_text("Speaking")
    page.evaluate(done, ["cancelled", {"type": "cancelled", "reason": "client_cancelled"}])
    expect(page.locator("#status")).to_have_text("Connected")

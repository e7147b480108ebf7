"""What is behind the avatar, chosen on the page, in a real browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.browser import generations, report_of
from tests.frontend.conftest import OpenPage

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = pytest.mark.browser

WAIT_MS = 60_000
CORNER, FACE = (10, 10), (256, 240)
BACKDROP = "getComputedStyle(document.getElementById('face')).background"


def choose(page: Any, name: str) -> None:
    page.get_by_role("radio", name=name, exact=True).check(force=True)


def say(page: Any, text: str) -> None:
    page.fill("#speak-text", text)
    page.click("#speak-send")
    page.wait_for_function("watch.events.includes('response.done')", timeout=WAIT_MS)
    page.wait_for_function("watch.draws.length > 0", timeout=WAIT_MS)


def alpha_at(page: Any, place: tuple[int, int]) -> int:
    """How opaque a pixel of the canvas is."""
    return page.evaluate(
        "([x, y]) => document.getElementById('face').getContext('2d')"
        ".getImageData(x, y, 1, 1).data[3]",
        list(place),
    )


def wait_until_cut_out(page: Any, alpha: int = 0) -> None:
    page.wait_for_function(
        "wanted => document.getElementById('face').getContext('2d')"
        ".getImageData(10, 10, 1, 1).data[3] === wanted",
        arg=alpha,
        timeout=WAIT_MS,
    )


def test_a_colour_is_behind_the_avatar_at_rest_and_in_speech(open_page: OpenPage) -> None:
    """The page draws it behind transparent pictures; no frame has the old background in it."""
    page = open_page("?mode=parrot")
    assert alpha_at(page, CORNER) == 255
    choose(page, "Teal")
    wait_until_cut_out(page)
    assert alpha_at(page, FACE) == 255
    assert "rgb(15, 110, 104)" in page.evaluate(BACKDROP)
    page.evaluate(
        """() => {
          const context = document.getElementById("face").getContext("2d");
          window.corners = new Set();
          const look = () => {
            const { data } = context.getImageData(10, 10, 1, 1);
            window.corners.add(data[3]);
            requestAnimationFrame(look);
          };
          look();
        }"""
    )
    say(page, "Hello there, and welcome to this page.")
    assert generations(report_of(page))
    assert page.evaluate("[...window.corners]") == [0]
    choose(page, "Night")  # nothing is asked of the server for that
    assert "rgb(23, 32, 42)" in page.evaluate(BACKDROP)
    choose(page, "Its own")
    wait_until_cut_out(page, 255)
    assert page.complaints == []


def test_a_picture_of_ones_own_is_remembered(open_page: OpenPage, tmp_path: Path) -> None:
    """It stays in the browser; what is no picture is said, and the choice stays."""
    Image.fromarray(np.full((40, 60, 3), (200, 30, 30), np.uint8)).save(tmp_path / "red.png")
    (tmp_path / "notes.txt").write_text("no picture")
    page = open_page()
    page.set_input_files("#backdrop-file", tmp_path / "notes.txt")
    expect(page.locator("#backdrop-problem")).to_contain_text("notes.txt is no picture")
    page.set_input_files("#backdrop-file", tmp_path / "red.png")
    wait_until_cut_out(page)
    expect(page.locator("#backdrop-problem")).to_be_hidden()
    expect(page.locator("#backdrop-choose")).to_be_visible()
    page.reload()
    page.wait_for_selector("#start:enabled", timeout=WAIT_MS)
    expect(page.get_by_role("radio", name="Picture", exact=True)).to_be_checked()
    wait_until_cut_out(page)
    assert "data:image/jpeg" in page.evaluate(BACKDROP)
    Image.new("RGBA", (60, 40)).save(tmp_path / "clear.png")
    kept = page.evaluate("localStorage['wsavatar.backdrop']")
    page.set_input_files("#backdrop-file", tmp_path / "clear.png")
    page.wait_for_function("kept => localStorage['wsavatar.backdrop'] !== kept", arg=kept)
    pixel = page.evaluate(
        """async () => {
          const picture = new Image();
          picture.src = localStorage["wsavatar.backdrop"];
          await picture.decode();
          const context = document.createElement("canvas").getContext("2d");
          context.drawImage(picture, 0, 0);
          return [...context.getImageData(5, 5, 1, 1).data];
        }"""
    )
    assert min(pixel) > 250  # white, where a JPEG would be black


def test_the_keyboard_chooses_too(open_page: OpenPage) -> None:
    """Arrow keys go through the choices, as in any group of radio buttons."""
    page = open_page()
    page.get_by_role("radio", name="Its own", exact=True).focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("radio", name="None", exact=True)).to_be_checked()
    wait_until_cut_out(page)
    assert "conic-gradient" in page.evaluate(BACKDROP)


def test_until_its_person_is_cut_out_an_avatar_has_its_own_background(open_page: OpenPage) -> None:
    """The page is ready, speaks, and says how far the search is; then all has the colour."""
    page = open_page("?mode=parrot")
    choose(page, "Teal")
    wait_until_cut_out(page)
    found: list[int] = []

    def answer(route: Any) -> None:
        if found:
            return route.fallback()
        progress = {"error": "not ready", "progress": "finding the person: 45 of 225 pictures"}
        return route.fulfill(status=503, json=progress)

    page.route("**/idle.bin?background=*", answer)
    page.reload()
    page.wait_for_selector("#start:enabled", timeout=WAIT_MS)
    assert alpha_at(page, CORNER) == 255
    expect(page.get_by_role("radio", name="Teal", exact=True)).to_be_checked()
    text = page.locator("#backdrop-text")
    expect(text).to_contain_text("Finding the person: 45 of 225 pictures.", timeout=WAIT_MS)
    say(page, "Hello.")
    assert generations(report_of(page))
    found.append(1)
    wait_until_cut_out(page)
    expect(text).to_have_text("")
    assert "rgb(15, 110, 104)" in page.evaluate(BACKDROP)
    assert page.complaints == []


def test_no_change_of_background_shows_nothing_in_between(open_page: OpenPage) -> None:
    """At no paint is the canvas transparent with nothing behind it."""
    page = open_page()
    choose(page, "Teal")
    wait_until_cut_out(page)
    page.evaluate(
        """() => {
          const canvas = document.getElementById("face");
          const context = canvas.getContext("2d");
          window.bare = 0;
          const look = () => {
            const isBehind = canvas.style.background !== "";
            if (context.getImageData(10, 10, 1, 1).data[3] < 250 && !isBehind) window.bare += 1;
            requestAnimationFrame(look);
          };
          look();
        }"""
    )
    choose(page, "Its own")
    wait_until_cut_out(page, 255)
    page.wait_for_function("document.getElementById('face').style.background === ''")
    choose(page, "Night")
    wait_until_cut_out(page)
    assert page.evaluate("window.bare") == 0
    assert page.complaints == []


def test_an_avatar_that_cannot_be_cut_out_keeps_its_background(open_page: OpenPage) -> None:
    """The page says why, in the server's words, and goes on."""
    page = open_page()
    why = "'ada' can have its original background only: the person cannot be told from it."
    page.route(
        "**/idle.bin?*",
        lambda route: route.fulfill(status=404, body=why, content_type="text/plain"),
    )
    choose(page, "Green screen")
    expect(page.locator("#backdrop-problem")).to_have_text(why, timeout=WAIT_MS)
    expect(page.get_by_role("radio", name="Its own", exact=True)).to_be_checked()
    assert alpha_at(page, CORNER) == 255
    assert page.complaints == []

""" "Save as video" in a real browser: a typed text becomes a file to download."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.frontend.conftest import OpenPage
from tests.frontend.test_browser_background import wait_until_cut_out
from wsavatar.media.video import open_video

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = pytest.mark.browser

WAIT_MS = 60_000


def save(page: Any, text: str) -> None:
    page.fill("#speak-text", text)
    page.click("#save-video")


def test_a_typed_text_becomes_a_video_to_download(open_page: OpenPage) -> None:
    """Without a conversation: the bar, then a link to a file that plays, named as one."""
    page = open_page()
    expect(page.locator("#saving-cancel")).to_be_hidden()
    save(page, "Hello there. I am a video.")
    link = page.locator("#saved-link")
    expect(link).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("#saving-text")).to_contain_text("The video is ready:")
    expect(page.locator("#saving-progress")).to_be_hidden()
    expect(page.locator("#speak-text")).to_have_value("Hello there. I am a video.")
    with page.expect_download() as downloaded:
        link.click()
    assert downloaded.value.suggested_filename == "avatar.mp4"
    file = page.evaluate(
        """async (url) => {
          const reply = await fetch(url);
          const data = new Uint8Array(await reply.arrayBuffer());
          return [reply.status, reply.headers.get("content-type"), data.length,
            new TextDecoder().decode(data.slice(4, 8))];
        }""",
        link.get_attribute("href"),
    )
    assert file[:2] == [200, "video/mp4"] and file[2] > 1000 and file[3] == "ftyp"
    assert page.complaints == []


def test_a_video_has_the_users_own_picture_behind_it(open_page: OpenPage, tmp_path: Path) -> None:
    """The one that is seen on the page, which the server gets for this video alone."""
    Image.fromarray(np.full((40, 60, 3), (200, 30, 30), np.uint8)).save(tmp_path / "red.png")
    page = open_page()
    page.set_input_files("#backdrop-file", tmp_path / "red.png")
    wait_until_cut_out(page)
    save(page, "Hello.")
    link = page.locator("#saved-link")
    expect(link).to_be_visible(timeout=WAIT_MS)
    with page.expect_download() as downloaded:
        link.click()
    downloaded.value.save_as(tmp_path / "got.mp4")
    with open_video(tmp_path / "got.mp4") as (_, shown):
        corners = [picture[4:12, 4:12].reshape(-1, 3).mean(axis=0) for _, picture in shown]
    assert len(corners) > 5
    assert np.abs(np.array(corners) - (200, 30, 30)).max() < 12
    assert page.complaints == []


def test_nothing_to_say_and_a_cancel_are_said(open_page: OpenPage) -> None:
    """An empty text asks for one; a video that is cancelled leaves nothing behind it."""
    page = open_page()
    page.click("#save-video")
    expect(page.locator("#saving-text")).to_contain_text("Type what it is to say")
    save(page, "…")
    expect(page.locator("#saving-text")).to_contain_text("no letter", timeout=WAIT_MS)
    save(page, "A long text that goes on and on. " * 100)
    page.click("#saving-cancel")
    expect(page.locator("#save-video")).to_be_enabled()
    expect(page.locator("#saving-text")).to_have_text("")
    expect(page.locator("#saved-link")).to_be_hidden()
    assert page.complaints == []

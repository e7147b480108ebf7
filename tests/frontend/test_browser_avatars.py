"""A new avatar in a real browser: dropped, chosen, photographed; renamed, deleted, refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.browser import FAKE_DEVICE
from tests.creation.drawn import drawn, write_film
from tests.frontend.making_server import MakingServer

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
expect = sync_api.expect

pytestmark = pytest.mark.browser

WAIT_MS = 60_000
CAMERA = (FAKE_DEVICE, "--use-fake-ui-for-media-stream")


@pytest.fixture(scope="module")
def making_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MakingServer]:
    server = MakingServer(tmp_path_factory.mktemp("making"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A photo, a video, a text that calls itself a photo, and 200 MB."""
    directory = tmp_path_factory.mktemp("files")
    photo = drawn(200, 200, (100, 92), 90)
    cv2.imwrite(str(directory / "Rose.jpg"), np.ascontiguousarray(photo[..., ::-1]))
    frames = (drawn(160, 160, (80 + 2 * np.sin(i / 6), 70), 70) for i in range(40))
    write_film(directory / "film.mp4", frames)
    (directory / "notes.jpg").write_text("This is a text.")
    (directory / "notes.txt").write_text("This is a text.")
    with (directory / "long.mp4").open("wb") as large:
        large.truncate(200 << 20)
    return directory


@pytest.fixture
def open_making(
    making_server: MakingServer, browsers: Callable[[tuple[str, ...]], Any]
) -> Iterator[Callable[..., Any]]:
    """Open the page; ``page.sockets`` are the WebSockets that it opened."""
    opened = []

    def open_one(*, flags: tuple[str, ...] = (), **context: Any) -> Any:
        page = browsers(flags).new_context(**context).new_page()
        opened.append(page)
        page.complaints, page.sockets = [], []
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.on("websocket", lambda socket: page.sockets.append(socket.url))
        page.goto(making_server.url)
        page.wait_for_selector("#start:enabled", timeout=WAIT_MS)
        return page

    yield open_one
    for page in opened:
        assert page.complaints == []
        page.context.close()


def drop(page: Any, file: Path) -> None:
    """Drag a file over the page and let it go, somewhere beside the zone."""
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('input'), "
        "{type: 'file', id: 'held', hidden: true}))"
    )
    page.set_input_files("#held", str(file))
    page.evaluate(
        """() => {
          const held = document.getElementById("held");
          const data = new DataTransfer();
          data.items.add(held.files[0]);
          held.remove();
          for (const kind of ["dragenter", "dragover", "drop"]) {
            const options = { dataTransfer: data, bubbles: true, cancelable: true };
            const event = new DragEvent(kind, options);
            document.querySelector("h1").dispatchEvent(event);
            window.dropped = event.defaultPrevented; // else the browser would open the file
          }
        }"""
    )


def chosen(page: Any) -> Any:
    return page.locator("#avatars input:checked")


def test_a_dropped_photo_becomes_the_chosen_avatar(
    open_making: Callable[..., Any], files: Path
) -> None:
    """With its stage, what the model sees of it, and its picture in the list and on the stage."""
    page = open_making()
    drop(page, files / "Rose.jpg")
    expect(page.locator("#job")).to_be_visible()
    expect(page.locator("#made")).to_be_visible(timeout=WAIT_MS)
    expect(page.locator("#job")).to_be_hidden()
    expect(page.locator("#made-name")).to_have_text("Rose is ready.")
    assert page.evaluate("document.getElementById('made-preview').naturalWidth") == 192
    expect(chosen(page)).to_have_value("rose")
    page.wait_for_function("document.getElementById('face').width === 200", timeout=WAIT_MS)


def test_a_chosen_video_becomes_an_avatar_on_a_phone(
    open_making: Callable[..., Any], files: Path
) -> None:
    """By the file picker, at 390 pixels; nothing is wider than the screen."""
    page = open_making(viewport={"width": 390, "height": 844})
    page.set_input_files("#file", str(files / "film.mp4"))
    expect(page.locator("#made-name")).to_have_text("Film is ready.", timeout=WAIT_MS)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    expect(chosen(page)).to_have_value("film")


def test_what_is_no_photo_is_refused_in_one_sentence(
    open_making: Callable[..., Any], files: Path
) -> None:
    """A text renamed .jpg by the server; another file and 200 MB before anything is sent."""
    page = open_making()
    drop(page, files / "long.mp4")
    problem = page.locator("#job-problem p")
    expect(problem).to_have_text(re.compile(r"long\.mp4 has 200 MB; the server takes 100"))
    drop(page, files / "notes.txt")
    expect(problem).to_have_text(re.compile("neither a photo nor a video"))
    assert page.sockets == []
    drop(page, files / "notes.jpg")
    expect(problem).to_have_text(re.compile(r"^notes\.jpg: [^\n]+\.$"), timeout=WAIT_MS)
    expect(page.locator("#drop")).to_be_visible()
    page.get_by_role("button", name="Dismiss").click()
    expect(problem).to_be_hidden()
    expect(chosen(page)).to_have_value("ada")


def test_several_files_are_taken_in_turn(open_making: Callable[..., Any], files: Path) -> None:
    """Each becomes an avatar, or says why not."""
    page = open_making()
    before = page.locator("#avatars input").count()
    chosen_files = [files / name for name in ("Rose.jpg", "notes.jpg", "film.mp4")]
    page.set_input_files("#file", [str(file) for file in chosen_files])
    expect(page.locator("#avatars input")).to_have_count(before + 2, timeout=WAIT_MS)
    expect(page.locator("#job")).to_be_hidden(timeout=WAIT_MS)
    expect(page.locator("#job-problem p")).to_have_text(re.compile(r"^notes\.jpg: [^\n]+\.$"))


def test_the_camera_gives_a_picture(open_making: Callable[..., Any]) -> None:
    """Its dialog can be left; a shot is sent like any photo, and here it shows no face."""
    page = open_making(flags=CAMERA)
    page.click("#camera")
    page.click("#camera-dialog button[value='']", timeout=WAIT_MS)
    expect(page.locator("#camera-dialog")).to_be_hidden()
    assert page.sockets == []
    page.click("#camera")
    page.click("#camera-dialog button[value=take]", timeout=WAIT_MS)
    expect(page.locator("#job-problem p")).to_have_text(
        re.compile(r"^me\.jpg: no face"), timeout=WAIT_MS
    )


def test_an_avatar_is_renamed_and_deleted(
    open_making: Callable[..., Any], making_server: MakingServer, files: Path
) -> None:
    """By keyboard too; deleting asks once more, and another avatar is then chosen."""
    page = open_making()
    expect(page.locator("#chosen")).to_be_hidden()  # the server's own cannot be changed
    page.set_input_files("#file", str(files / "film.mp4"))
    expect(page.locator("#made")).to_be_visible(timeout=WAIT_MS)
    id = chosen(page).input_value()
    page.focus("#rename")
    page.keyboard.press("Enter")
    page.keyboard.type("Eve")
    page.keyboard.press("Escape")
    expect(page.locator("#rename")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.type("Eve")
    page.keyboard.press("Enter")
    expect(page.locator("#rename")).to_be_focused()
    name = page.locator("#avatars label:has(input:checked) span")
    expect(name).to_have_text("Eve", timeout=WAIT_MS)
    page.focus("#delete")
    page.keyboard.press("Enter")
    expect(page.locator("#delete")).to_have_text("Delete for good")
    page.keyboard.press("Enter")
    expect(page.locator(f"#avatars input[value='{id}']")).to_have_count(0, timeout=WAIT_MS)
    expect(chosen(page)).to_have_value("ada")
    expect(chosen(page)).to_be_focused()
    assert not (making_server.directory / "uploads" / id).exists()


def test_a_file_put_into_the_folder_appears(
    open_making: Callable[..., Any], making_server: MakingServer, files: Path
) -> None:
    """Without a reload, and while no session is open."""
    page = open_making()
    target = making_server.directory / "avatars" / "Dropped.jpg"
    target.write_bytes((files / "Rose.jpg").read_bytes())
    expect(page.locator("#avatars input[value=dropped]")).to_have_count(1, timeout=WAIT_MS)
    expect(chosen(page)).to_have_value("ada")


def test_a_file_does_not_replace_a_page_that_may_make_no_avatars(
    making_server: MakingServer, browsers: Callable[[tuple[str, ...]], Any], files: Path
) -> None:
    """It is not taken, and a conversation would go on."""
    page = browsers(()).new_context().new_page()
    page.route(
        "**/api/avatars",
        lambda route: route.fulfill(json=route.fetch().json() | {"uploads": None}),
    )
    page.goto(making_server.url)
    page.wait_for_selector("#start:enabled", timeout=WAIT_MS)
    drop(page, files / "Rose.jpg")
    assert page.evaluate("window.dropped") is True
    expect(page.locator("#maker")).to_be_hidden()
    page.context.close()


def test_a_server_that_makes_no_videos_offers_none(open_making: Callable[..., Any]) -> None:
    """There is no button that would only be refused."""
    page = open_making()
    expect(page.locator("#speak-text")).to_be_visible()
    expect(page.locator("#save-video")).to_be_hidden()

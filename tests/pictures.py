"""The pictures at the top of README: ``python -m tests.pictures`` makes them anew.

A bundled avatar that speaks, as an animation; and the page in the middle of a conversation, whose
language model is a script. Needs Chromium and eSpeak NG.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
from PIL import Image

from tests.browser import FLAGS, WATCH, chromium
from tests.dialogue.scripted_endpoint import Answer, scripted_endpoint
from tests.page_server import PageServer, product_settings
from wsavatar.media.video import read_video

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
AVATAR = "mei"
SPOKEN = "Hello! I listen, I think, and I answer."
QUESTION = "What can you do?"
ANSWER = "I listen, I think, and I answer. My lips move with my voice, and you may interrupt me."
_SIDE = 288
_EVERY = 2  # of 25 frames a second


def speaking() -> Path:
    """An animation of the avatar, once through its sentence."""
    with tempfile.TemporaryDirectory() as folder:
        wav, film = Path(folder) / "speech.wav", Path(folder) / "film.mp4"
        subprocess.run(["espeak-ng", "-s", "150", "-w", wav, SPOKEN], check=True)
        render = [sys.executable, "run.py", "render", "--avatar", AVATAR]
        subprocess.run([*render, "--audio", wav, "-o", film], cwd=ROOT, check=True)
        _, frames = read_video(film)
    small = [
        Image.fromarray(cv2.resize(frame, (_SIDE, _SIDE), interpolation=cv2.INTER_AREA))
        for frame in frames[::_EVERY]
    ]
    path = PICTURES / "speaking.webp"
    duration_ms = 40 * _EVERY
    small[0].save(
        path, save_all=True, append_images=small[1:], duration=duration_ms, loop=0, quality=72
    )
    return path


async def page() -> Path:
    """The page while the avatar answers."""
    path = PICTURES / "page.png"
    async with scripted_endpoint() as script:
        script.chat[:] = [Answer(ANSWER)]
        await asyncio.to_thread(_photograph, script.url, path)
    return path


def _photograph(url: str, path: Path) -> None:
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        settings = product_settings(Path(folder))
        assert settings is not None, "the embedded model is not in this tree"
        engines = [f"llm.base_url={url}", f"asr.base_url={url}", "llm.api_key=any"]
        settings += [*engines, "asr.api_key=any", "tts.engines=espeak"]
        server = PageServer(settings, Path(folder) / "server.log")
        server.start()
        try:
            browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
            view = browser.new_page(viewport={"width": 1180, "height": 760})
            view.add_init_script(path=WATCH)
            view.goto(f"{server.url}?mode=chat&avatar={AVATAR}")
            view.wait_for_selector("#start:enabled", timeout=120_000)
            view.fill("#speak-text", QUESTION)
            view.press("#speak-text", "Enter")
            view.evaluate("document.activeElement.blur()")
            view.wait_for_function(  # and a frame of its speech is on the screen
                "document.querySelector('#said span').textContent.includes('I think') &&"
                " performance.now() - watch.draws.at(-1)[3] < 60"
            )
            view.screenshot(path=path)
            browser.close()
        finally:
            server.stop()


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    for made in (speaking(), asyncio.run(page())):
        print(f"{made.relative_to(ROOT)}: {made.stat().st_size >> 10} KiB")

"""Fixtures of the page's tests in a real browser: servers, Chromium, pages, microphones."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr

from tests.browser import FLAGS, WATCH, chromium, others_use
from tests.cut_proxy import CutProxy
from tests.dialogue.scripted_endpoint import ScriptedEndpoint, scripted_endpoint
from tests.page_server import PageServer, light_settings, product_settings

OpenPage = Callable[..., Any]


@pytest.fixture(scope="package")
def scripted() -> Iterator[ScriptedEndpoint]:
    """The language model and the recognition of the page's server: they answer as a test says."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="scripted endpoint")
    thread.start()

    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)

    serving = scripted_endpoint()
    try:
        yield run(serving.__aenter__())
        run(serving.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(scope="package")
def server(
    tmp_path_factory: pytest.TempPathFactory, scripted: ScriptedEndpoint
) -> Iterator[PageServer]:
    """One server for all tests of the page."""
    directory = tmp_path_factory.mktemp("server")
    engines = [f"llm.base_url={scripted.url}", f"asr.base_url={scripted.url}", "llm.api_key=any"]
    settings = [*light_settings(directory), *engines, "asr.api_key=any"]
    running = PageServer(settings, directory / "server.log")
    running.start()
    yield running
    running.stop()


@pytest.fixture
def product(tmp_path: Path) -> Iterator[PageServer]:
    """The product as it ships."""
    settings = product_settings(tmp_path)
    if settings is None:
        pytest.skip("the embedded model is not in this tree")
    running = PageServer(settings, tmp_path / "server.log")
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="package")
def browsers() -> Iterator[Callable[[tuple[str, ...]], Any]]:
    """Chromium with the flags asked for; one process for each set of flags."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    sync_api.expect.set_options(timeout=30_000)  # of 5 s a slow machine needs more
    with sync_api.sync_playwright() as playwright:
        running: dict[tuple[str, ...], Any] = {}

        def browser(flags: tuple[str, ...]) -> Any:
            if flags not in running:
                running[flags] = playwright.chromium.launch(
                    executable_path=chromium(),
                    args=[*FLAGS, *flags],
                    ignore_default_args=["--mute-audio"],
                )
            return running[flags]

        yield browser
        for one in running.values():
            one.close()


@pytest.fixture(scope="package")
def load_page(server: PageServer, browsers: Callable[[tuple[str, ...]], Any]) -> Callable[..., Any]:
    """Open the page, watched, as a visitor who was never here; the caller closes its context.

    ``script`` runs before all others in the page.
    """

    def load(
        query: str = "",
        *,
        flags: tuple[str, ...] = (),
        of: PageServer | CutProxy = server,
        script: str = "",
        **context: Any,
    ) -> Any:
        page = browsers(flags).new_context(**context).new_page()
        page.complaints = []
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        if script:
            page.add_init_script(script)
        page.add_init_script(path=WATCH)
        page.goto(of.url + query)
        page.wait_for_selector("#start:enabled", timeout=60_000)
        return page

    return load


@pytest.fixture
def open_page(load_page: OpenPage) -> Iterator[OpenPage]:
    """`load_page`, closed after the test: no page may burden the next one's measurement."""
    opened = []

    def open_one(*args: Any, **kwargs: Any) -> Any:
        opened.append(load_page(*args, **kwargs))
        return opened[-1]

    yield open_one
    for page in opened:
        page.context.close()


@pytest.fixture(scope="package")
def spoken_wav(samples_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A minute of real speech from its first word on, at the rate Chromium's microphone likes."""
    samples, rate = soundfile.read(samples_dir / "eng.wav", dtype="float32")
    samples = samples[int(np.argmax(np.abs(samples) > 0.05)) - rate // 4 :]
    path = tmp_path_factory.mktemp("speech") / "eng.wav"
    soundfile.write(path, soxr.resample(samples, rate, 48_000), 48_000, subtype="PCM_16")
    return path


@pytest.fixture(scope="package")
def turn_wav(spoken_wav: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One turn: three seconds of that speech, then silence for an answer."""
    samples, rate = soundfile.read(spoken_wav, dtype="float32")
    loud = int(np.argmax(np.abs(samples) > 0.05))
    turn = np.concatenate([samples[loud : loud + 3 * rate], np.zeros(15 * rate, np.float32)])
    path = tmp_path_factory.mktemp("turn") / "turn.wav"
    soundfile.write(path, turn, rate, subtype="PCM_16")
    return path


@pytest.fixture(scope="package")
def quiet(server: PageServer) -> Callable[[], None]:
    """Real time needs time: before a measurement, once page and server rest, others must too.

    Where a machine was busy for half a minute, the next tests wait a few seconds only.
    """
    patience_s = 30

    def wait() -> None:
        nonlocal patience_s
        shares = []
        for _ in range(patience_s):
            shares.append(others_use())
            if shares[-1] < 0.35:
                return
        patience_s = 4
        pytest.skip(f"others use {min(shares):.0%} of this machine: nothing real-time to measure")

    return wait

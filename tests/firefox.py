"""Firefox with a sound card that is not there: WebDriver BiDi, and PulseAudio's null sinks.

`Firefox` is as much of a driver as the page's tests need; Playwright drives a patched Firefox only.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import ClientConnection, connect

__all__ = ["Firefox", "SoundCard", "firefox", "sound_card"]

_START_S = 60.0
_PREFERENCES = {
    "browser.shell.checkDefaultBrowser": False,
    "browser.startup.homepage_override.mstone": "ignore",
    "browser.startup.page": 0,
    "app.update.auto": False,
    "datareporting.policy.dataSubmissionEnabled": False,
    "toolkit.telemetry.reportingpolicy.firstRun": False,
    "network.captive-portal-service.enabled": False,
    "network.connectivity-service.enabled": False,
    "media.autoplay.default": 0,
    "media.navigator.permission.disabled": True,
    "media.navigator.streams.fake": False,
}


def firefox() -> str:
    """Firefox's path; skips the test where there is none."""
    for name in (os.environ.get("FIREFOX", ""), "firefox-esr", "firefox"):
        if name and (found := shutil.which(name)):
            return found
    pytest.skip("no Firefox is installed (apt-get install firefox-esr)")


class SoundCard:
    """A loudspeaker that nobody hears, and a microphone that hears what is played to it."""

    def __init__(self, server: str) -> None:
        self.server = server

    def play(self, wav: Path) -> subprocess.Popen[bytes]:
        """Let the microphone hear this file."""
        command = ["paplay", f"--server={self.server}", "--device=microphone", str(wav)]
        return subprocess.Popen(command)


@contextmanager
def sound_card(directory: Path) -> Iterator[SoundCard]:
    """A PulseAudio server of its own; skips the test where there is none."""
    pulseaudio = shutil.which("pulseaudio")
    if pulseaudio is None:
        pytest.skip("no PulseAudio is installed (apt-get install pulseaudio)")
    socket = directory / "sound.socket"
    modules = [
        "module-null-sink sink_name=speaker",
        "module-null-sink sink_name=microphone",
        # Firefox leaves out monitors of loudspeakers, but not what is made of them.
        "module-remap-source source_name=heard master=microphone.monitor",
        f"module-native-protocol-unix auth-anonymous=1 socket={socket}",
    ]
    options = ["-n", "--daemonize=no", "--exit-idle-time=-1", "--use-pid-file=no"]
    for module in modules:
        options += ["-L", module]
    environment = os.environ | {"XDG_RUNTIME_DIR": str(directory), "HOME": str(directory)}
    with (directory / "pulse.log").open("wb") as log:
        process = subprocess.Popen([pulseaudio, *options], stderr=log, stdout=log, env=environment)
    try:
        server = f"unix:{socket}"

        def control(*words: str) -> bool:
            command = ["pactl", f"--server={server}", *words]
            return subprocess.run(command, capture_output=True, timeout=20).returncode == 0

        _wait_until(lambda: control("info"), process, directory / "pulse.log")
        assert control("set-default-sink", "speaker")
        assert control("set-default-source", "heard")
        yield SoundCard(server)
    finally:
        process.terminate()
        process.wait(30)


class Firefox:
    """One browser with one page. Scripts give JSON."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._count = 0
        self.complaints: list[str] = []
        self.call("session.new", capabilities={})
        self.call("session.subscribe", events=["log.entryAdded"])
        self._context = self.call("browsingContext.getTree")["contexts"][0]["context"]

    def call(self, method: str, **params: Any) -> Any:
        """A command of WebDriver BiDi. Raises RuntimeError where it fails."""
        self._count += 1
        number = self._count
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=90))
            if message.get("method") == "log.entryAdded":
                entry = message["params"]
                if entry["type"] == "javascript" and entry["level"] == "error":
                    self.complaints.append(entry["text"])
            if message.get("id") == number:
                if message["type"] == "error":
                    raise RuntimeError(f"{method}: {message['message']}")
                return message["result"]

    def before_each_page(self, script: str) -> None:
        self.call("script.addPreloadScript", functionDeclaration=f"() => {{ {script} }}")

    def goto(self, url: str) -> None:
        self.call("browsingContext.navigate", context=self._context, url=url, wait="complete")

    def size(self, width: int, height: int) -> None:
        viewport = {"width": width, "height": height}
        self.call("browsingContext.setViewport", context=self._context, viewport=viewport)

    def evaluate(self, expression: str) -> Any:
        """The value of an expression, or of its promise. Raises RuntimeError where it throws."""
        result = self.call(
            "script.evaluate",
            expression=f"(async () => JSON.stringify((await ({expression})) ?? null))()",
            target={"context": self._context},
            awaitPromise=True,
            userActivation=True,
        )
        if result["type"] == "exception":
            raise RuntimeError(result["exceptionDetails"]["text"])
        return json.loads(result["result"]["value"])

    def wait_for(self, condition: str, timeout_s: float = 30.0) -> None:
        """Until this is true in the page. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while not self.evaluate(f"!!({condition})"):
            if time.monotonic() > deadline:
                status = self.evaluate("document.querySelector('#status')?.textContent")
                raise TimeoutError(f"not in {timeout_s:g} s: {condition}; the page says {status!r}")
            time.sleep(0.1)

    def key(self, value: str, *, up: bool = True) -> None:
        """Press a key, and let it go."""
        actions = [{"type": "keyDown", "value": value}]
        if up:
            actions.append({"type": "keyUp", "value": value})
        self._perform({"type": "key", "id": "keyboard", "actions": actions})

    def click(self, selector: str) -> None:
        """With the mouse, in its middle."""
        x, y = self.evaluate(
            f"(({{left, top, width, height}}) => [left + width / 2, top + height / 2])"
            f"(document.querySelector({json.dumps(selector)}).getBoundingClientRect())"
        )
        actions = [
            {"type": "pointerMove", "x": round(x), "y": round(y)},
            {"type": "pointerDown", "button": 0},
            {"type": "pointerUp", "button": 0},
        ]
        self._perform({"type": "pointer", "id": "mouse", "actions": actions})

    def screenshot(self, path: Path) -> None:
        import base64

        data = self.call("browsingContext.captureScreenshot", context=self._context)["data"]
        path.write_bytes(base64.b64decode(data))

    def _perform(self, source: dict[str, Any]) -> None:
        self.call("input.performActions", context=self._context, actions=[source])


@contextmanager
def running(directory: Path, card: SoundCard) -> Iterator[Firefox]:
    """Firefox without a window, with a profile of its own."""
    profile = directory / "profile"
    profile.mkdir()
    lines = [f"user_pref({json.dumps(k)}, {json.dumps(v)});" for k, v in _PREFERENCES.items()]
    (profile / "user.js").write_text("\n".join(lines))
    command = [firefox(), "--headless", "--no-remote", "--profile", str(profile)]
    command += ["--remote-debugging-port=0", "about:blank"]
    environment = os.environ | {"PULSE_SERVER": card.server, "HOME": str(directory)}
    environment["MOZ_DISABLE_CONTENT_SANDBOX"] = "1"  # containers have no user namespaces
    log_file = directory / "firefox.log"
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
    try:
        marker = "WebDriver BiDi listening on "
        _wait_until(lambda: marker in log_file.read_text(errors="replace"), process, log_file)
        address = log_file.read_text(errors="replace").split(marker)[1].split()[0]
        with connect(f"{address}/session", max_size=2**28, compression=None) as socket:
            yield Firefox(socket)
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until(condition: Any, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while not condition():
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"did not start: {log.read_text(errors='replace')[-2000:]}")
        time.sleep(0.1)

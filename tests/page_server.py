"""A real server for the page's tests, in a process of its own.

What the page promises (order, sync, messages) does not depend on what the face looks like, and its
browser runs on the same cores: so its server has a small random model and drawn avatars. The
product's own model is measured apart.
"""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.error import URLError

import cv2
import numpy as np

from wsavatar.avatars.writing import write_avatar
from wsavatar.bench.server_process import free_port
from wsavatar.resources import embedded_weights

__all__ = ["OTHER_ORIGIN", "PageServer", "light_settings", "product_settings"]

ROOT = Path(__file__).parents[1]
OTHER_ORIGIN = "http://localhost:9"
_START_S = 600.0


class PageServer:
    """``python run.py serve``; started again, it takes the same port: nobody else is given it."""

    def __init__(self, settings: list[str], log: Path) -> None:
        self._settings = settings
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start and wait until it is ready. Raises RuntimeError with its log where it is not."""
        command = [sys.executable, "-u", "run.py", "serve", "--port", str(self.port)]
        for setting in self._settings:
            command += ["--set", setting]
        with self._log.open("ab") as log:
            log.truncate(0)
            self._process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while not self._is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the server did not start:\n{self._log.read_text()[-3000:]}")
            time.sleep(0.1)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._process = None

    def _is_ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}readyz", timeout=5) as reply:
                return bool(reply.status == 200)
        except (URLError, OSError):
            return False


def light_settings(directory: Path) -> list[str]:
    """A small random model and two drawn avatars, written into ``directory``.

    Pages of `OTHER_ORIGIN` may use the server.
    """
    from wsavatar.faces.musetalk.random import write_random_model

    write_random_model(directory / "model", size="mini")
    for id, tint in (("ada", (160, 178, 196)), ("noor", (190, 170, 150))):
        _draw_avatar(directory / "avatars", id, tint)
    return [
        "tts.engines=espeak",
        f"server.allowed_origins={OTHER_ORIGIN}",
        f"model.path={directory / 'model'}",
        f"avatars.directory={directory / 'avatars'}",
        f"avatars.cache={directory / 'cache'}",
    ]


def product_settings(directory: Path) -> list[str] | None:
    """The embedded model and the bundled avatars (drawn ones while there are none); None: no model.

    The avatars' cache is the user's own: what was prepared once need not be again.
    """
    if not (embedded_weights() / "musetalkV15").is_dir():
        return None
    if any((ROOT / "avatars").glob("*/avatar.json")):
        return []
    _draw_avatar(directory / "avatars", "ada", (160, 178, 196))
    return [f"avatars.directory={directory / 'avatars'}", f"avatars.cache={directory / 'cache'}"]


def _draw_avatar(directory: Path, id: str, tint: tuple[int, int, int]) -> None:
    """Two seconds of an oval that sways, cut out of its background."""
    frames, landmarks = [], []
    for index in range(50):
        x = 256 + 8 * np.sin(index / 50 * 2 * np.pi)
        picture = np.full((512, 512, 3), tint, np.uint8)
        oval = (int(x), 240), (115, 165), 0, 0, 360
        cv2.ellipse(picture, *oval, (225, 180, 150), -1, cv2.LINE_AA)
        alpha = np.zeros((512, 512), np.uint8)
        cv2.ellipse(alpha, *oval, 255, -1, cv2.LINE_AA)
        frames.append(np.dstack([picture, alpha]))
        landmarks.append(_landmarks(x, 240.0))
    write_avatar(directory, id, id.title(), frames, 25, np.array(landmarks))


def _landmarks(x: float, y: float) -> np.ndarray:
    """68 points where the iBUG scheme has them, on an upright face."""

    def arc(cx: float, cy: float, a: float, b: float, angles: np.ndarray) -> np.ndarray:
        return np.stack([cx + a * np.cos(angles), cy + b * np.sin(angles)], axis=1)

    def ring(cx: float, cy: float, a: float, b: float, count: int) -> np.ndarray:
        return arc(cx, cy, a, b, np.pi + np.linspace(0, 2 * np.pi, count, endpoint=False))

    def line(x1: float, y1: float, x2: float, y2: float, count: int) -> np.ndarray:
        return np.linspace([x1, y1], [x2, y2], count)

    parts = [
        arc(x, y, 110, 150, np.linspace(np.pi, 0, 17)),
        line(x - 80, y - 70, x - 20, y - 70, 5),
        line(x + 20, y - 70, x + 80, y - 70, 5),
        line(x, y - 40, x, y + 20, 4),
        line(x - 18, y + 32, x + 18, y + 32, 5),
        ring(x - 50, y - 40, 18, 8, 6),
        ring(x + 50, y - 40, 18, 8, 6),
        ring(x, y + 75, 40, 10, 12),
        ring(x, y + 75, 30, 4, 8),
    ]
    return np.concatenate(parts)

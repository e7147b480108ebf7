"""Persons' masks while a server runs."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import threading
import numpy as np
from wsavatar.config import Settings
from wsavatar.errors import WsavatarError
from wsavatar.serve.person import mask_maker

begun = threading.Event()

class Mask:
    def masks(self, pictures, faces):
        begun.set()
        threading.Event().wait(0.02)
        return [np.zeros((64, 64), np.uint8)]

maker = mask_maker(Settings())
maker.make._mask = lambda: Mask()

def work():
    try:
        pictures = [np.zeros((64, 64, 3), np.uint8)] * 100_000
        for _ in maker.make(pictures, np.zeros((100_000, 68, 2))):
            pass
    except WsavatarError as error:
        print(error)

threading.Thread(target=work).start()
begun.wait()
"""


def test_a_server_that_ends_does_not_wait_for_masks() -> None:
    """Nor is it aborted, in the middle of a clip that takes minutes."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout.strip()) == (0, "the server stops"), ended.stderr

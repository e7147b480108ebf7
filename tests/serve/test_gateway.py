"""A server whose devices have processes of their own serves without a model in its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drawn_faces import face_video
from wsavatar.avatars.writing import write_avatar
from wsavatar.resources import embedded_weights

ROOT = Path(__file__).parents[2]

GATEWAY = """
import asyncio, json, sys
from websockets.asyncio.client import connect
from wsavatar.config import load_settings
from wsavatar.serve.assembly import load_engine
from wsavatar.serve.server import AvatarServer

settings = load_settings("embedded", {
    "server.host": "127.0.0.1",
    "server.port": 0,
    "model.devices": ("cpu",),
    "model.processes": "per_device",
    "tts.engines": ["espeak"],
    "render.max_lateness_ms": 10000,
    "avatars.directory": sys.argv[1],
})

async def speak():
    frames = 0
    async with AvatarServer(settings, load_engine) as server:
        await server.ready()
        url = f"ws://127.0.0.1:{server.port}/v1/realtime"
        async with connect(url, max_size=None) as socket:
            await socket.send(json.dumps({"type": "avatar.speak", "text": "Good morning."}))
            while True:
                event = json.loads(await socket.recv())
                assert event["type"] != "error", event
                frames += event["type"] == "response.video.delta"
                if event["type"] == "response.done":
                    break
    heavy = ("torch", "diffusers", "transformers", "openvino", "wsavatar.faces.musetalk.model")
    loaded = [name for name in heavy if name in sys.modules]
    status = event["response"]["status"]
    print(json.dumps({"status": status, "frames": frames, "loaded": loaded}))

if __name__ == "__main__":
    asyncio.run(speak())
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not embedded_weights().is_dir(), reason="the embedded model is not in this source tree"
)
def test_a_server_without_devices_of_its_own_loads_no_model(tmp_path: Path) -> None:
    """Sessions speak, frames come, and neither the model nor torch was imported where they live."""
    script = tmp_path / "gateway.py"
    script.write_text(GATEWAY)
    frames, landmarks = face_video(256, 256, 10, size=120)
    write_avatar(tmp_path / "avatars", "ada", "Ada", frames, 25, landmarks)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "avatars")],
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["status"] == "completed" and told["frames"] > 0
    assert told["loaded"] == []

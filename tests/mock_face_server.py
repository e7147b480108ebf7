"""A stand-in for the server: the page's protocol with drawn faces instead of a model's.

Serves the page, two drawn avatars and the WebSocket. `avatar.speak` is answered with a melody as
long as its text, `mirror` mode with the microphone's own sound; frames carry their number. It
checks nothing and is for the page's tests and for work on the page only:

    python -m tests.mock_face_server [PORT]
"""

from __future__ import annotations

import asyncio
import json
import struct
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

FPS = 25
RATE = 24_000
SIZE = 512
IDLE_FRAMES = 100
FRONTEND = Path(__file__).parents[1] / "frontend"
AVATARS = {"ada": (196, 178, 160), "noor": (150, 170, 190)}
HEADER = struct.Struct("<BBHIQHHHH")


@cache
def jpeg(avatar: str, index: int, opening: int) -> bytes:
    """A drawn head that sways with the cycle; ``opening`` in [0, 40] px; its index in a corner."""
    picture = np.full((SIZE, SIZE, 3), AVATARS[avatar], np.uint8)
    x = 256 + int(10 * np.sin(index / IDLE_FRAMES * 6.283))
    cv2.ellipse(picture, (x, 250), (120, 165), 0, 0, 360, (150, 180, 225), -1, cv2.LINE_AA)
    for eye in (-45, 45):
        cv2.ellipse(picture, (x + eye, 215), (16, 10), 0, 0, 360, (70, 60, 50), -1, cv2.LINE_AA)
    cv2.ellipse(picture, (x, 325), (42, 3 + opening), 0, 0, 360, (70, 60, 150), -1, cv2.LINE_AA)
    cv2.putText(picture, str(index), (12, 500), 0, 0.6, (90, 90, 90), 1, cv2.LINE_AA)
    return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()


def frame_message(generation: int, index: int, data: bytes) -> bytes:
    pts_us = index * 1_000_000 // FPS
    return HEADER.pack(1, 0, generation, index, pts_us, 0, 0, SIZE, SIZE) + data


class Session:
    """One connection: says what it is told to, or what it hears."""

    def __init__(self, socket: ServerConnection) -> None:
        self.socket = socket
        self.avatar, self.mode = "ada", "mirror"
        self.generation = 0
        self.task: asyncio.Task[None] | None = None
        self.heard: asyncio.Queue[bytes] = asyncio.Queue(1000)

    async def send(self, kind: str, **fields: Any) -> None:
        await self.socket.send(json.dumps({"type": kind, **fields}))

    async def run(self) -> None:
        await self.send("session.created", session={"id": "mock", "avatar": {"id": self.avatar}})
        async for message in self.socket:
            if isinstance(message, bytes):
                if self.mode == "mirror":
                    self.heard.put_nowait(message)
                    if self.task is None:
                        self.start(self.mirror())
            else:
                await self.event(json.loads(message))

    async def event(self, event: dict[str, Any]) -> None:
        if event["type"] == "session.update":
            wished = event["session"]["avatar"]
            self.avatar, self.mode = wished.get("id", self.avatar), wished["mode"]
            self.stop()
            await self.send("session.updated", session=event["session"])
        elif event["type"] == "avatar.speak":
            self.stop()
            self.start(self.melody(event["text"]))
        elif event["type"] == "response.cancel":
            self.stop()

    def start(self, work: Any) -> None:
        self.task = asyncio.create_task(work, name="mock response")

    def stop(self) -> None:
        if self.task:
            self.task.cancel()
            self.task = None

    async def melody(self, text: str) -> None:
        t = np.arange(int(RATE * (1 + 0.08 * len(text)))) / RATE
        loudness = 0.5 - 0.5 * np.cos(2 * np.pi * 3 * t)
        sound = loudness * 0.25 * np.sin(2 * np.pi * (200 + 20 * np.floor(t * 3) % 7) * t)
        pcm = (sound * 32767).astype("<i2").tobytes()
        rid = await self.begin()
        await self.send("response.output_audio_transcript.delta", response_id=rid, delta=text)
        step = RATE // 2 * 2
        sent = 0
        for start in range(0, len(pcm), step):
            sent = await self.chunk(pcm[start : start + step], start // 2, sent)
            await asyncio.sleep(0.15)
        await self.finish(rid, sent)

    async def mirror(self) -> None:
        sent, offset, waiting = 0, 0, b""
        await self.begin()
        while True:
            waiting += await self.heard.get()
            if len(waiting) < RATE:
                continue
            sent = await self.chunk(waiting, offset, sent)
            offset += len(waiting) // 2
            waiting = b""

    async def begin(self) -> str:
        self.generation += 1
        rid = f"resp_{self.generation}"
        await self.send("response.created", response={"id": rid, "generation": self.generation})
        await self.send(
            "session.avatar.switch_to_speaking",
            turn_id=rid,
            generation=self.generation,
            frame_index=0,
            cycle_index=0,
        )
        return rid

    async def chunk(self, pcm: bytes, offset: int, sent: int) -> int:
        pts = offset * 1_000_000 // RATE
        header = HEADER.pack(2, 0, self.generation, offset, pts, 0, 0, 0, 0)
        await self.socket.send(header + pcm)
        samples = np.frombuffer(pcm, "<i2") / 32768
        end = (offset + len(samples)) * FPS // RATE
        for index in range(sent, end):
            at = index * RATE // FPS - offset
            loud = np.abs(samples[max(0, at) : at + RATE // FPS]).mean() if at >= 0 else 0.0
            picture = jpeg(self.avatar, index % 198, int(min(40, 200 * loud)))
            await self.socket.send(frame_message(self.generation, index, picture))
        return end

    async def finish(self, rid: str, sent: int) -> None:
        await self.send("response.output_audio.done", response_id=rid)
        await self.send(
            "session.avatar.switch_to_idle",
            turn_id=rid,
            generation=self.generation,
            frame_index=sent,
            cycle_index=sent,
        )
        await self.send("response.done", response={"id": rid, "status": "completed"})


def http(_: ServerConnection, request: Request) -> Response | None:
    path = request.path.split("?")[0]
    if path == "/v1/realtime":
        return None
    types: Mapping[str, str] = {".js": "text/javascript", ".css": "text/css", ".html": "text/html"}
    parts = path.strip("/").split("/")
    if path == "/readyz":
        return reply(b"{}", "application/json")
    if path == "/api/avatars":
        avatars = [
            {"id": name, "name": name.title(), "urls": {"poster": f"avatars/{name}/poster.jpg"}}
            for name in AVATARS
        ]
        return reply(json.dumps({"avatars": avatars}).encode(), "application/json")
    if parts[0] == "avatars":
        return avatar_file(parts[1], parts[2])
    file = FRONTEND / (path.strip("/") or "index.html")
    if not file.is_file():
        return Response(404, "Not Found", Headers({"Content-Length": "0"}))
    return reply(file.read_bytes(), types.get(file.suffix, "application/octet-stream"))


def avatar_file(avatar: str, name: str) -> Response:
    if name == "avatar.json":
        about = {"fps": FPS, "frame_count": IDLE_FRAMES, "width": SIZE, "height": SIZE}
        return reply(json.dumps(about | {"name": avatar}).encode(), "application/json")
    if name == "poster.jpg":
        return reply(jpeg(avatar, 0, 0), "image/jpeg")
    messages = [frame_message(0, i, jpeg(avatar, i, 0)) for i in range(IDLE_FRAMES)]
    body = b"".join(struct.pack("<I", len(message)) + message for message in messages)
    return reply(body, "application/octet-stream")


def reply(body: bytes, content_type: str) -> Response:
    headers = {"Content-Type": content_type, "Content-Length": str(len(body))}
    isolation = {
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Embedder-Policy": "require-corp",
    }
    return Response(200, "OK", Headers(headers | isolation), body)


async def main(port: int) -> None:
    async def session(socket: ServerConnection) -> None:
        own = Session(socket)
        try:
            await own.run()
        finally:
            own.stop()

    async with serve(session, "127.0.0.1", port, process_request=http) as server:
        print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 0))

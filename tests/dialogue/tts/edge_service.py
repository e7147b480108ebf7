"""A service that speaks the protocol of Edge's online voices, for the real ``edge-tts`` package."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any
from xml.sax.saxutils import unescape

import av
import edge_tts.communicate
import numpy as np
import pytest
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

__all__ = ["VOICE", "EdgeService", "edge_service", "mp3_tone"]

VOICE = "en-US-AvaMultilingualNeural"


def mp3_tone(seconds: float, rate: int = 24_000) -> bytes:
    """A 440 Hz tone, really encoded, as the service sends it: MP3, mono, 48 kbit/s."""
    out = io.BytesIO()
    samples = 0.5 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * rate)) / rate)
    with av.open(out, "w", format="mp3") as container:
        stream = container.add_stream("mp3", rate=rate, layout="mono", bit_rate=48_000)
        frame = av.AudioFrame.from_ndarray(
            samples.astype(np.float32)[None], format="fltp", layout="mono"
        )
        frame.sample_rate = rate
        container.mux([*stream.encode(frame), *stream.encode(None)])
    return out.getvalue()


class EdgeService:
    """Speaks a tone for each text, in the ``voices`` it has, until a test says how it fails."""

    def __init__(self) -> None:
        self.voices = {VOICE}
        self.status = HTTPStatus.SWITCHING_PROTOCOLS
        self.wrong_clocks = 0
        """Handshakes to refuse because of their time, before any other."""
        self.handshakes_hang = False
        self.stall_after: int | None = None
        """Audio messages after which nothing more is sent, not even a closing handshake."""
        self.abort_after: int | None = None
        """Audio messages after which the connection is reset."""
        self.speaks: Callable[[str], bool] = lambda text: True
        """The texts that get audio; any other ends its turn without."""
        self.audio = mp3_tone(0.5)
        self.piece_bytes = 720
        self.handshakes = 0
        self.texts: list[str] = []
        self.open = 0
        self.address = ""
        self.asked = asyncio.Event()
        self.release = asyncio.Event()
        self._closed = asyncio.Condition()

    async def handshake(self, connection: ServerConnection, request: Request) -> Response | None:
        self.handshakes += 1
        if self.handshakes_hang:
            await self.release.wait()
        if self.wrong_clocks:
            self.wrong_clocks -= 1
            return connection.respond(HTTPStatus.FORBIDDEN, "What time is it?\n")
        if self.status == HTTPStatus.SWITCHING_PROTOCOLS:
            return None
        response = connection.respond(self.status, "no\n")
        del response.headers["Date"]
        return response

    async def serve(self, connection: ServerConnection) -> None:
        self.open += 1
        try:
            wanted = json.loads(str(await connection.recv()).partition("\r\n\r\n")[2])
            ssml = str(await connection.recv())
            await self._speak(connection, ssml, wanted["context"]["synthesis"]["audio"])
        except ConnectionClosed:
            pass
        finally:
            async with self._closed:
                self.open -= 1
                self._closed.notify_all()

    async def all_closed(self) -> None:
        """Waits until no connection is open."""
        async with self._closed:
            await self._closed.wait_for(lambda: self.open == 0)

    async def _speak(self, connection: ServerConnection, ssml: str, audio: dict[str, Any]) -> None:
        voice, text = re.findall(r"<voice name='(.*?)'>.*?<prosody.*?>(.*?)</prosody>", ssml)[0]
        self.texts.append(text)
        self.asked.set()
        locale, name = re.findall(r"\((.*), (.*)\)", voice)[0]
        if f"{locale}-{name}" not in self.voices:
            await connection.close(1007, f"Unsupported voice {voice}.")
            return
        await connection.send("X-RequestId:1\r\nPath:turn.start\r\n\r\n{}")
        if self.speaks(text):
            options = audio["metadataoptions"]
            by_word = options["wordBoundaryEnabled"] == "true"
            await self._words(
                connection, unescape(text), "WordBoundary" if by_word else "SentenceBoundary"
            )
            await self._audio(connection, text)
        await connection.send("X-RequestId:1\r\nPath:turn.end\r\n\r\n{}")
        await connection.wait_closed()

    async def _audio(self, connection: ServerConnection, text: str) -> None:
        pieces = range(0, len(self.audio), self.piece_bytes)
        for count, start in enumerate(pieces):
            if count == self.abort_after:
                connection.transport.abort()
            if count == self.stall_after:
                connection.transport.pause_reading()
                await self.release.wait()
                connection.transport.resume_reading()
            head = b"X-RequestId:1\r\nContent-Type:audio/mpeg\r\nPath:audio\r\n"
            piece = self.audio[start : start + self.piece_bytes]
            await connection.send(len(head).to_bytes(2, "big") + head + piece)

    async def _words(self, connection: ServerConnection, text: str, kind: str) -> None:
        """A tenth of a second each, a message each, without their marks, as the service does."""
        words = re.findall(r"[\w']+", text) if kind == "WordBoundary" else [text]
        for n, word in enumerate(words):
            times = {"Offset": n * 1_000_000, "Duration": 800_000}
            data = {**times, "text": {"Text": word, "Length": len(word)}}
            metadata = json.dumps({"Metadata": [{"Type": kind, "Data": data}]})
            await connection.send(f"X-RequestId:1\r\nPath:audio.metadata\r\n\r\n{metadata}")


@asynccontextmanager
async def edge_service(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[EdgeService]:
    """A running service, which ``edge-tts`` asks instead of Microsoft's."""
    service = EdgeService()
    server: Server
    async with serve(
        service.serve, "127.0.0.1", 0, process_request=service.handshake, close_timeout=0.1
    ) as server:
        port = server.sockets[0].getsockname()[1]
        service.address = f"ws://127.0.0.1:{port}/edge/v1?TrustedClientToken=x"
        monkeypatch.setattr(edge_tts.communicate, "WSS_URL", service.address)
        monkeypatch.setattr(edge_tts.communicate.DRM, "clock_skew_seconds", 0.0)
        for name in ("http_proxy", "ws_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)
        try:
            yield service
        finally:
            service.release.set()

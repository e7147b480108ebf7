"""What mode upstream adds to the sound's way, printed in milliseconds.

``python -m tests.dialogue.upstream.measure``: a scripted upstream sends 100 ms of sound ten times a
second, and the time is taken from its send to the client's receipt. Upstream, server and client
share one process and one core, so this is more than the server's own share; the same client on the
upstream's own socket is the line to compare with.
"""

from __future__ import annotations

import asyncio
import json
import time

import numpy as np
from websockets.asyncio.client import connect

from tests.dialogue.upstream.scripted import Talk, noise, scripted, visiting

DELTAS = 200
PACE_S = 0.1


async def send_sound(talk: Talk, sent: list[float]) -> None:
    await talk.create("resp_1")
    await talk.add_message("resp_1", "item_1")
    for number in range(DELTAS):
        pcm = noise(0.1, number)
        await asyncio.sleep(PACE_S)
        sent.append(time.perf_counter())
        await talk.sound("resp_1", "item_1", pcm)
    await talk.done("resp_1")


async def direct() -> list[float]:
    async with scripted() as upstream, connect(upstream.url, max_size=None) as socket:
        await socket.send(json.dumps({"type": "session.update", "session": {"type": "realtime"}}))
        talk, sent, got = await upstream.talk(), list[float](), list[float]()
        sending = asyncio.create_task(send_sound(talk, sent))
        async for message in socket:
            kind = json.loads(message)["type"]
            if kind == "response.output_audio.delta":
                got.append(time.perf_counter())
            elif kind == "response.done":
                break
        await sending
    return [b - a for a, b in zip(sent, got, strict=True)]


async def through(query: str) -> list[float]:
    async with visiting(query) as (client, talk):
        if query:
            video = {"avatar": {"video": {"encoding": "binary"}}}
            await client.send("session.update", session=video)
        await client.send("response.create")
        await talk.until("response.create")
        sent, got = list[float](), list[float]()
        sending = asyncio.create_task(send_sound(talk, sent))
        while True:
            message = await client.socket.recv()
            if isinstance(message, bytes):
                if message[0] == 2:
                    got.append(time.perf_counter())
                continue
            kind = json.loads(message)["type"]
            if kind == "response.output_audio.delta":
                got.append(time.perf_counter())
            elif kind == "response.done":
                break
        await sending
    return [b - a for a, b in zip(sent, got[:DELTAS], strict=True)]


async def main() -> None:
    for name, measured in (
        ("the upstream's own socket", await direct()),
        ("through the server, sound alone", await through("")),
        ("through the server, with frames", await through("?avatar=ada")),
    ):
        p50, p95 = np.percentile(np.array(measured) * 1000, (50, 95))
        print(f"{name:34} p50 {p50:5.2f} ms   p95 {p95:5.2f} ms   ({len(measured)} deltas)")


if __name__ == "__main__":
    asyncio.run(main())

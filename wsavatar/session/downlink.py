"""Encodes events, audio and frames for one client and puts them into its outbox.

It knows the encodings of the protocol, not what is said or when.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, cast

from wsavatar.config import Codec
from wsavatar.metrics import Metrics
from wsavatar.protocol.binary import pack_audio, pack_frame
from wsavatar.protocol.events import (
    ErrorEvent,
    OutputAudioDelta,
    ProtocolError,
    ServerEvent,
    VideoDelta,
)
from wsavatar.render.jobs import RenderedFrame
from wsavatar.session.outbox import Outbox, OutboxOverflow, OutgoingFrame, Settled

__all__ = ["Downlink"]


class Downlink:
    """The outgoing side of one client. No method waits or raises, except `overflowed`.

    When the outbox is full, nothing more is queued, and `overflowed` raises OutboxOverflow for the
    owner of the connection.
    """

    def __init__(self, outbox: Outbox, metrics: Metrics) -> None:
        self.outbox = outbox
        self.is_connected = True
        """Whether a connection sends the outbox."""
        self._metrics = metrics
        self._overflow: OutboxOverflow | None = None
        self._overflowed = asyncio.Event()

    async def overflowed(self) -> None:
        """Wait until the outbox is full; raises OutboxOverflow."""
        await self._overflowed.wait()
        assert self._overflow is not None
        raise self._overflow

    def event(self, event: ServerEvent) -> None:
        self._put(event.to_json())

    def error(self, error: ProtocolError) -> None:
        """Send an error event, and count it."""
        self._metrics.errors.labels(error.code).inc()
        self.event(ErrorEvent.of(error))

    def audio(
        self,
        pcm: bytes,
        *,
        binary: bool,
        part: Mapping[str, Any],
        generation: int,
        offset: int,
        rate: int,
        sent: Callable[[], None],
    ) -> None:
        """Audio in the client's format; ``offset`` counts its samples from the response's start.

        ``part``: the ids of the message's part. ``sent`` is called once the socket has taken it.
        """
        payload: str | bytes
        if binary:
            payload = pack_audio(generation, offset, offset * 1_000_000 // rate, pcm)
        else:
            payload = OutputAudioDelta(delta=pcm, **part).to_json()
        self._put(payload, generation, sent)

    def frame(
        self,
        frame: RenderedFrame,
        *,
        binary: bool,
        response_id: str,
        output_index: int,
        settled: Callable[[Settled], None],
        is_late: Callable[[], bool],
    ) -> None:
        """Queue a frame (`OutgoingFrame`)."""

        def encode() -> str | bytes:
            if binary:
                return pack_frame(
                    frame.generation,
                    frame.frame_index,
                    frame.pts_us,
                    frame.region,
                    frame.data,
                    frame.codec,
                )
            return VideoDelta(
                response_id=response_id,
                output_index=output_index,
                codec=cast("Codec", frame.codec),
                frame_index=frame.frame_index,
                pts_ms=frame.pts_us / 1000,
                region=frame.region,
                generation=frame.generation,
                delta=frame.data,
            ).to_json()

        self.outbox.put_frame(
            OutgoingFrame(frame.generation, len(frame.data), encode, settled, is_late)
        )

    def _put(
        self,
        payload: str | bytes,
        generation: int | None = None,
        sent: Callable[[], None] | None = None,
    ) -> None:
        if self._overflow is not None:
            return
        try:
            self.outbox.put(payload, generation=generation, sent=sent)
        except OutboxOverflow as error:
            self._overflow = error
            self._overflowed.set()

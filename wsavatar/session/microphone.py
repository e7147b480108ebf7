"""A session's microphone: bytes of the client's format in, samples for the dialogue out.

It keeps audio that is not committed yet, at the client's rate, and the half sample at the end of a
binary message. It knows formats and bounds, not turns or events.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsavatar.dialogue.conversation import Recording
from wsavatar.media.audio import AudioError, InputBuffer, decode, resample
from wsavatar.protocol.events import (
    AudioFormat,
    InputAudioPart,
    Item,
    ProtocolError,
    UserMessage,
)

__all__ = ["SHORTEST_COMMIT_S", "Microphone", "Pieces", "recording_of"]

SHORTEST_COMMIT_S = 0.1

Samples = NDArray[np.float32]


class Pieces:
    """Received audio in pieces of a second. ``seconds``: its duration."""

    def __init__(self, samples: Samples, rate: int) -> None:
        self.seconds = len(samples) / rate
        self._samples = samples
        self._rate = rate

    def __iter__(self) -> Iterator[Samples]:
        for start in range(0, len(self._samples), self._rate):
            yield self._samples[start : start + self._rate]


class Microphone:
    """One stream of input audio. ``max_seconds`` bounds the uncommitted audio."""

    def __init__(self, max_seconds: float) -> None:
        self._format = AudioFormat()
        self._max_seconds = max_seconds
        self._buffer = InputBuffer(self._format.rate, max_seconds)
        self._odd = b""  # half a sample, at the end of a binary message
        self._skip = 0  # bytes of the next one that are the rest of a refused sample
        self._heard_s = 0.0
        self._stopped = False

    @property
    def heard_ms(self) -> int:
        """Milliseconds of audio passed to the dialogue."""
        return round(1000 * self._heard_s)

    def push(self, data: bytes, *, binary: bool, must_fit: bool) -> Pieces:
        """Add a message's audio.

        Binary messages may be cut anywhere, so half a sample is kept for the next message.
        ``must_fit``: refuse audio that does not fit in the buffer; else drop the oldest. Raises
        ProtocolError; then nothing of the message is added.
        """
        size = self._format.bytes_per_sample
        whole, odd = data, b""
        if binary and data:
            whole = self._odd + data[self._skip :]
            cut = len(whole) - len(whole) % size
            whole, odd = whole[:cut], whole[cut:]
        try:
            samples = self._taken(whole, must_fit=must_fit)
        except ProtocolError:
            if binary and data:  # the rest of a sample that was refused comes with the next message
                self._skip, self._odd = (size - len(odd)) % size, b""
            raise
        if binary and data:
            self._odd, self._skip = odd, 0
        return Pieces(samples, self._format.rate)

    def _taken(self, data: bytes, *, must_fit: bool) -> Samples:
        if self._stopped:
            raise ProtocolError(
                "input_format_refused",
                "A session.update that asked for another input format was refused: this audio "
                "would be misread. Correct that update and send it again.",
                param="audio",
            )
        try:
            samples = decode(data, self._format.type)
            if not must_fit:
                self._buffer.keep_last(max(0, self._buffer.max_samples - len(samples)))
            self._buffer.append(samples if must_fit else samples[-self._buffer.max_samples :])
        except AudioError as error:
            raise ProtocolError(error.code, str(error), param="audio") from error
        return samples

    def heard(self, samples: Samples) -> None:
        """Count samples that were passed to the dialogue."""
        self._heard_s += len(samples) / self._format.rate

    def take(self) -> Recording:
        """Take all uncommitted audio. Raises ProtocolError if it is too short."""
        seconds = len(self._buffer) / self._format.rate
        if seconds < SHORTEST_COMMIT_S:
            raise ProtocolError(
                "input_audio_buffer_commit_empty",
                f"The buffer holds {seconds * 1000:.0f} ms of audio, at least "
                f"{SHORTEST_COMMIT_S * 1000:.0f} ms are needed.",
            )
        self._odd, self._skip = b"", 0
        return Recording(self._buffer.take(), self._format.rate)

    def clear(self) -> None:
        """Drop uncommitted audio and half a sample."""
        self._odd, self._skip = b"", 0
        self._buffer.clear()

    def committed(self) -> None:
        """The server committed a turn; the stream goes on."""
        self._buffer.clear()

    def stop(self) -> None:
        """Refuse audio until a format is agreed, because it could be misread."""
        self._stopped = True

    def change_format(self, form: AudioFormat) -> None:
        """Use this format from now on; audio in the buffer is kept."""
        self._stopped = False
        if form == self._format:
            return
        held, old, self._format = self._buffer.take(), self._format, form
        self._odd, self._skip = b"", 0
        self._buffer = InputBuffer(form.rate, self._max_seconds)
        self._buffer.append(resample(held, old.rate, form.rate)[: self._buffer.max_samples])


def recording_of(item: Item, form: AudioFormat, param: str = "item") -> Recording | None:
    """The audio of a client's item, if any.

    Raises ProtocolError that names the part; ``param`` is the item's path.
    """
    parts = []
    for index, part in enumerate(item.content if isinstance(item, UserMessage) else ()):
        if not isinstance(part, InputAudioPart) or not part.audio:
            continue
        try:
            parts.append(decode(part.audio, form.type))
        except AudioError as error:
            where = f"{param}.content[{index}].audio"
            raise ProtocolError(error.code, str(error), param=where) from error
    return Recording(np.concatenate(parts), form.rate) if parts else None

"""A session's microphone: bytes of the client's format in, samples for the dialogue out.

It keeps what is not committed yet, at the client's own rate, and the byte that a message may have
been cut in the middle of. Knows formats and bounds; not turns, not events.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from wsavatar.dialogue.conversation import Recording
from wsavatar.media.audio import AudioError, InputBuffer, decode, resample
from wsavatar.protocol.events import AudioFormat, Item, ProtocolError, UserMessage

__all__ = ["SHORTEST_COMMIT_S", "Microphone", "Pieces", "recording_of"]

SHORTEST_COMMIT_S = 0.1

Samples = NDArray[np.float32]


class Pieces:
    """Received audio, a second at a time. ``seconds``: how long it is."""

    def __init__(self, samples: Samples, rate: int) -> None:
        self.seconds = len(samples) / rate
        self._samples = samples
        self._rate = rate

    def __iter__(self) -> Iterator[Samples]:
        for start in range(0, len(self._samples), self._rate):
            yield self._samples[start : start + self._rate]


class Microphone:
    """One stream of input audio. ``max_seconds`` bounds what waits for a commit."""

    def __init__(self, max_seconds: float) -> None:
        self._format = AudioFormat()
        self._max_seconds = max_seconds
        self._buffer = InputBuffer(self._format.rate, max_seconds)
        self._odd = b""  # half a sample, at the end of a binary message
        self._heard_s = 0.0
        self._stopped = False

    @property
    def heard_ms(self) -> int:
        """Milliseconds of audio that the dialogue was given."""
        return round(1000 * self._heard_s)

    def push(self, data: bytes, *, binary: bool, must_fit: bool) -> Pieces:
        """Take a message's audio in.

        Binary messages may be cut anywhere in a stream, so the half of a sample waits for the next.
        ``must_fit``: refuse what does not fit in the buffer; else the oldest audio goes. Raises
        ProtocolError; then nothing of the message is taken.
        """
        if self._stopped:
            raise ProtocolError(
                "input_format_refused",
                "A session.update that asked for another input format was refused: this audio "
                "would be misread. Correct that update and send it again.",
                param="audio",
            )
        whole, odd = data, b""
        if binary:
            whole = self._odd + data
            cut = len(whole) - len(whole) % self._format.bytes_per_sample
            whole, odd = whole[:cut], whole[cut:]
        try:
            samples = decode(whole, self._format.type)
            if not must_fit:
                self._buffer.keep_last(max(0, self._buffer.max_samples - len(samples)))
                self._buffer.append(samples[-self._buffer.max_samples :])
            else:
                self._buffer.append(samples)
        except AudioError as error:
            raise ProtocolError(error.code, str(error), param="audio") from error
        self._odd = odd
        return Pieces(samples, self._format.rate)

    def heard(self, samples: Samples) -> None:
        """The dialogue was given these."""
        self._heard_s += len(samples) / self._format.rate

    def take(self) -> Recording:
        """Everything that is not committed. Raises ProtocolError where that is too little."""
        seconds = len(self._buffer) / self._format.rate
        if seconds < SHORTEST_COMMIT_S:
            raise ProtocolError(
                "input_audio_buffer_commit_empty",
                f"The buffer holds {seconds * 1000:.0f} ms of audio, at least "
                f"{SHORTEST_COMMIT_S * 1000:.0f} ms are needed.",
            )
        self._odd = b""
        return Recording(self._buffer.take(), self._format.rate)

    def clear(self) -> None:
        """Forget what is not committed, and half a sample."""
        self._odd = b""
        self._buffer.clear()

    def committed(self) -> None:
        """The server has committed a turn, in the middle of the stream."""
        self._buffer.clear()

    def stop(self) -> None:
        """Refuse audio until a format is agreed: the client may send what would be misread."""
        self._stopped = True

    def change_format(self, form: AudioFormat) -> None:
        """What comes from now on has this format; what is in the buffer stays."""
        self._stopped = False
        if form == self._format:
            return
        held, old, self._format = self._buffer.take(), self._format, form
        self._odd = b""
        self._buffer = InputBuffer(form.rate, self._max_seconds)
        self._buffer.append(resample(held, old.rate, form.rate)[: self._buffer.max_samples])


def recording_of(item: Item, form: AudioFormat) -> Recording | None:
    """The audio that a client put into an item, if it did. Raises ProtocolError."""
    if not isinstance(item, UserMessage) or not item.audio:
        return None
    try:
        return Recording(decode(item.audio, form.type), form.rate)
    except AudioError as error:
        raise ProtocolError(error.code, str(error), param="item.content") from error

"""Microsoft Edge's online voices, through the ``edge-tts`` package. Needs a network, no account.

MP3 is decoded as it arrives. The service says when each word is said.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from .base import (
    Chunks,
    Synthesizer,
    VoiceEngine,
    VoiceError,
    VoiceInfo,
    VoiceTimeout,
    VoiceUnreachable,
    WordTime,
)
from .streams import Mp3Decoder

if TYPE_CHECKING:
    import edge_tts

__all__ = ["EdgeEngine", "EdgeVoice"]

_DEFAULT = "en-US-AvaMultilingualNeural"
_NAME = re.compile(r"^[a-z]{2,3}-[A-Za-z-]+-[A-Za-z]+Neural$")
_TICKS = 10_000_000
"""The service's units of time in a second."""
_MAX_VOICES = 2000
_MAX_PASSED_OVER = 40
"""Characters between two words that the service times."""


class EdgeEngine(VoiceEngine):
    """Edge's service. Its voices are known when it was asked for them.

    ``connect_s``, ``audio_s``: as of `EdgeVoice`.
    """

    name = "edge"
    note = "The voices are Microsoft's, online: what the avatar says goes there."

    def __init__(self, *, connect_s: float = 4.0, audio_s: float = 8.0) -> None:
        self._patience = {"connect_s": connect_s, "audio_s": audio_s}
        self._voices: tuple[VoiceInfo, ...] = ()

    def problem(self) -> str:
        found = importlib.util.find_spec("edge_tts") is not None
        return "" if found else "The online voices need a package: pip install edge-tts"

    def synthesizer(self, name: str) -> Synthesizer:
        return EdgeVoice(name, **self._patience)

    def voices(self) -> Sequence[VoiceInfo]:
        return self._voices

    def knows(self, name: str) -> bool:
        return _NAME.match(name) is not None

    async def start(self) -> None:
        """The package takes half a second to import. The service is asked for nothing."""
        if not self.problem():
            await asyncio.to_thread(importlib.import_module, "edge_tts")

    async def look_up(self) -> None:
        import aiohttp
        import edge_tts

        if self._voices:
            return
        try:
            async with asyncio.timeout(self._patience["audio_s"]):
                listed = await edge_tts.list_voices()
            self._voices = tuple(
                VoiceInfo(one["ShortName"], one["FriendlyName"], one["Locale"], self.name)
                for one in listed[:_MAX_VOICES]
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise VoiceUnreachable(f"The online voice cannot be reached: {_why(error)}.") from error
        except (ValueError, LookupError, TypeError) as error:
            raise VoiceError(f"The online voices' list cannot be read: {error}.") from error


class EdgeVoice:
    """A `Synthesizer`. ``name`` as "de-DE-KatjaNeural"; anything else is an American English voice.

    ``connect_s``: how long the service may take to open a connection, and to answer its handshake;
    ``audio_s``: from the request to the first audio, and from there to the next.
    """

    def __init__(self, name: str = "", *, connect_s: float = 4.0, audio_s: float = 8.0) -> None:
        self.name = name if _NAME.match(name) else _DEFAULT
        self._connect_s = connect_s
        self._audio_s = audio_s

    times_words = True

    async def speak(self, text: str) -> Chunks:
        decoder = Mp3Decoder()
        at = 0  # behind the last word
        async with aclosing(self._messages(text)) as messages:
            async for message in messages:
                if message["type"] == "audio":
                    for samples in decoder.push(message["data"]):
                        yield samples
                elif message["type"] == "WordBoundary":
                    word = message["text"]
                    found = text.find(word, at, at + len(word) + _MAX_PASSED_OVER)
                    if found >= 0:
                        at = found + len(word)
                        times = message["offset"] / _TICKS, message["duration"] / _TICKS
                        yield WordTime(found, *times)
        for samples in decoder.flush():
            yield samples

    async def _messages(self, text: str) -> AsyncGenerator[Any, None]:
        """The service's messages: audio, and words.

        The handshake carries neither the text nor the voice's name. So whatever fails until it is
        done is `VoiceUnreachable`; whatever fails after it is a `VoiceError` of this text.
        """
        import aiohttp  # with edge-tts, half a second's import that only this voice needs
        from edge_tts.exceptions import EdgeTTSException, NoAudioReceived, SkewAdjustmentError

        try:
            async with aclosing(self._request(text).stream()) as messages:
                while True:
                    async with asyncio.timeout(self._audio_s):
                        message: Any = await anext(messages, None)
                    if message is None:
                        return
                    yield message
        except TimeoutError as error:
            if isinstance(error, aiohttp.ClientError):  # of the connection or the handshake
                raise VoiceUnreachable(
                    f"The online voice did not answer within {self._connect_s:g} s."
                ) from error
            raise VoiceTimeout(f"The online voice sent no audio for {self._audio_s:g} s.") from None
        except (aiohttp.ClientError, SkewAdjustmentError, OSError) as error:
            raise VoiceUnreachable(f"The online voice cannot be reached: {_why(error)}.") from error
        except NoAudioReceived:
            raise VoiceError(
                f"The online voice {self.name!r} sent no audio for this text: it does not speak "
                "its language, it was withdrawn, or the connection was lost."
            ) from None
        except (EdgeTTSException, ValueError, LookupError, TypeError) as error:
            raise VoiceError(f"The online voice's answer cannot be read: {error}.") from error

    def _request(self, text: str) -> edge_tts.Communicate:
        import aiohttp
        import edge_tts

        try:
            request = edge_tts.Communicate(text, self.name, boundary="WordBoundary")
        except ValueError as error:
            raise VoiceError(
                f"There is no online voice {self.name!r}; `edge-tts --list-voices` lists them."
            ) from error
        # Its own settings are whole seconds, and leave out the name look-up. `sock_read` ends with
        # the handshake.
        request.session_timeout = aiohttp.ClientTimeout(
            total=None, connect=self._connect_s, sock_read=self._connect_s
        )
        return request


def _why(error: Exception) -> str:
    """In words: aiohttp's own message shows a Python object."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__

"""Text made fit to be spoken: cleaned, bounded, cut into phrases. Pure."""

from __future__ import annotations

from wsavatar.errors import WsavatarError

from .clean import Cleaner, has_words
from .cutter import MAX_PHRASE_CHARS, PhraseCutter

__all__ = [
    "MAX_PHRASE_CHARS",
    "MAX_TEXT_CHARS",
    "PhraseCutter",
    "TextError",
    "phrases",
    "speakable",
]

MAX_TEXT_CHARS = 5_000


class TextError(WsavatarError, ValueError):
    """A text that cannot be spoken. ``code``: ``empty_text`` (nothing at all), ``nothing_to_say``
    (no letter and no digit) or ``text_too_long``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def speakable(text: str) -> str:
    """The text as `Cleaner` cleans it. Raises `TextError`."""
    if len(text) > MAX_TEXT_CHARS:
        raise TextError(
            "text_too_long", f"A text may have {MAX_TEXT_CHARS} characters, this has {len(text)}."
        )
    cleaned = Cleaner().push(text)
    if not cleaned:
        raise TextError("empty_text", "There is no text to say.")
    if not has_words(cleaned):
        raise TextError("nothing_to_say", "The text has no letter and no digit.")
    return cleaned


def phrases(text: str) -> list[str]:
    """A whole text in the phrases that `PhraseCutter` cuts it into."""
    cutter = PhraseCutter()
    return [*cutter.push(text), *cutter.flush()]

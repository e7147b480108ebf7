"""Text that is to be spoken: whether it can be, and the phrases that it is spoken in. Pure."""

from __future__ import annotations

from wsavatar.errors import WsavatarError

from .clean import Cleaner, has_words
from .cutter import MAX_PHRASE_CHARS, Phrase, PhraseCutter

__all__ = [
    "MAX_PHRASE_CHARS",
    "MAX_TEXT_CHARS",
    "Phrase",
    "PhraseCutter",
    "TextError",
    "check_speakable",
    "phrases",
]

MAX_TEXT_CHARS = 5_000


class TextError(WsavatarError, ValueError):
    """A text that cannot be spoken. ``code``: ``empty_text`` (nothing at all), ``nothing_to_say``
    (no letter and no digit outside of code blocks) or ``text_too_long``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def check_speakable(text: str, max_chars: int = MAX_TEXT_CHARS) -> None:
    """Raises `TextError` for a text of which nothing can be said."""
    if len(text) > max_chars:
        raise TextError(
            "text_too_long", f"A text may have {max_chars} characters, this has {len(text)}."
        )
    if not Cleaner().push(text):
        raise TextError("empty_text", "There is no text to say.")
    if not has_words(text) or all(phrase.silent for phrase in phrases(text)):
        raise TextError("nothing_to_say", "The text has no letter and no digit to say.")


def phrases(text: str) -> list[Phrase]:
    """A whole text in the phrases that `PhraseCutter` cuts it into."""
    cutter = PhraseCutter()
    return [*cutter.push(text), *cutter.flush()]

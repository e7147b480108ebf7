"""Text made fit to be spoken: cleaned, bounded, cut into phrases. Pure."""

from __future__ import annotations

import re
import unicodedata

from wsavatar.errors import WsavatarError

__all__ = ["MAX_PHRASE_CHARS", "MAX_TEXT_CHARS", "TextError", "phrases", "speakable"]

MAX_TEXT_CHARS = 5_000
MAX_PHRASE_CHARS = 200


class TextError(WsavatarError, ValueError):
    """A text that cannot be spoken. ``code``: ``empty_text`` (nothing at all), ``nothing_to_say``
    (no letter and no digit) or ``text_too_long``."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


# Control characters, format characters (bidi marks, joiners), surrogates, unassigned.
_UNSPOKEN = frozenset({"Cc", "Cf", "Cs", "Cn", "Co"})
_SENTENCE = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])|(?<=[;:])\s+(?=\S{3})")


def speakable(text: str) -> str:
    """The text in one line without what no voice can say. Raises `TextError`."""
    if len(text) > MAX_TEXT_CHARS:
        raise TextError(
            "text_too_long", f"A text may have {MAX_TEXT_CHARS} characters, this has {len(text)}."
        )
    kept = (" " if unicodedata.category(c) in _UNSPOKEN else c for c in text)
    line = " ".join("".join(kept).split())
    if not line:
        raise TextError("empty_text", "There is no text to say.")
    if not has_words(line):
        raise TextError("nothing_to_say", "The text has no letter and no digit.")
    return line


def has_words(text: str) -> bool:
    """Whether there is a letter or a digit of any script.

    Symbols alone ("...", "🙂", "%") are not words: some voices name them, in some languages, and
    others are silent or refuse the request.
    """
    return any(unicodedata.category(c)[0] in "LN" for c in text)


def phrases(line: str) -> list[str]:
    """The line cut where a speaker would breathe: its first sentence, so that speech begins early,
    then as many sentences together as `MAX_PHRASE_CHARS` hold."""
    parts: list[str] = []
    for sentence in _sentences(line):
        for piece in _fit(sentence):
            if len(parts) > 1 and len(parts[-1]) + len(piece) < MAX_PHRASE_CHARS:
                parts[-1] += " " + piece
            else:
                parts.append(piece)
    return parts


def _sentences(line: str) -> list[str]:
    """Cut behind the marks that end a sentence, the marks and closing quotes left in place."""
    ends = [match.end() for match in _SENTENCE.finditer(line)] + [len(line)]
    starts = [0, *ends]
    cut = [line[start:end].strip() for start, end in zip(starts, ends, strict=False)]
    return [sentence for sentence in cut if sentence]


def _fit(sentence: str) -> list[str]:
    """A sentence in pieces of at most `MAX_PHRASE_CHARS`: at a comma, else a space, else there."""
    pieces = []
    while len(sentence) > MAX_PHRASE_CHARS:
        head = sentence[:MAX_PHRASE_CHARS]
        cut = max(head.rfind(", "), head.rfind("，")) + 1
        if cut < MAX_PHRASE_CHARS // 3:
            cut = head.rfind(" ") + 1
        if cut < MAX_PHRASE_CHARS // 3:
            cut = MAX_PHRASE_CHARS
        pieces.append(sentence[:cut].strip())
        sentence = sentence[cut:].strip()
    return [*pieces, sentence] if sentence else pieces

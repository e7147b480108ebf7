"""A text as a voice should read it, which knows where in the written text each of its words is.

What every engine gets wrong is changed here: addresses are names of hosts, emoji and ornaments are
left out. What only some get wrong in one language is theirs (`english`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Spoken", "spoken_form"]


@dataclass(frozen=True, slots=True)
class Spoken:
    """``origins``: for each character of the text, the index of what it was written as."""

    text: str
    origins: tuple[int, ...]

    @classmethod
    def of(cls, text: str) -> Spoken:
        return cls(text, tuple(range(len(text))))

    def origin(self, at: int) -> int:
        """Where in the written text the character is that is at ``at`` here."""
        return self.origins[min(max(at, 0), len(self.origins) - 1)] if self.origins else 0

    def replaced(
        self, pattern: re.Pattern[str], new: str | Callable[[re.Match[str]], str]
    ) -> Spoken:
        """With every match replaced, as by `re.sub`."""
        texts: list[str] = []
        origins: list[int] = []
        done = 0
        for match in pattern.finditer(self.text):
            said = new(match) if callable(new) else match.expand(new)
            texts += self.text[done : match.start()], said
            origins += self.origins[done : match.start()]
            origins += _spread(match[0], said, self.origins[match.start() : match.end()])
            done = match.end()
        if not texts:
            return self
        texts.append(self.text[done:])
        origins += self.origins[done:]
        return Spoken("".join(texts), tuple(origins))


def _spread(written: str, said: str, origins: tuple[int, ...]) -> list[int]:
    """The origins of what is said instead: what both begin and end with, and evenly between."""
    shorter = min(len(written), len(said))
    begin = next((n for n in range(shorter) if written[n] != said[n]), shorter)
    left = shorter - begin
    end = next((n for n in range(left) if written[-1 - n] != said[-1 - n]), left)
    between = origins[begin : len(origins) - end] or origins[max(begin - 1, 0) :][:1]
    count = len(said) - begin - end
    return [
        *origins[:begin],
        *(between[index * len(between) // count] for index in range(count)),
        *origins[len(origins) - end :],
    ]


_EMOJI = re.compile(
    r"[0-9#*](?=\ufe0f?\u20e3)\ufe0f?\u20e3"
    r"|(?:[\u203c\u2049\u2139\u231a-\u23ff\u25aa-\u27bf\u2934\u2935\u2b00-\u2bff\u3030\u303d"
    r"\U0001f000-\U0001faff]|[\u2190-\u21ff\u00a9\u00ae\u2122](?=\ufe0f))"
    r"[\ufe0e\ufe0f\u200d\U0001f3fb-\U0001f3ff\U000e0020-\U000e007f]*"
)
_ADDRESS = re.compile(
    r"(?<![\w@.])(?:https?://|mailto:|www\.)(?:www\.)?"
    r"(?P<host>[\w-]+(?:\.[\w-]+)*)(?::\d+)?(?:[/?#]\S*?)?(?=[.,;:!?)\]}\"'”»]*(?:\s|$))",
    re.IGNORECASE,
)
_ORNAMENT = re.compile(r"[-=_*~#^|+<>]{3,}|[|¦]")
_ARROW = re.compile(r"\s*(?:[-=]+>|<[-=]+|[\u2190-\u21ff])\s*")
_LIST_MARK = re.compile(r"^\s*[-–—•‣◦*+]\s+")
_UNFINISHED = re.compile(r"(?<=[^\W_])[)\]\"'”’»*]*\s*$")
_BLANKS = re.compile(r"\s+")


def spoken_form(phrase: str) -> Spoken:
    """What any engine is to read for a phrase as it is written. May have no words.

    A line that ends without a mark, as a heading, is read as a sentence.
    """
    spoken = Spoken.of(phrase)
    spoken = spoken.replaced(
        _EMOJI, lambda emoji: emoji[0][0] if emoji[0][0] in "0123456789" else " "
    )
    spoken = spoken.replaced(_ADDRESS, r"\g<host>")
    spoken = spoken.replaced(_LIST_MARK, "")
    spoken = spoken.replaced(_ARROW, ", ")
    spoken = spoken.replaced(_ORNAMENT, " ")
    if phrase.endswith("\n"):
        spoken = spoken.replaced(_UNFINISHED, ".")
    return spoken.replaced(_BLANKS, " ").replaced(_EDGES, "")


_EDGES = re.compile(r"^\s+|\s+$")

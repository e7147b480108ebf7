"""Where sentences and clauses end, in cleaned text of any language, which need not be complete.

The language of a text is not known, so the rules are those that hold in most, and prefer a missed
end to a wrong one: two sentences in one phrase sound right, half a sentence does not. An end is
decided by what follows it up to the next letter or digit; while that has not come, it is open.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from .abbreviations import ALWAYS, BEFORE_NUMBERS
from .clean import PARAGRAPH

__all__ = ["COMMAS", "STOPS", "Cut", "Strength", "cuts"]


class Strength(IntEnum):
    """How good a place for a cut is."""

    WEAK = 1
    """A full stop before a lower-case letter: an abbreviation, or careless writing."""
    CLAUSE = 2
    SENTENCE = 3
    PARAGRAPH = 4


@dataclass(frozen=True, slots=True)
class Cut:
    """``at``: the index behind the mark, its closing quotes and brackets, and its emoji."""

    at: int
    strength: Strength


_STOPS = ".!?…‼⁇⁈⁉"  # end a sentence if a space follows
_FULL_STOPS = "。！？｡؟۔।॥։።፧፨។៕။᱾᠃꓿"  # end a sentence whatever follows
_COMMAS = ",;:·—–-"  # end a clause if a space follows
_FULL_COMMAS = "、，；：､،؛၊፣፥"
STOPS = frozenset(_STOPS + _FULL_STOPS)
COMMAS = frozenset(_COMMAS + _FULL_COMMAS)
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
_CLOSERS = "\"'”’»›«‹“)]}）】』」》〉〕］｣"
_MARK = re.compile(
    f"(?P<stop>[{_STOPS}{_FULL_STOPS}]+)|(?P<comma>[{re.escape(_COMMAS)}{_FULL_COMMAS}])"
    f"|(?<=[{_SPACELESS}])(?P<space> )(?=[{_SPACELESS}])|(?P<paragraph>{PARAGRAPH})"
)
_CLOSING = re.compile(f"[{re.escape(_CLOSERS)}{_STOPS}{_FULL_STOPS}]*")
_SPACED_CLOSING = re.compile(r" (?:[.!?…]+|»)(?![^\W_])")  # as in French, and in ". . ."

_EMOJI = frozenset({"So", "Sk", "Mn", "Me", "Cf"})
_QUOTES = frozenset("\"'”’»›«‹“』」》〉")
_SHORT_REST = re.compile(f"[{_STOPS}{_FULL_STOPS}]|{PARAGRAPH}")
_CLAUSE_REST = 12
"""A clause end is a place to cut only if at least so many characters follow in the sentence."""


def cuts(text: str, *, final: bool) -> Iterator[Cut]:
    """The places for a cut, in order, as far as they are decided; all, if the text is ``final``.

    More text never changes what was yielded. The end of a final text is none of them.
    """
    for mark in _MARK.finditer(text):
        if mark["paragraph"]:
            yield Cut(mark.start(), Strength.PARAGRAPH)
            continue
        follows = _following(text, mark.end())
        if follows.letter is None:
            if final:
                continue
            return  # open
        if mark["stop"]:
            strength = _stop_strength(text, mark, follows)
        elif _is_stop_of_alphabet(text, mark, follows):
            strength = Strength.SENTENCE
        elif mark["space"] or _ends_clause(text, mark, follows):
            strength = Strength.CLAUSE
            rest = text[follows.at : follows.at + _CLAUSE_REST]
            if _SHORT_REST.search(rest):
                continue
            if len(rest) < _CLAUSE_REST:
                if final:
                    continue
                return
        else:
            continue
        if strength is not None:
            yield Cut(follows.at, strength)


@dataclass(frozen=True, slots=True)
class _Following:
    """What stands behind a mark."""

    at: int
    """The end of closing quotes and brackets, further marks and emoji."""
    closers: str
    spaced: bool
    opened: bool
    """Something stands between ``at`` and the letter, as an opening quote."""
    letter: str | None
    """The next letter or digit. None: it has not come."""


def _following(text: str, start: int) -> _Following:
    closing = _CLOSING.match(text, start)
    assert closing is not None
    closers, at, spaced = closing[0], closing.end(), False
    position = at
    while position < len(text):
        if text[position] == " ":
            spaced = True
            if further := _SPACED_CLOSING.match(text, position):
                closers += further[0].strip()
                at = position = further.end()
                continue
        elif unicodedata.category(text[position]) in _EMOJI:
            spaced, at = True, position + 1
        else:
            break
        position += 1
    if text.startswith(PARAGRAPH, position):
        spaced = True
    opening = position
    while position < len(text) and not text[position].isalnum():
        position += 1
    letter = text[position] if position < len(text) else None
    return _Following(at, closers, spaced, position > opening, letter)


_STOPS_OF_ALPHABETS = re.compile("[\u0370-\u03ff\u1f00-\u1fff];|[\u0531-\u058a]:")


def _is_stop_of_alphabet(text: str, mark: re.Match[str], follows: _Following) -> bool:
    """The Greek question mark, and the Armenian full stop as it is often typed."""
    return (
        _STOPS_OF_ALPHABETS.match(text, max(mark.start() - 1, 0)) is not None
        and follows.spaced
        and not (follows.letter or "").islower()
    )


def _ends_clause(text: str, mark: re.Match[str], follows: _Following) -> bool:
    comma = mark["comma"]
    if comma in _FULL_COMMAS:
        return not (follows.letter or "").isdigit()
    if comma in "–-":  # a dash if spaces are around it
        return follows.spaced and text[: mark.start()].endswith(" ")
    return follows.spaced or comma == "—"


def _stop_strength(text: str, mark: re.Match[str], follows: _Following) -> Strength | None:
    stop, letter = mark["stop"] + follows.closers, follows.letter or ""
    word = _word_before(text, mark.start())
    if _is_full(stop):
        if stop == "۔" and (word in ALWAYS or (letter.isdigit() and not follows.spaced)):
            return None
        quoted = stop[-1] in _QUOTES and not follows.opened and not follows.spaced
        return None if quoted and _is_hiragana(letter) else Strength.SENTENCE
    if not follows.spaced:
        return Strength.SENTENCE if stop[-1] in "!?" and _is_ideograph(letter) else None
    if stop[0] == "." and "." not in stop[1:2] and _is_abbreviation(word, letter):
        return None
    if not letter.islower():
        return Strength.SENTENCE
    # It goes on in lower case: a quotation ("Why?" he said), a pause, or careless writing.
    return Strength.WEAK if mark["stop"] == "." else Strength.CLAUSE


def _is_full(stop: str) -> bool:
    return any(c in _FULL_STOPS for c in stop)


def _is_hiragana(c: str) -> bool:
    return "\u3040" <= c <= "\u309f"


def _is_ideograph(c: str) -> bool:
    return "\u3040" <= c <= "\u9fff"


_WORD = re.compile(r"[^\s\-–—\"'“”„‚«»‹›()\[\]{}¿¡*_]*$")
_DOTTED = re.compile(r"[^\W\d_]{1,3}(\.[^\W\d_]{1,3})+")
_ROMAN = re.compile(r"[IVXLCDM]{2,}")
_ORDINAL = re.compile(r"\d{1,3}|\d{1,2}\.\d{1,2}")


def _word_before(text: str, end: int) -> str:
    """The word before a mark, of 24 characters at most."""
    found = _WORD.search(text[max(end - 24, 0) : end])
    return found[0] if found else ""


def _is_abbreviation(word: str, letter: str) -> bool:
    """Whether a full stop after ``word`` and before ``letter`` ends no sentence: an abbreviation,
    an initial, an ordinal number."""
    lower = word.lower()
    return (
        lower in ALWAYS
        or (lower in BEFORE_NUMBERS and letter.isdigit())
        or lower.endswith("str")  # German streets
        or _is_initial(word)
        or _DOTTED.fullmatch(word) is not None
        or _ROMAN.fullmatch(word) is not None
        or _ORDINAL.fullmatch(word) is not None
        or (len(word) <= 4 and not word.isupper() and _has_no_vowel(lower))
    )


def _is_initial(word: str) -> bool:
    """One letter of an alphabet. A single syllable, as in Korean, is a word."""
    return (
        len(word) == 1
        and word.isalpha()
        and (word < "\u0700" or "\u10a0" <= word <= "\u10ff" or "\u1e00" <= word <= "\u1fff")
    )


_VOWELS = frozenset("aeiouyαεηιουωаеиоуыэюяіє")


def _has_no_vowel(lower: str) -> bool:
    """Of Latin, Greek or Cyrillic letters, among them no vowel."""
    base = [unicodedata.normalize("NFD", c)[0] for c in lower]
    return bool(base) and all(c.isalpha() and c < "\u0530" and c not in _VOWELS for c in base)

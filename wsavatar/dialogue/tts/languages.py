"""Which eSpeak NG voice reads a text: that of a voice's name, or that of the text's script. Pure.

A voice that does not know a script spells it ("Arabic letter …"), at five times the length.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

__all__ = ["DEFAULT", "espeak_voices", "is_espeak_voice", "language_of", "reads"]

DEFAULT = "en-us"

_OWN = re.compile(r"([a-z]{2,3})(-[a-z0-9]{1,8})*(\+[A-Za-z0-9]{1,16})?")
_EDGE = re.compile(r"([a-z]{2,3})-(?:[A-Za-z]+-)?([A-Z]{2,3})-\S+")
_PIPER = re.compile(r"([a-z]{2,3})_([A-Z]{2})-\S+")
_ALIASES = {"zh": "cmn", "zh-hk": "yue", "no": "nb", "iw": "he", "en-gb": "en", "pt-pt": "pt"}

_READERS = {
    # The first word of its letters' Unicode names: the languages whose voices read it, most spoken
    # first. Latin letters are read by every voice.
    "CYRILLIC": "ru uk be bg mk sr kk ky tt ba cv az uz",
    "ARABIC": "ar fa ur ug sd",
    "HEBREW": "he",
    "GREEK": "el grc",
    "ARMENIAN": "hy hyw",
    "GEORGIAN": "ka",
    "DEVANAGARI": "hi mr ne kok",
    "BENGALI": "bn as bpy",
    "GURMUKHI": "pa",
    "GUJARATI": "gu",
    "ORIYA": "or",
    "TAMIL": "ta",
    "TELUGU": "te",
    "KANNADA": "kn",
    "MALAYALAM": "ml",
    "SINHALA": "si",
    "THAI": "th",
    "MYANMAR": "my shn",
    "ETHIOPIC": "am ti",
    "HANGUL": "ko",
    "HIRAGANA": "ja",
    "KATAKANA": "ja",
    "CJK": "cmn yue ja hak",
}
_LETTERS = (  # of a language, among those of its script
    ("CYRILLIC", "іїєґ", "uk"),
    ("ARABIC", "ٹڈڑےں", "ur"),
    ("ARABIC", "پچژگکی", "fa"),
)


def espeak_voices(name: str, text: str) -> list[str]:
    """eSpeak's names of the voices to try, best first.

    ``name``: eSpeak's ("de", "en-gb+f3"), or another engine's ("de-DE-KatjaNeural"), of which the
    language is taken; anything else is American English.
    """
    voices = [*_named(name), DEFAULT]
    script = _script(text)
    readers = _READERS.get(script, "").split()
    if readers and not any(re.split(r"[-+]", voice)[0] in readers for voice in voices):
        voices.insert(0, _language(script, text) or readers[0])
    return voices


def language_of(name: str) -> str:
    """The language that a voice's name says, as "de" of "de-DE-KatjaNeural", "de_DE-thorsten-low"
    and "de+f3"; empty: none, as of "ash"."""
    if other := _EDGE.fullmatch(name) or _PIPER.fullmatch(name):
        return other[1]
    own = _OWN.fullmatch(name)
    return own[1] if own and (len(own[1]) == 2 or own[1] in ("cmn", "yue")) else ""


def is_espeak_voice(name: str) -> bool:
    """Whether a name is written as eSpeak's are: "de", "en-gb+f3"."""
    return _OWN.fullmatch(name) is not None and language_of(name) != ""


def reads(language: str, text: str) -> bool:
    """Whether a voice of this language ("en-US") reads the script of most of the text."""
    readers = _READERS.get(_script(text), "").split()
    base = language.lower().split("-")[0]
    return not readers or _ALIASES.get(base, base) in readers


def _named(name: str) -> list[str]:
    if other := _EDGE.fullmatch(name) or _PIPER.fullmatch(name):
        language, place = other[1], f"{other[1]}-{other[2].lower()}"
        if language == "es" and place != "es-es":
            place = "es-419"
        return [_ALIASES.get(place, place), _ALIASES.get(language, language)]
    language, plus, variant = name.partition("+")
    return [_ALIASES.get(language, language) + plus + variant] if _OWN.fullmatch(name) else []


def _script(text: str) -> str:
    """The script of most of the text; Japanese if there is any kana."""
    scripts: Counter[str] = Counter()
    for c in filter(str.isalpha, text):
        script = unicodedata.name(c, "?").split()[0]
        scripts[script] += 3 if script == "CJK" else 1  # an ideograph is a word or half of one
    if scripts["HIRAGANA"] or scripts["KATAKANA"]:
        return "HIRAGANA"
    return scripts.most_common(1)[0][0] if scripts else ""


def _language(script: str, text: str) -> str | None:
    for of_script, letters, language in _LETTERS:
        if script == of_script and any(c in letters for c in text):
            return language
    return None

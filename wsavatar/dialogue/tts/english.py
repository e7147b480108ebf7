"""English as eSpeak NG reads it right: money, units, dates, ranges and abbreviations in words.

eSpeak NG reads plain numbers, times and most names well; Piper's voices are read to by it. What is
here was heard to be wrong ("$5.20": "dollar five point two zero"; "Dr. Smith" and "J. R. R." end a
sentence). Engines with a reader of their own (Edge, endpoints) get the text as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .spoken import Spoken

__all__ = ["in_english"]

Rule = tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]


def in_english(spoken: Spoken) -> Spoken:
    """The text with what eSpeak NG reads wrong in words."""
    for pattern, new in _RULES:
        spoken = spoken.replaced(pattern, new)
    return spoken


# -- money ----------------------------------------------------------------------------------------

_MONEY = {
    "$": ("dollar", "dollars", "cent", "cents"),
    "£": ("pound", "pounds", "penny", "pence"),
    "€": ("euro", "euros", "cent", "cents"),
    "¥": ("yen", "yen", "sen", "sen"),
    "₹": ("rupee", "rupees", "paisa", "paise"),
}
_LARGE = {"k": "thousand", "m": "million", "b": "billion", "bn": "billion", "t": "trillion"}


def _money(match: re.Match[str]) -> str:
    one, many, part, parts = _MONEY[match["sign"]]
    whole, small, large = match["whole"], match["small"] or "", (match["large"] or "").strip()
    if large or len(small) not in (0, 2):
        amount = f"{whole}.{small}" if small else whole
        large = _LARGE.get(large.lower(), large)
        return f"{amount} {large} {many}" if large else f"{amount} {many}"
    name = one if whole == "1" else many
    cents = int(small or 0)
    if not cents:
        return f"{whole} {name}"
    said_cents = f"{cents} {part if cents == 1 else parts}"
    return said_cents if whole == "0" else f"{whole} {name} and {said_cents}"


# -- dates, years, times --------------------------------------------------------------------------

_MONTHS = (
    "January February March April May June July August September October November December"
).split()
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?"
_DECADES = (
    "hundreds tens twenties thirties forties fifties sixties seventies eighties nineties"
).split()


def _month(match: re.Match[str]) -> str:
    return next(month for month in _MONTHS if month.startswith(match[1]))


def _date(match: re.Match[str]) -> str:
    month, day = int(match["month"]), int(match["day"])
    if not (1 <= month <= 12 and 1 <= day <= 31):
        return match[0]
    return f"{_MONTHS[month - 1]} {day}, {_year(match['year'])}"


def _year(year: str) -> str:
    """As two numbers ("19 89"), where it is not read as one ("2005", "1900")."""
    if year[2:] == "00" or year[:3] in ("100", "200"):
        return year
    return f"{year[:2]} {'oh ' if year[2] == '0' else ''}{int(year[2:])}"


def _decade(match: re.Match[str]) -> str:
    century, decade = match["century"] or "", _DECADES[int(match["decade"])]
    if (century, decade) == ("20", "hundreds"):
        return "two thousands"
    return f"{century} {decade}".strip()


def _time(match: re.Match[str]) -> str:
    hour, minutes = match[1], match[2]
    if minutes != "00":
        return f"{hour} oh {minutes[1]}"
    half = match[3] or ""
    if half:
        return f"{hour} {half.strip()}"
    return f"{hour} o'clock" if 1 <= int(hour) <= 12 else f"{hour} hundred"


# -- numbers --------------------------------------------------------------------------------------

_UNITS = {
    "km": "kilometers", "m": "meters", "cm": "centimeters", "mm": "millimeters",
    "kg": "kilograms", "g": "grams", "mg": "milligrams", "l": "liters", "L": "liters",
    "ml": "milliliters", "mL": "milliliters", "lb": "pounds", "lbs": "pounds", "oz": "ounces",
    "ft": "feet", "yd": "yards", "mi": "miles", "min": "minutes", "mins": "minutes",
    "sec": "seconds", "secs": "seconds", "hr": "hours", "hrs": "hours", "ms": "milliseconds",
    "mph": "miles per hour", "km/h": "kilometers per hour", "kmh": "kilometers per hour",
    "m/s": "meters per second", "MB/s": "megabytes per second", "GB/s": "gigabytes per second",
    "Mbps": "megabits per second", "Gbps": "gigabits per second", "kB": "kilobytes",
    "KB": "kilobytes", "MB": "megabytes", "GB": "gigabytes", "TB": "terabytes", "Hz": "hertz",
    "kHz": "kilohertz", "MHz": "megahertz", "GHz": "gigahertz", "kW": "kilowatts",
    "kWh": "kilowatt hours", "m²": "square meters", "km²": "square kilometers",
    "ft²": "square feet", "m³": "cubic meters", "cm³": "cubic centimeters",
    "°C": "degrees Celsius", "°F": "degrees Fahrenheit",
}  # fmt: skip
_FRACTIONS = {
    "24/7": "24 7",
    "9/11": "9 11",
    "1/2": "½",
    "1/3": "⅓",
    "2/3": "⅔",
    "1/4": "¼",
    "3/4": "¾",
}


def _unit(match: re.Match[str]) -> str:
    name = _UNITS[match[2]]
    if match[1] == "1":
        name = re.sub(r"s\b", "", name.replace("feet", "foot"), count=1)
    return f"{match[1]} {name}"


def _fraction(match: re.Match[str]) -> str:
    if known := _FRACTIONS.get(match[0]):
        return known
    between = " out of " if match[2] in ("10", "100") else " over "
    return match[1] + between + match[2]


def _digits(match: re.Match[str]) -> str:
    """A telephone number: its digits, with a pause between groups."""
    groups = [" ".join(group) for group in re.findall(r"\d+", match[0])]
    return ("plus " if match[0].startswith("+") else "") + ", ".join(groups)


_ROMAN = {"I": 1, "V": 5, "X": 10, "L": 50, "C": 100}
_MONARCHS = frozenset(
    """
    Alexander Benedict Catherine Charles Christian Clement Edward Elizabeth Francis Frederick George
    Gregory Gustav Henry Innocent James John Leo Louis Ludwig Napoleon Nicholas Paul Peter Philip
    Pius Ptolemy Ramesses Richard Urban Wilhelm William
    """.split()
)
_COUNTED = frozenset(
    "Act Book Chapter Class Level Part Phase Section Title Type Volume War".split()
)


def _roman(match: re.Match[str]) -> str:
    word, numeral = match[1], match[2]
    values = [_ROMAN[c] for c in numeral]
    pairs = zip(values, [*values[1:], 0], strict=True)
    number = sum(-value if value < after else value for value, after in pairs)
    if word in _MONARCHS:
        ending = "th" if number % 100 in (11, 12, 13) else _ORDINALS.get(number % 10, "th")
        return f"{word} the {number}{ending}"
    if len(numeral) == 1 and word not in _COUNTED:
        return match[0]  # "Malcolm X", "Plan I like"
    return f"{word} {number}"


_ORDINALS = {1: "st", 2: "nd", 3: "rd"}


# -- abbreviations --------------------------------------------------------------------------------

_TITLES = {
    "Dr": "Doctor", "Mr": "Mister", "Mrs": "Missis", "Ms": "Miz", "Prof": "Professor",
    "St": "Saint", "Mt": "Mount", "Gen": "General", "Col": "Colonel", "Capt": "Captain",
    "Lt": "Lieutenant", "Sgt": "Sergeant", "Sen": "Senator", "Gov": "Governor",
    "Rep": "Representative", "Rev": "Reverend", "Hon": "Honorable",
}  # fmt: skip
_WORDS = {
    "etc": "et cetera", "Jr": "Junior", "Sr": "Senior", "Inc": "Incorporated", "Ltd": "Limited",
    "Co": "Company", "Corp": "Corporation", "Ave": "Avenue", "Blvd": "Boulevard", "Rd": "Road",
    "Dept": "Department", "dept": "department",
}  # fmt: skip
_WITHIN = {
    "e.g": "for example", "i.e": "that is", "vs": "versus", "cf": "compare", "al": "al",
    "approx": "approximately", "a.k.a": "also known as",
}  # fmt: skip
"""Those that end no sentence."""
_BEFORE_NUMBERS = {
    "No": "number", "no": "number", "Nos": "numbers", "p": "page", "pp": "pages",
    "Fig": "figure", "fig": "figure", "Vol": "volume", "vol": "volume", "Ch": "chapter",
    "ch": "chapter", "Sec": "section", "Eq": "equation",
}  # fmt: skip


def _any(words: dict[str, str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


def _rule(pattern: str, new: str | Callable[[re.Match[str]], str]) -> Rule:
    return re.compile(pattern), new


_SIGN = "[$£€¥₹]"
_RULES: tuple[Rule, ...] = (
    _rule("[’ʼ]", "'"),
    # abbreviations: the full stop would end a sentence
    _rule(rf"\b({_any(_TITLES)})\.(?=\s+[A-Z])", lambda m: _TITLES[m[1]]),
    _rule(rf"\b({_any(_BEFORE_NUMBERS)})\.\s?(?=\d)", lambda m: _BEFORE_NUMBERS[m[1]] + " "),
    _rule(rf"\b({_any(_WITHIN)})\.(?=\s|,)", lambda m: _WITHIN[m[1]]),
    _rule(rf"\b({_any(_WORDS)})\.(?=[,;:)]|\s+[a-z\d(])", lambda m: _WORDS[m[1]]),
    _rule(rf"\b({_any(_WORDS)})\.(?=\s|$)", lambda m: _WORDS[m[1]] + "."),
    _rule(r"\b(Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec)\.?(?=\s+\d)", _month),
    _rule(r"(?<=[\d ])([ap])\.\s?m\.(?=[,;:)]|\s+[a-z\d(])", lambda m: m[1].upper() + "M"),
    _rule(r"(?<=[\d ])([ap])\.\s?m\.", lambda m: m[1].upper() + "M."),
    _rule(r"(?<![\w.])([A-Z])\.(?=[A-Z]\b)", r"\1 "),
    _rule(r"(?<![\w.])([A-Z])\.(?=\s+[A-Z])", r"\1"),
    _rule(r"\bw/o\b", "without"),
    _rule(r"\bw/(?=\s|\w)", "with "),
    # numbers that are written in groups
    _rule(r"(?<![\w.])\+?(?:\d{1,3}[ .-])?\(?\d{3}\)?[ .-]\d{3}[ .-]\d{4}(?!\w)", _digits),
    _rule(r"(?<![\w.-])\d{3}-\d{4}(?![\w-])", _digits),
    _rule(r"(?<![\w-])(?P<year>\d{4})-(?P<month>\d\d)-(?P<day>\d\d)(?![\w-])", _date),
    _rule(r"(?<![\w/])(\d{1,2})/(\d{1,2})/(\d{4}|\d\d)(?![\w/])", r"\1, \2, \3"),
    # money
    _rule(rf"({_SIGN})(\d[\d,.]*)\s?[-–—]\s?{_SIGN}?(?=\d)", r"\2 to \1"),
    _rule(
        rf"(?P<sign>{_SIGN})\s?(?P<whole>\d{{1,3}}(?:,\d{{3}})+|\d+)(?:\.(?P<small>\d+))?"
        r"(?P<large>\s(?:thousand|million|billion|trillion)\b|(?:[kKmMbBT]|bn)\b)?",
        _money,
    ),
    _rule(r"\b(dollars?|euros?|pounds?|cents?|yen|rupees?)\s?/\s?(?=[a-z])", r"\1 per "),
    # years and times
    _rule(
        r"(?<![\w.])(?P<century>1[1-9]|20)(?P<decade>\d)0'?s\b"
        r"|(?:(?<=the )|(?<=early )|(?<=late )|(?<=mid-))'?(?P<later>[2-9])0'?s\b",
        lambda m: _decade(m) if m["century"] else _DECADES[int(m["later"])],
    ),
    _rule(
        rf"\b({_MONTH} (?:\d{{1,2}}(?:st|nd|rd|th)?,? )?)(\d{{4}})\b", lambda m: m[1] + _year(m[2])
    ),
    _rule(
        r"\b((?:[Ii]n|[Ss]ince|[Ff]rom|[Uu]ntil|[Bb]y|[Bb]efore|[Aa]fter|[Aa]round|year|of|[Dd]uring|"
        r"early|late|to|and|summer|winter|spring|autumn|fall) |[-–(])(1[1-9]\d\d|20[1-9]\d)"
        r"(?=[.,;:!?)\]–-]|\s*$|\s+[A-Z]|\s+(?:and|to|the|an?|at|in|on|when|where|as|but|or|for|with|was|were|"
        r"is|by|after|before|he|she|it|they|we|until|because|while|that|which|who|there|from)\b)",
        lambda m: m[1] + _year(m[2]),
    ),
    _rule(
        r"(?<![\d:])(\d{1,2}):(00|0[1-9])(?![\d:])(\s?(?:[AaPp]\.?[Mm]\b\.?))?",
        lambda m: _time(m) + (m[3] or "" if m[2] != "00" else ""),
    ),
    _rule(r"(?<![\d:])(\d+):(\d)(?![\d:])", r"\1 to \2"),
    # calculation, units
    _rule(r"(?<=\d)\s+[-−]\s+(?=\d)", " minus "),
    _rule(r"−(?=\s?\d)", "minus "),
    _rule(r"(?<![\w.-])(\d[\d,.]*)\s?[-–—]\s?(?=\d+(?![\d-]))", r"\1 to "),
    _rule(r"(?<![\w/])(\d+)/(\d+)(?![\w/])", _fraction),
    _rule(r"(?<=\b\d{3})[xX×](?=\d{3})|(?<=\b\d{4})[xX×](?=\d{3})", " by "),
    _rule(r"(?<=\d)\s?[xX×]\s?(?=\d)", " times "),
    _rule(r"(?<=\d)[xX]\b", " times"),
    _rule(rf"(?<![\w.])(\d[\d,.]*)[ -]?({_any(_UNITS)})(?![\w/²³])", _unit),
    _rule(r"(?<=\d\d)[kK]\b|(?<=\d\.\d)[kK]\b", " thousand"),
    _rule(r"(?<=\d)M\b", " million"),
    _rule(r"(?<=\d)B\b", " billion"),
    _rule(r"(?<=[\w)])(?:\^2|²)(?!\d)", " squared"),
    _rule(r"(?<=[\w)])(?:\^3|³)(?!\d)", " cubed"),
    _rule(r"(?<=[\w)])\^(?=-?\d)", " to the power of "),
    _rule(r"[~≈]\s?(?=[\d$£€])", "about "),
    _rule(r"(?:≤|<=)\s?(?=\d)", " at most "),
    _rule(r"(?:≥|>=)\s?(?=\d)", " at least "),
    _rule(r"<\s?(?=\d)", " less than "),
    _rule(r">\s?(?=\d)", " more than "),
    _rule(r"±\s?(?=\d)", "plus or minus "),
    # the rest
    _rule(r"\b([A-Z][a-z]+) ((?:X{1,3}|X?L|L)?(?:IX|IV|V?I{1,3}|V|X))\b", _roman),
    _rule(r"(?<=\b[CF])#", " sharp"),
    _rule(r"#(?=\d)", "number "),
    _rule(r"\bRAM\b", "ram"),
    _rule(r"#(?=[A-Za-z])", ""),
    _rule(r"(?<=[A-Za-z])/(?=[A-Za-z])", " "),
)

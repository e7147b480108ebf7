"""Markdown taken out of a text that grows: what is left is what a reader sees. Pure.

A language model writes Markdown even where it is asked not to. Marks of emphasis, headings, quotes,
links and tables go, their words stay; lines of code blocks are told apart, since they are shown and
not said. A mark is decided by what follows it, within a bound; while that has not come, it waits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Markdown", "Piece"]

_MAX_HELD = 1000
"""Characters within which a mark must be decided, as the address of a link; else it is no mark."""

_MAX_DEPTH = 3
"""Of brackets within brackets."""

_PARAGRAPH = "\n\n"

# At the beginning of a line
_MARKS = re.compile(r"[-*_=|:+#>`~ \t]*")
_RULE = re.compile(r"([-*_=])(?:[ \t]*\1){2,}|={2,}|[|: \t]*-[-|: \t]*\|[-|: \t]*")
_FENCE = re.compile(r"[ \t]*(`{3,}|~{3,})[^`]*")
_HEADING = re.compile(r"[ \t]*#{1,6}[ \t]+")
_QUOTE = re.compile(r"[ \t]*>[ \t]?")
_BULLET = re.compile(r"[ \t]*[-*+][ \t]+")
_TASK = re.compile(r"\[[ xX]\][ \t]+")
_NUMBER = re.compile(r"[ \t]*\d{1,2}[.)][ \t]")
_NUMBER_BEGINS = re.compile(r"[ \t]*(?:\d{1,2}[.)]?)?")
_ROW = re.compile(r"[ \t]*\|[ \t]*")

# Within a line
_PLAIN = re.compile(r"[^\\`*_~\[!<|【\n \t]+|[ \t]+")
_RUN = re.compile(r"(.)\1*")
_ADDRESS = re.compile(r"[ \t]*\S*(?:[ \t]+(?:\"[^\"]*\"|'[^']*'))?[ \t]*")
_TAG = re.compile(
    r"</?(?:a|abbr|b|blockquote|br|center|code|del|details|div|em|h[1-6]|hr|i|img|ins|kbd|li|mark|"
    r"ol|p|pre|s|small|span|strong|sub|summary|sup|table|tbody|td|th|thead|tr|u|ul)"
    r"(?:[ \t]+[\w-]+=(?:\"[^\"]*\"|'[^']*'|[\w-]+))*[ \t]*/?>",
    re.IGNORECASE,
)
_AUTOLINK = re.compile(r"<((?:https?://|mailto:)[^<>\s]+)>")
_CLOSING = {"[": "]", "(": ")", "【": "】"}


@dataclass(frozen=True, slots=True)
class Piece:
    """``code``: a line of a code block, with its line break."""

    text: str
    code: bool = False


class _Open(Exception):
    """What is here cannot be decided before more of the text has come."""


class Markdown:
    """Takes a text in pieces of any size; how it is cut into pieces makes no difference."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._text = ""  # not decided yet
        self._at = 0  # what is before it is done
        self._final = False
        self._before = " "  # the character before
        self._line_begins = True
        self._fence = ""  # what began the code block
        self._span = ""  # what began the code within a line
        self._heading = False
        self._row = False  # of a table,
        self._cell = False  # in a cell that has something in it
        self._out: list[Piece] = []

    def push(self, text: str) -> list[Piece]:
        """More of the text; what is decided by it."""
        self._text += text
        try:
            while self._at < len(self._text):
                if self._fence:
                    self._read_code()
                elif self._line_begins:
                    self._read_beginning()
                else:
                    self._read_within()
        except _Open:
            pass
        self._text, self._at = self._text[self._at :], 0
        out, self._out = self._out, []
        return out

    def flush(self) -> list[Piece]:
        """The text is over: the rest. The next push begins a new text."""
        self._final = True
        out = self.push("")
        self._begin()
        return out

    # -- the text ---------------------------------------------------------------------------------

    def _take(self, end: int, instead: str | None = None) -> None:
        """What is before ``end`` is done, and given out as it is, or this instead."""
        given = self._text[self._at : end] if instead is None else instead
        if end > self._at:
            self._before = self._text[end - 1]
        self._at = end
        if not given:
            return
        if self._out and not self._out[-1].code:
            given = self._out.pop().text + given
        self._out.append(Piece(given))

    def _next(self, at: int) -> str:
        """The character there; a blank behind the end of the text."""
        if at < len(self._text):
            return self._text[at]
        if not self._final:
            raise _Open
        return " "

    def _line(self) -> str:
        """The rest of the line, or as much of it as is looked at."""
        line = self._text[self._at : self._at + _MAX_HELD]
        end = line.find("\n")
        if end < 0 and len(line) < _MAX_HELD and not self._final:
            raise _Open
        return line if end < 0 else line[:end]

    def _match(self, pattern: re.Pattern[str], at: int) -> re.Match[str]:
        """What matches there, which goes on where the text does."""
        found = pattern.match(self._text, at, at + _MAX_HELD)
        assert found is not None
        if found.end() == len(self._text) and not self._final:
            raise _Open
        return found

    # -- lines ------------------------------------------------------------------------------------

    def _read_code(self) -> None:
        line = self._line()
        end = min(self._at + min(len(line) + 1, _MAX_HELD), len(self._text))
        marks = line.strip()
        if len(marks) >= len(self._fence) and not marks.strip(self._fence[0]):
            self._fence = ""
            self._take(end, "")
            self._line_begins = True
            return
        self._out.append(Piece(self._text[self._at : end], code=True))
        self._at = end

    def _read_beginning(self) -> None:
        at = self._at
        marks = self._match(_MARKS, at)
        if _FENCE.match(marks[0]):
            line = self._line()
            fence = _FENCE.fullmatch(line)
            if fence is not None and len(line) < _MAX_HELD:
                self._fence = fence[1]
                self._take(min(at + len(line) + 1, len(self._text)), _PARAGRAPH)
                return
        if self._next(marks.end()) in "\n " and _RULE.fullmatch(marks[0].strip()):
            self._take(min(marks.end() + 1, len(self._text)), _PARAGRAPH)
        elif heading := _HEADING.match(marks[0]):
            self._heading = True
            self._enter(at + heading.end(), _PARAGRAPH)
        elif quote := _QUOTE.match(marks[0]):
            self._take(at + quote.end(), "")
        elif bullet := _BULLET.match(marks[0]):
            end = at + bullet.end()
            if self._next(end) == "[" and len(self._text) < end + 4 and not self._final:
                raise _Open
            task = _TASK.match(self._text, end)
            self._enter(task.end() if task else end, _PARAGRAPH + "- ")
        elif row := _ROW.match(marks[0]):
            self._row, self._cell = True, False
            self._enter(at + row.end(), _PARAGRAPH)
        else:
            number = _NUMBER.match(self._text, at)
            if number is None:
                self._match(_NUMBER_BEGINS, at)
            self._enter(at, _PARAGRAPH if number else "")

    def _enter(self, end: int, instead: str) -> None:
        self._line_begins = False
        self._take(end, instead)

    def _end_line(self) -> None:
        apart = self._heading or self._row
        self._take(self._at + 1, _PARAGRAPH if apart else "\n")
        self._line_begins, self._span, self._heading, self._row = True, "", False, False

    # -- within a line ----------------------------------------------------------------------------

    def _read_within(self) -> None:
        at, c = self._at, self._text[self._at]
        if c == "\n":
            self._end_line()
        elif c == "`":
            run = self._match(_RUN, at)
            if not self._span or self._span == run[0]:
                self._span = "" if self._span else run[0]
                self._take(run.end(), "")
            else:
                self._take(run.end())
        elif self._row and c in " \t|":
            self._read_cell()
        elif self._span:
            self._take(at + 1)
        elif c in "*_~":
            run = self._match(_RUN, at)
            self._take(run.end(), "" if self._is_emphasis(run[0], self._next(run.end())) else None)
        elif c == "\\":
            escaped = self._next(at + 1)
            is_mark = escaped.isascii() and not escaped.isalnum() and not escaped.isspace()
            self._take(at + 2 if is_mark else at + 1, escaped if is_mark else None)
        elif c == "[" or (c == "!" and self._next(at + 1) == "["):
            self._read_link(at + (c == "!"))
        elif c == "【":
            end = self._closing(at)
            self._take(end or at + 1, "" if end else None)
        elif c == "<":
            self._read_tag()
        else:
            plain = _PLAIN.match(self._text, at)
            self._cell = True
            self._take(plain.end() if plain else at + 1)

    def _read_cell(self) -> None:
        """Blanks and the mark between two cells of a table."""
        blanks = self._at
        while self._next(blanks) in " \t" and blanks < len(self._text):
            blanks += 1
        if self._next(blanks) != "|" or blanks == len(self._text):
            self._take(blanks)
            return
        end = blanks + 1
        while self._next(end) in " \t" and end < len(self._text):
            end += 1
        is_last = end == len(self._text) or self._text[end] == "\n"
        self._take(end, ", " if self._cell and not is_last else "")
        self._cell = False

    def _is_emphasis(self, run: str, after: str) -> bool:
        """Whether it is a mark of emphasis, not part of the text ("2*3", "snake_case", "~5")."""
        before = self._before
        if before.isspace() and after.isspace():
            return False
        if run[0] == "~":
            return len(run) == 2
        if before.isalnum() and after.isalnum():
            return run[0] == "*" and len(run) > 1 and not (before.isdigit() and after.isdigit())
        return True

    def _read_link(self, bracket: int) -> None:
        """A link, an image, a footnote's number, or a bracket."""
        end = self._closing(bracket)
        if end and self._text[bracket + 1] == "^":
            self._take(end, "")
            return
        after = self._next(end) if end else ""
        closes = self._closing(end) if after and after in "[(" else 0
        if closes and _ADDRESS.fullmatch(self._text, end + 1, closes - 1):
            inner = Markdown()
            inner._line_begins = False
            shown = [*inner.push(self._text[bracket + 1 : end - 1]), *inner.flush()]
            self._take(closes, "".join(piece.text for piece in shown))
        else:
            self._take(bracket + 1)

    def _read_tag(self) -> None:
        at = self._at
        after = self._next(at + 1)
        if not (after.isascii() and (after.isalpha() or after == "/")):
            self._take(at + 1)
            return
        held = self._text[at : at + _MAX_HELD]
        stop = re.search(r"[>\n]|(?<!^)<", held)
        if stop is None and len(held) < _MAX_HELD and not self._final:
            raise _Open
        inside = held[: stop.end()] if stop is not None else ""
        if link := _AUTOLINK.fullmatch(inside):
            self._take(at + len(inside), link[1].removeprefix("mailto:"))
        elif _TAG.fullmatch(inside):
            breaks = inside[1:4].lower() in ("br>", "br/", "br ")
            self._take(at + len(inside), " " if breaks else "")
        else:
            self._take(at + 1)

    def _closing(self, at: int) -> int:
        """Behind the bracket that closes the one there, in the same line; 0: there is none."""
        opening, closing = self._text[at], _CLOSING[self._text[at]]
        depth = 0
        for index in range(at, at + _MAX_HELD):
            if index == len(self._text):
                if self._final:
                    return 0
                raise _Open
            c = self._text[index]
            if c == "\n":
                return 0
            depth += (c == opening) - (c == closing)
            if depth > _MAX_DEPTH:
                return 0
            if not depth:
                return index + 1
        return 0

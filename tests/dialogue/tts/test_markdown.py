"""Markdown: its marks go, the words stay, code is told apart, however the text comes in."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import pytest

from wsavatar.dialogue.tts.clean import Cleaner
from wsavatar.dialogue.tts.cutter import PhraseCutter
from wsavatar.dialogue.tts.markdown import Markdown, Piece
from wsavatar.dialogue.tts.text import phrases


def read(text: str, size: Callable[[], int] = lambda: 10_000) -> list[Piece]:
    """The pieces of a text that comes in deltas of these sizes; text together, code by line."""
    markdown, pieces, start = Markdown(), [], 0
    while start < len(text):
        end = start + size()
        pieces += markdown.push(text[start:end])
        start = end
    joined: list[Piece] = []
    for piece in [*pieces, *markdown.flush()]:
        if joined and not piece.code and not joined[-1].code:
            joined[-1] = Piece(joined[-1].text + piece.text)
        else:
            joined.append(piece)
    return joined


def shown(text: str) -> str:
    """What is left, with one blank or paragraph for any white space."""
    return Cleaner().push("".join(piece.text for piece in read(text) if not piece.code))


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("**Hello** [x](http://y)", "Hello x"),
        ("*a* _b_ __c__ ***d*** **_e_** ~~f~~", "a b c d e f"),
        ("5 * 3 and 2*3 and a*b and 2 ** 3", "5 * 3 and 2*3 and a*b and 2 ** 3"),
        ("snake_case, __init__ and ~5", "snake_case, init and ~5"),
        ("semi**bold**er", "semibolder"),
        (r"\*not\* bold, \# no heading, C:\dir", r"*not* bold, # no heading, C:\dir"),
        ("run `rm -rf *` and ``a`b``", "run rm -rf * and a`b"),
        ("`**x**` stays", "**x** stays"),
        ("[**bold** link](https://a.b/c_(d) \"title\")!", "bold link!"),
        ("see [the docs][1] and ![a cat](cat.png)", "see the docs and a cat"),
        ("[not a link] and [this](is not one)", "[not a link] and [this](is not one)"),
        ("[a [nested] one](http://x)", "a [nested] one"),
        ("a note[^1] and a source【4:0†source】.", "a note and a source."),
        ("<b>bold</b><br/>next <https://a.b/c> <me@x.y>", "bold next https://a.b/c <me@x.y>"),
        ("if a<b and c>d, x < 3 > 2 <3", "if a<b and c>d, x < 3 > 2 <3"),
        ("# Title\nText", "Title\n\nText"),
        ("## A ##\nlower case", "A ##\n\nlower case"),
        ("#hashtag and C#", "#hashtag and C#"),
        ("Title\n=====\nText\n-----\nMore", "Title\n\nText\n\nMore"),
        ("- one\n* two\n+ three\n  - [x] four", "- one\n\n- two\n\n- three\n\n- four"),
        ("1. one\n2) two\n2024. Then", "1. one\n\n2) two\n\n2024. Then"),
        ("> quoted\n> > twice", "quoted twice"),
        ("a\n\n---\n\n* * *\nb", "a\n\nb"),
        ("- **Milk**: 1 l", "- Milk: 1 l"),
        ("| A | B |\n|---|:-:|\n| 1 | **2** |\nEnd", "A, B\n\n1, 2\n\nEnd"),
        ("a | b", "a | b"),
        ("**open, and [open", "open, and [open"),
        ("", ""),
        ("***", ""),
        ("Ünïcode **日本語** *مرحبا*", "Ünïcode 日本語 مرحبا"),
    ],
)  # fmt: skip
def test_marks_go_and_words_stay(text: str, left: str) -> None:
    """And what only looks like a mark stays, too."""
    assert shown(text) == left


def test_code_blocks_are_told_apart() -> None:
    """Line by line, as they are written; what is between fences is no Markdown."""
    text = "So:\n```python\nx = '**1**'\n\n```\nDone.\n~~~~\n```\n~~~~\nBye"
    assert read(text) == [
        Piece("So:\n\n\n"),
        Piece("x = '**1**'\n", code=True),
        Piece("\n", code=True),
        Piece("Done.\n\n\n"),
        Piece("```\n", code=True),
        Piece("Bye"),
    ]
    assert read("```\nnever closed") == [Piece("\n\n"), Piece("never closed", code=True)]
    assert shown("``` is no fence ``` here") == "is no fence here"


def test_long_lines_of_code_come_in_parts() -> None:
    """Nothing waits without a bound."""
    pieces = read("```\n" + "x" * 2500)
    assert [len(piece.text) for piece in pieces[1:]] == [1000, 1000, 500]


SAMPLE = """# Title
**Hello** [x](http://y) `code *a*` ~~gone~~ 2*3 a * b snake_case \\*

- one
* **two**: text
- [x] done
1. first
> - quote
---
| A | B |
|---|:-:|
| 1 | **2** |

```python
x = 1
```
![img](a.png "title") [ref][1] [^1] <b>bold</b> <https://a.b/c> a<b c>d 【1†src】
Setext
======
"""
FRAGMENTS = [
    *SAMPLE,
    *("**", "[x](", "```\n", "|", "\n", "* ", "~~~\n", "# ", "<", "`", "1. ", "---\n", "![", "]("),
    *("Hello. ", "你好。", "🎉", "\ud800", "\u00ad"),
]


@pytest.mark.parametrize("seed", range(40))
def test_it_does_not_matter_how_a_text_comes_in(seed: int) -> None:
    """Not for what is left, nor for the phrases that are made of it."""
    choose = random.Random(seed)
    for _ in range(25):
        text = "".join(choose.choices(FRAGMENTS, k=choose.randint(1, 60)))
        assert read(text, lambda: choose.choice((1, 1, 2, 3, 7))) == read(text), text
        cutter, streamed = PhraseCutter(), []
        for letter in text:
            streamed += cutter.push(letter)
        assert [*streamed, *cutter.flush()] == phrases(text), text


def test_markdown_is_spoken_as_soon_as_without() -> None:
    """An emphasis or a list does not hold a sentence back."""
    cutter = PhraseCutter()
    assert cutter.push("- **Milk** is good for you, as everyone knows. N") != []


@pytest.mark.parametrize("text", ["[", "*", "<a", "[a](", "`", "| ", "> ", "- ", "1. ", "![", "【"])
def test_hostile_texts_take_no_time(text: str) -> None:
    """Twice the length, about twice the time: no mark is looked for without a bound."""

    def seconds(count: int) -> float:
        start_s = time.process_time()
        markdown = Markdown()
        for _ in range(count):
            markdown.push(text)
        markdown.flush()
        return time.process_time() - start_s

    seconds(100)
    assert seconds(4000) < 12 * seconds(1000) + 0.05

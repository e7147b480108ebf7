"""When a Piper network says the words of a text, by its phonemes. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher

__all__ = ["with_durations", "word_starts"]

_MARKS = frozenset("ˈˌː")  # stress and length: they depend on a word's neighbours

Place = tuple[int, int]
"""The index of a word's first character, and that of its first phoneme in the sentence."""


def word_starts(
    words: Sequence[tuple[int, Sequence[str]]], sentences: Sequence[Sequence[str]]
) -> list[list[Place]]:
    """Where the words of a text begin in its sentences' phonemes.

    ``words``: each one's index in the text, and its phonemes when it is said alone. In a sentence
    words may run together or change ("of the"): what both have in common decides. A word that has
    nothing in common is left out.
    """
    spoken = [
        (sentence, index, phoneme)
        for sentence, phonemes in enumerate(sentences)
        for index, phoneme in enumerate(phonemes)
        if _is_sound(phoneme)
    ]
    expected = [
        (word, offset, phoneme)
        for word, (_, phonemes) in enumerate(words)
        for offset, phoneme in enumerate(filter(_is_sound, phonemes))
    ]
    matcher = SequenceMatcher(
        None, [phoneme for *_, phoneme in expected], [phoneme for *_, phoneme in spoken], False
    )
    places: list[list[Place]] = [[] for _ in sentences]
    found: set[int] = set()
    free = 0  # behind the phonemes of the words before
    for first, second, size in matcher.get_matching_blocks():
        for step in range(size):
            word, offset, _ = expected[first + step]
            if word not in found:
                found.add(word)
                sentence, index, _ = spoken[max(second + step - offset, free)]
                places[sentence].append((words[word][0], index))
            free = second + step + 1
    return places


def _is_sound(phoneme: str) -> bool:
    return phoneme.isalpha() and phoneme not in _MARKS


_DURATIONS = re.compile(rb"\x12(.)([^\x00-\x1f]{1,120})\x1a.[^\x00-\x1f]{0,120}\x22\x04Ceil", re.S)
"""An ONNX node that rounds up, in protobuf's encoding: its output's name (field 2) with its length,
its own name (3), its operation (4)."""


def with_durations(model: bytes) -> bytes:
    """A Piper network (ONNX) with one more output: how many frames it speaks each phoneme id.

    That is what its only rounding up gives. Protobuf merges a message that is there twice, so a
    second graph that has one output and nothing else is added at the end. A network in which the
    place is not found is returned as it is.
    """
    names = {
        found[2]
        for found in _DURATIONS.finditer(model)
        if len(found[2]) == int.from_bytes(found[1])
    }
    if len(names) != 1:
        return model
    output = _field(1, names.pop())  # ValueInfoProto.name
    return model + _field(7, _field(12, output))  # ModelProto.graph, GraphProto.output


def _field(number: int, content: bytes) -> bytes:
    """A protobuf field of a length below 128."""
    return bytes([number << 3 | 2, len(content)]) + content

"""The chunker: which frames come when, and that no chunk size changes what they hear."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from wsavatar.speech.chunker import Chunk, Chunker, FeatureGrid
from wsavatar.speech.front_end import FrontEnd

GRID = FeatureGrid()
RATES = [
    *map(Fraction, (5, 10, "12.5", 20, 24, 25, 30, 50, 60)),
    Fraction(24000, 1001),
    Fraction(30000, 1001),
]


def speech(samples: int) -> np.ndarray:
    return np.random.default_rng(7).uniform(-1, 1, samples).astype(np.float32)


def cleaned(audio: np.ndarray) -> np.ndarray:
    """As the front end gives it."""
    front_end = FrontEnd(GRID.sample_rate)
    front_end.push(audio)
    front_end.flush()
    return front_end.window(0, -(-len(audio) // 80) * 80)[: len(audio)]


def cut(audio: np.ndarray, fps: Fraction, chunk: int, pieces: list[int]) -> list[Chunk]:
    """Push ``audio`` in pieces of these sizes, over and over, and flush."""
    chunker = Chunker(GRID, fps, chunk)
    chunks, at, turn = [], 0, 0
    while at < len(audio):
        size = pieces[turn % len(pieces)]
        chunks += chunker.push(audio[at : at + size])
        at, turn = at + size, turn + 1
    return chunks + chunker.flush()


def frames(chunks: list[Chunk]) -> list[int]:
    return [c.first_frame + i for c in chunks for i in range(c.frame_count)]


def heard(chunks: list[Chunk], fps: Fraction) -> list[dict[int, bytes]]:
    """For each frame: the window behind each of its positions that is not zero by definition."""
    seen = []
    for chunk in chunks:
        for frame in range(chunk.first_frame, chunk.first_frame + chunk.frame_count):
            first = GRID.first_position(frame, fps)
            end = chunk.end_position if chunk.end_position is not None else 10**9
            positions = [p for p in range(first, first + GRID.frame_positions) if 0 <= p < end]
            rows = {p: p // GRID.block_positions - chunk.first_block for p in positions}
            assert all(0 <= row < len(chunk.windows) for row in rows.values())
            seen.append({p: chunk.windows[row].tobytes() for p, row in rows.items()})
    return seen


@pytest.mark.parametrize("fps", RATES, ids=str)
def test_a_frame_depends_on_80_ms_before_to_120_ms_after_its_time(fps: Fraction) -> None:
    """At any frame rate, for an hour, to half a position: the lips do not shift with the rate."""
    for frame in [*range(500), *range(int(3600 * fps), int(3600 * fps) + 500)]:
        first = Fraction(GRID.first_position(frame, fps), GRID.position_rate)
        assert abs(first - (frame / fps - Fraction(80, 1000))) <= Fraction(10, 1000)
    assert GRID.frame_positions == Fraction(200, 1000) * GRID.position_rate


@pytest.mark.parametrize("fps", RATES, ids=str)
@pytest.mark.parametrize("samples", [0, 1, 319, 640, 8000, 16_001, 40_123])
def test_frames_are_contiguous_and_total_the_audio(fps: Fraction, samples: int) -> None:
    """Frames are 0, 1, 2, … without a gap, ceil(seconds * fps) of them; empty audio has none."""
    total = -(-samples * fps.numerator // (16_000 * fps.denominator))
    for chunk in (1600, 8000, 32_000):
        chunks = cut(speech(samples), fps, chunk, [777])
        assert frames(chunks) == list(range(total))


@pytest.mark.parametrize("fps", RATES, ids=str)
def test_a_frames_audio_does_not_depend_on_the_chunk_size(fps: Fraction) -> None:
    """Every position of every frame has the same window, bit for bit, for any chunk size."""
    audio = speech(50_321)
    whole = heard(cut(audio, fps, 10**9, [len(audio)]), fps)
    for chunk in (1600, 2560, 4000, 8000, 16_000, 32_000):
        assert heard(cut(audio, fps, chunk, [chunk]), fps) == whole
    assert heard(cut(audio, fps, 8000, [1, 333, 4801, 20]), fps) == whole


def test_a_window_is_its_block_with_context_and_zeros_outside_the_audio() -> None:
    """Block b's window is the audio without hum, from left to right context, zero-padded."""
    audio = speech(9000)
    (chunk,) = cut(audio, Fraction(25), 10**9, [9000])
    zeros = np.zeros(50_000, np.float32)
    padded = np.concatenate([zeros[: 50 * 320], cleaned(audio), zeros])
    for row, window in enumerate(chunk.windows):
        start = (chunk.first_block + row) * GRID.block_samples
        assert np.array_equal(window, padded[start : start + GRID.window_samples])
    assert chunk.end_position == 28
    assert chunk.audio_end == 9000


def test_a_frame_comes_in_the_first_chunk_that_could_hold_it() -> None:
    """Frame 0 at 25 fps hears positions up to 5: block 1 and 10 positions after it, 0.4 s."""
    chunker = Chunker(GRID, Fraction(25), 1600)
    arrivals = {}
    audio = speech(16_000)
    for at in range(0, len(audio), 1600):
        for chunk in chunker.push(audio[at : at + 1600]):
            arrivals.update(dict.fromkeys(frames([chunk]), chunk.audio_end))
    assert arrivals[0] == 6400
    assert arrivals[2] == 6400  # positions up to 9
    assert arrivals[3] == 8000  # positions up to 11


@pytest.mark.parametrize("fps", RATES, ids=str)
def test_a_chunk_never_holds_a_frame_before_its_own_time(fps: Fraction) -> None:
    """Nor before the 120 ms after it were heard."""
    chunker = Chunker(GRID, fps, 1600)
    for _ in range(20):
        for chunk in chunker.push(speech(1600)):
            last = chunk.first_frame + chunk.frame_count - 1
            assert last / fps + Fraction(110, 1000) <= Fraction(chunk.audio_end, 16_000)


def test_memory_stays_at_a_window_and_a_chunk() -> None:
    """However long the audio, what is kept is bounded."""
    chunker = Chunker(GRID, Fraction(25), 8000)
    most = 0
    for _ in range(600):
        chunker.push(speech(1600))
        most = max(most, sum(piece.nbytes for piece in chunker._audio._pieces))
    assert most <= 2 * 4 * (GRID.window_samples + GRID.block_samples * 4 + 8000)


def test_the_callers_array_may_be_reused() -> None:
    """Samples are copied when pushed."""
    audio, block = speech(8000), np.empty(800, np.float32)
    chunker = Chunker(GRID, Fraction(25), 10**9)
    for at in range(0, 8000, 800):
        block[:] = audio[at : at + 800]
        chunker.push(block)
    (chunk,) = chunker.flush()
    wanted = cleaned(audio)[: GRID.window_samples - 16_000]
    assert np.array_equal(chunk.windows[0][16_000:], wanted)


def test_misuse_is_refused() -> None:
    """Stereo, audio after the end, and senseless rates raise; a second flush gives nothing."""
    chunker = Chunker(GRID, Fraction(25), 8000)
    with pytest.raises(ValueError, match="mono"):
        chunker.push(np.zeros((4, 2), np.float32))
    assert chunker.flush() == [] == chunker.flush()
    with pytest.raises(RuntimeError, match="ended"):
        chunker.push(np.zeros(4, np.float32))
    with pytest.raises(ValueError, match="fps"):
        Chunker(GRID, Fraction(0), 8000)
    with pytest.raises(ValueError, match="chunk_samples"):
        Chunker(GRID, Fraction(25), 0)


def test_the_module_is_pure() -> None:
    """numpy and the standard library only: no model, no clock, no event loop."""
    import ast
    from pathlib import Path

    import wsavatar.speech.chunker as chunker_module

    tree = ast.parse(Path(chunker_module.__file__).read_text("utf-8"))
    modules = {
        name
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert modules == {
        "__future__",
        "dataclasses",
        "fractions",
        "numpy",
        "wsavatar.speech.front_end",
    }


def test_the_first_second_may_be_cut_more_often() -> None:
    """The first frames come with the first cut that has any; the frames are the same in the end."""
    audio = np.random.default_rng(3).standard_normal(3 * 16_000).astype(np.float32)
    often, seldom = Chunker(GRID, Fraction(25), 8000, 3200), Chunker(GRID, Fraction(25), 8000)
    first, second = often.push(audio), seldom.push(audio)
    assert [chunk.audio_end for chunk in first] == [
        *range(6400, 16_001, 3200),
        *range(24_000, 48_001, 8000),
    ]
    assert first[0].audio_end < second[0].audio_end
    frames = [sum(chunk.frame_count for chunk in one) for one in (first, second)]
    assert frames[0] == frames[1]

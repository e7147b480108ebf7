"""What a stream computed once on a device is not computed there again, and stays the same."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from tests.fake_model import GRID
from wsavatar.faces.musetalk.conditions import ChunkConditions
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.faces.musetalk.shared_features import BLOCKS, SharedFeatures
from wsavatar.resources import embedded_weights
from wsavatar.speech.chunker import Chunk, Chunker, FeatureGrid

FPS = Fraction(25)


def speak(step_s: float, seconds: float = 3.3, grid: FeatureGrid = GRID) -> list[Chunk]:
    chunker = Chunker(grid, FPS, round(step_s * grid.sample_rate))
    audio = np.random.default_rng(0).normal(0, 0.1, round(seconds * grid.sample_rate))
    return chunker.push(audio.astype(np.float32)) + chunker.flush()


def numbered(first: int, stop: int) -> np.ndarray:
    """Features that say which block they are of."""
    return np.repeat(np.arange(first, stop), GRID.block_positions)[:, None]


@pytest.mark.parametrize("step_s", [0.1, 0.16, 0.5, 2.0])
def test_shared_blocks_are_those_of_the_chunk(step_s: float) -> None:
    """Known blocks and the rest make up each chunk, and no block is computed twice."""
    features = SharedFeatures(GRID.block_positions)
    computed: list[int] = []
    for chunk in speak(step_s):
        stop = chunk.first_block + len(chunk.windows)
        blocks, parts = features.shared(7, chunk)
        fresh = numbered(chunk.first_block + blocks, stop)
        computed += fresh[:: GRID.block_positions, 0].tolist()
        assert np.array_equal(np.concatenate([*parts, fresh]), numbered(chunk.first_block, stop))
        features.keep(7, chunk, fresh)
    assert computed == sorted(set(computed))


def test_streams_do_not_share() -> None:
    """Another stream's chunk of the same number starts from nothing."""
    features = SharedFeatures(GRID.block_positions)
    first, second = speak(0.5)[:2]
    features.keep(1, first, numbered(first.first_block, first.first_block + len(first.windows)))
    assert features.shared(1, second)[0] > 0
    assert features.shared(2, second) == (0, [])


def test_a_gap_forgets() -> None:
    """Where a chunk was made on another device, what is not contiguous is computed again."""
    features = SharedFeatures(GRID.block_positions)
    chunks = speak(0.5)
    features.keep(1, chunks[0], numbered(0, len(chunks[0].windows)))
    assert features.shared(1, chunks[3]) == (0, [])
    last = chunks[3].first_block + len(chunks[3].windows)
    features.keep(1, chunks[3], numbered(chunks[3].first_block, last))
    assert features.shared(1, chunks[1]) == (0, [])
    assert features.shared(1, chunks[4])[0] > 0


def test_what_is_kept_does_not_hold_a_whole_batch() -> None:
    """Features come as views of all that was computed together; what is kept is a small copy."""
    features = SharedFeatures(GRID.block_positions)
    chunk, following = speak(2.0)[:2]
    batch = numbered(0, 1000)
    features.keep(1, chunk, batch[: len(chunk.windows) * GRID.block_positions])
    _, parts = features.shared(1, following)
    assert parts and not any(np.shares_memory(part, batch) for part in parts)
    held = sum(part.features.nbytes for part in features._streams[1])
    assert held == BLOCKS * GRID.block_positions * batch.itemsize


def test_conditions_from_shared_blocks_are_the_same_bit_for_bit() -> None:
    """On a CPU a frame's condition does not depend on which chunk computed its blocks."""
    model = MuseTalk.load(embedded_weights(), cpu_backend="torch")
    grid = model.spec.grid
    chunks, conditions = speak(0.5, 2.2, grid), model.conditions()
    made = [conditions.make([(1, chunk)])[0][0] for chunk in chunks]
    made += model.conditions().make([(2, chunk) for chunk in chunks])[0]  # one call, one stream
    for chunk, shared in zip([*chunks, *chunks], made, strict=True):
        whole = model.condition(model.encode_audio(chunk.windows), chunk)
        assert np.array_equal(np.asarray(shared), np.asarray(whole))


def test_a_call_encodes_each_block_once() -> None:
    """Chunks of several streams go to the encoder together, without what their streams have."""
    model = MuseTalk.load(embedded_weights(), cpu_backend="torch")
    encoded: list[int] = []

    class Counting:
        spec = model.spec
        condition = staticmethod(model.condition)

        def encode_audio(self, windows: np.ndarray) -> np.ndarray:
            encoded.append(len(windows))
            return np.asarray(model.encode_audio(windows))

    first, second = speak(0.5, grid=model.spec.grid)[:2]
    conditions = ChunkConditions(Counting())
    assert conditions.make([]) == ([], 0) and encoded == []
    blocks = [conditions.make(some)[1] for some in ([(1, first), (2, first)], [(1, second)])]
    assert encoded == blocks == [2 * len(first.blocks), second.blocks.stop - len(first.blocks)]

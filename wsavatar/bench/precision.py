"""Speed and pictures of the configured model in each dtype, against float32, in one run.

The same speech and the same avatars go through every model, in turn, so that what else the machine
does meanwhile touches all alike. It compares patches as the model draws them, before they are
pasted, scaled or encoded.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.bench.report import Precision
from wsavatar.faces.base import Chunk
from wsavatar.faces.musetalk.model import MuseTalk
from wsavatar.render.finish.host import to_numpy

__all__ = ["measure_precision", "psnr_db"]

FPS = Fraction(25)
CHUNK_MS = 500
SAME_DB = 99.0
"""What equal pictures are given, where the ratio has no bound."""


@dataclass(slots=True)
class _Figures:
    """What one model was seen to do."""

    block_ms: list[float] = field(default_factory=list)
    frame_ms: list[float] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    """Mean squares, of each frame."""
    greatest: int = 0


def measure_precision(
    models: Sequence[MuseTalk],
    avatars: Sequence[PreparedAvatar],
    speech: np.ndarray,
    batch_size: int,
    say: Callable[[str], None] = lambda text: None,
) -> tuple[Precision, ...]:
    """One row for each model; the first is the one that the others are compared with.

    ``speech``: float32 mono at the models' rate. Every avatar says all of it.
    """
    chunker = models[0].windows.open_chunker(FPS, CHUNK_MS)
    chunks = [*chunker.push(speech), *chunker.flush()]
    for model in models:
        model.warm_up([batch_size])
    figures = [_Figures() for _ in models]
    for avatar in avatars:
        say(f"comparing the pictures of {avatar.id}")
        conditions = [model.conditions() for model in models]
        first_frame = 0
        for chunk in chunks:
            made = [
                _conditions(maker, chunk, one)
                for maker, one in zip(conditions, figures, strict=True)
            ]
            for row in range(0, chunk.frame_count, batch_size):
                at = range(row, min(row + batch_size, chunk.frame_count))
                inputs = [avatar.face.inputs[(first_frame + n) % avatar.frame_count] for n in at]
                patches = [
                    _patches(model, inputs, rows[at.start : at.stop], one)
                    for model, rows, one in zip(models, made, figures, strict=True)
                ]
                for picture, one in zip(patches, figures, strict=True):
                    _compare(picture, patches[0], models[0].spec.decoded_from_y, one)
            first_frame += chunk.frame_count
    return tuple(_row(model, one) for model, one in zip(models, figures, strict=True))


def psnr_db(error: float) -> float:
    """Of a mean square of 8-bit pictures; `SAME_DB` at the most."""
    return min(SAME_DB, 10 * float(np.log10(255**2 / max(error, 1e-12))))


def _conditions(maker: Any, chunk: Chunk, figures: _Figures) -> Any:
    started = time.perf_counter()
    (rows,), blocks = maker.make([(0, chunk)])
    rows = to_numpy(rows)  # waits for a device
    if blocks:
        figures.block_ms.append(1000 * (time.perf_counter() - started) / blocks)
    return rows


def _patches(model: MuseTalk, inputs: Any, conditions: Any, figures: _Figures) -> np.ndarray:
    started = time.perf_counter()
    made = to_numpy(model.generate(inputs, list(conditions)))
    figures.frame_ms.append(1000 * (time.perf_counter() - started) / len(inputs))
    return made


def _compare(made: np.ndarray, true: np.ndarray, from_y: int, figures: _Figures) -> None:
    difference = made[:, from_y:].astype(np.int32) - true[:, from_y:]
    figures.errors += np.square(difference).mean(axis=(1, 2, 3)).tolist()
    figures.greatest = max(figures.greatest, int(np.abs(difference).max()))


def _row(model: MuseTalk, figures: _Figures) -> Precision:
    return Precision(
        model.dtype,
        len(figures.errors),
        round(statistics.median(figures.block_ms), 2),
        round(statistics.median(figures.frame_ms), 2),
        round(psnr_db(statistics.fmean(figures.errors)), 1),
        round(psnr_db(max(figures.errors)), 1),
        figures.greatest,
    )

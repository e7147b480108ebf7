"""Arithmetic of vectors that meshes and strands share."""

from __future__ import annotations

import numpy as np

__all__ = ["unit"]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors [..., 3] at length 1; those of no length stay as they are."""
    made: np.ndarray = vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)
    return made

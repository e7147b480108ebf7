"""The probability that 32 ms of audio are speech: Silero VAD's network, in numpy.

The weights come from the ``silero-vad`` package (MIT), as safetensors; the package itself is not
imported, because its import sets torch's thread count for the whole process. A block takes some
tenths of a millisecond, always by the same operations in the same order, so that a stream's
probabilities do not depend on how it was cut.
"""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from wsavatar.errors import WsavatarError

__all__ = ["BLOCK_SAMPLES", "SileroError", "SileroStream", "weights_path"]

BLOCK_SAMPLES = 512
"""Samples at 16 kHz of one probability: 32 ms."""

_CONTEXT_SAMPLES = 64
_FFT, _HOP, _BINS = 256, 128, 129

Array = NDArray[np.float32]
Index = NDArray[np.intp]


def _frame_index() -> Index:
    """Indices of each spectrum's samples in context and block, mirrored at the end: [FFT, 4]."""
    positions = np.pad(
        np.arange(_CONTEXT_SAMPLES + BLOCK_SAMPLES), (0, _CONTEXT_SAMPLES), "reflect"
    )
    return np.lib.stride_tricks.sliding_window_view(positions, _FFT)[::_HOP].T.copy()


def _tap_index(channels: int, frames: int, stride: int) -> Index:
    """Indices of a width-3 convolution's inputs in ``[*x.flat, 0]``: [channels * 3, frames out]."""
    padded = np.full((channels, frames + 2), channels * frames)
    padded[:, 1:-1] = np.arange(channels * frames).reshape(channels, frames)
    taps = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=1)[:, ::stride]
    return taps.transpose(0, 2, 1).reshape(channels * 3, -1)


_FRAMES = _frame_index()
_LAYERS = (  # name, inputs of its convolution: 4 spectra become 4, 2, 1, 1 columns
    ("conv1", _tap_index(129, 4, 1)),
    ("conv2", _tap_index(128, 4, 2)),
    ("conv3", _tap_index(64, 2, 2)),
    ("conv4", _tap_index(64, 1, 1)),
)
_ZERO = np.zeros(1, np.float32)


class SileroError(WsavatarError, RuntimeError):
    """The weights are missing; the message names their package."""


class SileroStream:
    """The network with the state of one stream."""

    def __init__(self) -> None:
        self._weights = _weights()
        self._context = np.zeros(_CONTEXT_SAMPLES, np.float32)
        self._hidden = np.zeros(128, np.float32)
        self._cell = np.zeros(128, np.float32)

    def probability(self, block: Array) -> float:
        """Probability of speech, in [0, 1], of the stream's next float32 [BLOCK_SAMPLES]."""
        w = self._weights
        audio = np.concatenate([self._context, block])
        self._context = block[-_CONTEXT_SAMPLES:].copy()
        parts = w["stft_conv.weight"] @ audio[_FRAMES]
        x = np.hypot(parts[:_BINS], parts[_BINS:])
        for name, taps in _LAYERS:
            columns = np.concatenate([x.ravel(), _ZERO])[taps]
            x = np.maximum(w[f"{name}.weight"] @ columns + w[f"{name}.bias"], 0)
        self._step(x[:, 0])
        logit = w["final_conv.weight"] @ np.maximum(self._hidden, 0) + w["final_conv.bias"]
        return float(_sigmoid(logit)[0])

    def _step(self, x: Array) -> None:
        """One step of the LSTM; gates in torch's order: input, forget, cell, output."""
        w = self._weights
        gates = w["lstm_cell.weight"] @ np.concatenate([x, self._hidden]) + w["lstm_cell.bias"]
        i, f, g, o = np.split(gates, 4)
        self._cell = _sigmoid(f) * self._cell + _sigmoid(i) * np.tanh(g)
        self._hidden = _sigmoid(o) * np.tanh(self._cell)


def _sigmoid(x: Array) -> Array:
    # By tanh: exp would overflow, with a warning, for very negative x.
    result: Array = np.float32(0.5) * (np.float32(1) + np.tanh(np.float32(0.5) * x))
    return result


def weights_path() -> Path:
    """The file of the package's weights. Raises `SileroError`."""
    spec = find_spec("silero_vad")
    places = spec.submodule_search_locations if spec is not None else None
    path = Path(places[0], "data", "silero_vad_16k.safetensors") if places else None
    if path is None or not path.is_file():
        raise SileroError(
            "Voice activity needs the weights in the silero-vad package, 6.2 or later: "
            "pip install 'silero-vad>=6.2,<7'"
        )
    return path


@lru_cache(maxsize=1)
def _weights() -> dict[str, Array]:
    return _as_matrices(load_file(weights_path()))


def _as_matrices(file: dict[str, Array]) -> dict[str, Array]:
    """The file's tensors as the matrices and columns that a block is multiplied with."""
    matrices = {"stft_conv.weight": file["stft_conv.weight"][:, 0]}
    for name, _ in _LAYERS:
        weight = file[f"{name}.weight"]
        matrices[f"{name}.weight"] = np.ascontiguousarray(weight.reshape(len(weight), -1))
        matrices[f"{name}.bias"] = file[f"{name}.bias"][:, None]
    matrices["lstm_cell.weight"] = np.hstack(
        [file["lstm_cell.weight_ih"], file["lstm_cell.weight_hh"]]
    )
    matrices["lstm_cell.bias"] = file["lstm_cell.bias_ih"] + file["lstm_cell.bias_hh"]
    matrices["final_conv.weight"] = file["final_conv.weight"][:, :, 0]
    matrices["final_conv.bias"] = file["final_conv.bias"]
    return matrices

"""How likely it is that 32 ms of audio are speech: Silero VAD's network, in numpy.

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

__all__ = ["BLOCK_SAMPLES", "SileroError", "SileroStream"]

BLOCK_SAMPLES = 512
"""Samples at 16 kHz that one probability is of: 32 ms."""

_CONTEXT_SAMPLES = 64
_FFT, _HOP, _BINS = 256, 128, 129
_STRIDES = (1, 2, 2, 1)

Array = NDArray[np.float32]


class SileroError(RuntimeError):
    """The weights are not there; the message says which package brings them."""


class SileroStream:
    """One stream of audio through the network; holds its state."""

    def __init__(self) -> None:
        self._weights = _weights()
        self._context = np.zeros(_CONTEXT_SAMPLES, np.float32)
        self._hidden = np.zeros(128, np.float32)
        self._cell = np.zeros(128, np.float32)

    def probability(self, block: Array) -> float:
        """Float32 [BLOCK_SAMPLES], the stream's next: how likely it is speech, in [0, 1]."""
        audio = np.concatenate([self._context, block])
        self._context = block[-_CONTEXT_SAMPLES:]
        x = self._spectrogram(np.pad(audio, (0, _CONTEXT_SAMPLES), mode="reflect"))
        for layer, stride in enumerate(_STRIDES, start=1):
            x = self._convolve(x, f"conv{layer}", stride)
        self._step(x[:, 0])
        weight, bias = self._weights["final_conv.weight"], self._weights["final_conv.bias"]
        logit = weight[0, :, 0] @ np.maximum(self._hidden, 0) + bias[0]
        return float(_sigmoid(logit))

    def _spectrogram(self, audio: Array) -> Array:
        """[samples] -> magnitudes [bins, frames], by the network's own windowed DFT."""
        frames = np.lib.stride_tricks.sliding_window_view(audio, _FFT)[::_HOP]
        parts = self._weights["stft_conv.weight"][:, 0] @ frames.T
        magnitude: Array = np.hypot(parts[:_BINS], parts[_BINS:])
        return magnitude

    def _convolve(self, x: Array, name: str, stride: int) -> Array:
        """[in, frames] -> ReLU of a width-3 convolution, [out, ceil(frames / stride)]."""
        weight, bias = self._weights[f"{name}.weight"], self._weights[f"{name}.bias"]
        padded = np.pad(x, ((0, 0), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, 3, axis=1)[:, ::stride]
        columns = windows.transpose(0, 2, 1).reshape(-1, windows.shape[1])
        out: Array = weight.reshape(len(weight), -1) @ columns + bias[:, None]
        return np.maximum(out, 0)

    def _step(self, x: Array) -> None:
        """One step of the LSTM; gates in torch's order: input, forget, cell, output."""
        w = self._weights
        gates = (
            w["lstm_cell.weight_ih"] @ x
            + w["lstm_cell.bias_ih"]
            + w["lstm_cell.weight_hh"] @ self._hidden
            + w["lstm_cell.bias_hh"]
        )
        i, f, g, o = np.split(gates, 4)
        self._cell = _sigmoid(f) * self._cell + _sigmoid(i) * np.tanh(g)
        self._hidden = _sigmoid(o) * np.tanh(self._cell)


def _sigmoid(x: Array) -> Array:
    # By tanh: exp would overflow, with a warning, for very negative x.
    result: Array = np.float32(0.5) * (np.float32(1) + np.tanh(np.float32(0.5) * x))
    return result


@lru_cache(maxsize=1)
def _weights() -> dict[str, Array]:
    spec = find_spec("silero_vad")
    places = spec.submodule_search_locations if spec is not None else None
    path = Path(places[0], "data", "silero_vad_16k.safetensors") if places else None
    if path is None or not path.is_file():
        raise SileroError(
            "Voice activity needs the weights in the silero-vad package, 6.2 or later: "
            "pip install 'silero-vad>=6.2,<7'"
        )
    return load_file(path)

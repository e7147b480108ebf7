"""Encodes pictures that are in a device's memory.

JPEGs are encoded on the device if torchvision has nvJPEG: only their bytes are copied to the host.
Otherwise, and for every other encoder, the pixels are copied once for each batch and encoded on the
host; a missing nvJPEG is logged once. It knows neither frames nor sessions.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from wsavatar.machine import yield_to_others
from wsavatar.render.encoders import encoder_for

__all__ = ["DeviceEncoder", "new_stream"]

_log = logging.getLogger(__name__)

Encode = Callable[[Tensor, int], Tensor]
"""uint8 [3, h, w] and its quality to uint8 [n], on one device."""


def new_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A CUDA device's; None elsewhere."""
    make: Callable[..., torch.cuda.Stream] = torch.cuda.Stream  # torch leaves it untyped
    return make(device) if device.type == "cuda" else None


class DeviceEncoder:
    """Encodes batches of pictures on ``device``. Thread-safe; on a GPU one call runs at a time.

    ``find`` is called once for the device's encoder; None: encode on the host.
    """

    def __init__(
        self, device: torch.device, find: Callable[[torch.device], Encode | None] | None = None
    ) -> None:
        self._device = device
        self._cuda = device.type == "cuda"
        self._encode = (find or _find_nvjpeg)(device) if self._cuda or find else None
        self._copies = new_stream(device)
        spare = max(1, (os.cpu_count() or 1) - 1)  # threads start when there is something to encode
        self._cores = ThreadPoolExecutor(min(8, spare), "encode", initializer=yield_to_others)

    def encode(
        self, pictures: Sequence[Tensor], qualities: Sequence[int], encoders: Sequence[str]
    ) -> list[bytes]:
        """Bytes of uint8 [3, h, w], or [4, h, w] with alpha, in order.

        JPEGs are 4:4:4 on a GPU, 4:2:0 on the cores.
        ``encoders`` are names of `wsavatar.render.encoders`. Every picture must be complete: no
        stream is awaited. After the return, nothing on the device reads them.
        """
        there = [i for i, name in enumerate(encoders) if self._encode and name == "jpeg"]
        here = [i for i in range(len(pictures)) if i not in there]
        data = [b""] * len(pictures)
        if self._encode is not None and there:
            made = self._on_device(
                self._encode, [pictures[i] for i in there], [qualities[i] for i in there]
            )
            for i, piece in zip(there, made, strict=True):
                data[i] = piece.tobytes()
        if here:
            on_cores = self._on_cores(
                [pictures[i] for i in here],
                [qualities[i] for i in here],
                [encoders[i] for i in here],
            )
            for i, one in zip(here, on_cores, strict=True):
                data[i] = one
        return data

    def _on_device(
        self, encode: Encode, pictures: Sequence[Tensor], qualities: Sequence[int]
    ) -> list[np.ndarray]:
        encoded = []
        with self._on(torch.cuda.default_stream(self._device) if self._cuda else None):
            for picture, quality in zip(pictures, qualities, strict=True):
                encoded.append(encode(picture, quality))
            return _to_host(encoded)

    def _on_cores(
        self, pictures: Sequence[Tensor], qualities: Sequence[int], encoders: Sequence[str]
    ) -> list[bytes]:
        with self._on(self._copies):  # beside the model's stream, which has started the next batch
            flat = _to_host([picture.permute(1, 2, 0).flatten() for picture in pictures])
        arrays = [
            pixels.reshape(*picture.shape[1:], len(picture))
            for pixels, picture in zip(flat, pictures, strict=True)
        ]
        return list(self._cores.map(_encoded, arrays, qualities, encoders))

    @contextlib.contextmanager
    def _on(self, stream: torch.cuda.Stream | None) -> Iterator[None]:
        if stream is None:
            yield
        else:
            with torch.cuda.device(self._device), torch.cuda.stream(stream):
                yield


def _encoded(picture: np.ndarray, quality: int, encoder: str) -> bytes:
    return encoder_for(encoder).encode(picture, quality)


def _to_host(pieces: Sequence[Tensor]) -> list[np.ndarray]:
    """uint8 [n] each, from the device in one copy. Blocks until the current stream is done."""
    data = torch.cat(list(pieces))
    if data.device.type == "cuda":
        host = torch.empty(data.shape, dtype=data.dtype, pin_memory=True)
        host.copy_(data, non_blocking=True)
        torch.cuda.current_stream(data.device).synchronize()
        data = host
    return np.split(data.numpy(), np.cumsum([len(piece) for piece in pieces])[:-1])


def _find_nvjpeg(device: torch.device) -> Encode | None:
    """torchvision's encoder, tested with a small picture; else None, and a warning."""
    try:
        picture = torch.zeros(3, 16, 16, dtype=torch.uint8, device=device)
        encode = _torchvision_encoder(picture.device)
        data = encode(picture, 85).cpu()
        if data[:2].tolist() != [0xFF, 0xD8]:
            raise RuntimeError("what it made is no JPEG")
    except Exception as error:  # missing, built without nvJPEG, or for another CUDA release
        _log.warning(
            "%s: torchvision has no usable nvJPEG (%s): encoding JPEGs on the CPU, which is slower",
            device,
            error,
        )
        return None
    return encode


_home_devices: list[torch.device] = []
_turn = threading.Lock()


def _torchvision_encoder(device: torch.device) -> Encode:
    """nvJPEG for ``device``; one call at a time in the process.

    torchvision has one encoder in a process, for one device, and would build it again for another
    device. So all pictures are encoded on the first device, after a copy between devices.
    """
    from torchvision.io import encode_jpeg  # type: ignore[import-not-found, unused-ignore]

    def encode(picture: Tensor, quality: int) -> Tensor:
        with _turn:
            home = picture.to(_home_devices[0])
            stream = torch.cuda.default_stream(home.device)
            # It encodes on a stream of its own, which waits for no other, and takes the bytes out
            # over the default stream, without waiting: the next picture could overwrite them.
            stream.synchronize()
            data: Tensor = encode_jpeg(home, quality)
            stream.synchronize()
            return data

    if not _home_devices:
        _home_devices.append(device)
    return encode

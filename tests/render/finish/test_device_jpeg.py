"""Bytes of pictures that a device finished, made there or on the cores."""

from __future__ import annotations

import logging
import sys

import cv2
import numpy as np
import pytest
import torch

from tests.render.finish.on_device import batch, drawn
from wsavatar.config import RenderSettings
from wsavatar.render.finish import device_jpeg
from wsavatar.render.finish.device import DeviceFinisher
from wsavatar.render.finish.device_jpeg import DeviceEncoder
from wsavatar.render.jobs import VideoFormat


def decode(data: bytes) -> np.ndarray:
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB)


def test_bytes_come_in_the_order_of_the_works(device: torch.device) -> None:
    """Each JPEG is its own row's picture, in its own size and quality."""
    mouth = VideoFormat(region="mouth")
    videos = [VideoFormat(quality=90), mouth, VideoFormat(quality=30)]
    works, patches = batch([drawn(90), drawn(60, 1, (160, 180))], videos, 6)
    patches[:] = np.arange(0, 240, 40)[:, None, None, None]
    finisher = DeviceFinisher(device, RenderSettings())
    made = finisher.compose(works, torch.from_numpy(patches).to(device))
    data = finisher.encode(works, made)
    for one, row in zip(data, made.rows, strict=True):
        picture = row.permute(1, 2, 0).cpu().numpy()
        apart = np.abs(decode(one).astype(int) - picture).mean()
        assert apart < 4
    assert 2 * len(data[0]) > 3 * len(data[2])  # one avatar and size, at two qualities


def test_an_encoder_of_the_device_gives_each_row_its_own_bytes() -> None:
    """Bytes of any length come over in one copy, and are cut where each picture's end."""

    def encode(picture: torch.Tensor, quality: int) -> torch.Tensor:
        return torch.full((int(picture[0, 0, 0]),), quality, dtype=torch.uint8)

    encoder = DeviceEncoder(torch.device("cpu"), lambda device: encode)
    pictures = [torch.full((3, 2, 2), number, dtype=torch.uint8) for number in (3, 1, 4, 1, 5)]
    data = encoder.encode(pictures, [85, 50, 85, 50, 90], ["jpeg"] * 5)
    assert data == [bytes([85] * 3), bytes([50]), bytes([85] * 4), bytes([50]), bytes([90] * 5)]


def test_other_encoders_than_the_devices_own_encode_on_the_cores() -> None:
    """A batch of both kinds keeps its order."""

    def encode(picture: torch.Tensor, quality: int) -> torch.Tensor:
        return torch.full((2,), quality, dtype=torch.uint8)

    encoder = DeviceEncoder(torch.device("cpu"), lambda device: encode)
    pictures = [torch.full((3, 2, 2), number, dtype=torch.uint8) for number in (3, 1, 4)]
    data = encoder.encode(pictures, [85, 50, 90], ["raw", "jpeg", "raw"])
    assert data == [bytes([3] * 12), bytes([50] * 2), bytes([4] * 12)]


def test_without_nvjpeg_the_cpu_encodes_with_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Without torchvision, pictures are encoded on the CPU, with one warning."""
    monkeypatch.setitem(sys.modules, "torchvision.io", None)
    with caplog.at_level(logging.WARNING):
        encoder = DeviceEncoder(torch.device("cpu"), device_jpeg._find_nvjpeg)
        picture = torch.full((3, 16, 24), 90, dtype=torch.uint8)
        data = encoder.encode([picture, picture], [85, 85], ["jpeg", "jpeg"])
    assert [decode(one).shape for one in data] == [(16, 24, 3)] * 2
    assert len([r for r in caplog.records if "nvJPEG" in r.message]) == 1

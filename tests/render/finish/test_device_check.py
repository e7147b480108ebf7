"""A device finishes pictures only if it makes those of the CPU: the check at the start."""

from __future__ import annotations

import importlib.util
import logging

import pytest
import torch

from tests.fake_model import FakeModel
from wsavatar.config import RenderSettings
from wsavatar.render.finish.device import DeviceFinisher, check_finisher
from wsavatar.render.finish.finisher import make_finisher
from wsavatar.render.finish.host import HostFinisher


def test_a_sound_device_passes_the_check(device: torch.device) -> None:
    """Some small frames, finished both ways, agree; nothing of them stays on the device."""
    settings = RenderSettings(colour_match=True)
    finisher = DeviceFinisher(device, settings)
    check_finisher(finisher, HostFinisher(settings))
    assert finisher.avatars.used_bytes == 0


def test_a_device_that_miscalculates_does_not_pass(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pictures that differ from the CPU's raise RuntimeError, so that the CPU takes over."""
    from wsavatar.render.finish import images

    real = images.separable
    monkeypatch.setattr(images, "separable", lambda *args: real(*args) * 0.9)
    finisher = DeviceFinisher(device, RenderSettings(sharpness=0))
    with pytest.raises(RuntimeError, match="not those of the CPU"):
        check_finisher(finisher, HostFinisher(RenderSettings(sharpness=0)))


def test_a_device_that_miscalculates_transparent_frames_alone_does_not_pass(
    device: torch.device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Theirs are compared as well, with their alpha."""
    from wsavatar.render.finish import device as module

    real = module.move_pixels

    def opaque(window: torch.Tensor, *rest: torch.Tensor) -> torch.Tensor:
        moved = real(window, *rest)
        moved[:, 3:] = 255
        return moved

    monkeypatch.setattr(module, "move_pixels", opaque)
    finisher = DeviceFinisher(device, RenderSettings())
    with pytest.raises(RuntimeError, match="not those of the CPU"):
        check_finisher(finisher, HostFinisher(RenderSettings()))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_model_on_a_gpu_is_finished_there(caplog: pytest.LogCaptureFixture) -> None:
    """The device passes its check and makes JPEGs itself: no warning says otherwise."""
    model = FakeModel()
    model.device = torch.device("cuda", 0)
    with caplog.at_level(logging.WARNING):
        finisher = make_finisher(model, RenderSettings())
    assert finisher.on_device
    if importlib.util.find_spec("torchvision") is not None:
        assert not caplog.records

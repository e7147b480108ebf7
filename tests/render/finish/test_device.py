"""Finishing on a device makes the pictures that the CPU makes, in few operations.

On a machine without a GPU the same arithmetic runs on CPU tensors.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.render.finish.on_device import SIZE, assert_close, batch, compose_both, drawn, prepared
from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.render.finish.device import DeviceFinisher
from wsavatar.render.finish.host import HostFinisher
from wsavatar.render.jobs import VideoFormat
from wsavatar.resources import resource_dir


@pytest.fixture(scope="module")
def bundled() -> list[PreparedAvatar]:
    """The first frames of the avatars that ship."""
    pytest.importorskip("av")
    from wsavatar.avatars.format import read_avatar_file
    from wsavatar.avatars.landmarks import read_landmarks
    from wsavatar.media.video import read_video

    avatars = []
    for folder in sorted(path.parent for path in resource_dir("avatars").glob("*/avatar.json")):
        file = read_avatar_file(folder)
        _, frames = read_video(folder / file.video, max_frames=3)
        avatars.append(prepared(frames, read_landmarks(folder, file)[:3]))
    return avatars


@pytest.mark.parametrize("colour_match", [False, True])
@pytest.mark.parametrize("region", ["full", "mouth"])
def test_real_avatars_look_as_the_cpu_makes_them(
    bundled: list[PreparedAvatar], device: torch.device, region, colour_match: bool
) -> None:
    """All bundled avatars in one batch: at most 1 level apart, in fewer than 1 value of 1000."""
    works, patches = batch(bundled, [VideoFormat(region=region)], 6)
    pairs = compose_both(device, works, patches, colour_match=colour_match)
    assert_close(pairs, levels=1, share=0.001)
    for work, (made, _) in zip(works, pairs, strict=True):
        x, y, w, h = work.spec.region
        still = work.spec.avatar.pictures[work.source_index][y : y + h, x : x + w]
        assert (made != still).any()  # a mouth was pasted at all


@pytest.mark.parametrize("face", [50, 90, 140])
def test_faces_of_any_size_are_placed(device: torch.device, face: int) -> None:
    """Patches that shrink, that grow, and that do one down and the other across."""
    works, patches = batch([drawn(face)], [VideoFormat()], 4)
    assert_close(compose_both(device, works, patches), levels=1, share=0.005)


def test_one_batch_serves_any_avatars_and_formats(device: torch.device) -> None:
    """Sizes of picture and face, regions, widths and qualities mix; each row gets its own."""
    avatars = [drawn(50, 1), drawn(90, 2), drawn(140, 3), drawn(60, 4, (160, 180))]
    videos = [
        VideoFormat(),
        VideoFormat(region="mouth", quality=40),
        VideoFormat(max_width=130),
        VideoFormat(region="mouth", max_width=100),
        VideoFormat(max_width=5000),
    ]
    works, patches = batch(avatars, videos, 20)
    pairs = compose_both(device, works, patches)
    assert len({made.shape for made, _ in pairs}) > 8
    assert_close(pairs, levels=2, share=0.05)


def test_a_row_does_not_depend_on_its_company(device: torch.device) -> None:
    """A frame is the same alone and in a batch: no pixel of another frame affects it."""
    works, patches = batch([drawn(50, 1), drawn(140, 2)], [VideoFormat()], 4)
    together = [made for made, _ in compose_both(device, works, patches)]
    for row, work in enumerate(works):
        (alone, _), *_ = compose_both(device, [work], patches[row : row + 1])
        assert np.abs(alone.astype(int) - together[row]).max() <= 1


def test_boxes_may_leave_the_picture(device: torch.device) -> None:
    """A crop half outside is pasted as far as there is a picture, as on the CPU."""
    avatar = drawn(90)
    moved = np.array([-40, 30, -40, 30], np.int32)
    face = replace(
        avatar.face,
        crop_boxes=avatar.face.crop_boxes + moved,
        paste_boxes=avatar.face.paste_boxes + moved,
    )
    edge = replace(avatar, face=face, region=(0, 0, avatar.width, avatar.height))
    assert face.crop_boxes[:, 0].min() < 40
    works, patches = batch([edge], [VideoFormat()], 3)
    assert_close(compose_both(device, works, patches), levels=1, share=0.005)


def test_a_crop_of_nothing_changes_nothing(device: torch.device) -> None:
    """An empty box makes no hole in the picture."""
    avatar = drawn(90)
    corners = np.repeat(avatar.face.crop_boxes[:, :2], 2, axis=1)[:, [0, 2] * 2]
    empty = replace(avatar, face=replace(avatar.face, crop_boxes=corners, jaw=None))
    works, _ = batch([avatar], [VideoFormat()], 1)
    works = [replace(works[0], spec=replace(works[0].spec, avatar=empty))]
    (made, _), *_ = compose_both(device, works, np.zeros((1, SIZE, SIZE, 3), np.uint8))
    assert (made == empty.pictures[works[0].source_index]).all()


def test_patches_that_do_not_fit_the_works_are_refused(device: torch.device) -> None:
    """Too few, of another type or shape: a ValueError, not somebody else's mouth."""
    works, patches = batch([drawn()], [VideoFormat()], 2)
    finisher = DeviceFinisher(device, RenderSettings())
    for wrong in (patches[:1], patches.astype(np.float32), patches[0]):
        with pytest.raises(ValueError, match="2 frames need"):
            finisher.compose(works, torch.from_numpy(wrong).to(device))


def test_inputs_are_those_of_the_avatar_s_frames(device: torch.device) -> None:
    """One tensor, rows in the order of the works, bit for bit."""
    works, _ = batch([drawn(seed=1), drawn(seed=2)], [VideoFormat()], 5)
    made = DeviceFinisher(device, RenderSettings()).inputs(works)
    assert made.dtype == torch.float16 and made.device.type == device.type
    right = np.stack(HostFinisher(RenderSettings()).inputs(works))
    assert (made.cpu().numpy() == right).all()


class Launches(TorchDispatchMode):
    """Counts the operations that write memory: on a GPU each is a kernel, or a few."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        name = function.__name__.split(".")[0]
        given = {x.untyped_storage().data_ptr() for x in args if isinstance(x, torch.Tensor)}
        writes = isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() not in given
        if name.endswith("_") or writes:
            self.names.append(name)
        return made


@pytest.mark.parametrize("rows", [1, 16])
@pytest.mark.parametrize("region", ["full", "mouth"])
@pytest.mark.parametrize("jaw", [False, True])
def test_a_batch_is_few_launches(rows: int, region, jaw: bool) -> None:
    """Under 40 operations for a batch of any size and any avatars of one picture size; with what
    moves with their jaws, under 120."""
    avatars = [drawn(seed=seed) for seed in (0, 2, 4)]
    if not jaw:
        avatars = [replace(a, face=replace(a.face, jaw=None, colours=None)) for a in avatars]
    works, patches = batch(avatars, [VideoFormat(region=region)], rows)
    finisher = DeviceFinisher(torch.device("cpu"), RenderSettings())
    finisher.compose(works, torch.from_numpy(patches))  # copies avatars, makes constant weights
    with Launches() as launches:
        finisher.compose(works, torch.from_numpy(patches))
    assert 20 < len(launches.names) < (120 if jaw else 40)

"""Transparent frames: their alpha is that of the frame below, moved with the jaw, in any format."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from tests.drawn_faces import face_landmarks
from tests.render.finish.on_device import assert_close, batch, compose_both, drawn
from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.avatars.background import Backgrounds
from wsavatar.config import RenderSettings
from wsavatar.faces.masks import Masks
from wsavatar.media.matting import cut_out
from wsavatar.render.encoders import encoder_for, raw_picture
from wsavatar.render.finish.device_avatars import DeviceAvatars
from wsavatar.render.finish.device_jpeg import DeviceEncoder
from wsavatar.render.finish.host import HostFinisher
from wsavatar.render.jobs import VideoFormat
from wsavatar.render.work import FrameWork

ANY = Backgrounds("original")


def cut(background: str = "transparent", seed: int = 0) -> PreparedAvatar:
    """A drawn face, cut out just around its jaw."""
    avatar = drawn(seed=seed)
    masks = []
    for index in range(avatar.frame_count):
        points = face_landmarks((avatar.width / 2 + 2 * index, 80 + index), 90)
        mask = np.zeros((avatar.height, avatar.width), np.uint8)
        hull = np.concatenate([points[:17], points[[16, 0]] - [0, 60]])
        cv2.fillConvexPoly(mask, np.rint(hull).astype(np.int32), 255)
        masks.append(cv2.GaussianBlur(mask, (5, 5), 0))
    behind = ANY.named(background)
    assert behind is not None
    return avatar.before(behind, Masks(masks))


def batch_of(
    shown: list[PreparedAvatar], videos: list[VideoFormat], count: int
) -> tuple[list[FrameWork], np.ndarray]:
    """As `batch`; patches are drawn of the original pictures, as a model draws them."""
    works, patches = batch([drawn(seed=int(one.id[-1])) for one in shown], videos, count)
    works = [
        replace(work, spec=replace(work.spec, avatar=shown[row % len(shown)]))
        for row, work in enumerate(works)
    ]
    return works, patches


def test_the_alpha_of_a_frame_is_that_of_the_picture_below() -> None:
    """With a mouth that does not move, exactly; the model draws colours alone."""
    avatar = cut(seed=1)
    works, patches = batch_of([avatar], [VideoFormat(encoder="png")], 1)
    (made,) = HostFinisher(RenderSettings()).compose(works, patches)
    still = avatar.pictures[works[0].source_index]
    assert made.shape[2] == 4 and (made[..., 3] == still[..., 3]).all()
    assert (made[..., :3] != still[..., :3]).any()


def test_a_chin_that_drops_takes_its_edge_along() -> None:
    """It is not cut off where the mask of the closed mouth ends."""
    avatar = cut()
    works, patches = batch_of([avatar], [VideoFormat(encoder="png")], 1)
    jaw = avatar.face.jaw_of(works[0].source_index)
    assert jaw is not None
    # What the model sees of the face with its jaw opened by five cells.
    opened = cv2.resize(jaw.looks[-1], None, fx=4, fy=4, interpolation=cv2.INTER_NEAREST)
    patches[0, -len(opened) :, : opened.shape[1]] = opened
    (made,) = HostFinisher(RenderSettings()).compose(works, patches)
    still = avatar.pictures[works[0].source_index]
    chin, closed = (int(np.nonzero(one[:, 120, 3] > 128)[0][-1]) for one in (made, still))
    assert 3 <= chin - closed <= 30
    dropped = made[chin - 3 : chin, 120, :3].astype(int)
    assert np.abs(dropped - (220, 170, 140)).max() < 12  # skin, not the background


@pytest.mark.parametrize("region", ["full", "mouth"])
def test_a_device_makes_the_same_transparent_frames(device: torch.device, region: str) -> None:
    """Beside opaque ones, before any background, in one batch; scaled too."""
    avatars = [cut(), drawn(), cut("#00b140"), cut(seed=1)]
    videos = [VideoFormat(region=region), VideoFormat(region=region, max_width=130)]
    works, patches = batch_of(avatars, videos, 8)
    pairs = compose_both(device, works, patches)
    assert [made.shape[2] for made, _ in pairs] == [4, 3, 3, 4] * 2
    assert_close(pairs, levels=2, share=0.05)


def test_an_avatar_is_held_once_for_each_background(device: torch.device) -> None:
    """Its face may be the same."""
    held = DeviceAvatars(device, 1 << 40)
    plain, clear = drawn(), cut()
    assert held.picture(plain, 1).shape[0] == 4
    first = held.picture(clear, 1)
    assert first.shape[0] == 5 and held.picture(clear, 1).data_ptr() == first.data_ptr()
    assert (first[:4].permute(1, 2, 0).cpu().numpy() == clear.pictures[1]).all()


def layered() -> np.ndarray:
    picture = cut_out(drawn().pictures[0], np.full((200, 240), 255, np.uint8))
    picture[:, :100, 3] = 0
    picture[:, 100:140, 3] = 128
    return picture


@pytest.mark.parametrize("codec", ["webp", "png"])
def test_formats_with_alpha_keep_it(codec: str) -> None:
    """Within a level, and colours as far as they are lossless; opaque pictures are taken too."""
    picture = layered()
    data = np.frombuffer(encoder_for(codec).encode(picture, 85), np.uint8)
    read = cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_UNCHANGED), cv2.COLOR_BGRA2RGBA)
    assert np.abs(read[..., 3].astype(int) - picture[..., 3]).max() <= (codec == "webp")
    assert (read[:, 140:, 3] == 255).all() and (read[:, :100, 3] == 0).all()
    apart = np.abs(read.astype(int) - picture)[:, 140:, :3]
    assert apart.mean() < (4 if codec == "webp" else 0.001)
    opaque = np.frombuffer(encoder_for(codec).encode(picture[..., :3].copy(), 85), np.uint8)
    assert cv2.imdecode(opaque, cv2.IMREAD_UNCHANGED).shape == (200, 240, 3)


def test_a_device_encodes_frames_with_alpha_on_the_cores(device: torch.device) -> None:
    """Whatever encodes its JPEGs; raw pixels keep their alpha for a film."""
    picture = layered()
    there = torch.from_numpy(picture).permute(2, 0, 1).contiguous().to(device)
    png, raw, jpeg = DeviceEncoder(device).encode(
        [there, there, there[:3]], [85] * 3, ["png", "raw", "jpeg"]
    )
    assert png == encoder_for("png").encode(picture, 85)
    assert (raw_picture(raw, (240, 200)) == picture).all()
    assert jpeg.startswith(b"\xff\xd8")


def test_a_jpeg_cannot_be_transparent() -> None:
    """Such a frame fails by itself; a session is refused before it asks for one."""
    with pytest.raises(ValueError, match="uint8"):
        encoder_for("jpeg").encode(layered(), 85)

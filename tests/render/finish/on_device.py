"""Drawn avatars, and batches of them that a device and the CPU finish."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch

from tests.drawn_faces import draw_face, face_landmarks
from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.faces.avatar_face import AvatarFace, Jaw
from wsavatar.faces.musetalk.geometry import crop_box, lower_face_mask, paste_box, take_crop
from wsavatar.faces.musetalk.jaw import jaw_of_face
from wsavatar.faces.musetalk.spec import CropMargin
from wsavatar.media.pictures import DecodedPictures
from wsavatar.render.finish.device import DeviceFinisher
from wsavatar.render.finish.host import HostFinisher
from wsavatar.render.jobs import VideoFormat
from wsavatar.render.work import ChunkWork, FrameWork, StreamSpec
from wsavatar.speech.chunker import Chunk

__all__ = ["SIZE", "assert_close", "batch", "compose_both", "drawn", "prepared"]

SIZE = 64


def prepared(frames: np.ndarray, landmarks: np.ndarray, seed: int = 0) -> PreparedAvatar:
    """An avatar as a model prepares it, without one: its inputs are noise."""
    height, width = frames.shape[1:3]
    crops = [crop_box(points, CropMargin(pixels=10), width, height) for points in landmarks]
    pastes = [paste_box(crop, width, height) for crop in crops]
    masks = tuple(
        lower_face_mask(points, crop, square, width, height)
        for points, crop, square in zip(landmarks, crops, pastes, strict=True)
    )
    random = np.random.default_rng(seed)
    inputs = random.normal(size=(len(frames), 8, 4, 4)).astype(np.float16)
    jaw = None
    if seed % 2 == 0:  # every second avatar has one, so that batches are of both kinds
        jaws = [
            jaw_of_face(points, crop, take_crop(frame, crop, SIZE), SIZE // 4)
            for points, crop, frame in zip(landmarks, crops, frames, strict=True)
        ]
        parts = zip(*(jaw.arrays().values() for jaw in jaws), strict=True)
        jaw = Jaw(*(np.stack(part) for part in parts))
    boxes = np.array(crops, np.int32), np.array(pastes, np.int32)
    colours = None if jaw is None else np.array([[-30, -40], [60, 5]], np.int16)
    face = AvatarFace(*boxes, masks, inputs, jaw, colours)
    region = face.region(width, height)
    return PreparedAvatar(
        f"drawn-{seed}", "Drawn", width, height, 25.0, DecodedPictures(frames), region, face
    )


def drawn(face: float = 90, seed: int = 0, size: tuple[int, int] = (240, 200)) -> PreparedAvatar:
    """A swaying drawn face of so many pixels."""
    landmarks = [face_landmarks((size[0] / 2 + 2 * i, 80 + i), face) for i in range(4)]
    frames = np.stack([draw_face(*size, points) for points in landmarks])
    return prepared(frames, np.stack(landmarks), seed)


def batch(
    avatars: list[PreparedAvatar], videos: list[VideoFormat], count: int
) -> tuple[list[FrameWork], np.ndarray]:
    """Frames of as many streams, avatars and formats in turn, with patches near the truth."""
    source = ChunkWork(Chunk(0, count, 0, np.zeros((0, 0), np.float32), None, 0, Fraction(25)))
    specs = [
        StreamSpec(i, avatars[i % len(avatars)], videos[i % len(videos)], 0, i)
        for i in range(count)
    ]
    works = [FrameWork(spec, source, row) for row, spec in enumerate(specs)]
    random = np.random.default_rng(count)
    patches = []
    for work in works:
        avatar, index = work.spec.avatar, work.source_index
        box = np.clip(avatar.face.crop_boxes[index], 0, [avatar.width, avatar.height] * 2)
        crop = take_crop(avatar.pictures[index], tuple(box), SIZE).astype(int)
        patches.append(np.clip(crop + random.integers(-12, 8, crop.shape), 0, 255))
    return works, np.stack(patches).astype(np.uint8)


def compose_both(
    device: torch.device, works: list[FrameWork], patches: np.ndarray, **settings: float
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Each frame's picture, as the device made it and as the CPU did."""
    chosen = RenderSettings(**settings)
    finisher = DeviceFinisher(device, chosen)
    made = finisher.compose(works, torch.from_numpy(patches).to(device))
    if made.done is not None:
        made.done.synchronize()
    right = HostFinisher(chosen).compose(works, patches)
    assert all(row.is_contiguous() and row.dtype == torch.uint8 for row in made.rows)
    return [
        (row.permute(1, 2, 0).cpu().numpy(), picture)
        for row, picture in zip(made.rows, right, strict=True)
    ]


def assert_close(pairs: list[tuple[np.ndarray, np.ndarray]], levels: int, share: float) -> None:
    for made, right in pairs:
        assert made.shape == right.shape
    apart = np.concatenate([np.abs(made.astype(int) - right).ravel() for made, right in pairs])
    assert apart.max() <= levels
    assert (apart > 0).mean() < share

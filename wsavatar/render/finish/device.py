"""Finishing on the model's device: patches are pasted and scaled there, on avatars stored there.

`DeviceFinisher` does the work of `HostFinisher` for a batch at once: rows of any sessions, avatars
and formats, without a wait until the bytes are ready. Pictures differ from the host's by at most 1
level of 255, in fewer than 1 value of 1000; where they are scaled down, by at most 2, in fewer than
1 of 20 (where sides are halved 1 of 6: there OpenCV rounds halves up, and this to even). It knows
neither queues nor outcomes.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.avatars.background import TRANSPARENT, Background
from wsavatar.config import RenderSettings
from wsavatar.faces.avatar_face import JAW_STEPS, AvatarFace, Jaw
from wsavatar.faces.colours import ALL_COLOURS
from wsavatar.faces.masks import Masks
from wsavatar.media.pictures import DecodedPictures
from wsavatar.render.finish import images
from wsavatar.render.finish.device_avatars import DeviceAvatars, to_device
from wsavatar.render.finish.device_jaw import JawShape, move_pixels, read_jaws
from wsavatar.render.finish.device_jpeg import DeviceEncoder, new_stream
from wsavatar.render.finish.host import HostFinisher
from wsavatar.render.finish.paste import COLOUR_MATCH_LEVELS
from wsavatar.render.jobs import VideoFormat
from wsavatar.render.work import ChunkWork, FrameWork, StreamSpec

__all__ = ["DeviceFinisher", "DevicePictures", "check_finisher"]

_TOLERANCE = 2
_BEGINS = {"jpeg": b"\xff\xd8", "png": b"\x89PNG"}

Box = tuple[int, int, int, int]
"""(left, top, right, bottom)."""


# -- the finisher ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DevicePictures:
    """A composed batch; ``done`` is the event of its completion, None if it is complete."""

    rows: list[Tensor]
    """uint8 [3, h, w] or [4, h, w] each, in the order of the batch's works."""
    done: torch.cuda.Event | None


class DeviceFinisher:
    """Pastes, scales and encodes on ``device``.

    A CUDA device; on a CPU the same arithmetic runs, for tests.
    """

    on_device = True

    def __init__(self, device: torch.device, settings: RenderSettings) -> None:
        self._device = device
        self._cuda = device.type == "cuda"
        self._sharpness = settings.sharpness
        self._colour_match = settings.colour_match
        self._stream = new_stream(device)
        # `inputs` and `compose` read avatars on that stream; what `encode` reads is made of them.
        self.avatars = DeviceAvatars(device, settings.device_avatar_mb * 2**20, self._stream)
        self._encoder = DeviceEncoder(device)

    def scope(self) -> AbstractContextManager[Any]:
        """A CUDA stream of its own for the model and `compose`.

        `DeviceEncoder` waits for the device's default stream. Were the model on that stream too, a
        batch's JPEGs would wait until the next batch's faces are done.
        """
        return torch.cuda.stream(self._stream) if self._cuda else contextlib.nullcontext()

    @torch.inference_mode()
    def inputs(self, works: Sequence[FrameWork]) -> Tensor:
        """Each frame's row of its avatar's `AvatarFace.inputs`: [b, ...] on the device."""
        return torch.stack([self.avatars.inputs(w.spec.prepared, w.source_index) for w in works])

    @torch.inference_mode()
    def compose(self, works: Sequence[FrameWork], patches: Tensor) -> DevicePictures:
        """Queue the batch's pictures; ``patches`` uint8 [b, S, S, 3] on the device.

        Raises ValueError for patches of another shape, type or number.
        """
        if len(patches) != len(works) or patches.ndim != 4 or patches.dtype != torch.uint8:
            raise ValueError(
                f"{len(works)} frames need uint8 patches [{len(works)}, S, S, 3], "
                f"not {patches.dtype} {list(patches.shape)}"
            )
        plain = self._with_colours(works, images.to_lines(patches))
        lines = images.unsharp_lines(plain, self._sharpness)
        groups = _groups(works, patches.shape[1])
        crops = to_device(np.concatenate([g.crops for g in groups], axis=2), self._device)
        rows: list[Tensor] = [patches] * len(works)
        start = 0
        for group in groups:
            stop = start + len(group.rows)
            mine = (plain, lines)
            if len(groups) > 1:
                mine = (_take(plain, group.rows), _take(lines, group.rows))
            for row, picture in self._pictures(group, *mine, crops[:, :, start:stop]):
                rows[row] = picture
            start = stop
        done = None
        if self._cuda:
            # Blocking: the waiting thread sleeps and leaves its core to others.
            new_event: Callable[..., torch.cuda.Event] = torch.cuda.Event
            done = new_event(blocking=True)
            done.record(torch.cuda.current_stream(self._device))
        return DevicePictures(rows, done)

    @torch.inference_mode()
    def encode(self, works: Sequence[FrameWork], pictures: DevicePictures) -> list[bytes]:
        """Encode each picture with its stream's encoder and quality; see `DeviceEncoder`."""
        if pictures.done is not None:
            pictures.done.synchronize()
        videos = [work.spec.video for work in works]
        return self._encoder.encode(
            pictures.rows, [v.quality for v in videos], [v.encoder for v in videos]
        )

    def prepare(self, avatar: PreparedAvatar) -> None:
        """Copy an avatar to the device while batches go on."""
        self.avatars.prepare(avatar)

    def evict(self) -> None:
        """Remove the least recently used avatars; they are copied again when next used."""
        self.avatars.evict()

    # Composing.

    def _pictures(
        self, group: _Group, plain: Tensor, lines: Tensor, crops: Tensor
    ) -> Iterator[tuple[int, Tensor]]:
        """Each row of the group with its picture, uint8 [3, h, w], transparent ones [4, h, w].

        ``plain`` are its patches as the model drew them, ``lines`` sharpened.
        """
        frames = [self.avatars.picture(w.spec.prepared, w.source_index) for w in group.works]
        left, top, right, bottom = group.window
        window = torch.stack([frame[:, top:bottom, left:right] for frame in frames])
        blended = self._paste(group, window, plain, lines, crops)
        for (box, size), members in group.formats.items():
            x1, y1, x2, y2 = box
            pictures = torch.stack([frames[member][:-1, y1:y2, x1:x2] for member in members])
            mine = blended if len(members) == len(frames) else _take(blended, members)
            columns = slice(max(left, x1), min(right, x2))
            rows = slice(max(top, y1), min(bottom, y2))
            pictures[:, :, _moved(rows, -y1), _moved(columns, -x1)] = mine[
                :, :, _moved(rows, -top), _moved(columns, -left)
            ]
            if size != (x2 - x1, y2 - y1):
                # On a GPU in half precision, for its tensor cores: here products are as large as
                # whole pictures, and pixels are exact in both.
                dtype = torch.float16 if self._cuda else torch.float32
                pictures = images.resize(
                    pictures, *size, interpolation="area", channels_last=False, dtype=dtype
                )
            yield from zip((group.rows[member] for member in members), pictures, strict=True)

    def _with_colours(self, works: Sequence[FrameWork], lines: Tensor) -> Tensor:
        """`colours.with_colours` of the works' patches, as lines uint8 [b, S, 3, S]."""
        faces = [work.spec.prepared.face for work in works]
        if all(face.colours is None for face in faces):
            return lines
        limits = np.zeros((2, len(faces), 1, 3, 1), np.int16)  # of green less green: 0
        for row, face in enumerate(faces):
            limits[:, row, 0, ::2, 0] = ALL_COLOURS if face.colours is None else face.colours
        least, greatest = to_device(limits, self._device).unbind(0)
        green = lines[:, :, 1:2].short()
        kept = (lines - green).clamp_(least, greatest).add_(green)
        return kept.clamp_(0, 255).to(torch.uint8)

    def _paste(
        self, group: _Group, window: Tensor, plain: Tensor, lines: Tensor, crops: Tensor
    ) -> Tensor:
        """uint8 [g, 3, h, w] of the group's window [g, 4, h, w] and its patches; of transparent
        avatars [g, 4, h, w]."""
        drawn = images.separable(lines, *group.weights(crops, lines.shape[1]))
        drawn = drawn.permute(0, 2, 1, 3).round_().clamp_(0, 255)
        below, mask = window[:, :-1], window[:, -1:]
        alpha, light = mask, None
        if group.jaw is not None:
            rows = [self.avatars.jaw(w.spec.prepared, w.source_index) for w in group.works]
            cells, steps = read_jaws(plain, torch.stack(rows), group.jaw)
            cells = images.separable(cells, *group.cell_weights(crops, group.jaw))
            below = move_pixels(below, cells[:, :, 0], steps * crops[5].flip(0).T)
            alpha = (cells[:, None, :, 1] * mask).round_()
            light = cells[:, :, 2:].transpose(1, 2) * mask
        below, own = below[:, :3], below[:, 3:]
        if self._colour_match:
            drawn = _colour_matched(drawn, below, mask)
        if light is None:
            blended = images.blend(below, drawn, alpha)
        else:
            mixed = images.blend(below.float(), drawn, alpha).add_(light, alpha=1 / 255)
            blended = mixed.round_().clamp_(0, 255).to(torch.uint8)
        return torch.cat([blended, own], 1) if own.shape[1] else blended


@dataclass(frozen=True, slots=True)
class _Group:
    """Rows of a batch whose avatars have the same size and channels of pictures and the same kind
    of jaw, pasted together."""

    rows: list[int]
    works: list[FrameWork]
    window: Box
    """In the avatars' pictures: encloses every pixel that any row can change."""
    crops: np.ndarray
    """float32 [6, 2, g]: how each patch is placed in the window, `images.resize_map`, and 1 where
    that is cubic, 0 where it is area; the same map of the jaw's cells; `Jaw.down`. Down, then
    across."""
    jaw: JawShape | None
    formats: dict[tuple[Box, tuple[int, int]], list[int]]
    """(Part of the picture, output size (w, h)) -> members of the group with these."""

    def weights(self, crops: Tensor, source: int) -> tuple[Tensor, Tensor]:
        """`images.resize_weights` down and across of ``crops``, which are on the device.

        The kinds are read on the host, because reading them from the device would wait for it.
        """
        left, top, right, bottom = self.window
        size = max(right - left, bottom - top)
        scale, offset, cubic = crops[:3].flatten(1)
        made = [
            images.resize_weights(scale, offset, source, size, cubic=kind)
            for kind in (False, True)
            if kind in self.crops[2]
        ]
        if len(made) == 2:
            made = [torch.where(cubic[:, None, None] > 0, made[1], made[0])]
        down, across = made[0].view(2, -1, size, source)
        return down[:, : bottom - top], across[:, : right - left]

    def cell_weights(self, crops: Tensor, jaw: JawShape) -> tuple[Tensor, Tensor]:
        """`images.linear_weights` down and across of the jaws' grids."""
        left, top, right, bottom = self.window
        (down, across), (y, x) = crops[3:5].unbind(0)
        return (
            images.linear_weights(down, y, jaw.grid_rows, bottom - top),
            images.linear_weights(across, x, jaw.grid_columns, right - left),
        )


def _groups(works: Sequence[FrameWork], patch_size: int) -> list[_Group]:
    alike: defaultdict[object, list[int]] = defaultdict(list)
    for row, work in enumerate(works):
        avatar = work.spec.prepared
        kind = avatar.width, avatar.height, avatar.channels, _jaw_shape(work)
        alike[kind].append(row)
    return [_group(rows, [works[row] for row in rows], patch_size) for rows in alike.values()]


def _jaw_shape(work: FrameWork) -> JawShape | None:
    jaw = work.spec.prepared.face.jaw
    return JawShape.of(jaw) if jaw is not None else None


def _group(rows: list[int], works: list[FrameWork], patch_size: int) -> _Group:
    regions = [_box(work.spec.prepared.region) for work in works]
    left, top = (min(box[edge] for box in regions) for edge in (0, 1))
    right, bottom = (max(box[edge] for box in regions) for edge in (2, 3))
    formats: defaultdict[tuple[Box, tuple[int, int]], list[int]] = defaultdict(list)
    for member, work in enumerate(works):
        formats[_box(work.spec.region), work.spec.picture_size].append(member)
    crops = np.stack([_crop(work, left, top, patch_size) for work in works], axis=2)
    window = left, top, right, bottom
    return _Group(rows, works, window, crops, _jaw_shape(works[0]), dict(formats))


def _crop(work: FrameWork, left: int, top: int, patch_size: int) -> np.ndarray:
    """float32 [6, 2]: one row of `_Group.crops`, in a window at (left, top)."""
    face, index = work.spec.prepared.face, work.source_index
    x1, y1, x2, y2 = (int(edge) for edge in face.crop_boxes[index])
    h, w = max(y2 - y1, 1), max(x2 - x1, 1)  # an empty crop is not shown, but is a divisor
    cubic = images.cubic_enlarges((w, h), (patch_size, patch_size))
    placed = np.zeros((6, 2), np.float32)
    placed[:2, 0] = images.resize_map(y1 - top, h, patch_size, cubic=cubic)
    placed[:2, 1] = images.resize_map(x1 - left, w, patch_size, cubic=cubic)
    placed[2] = cubic
    if face.jaw is not None:
        x1, y1, x2, y2 = (int(edge) for edge in face.jaw.boxes[index])
        rows, columns = face.jaw.reach.shape[1:]
        placed[3:5, 0] = images.resize_map(y1 - top, y2 - y1, rows, cubic=True)
        placed[3:5, 1] = images.resize_map(x1 - left, x2 - x1, columns, cubic=True)
        placed[5] = face.jaw.down[index][::-1]
    return placed


def _box(region: tuple[int, int, int, int]) -> Box:
    x, y, w, h = region
    return x, y, x + w, y + h


def _moved(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)


def _take(batch: Tensor, rows: Sequence[int]) -> Tensor:
    """Rows of a batch, without an index on the device, so nothing waits for it."""
    return torch.stack([batch[row] for row in rows])


def _colour_matched(above: Tensor, below: Tensor, alpha: Tensor) -> Tensor:
    """`paste.colour_matched` of floats [g, 3, h, w] over uint8, alpha [g, 1, h, w]."""
    border = (alpha - 1) < 254  # unsigned: 0 becomes 255
    total = torch.where(border, below - above, 0).sum((2, 3), keepdim=True)
    mean = total / border.sum((2, 3), keepdim=True).clamp_(min=1)
    step = mean.clamp_(-COLOUR_MATCH_LEVELS, COLOUR_MATCH_LEVELS).round_()
    return above.add_(step).clamp_(0, 255)


# -- the check at the start -----------------------------------------------------------------------


def check_finisher(finisher: DeviceFinisher, reference: HostFinisher) -> None:
    """Finish some small frames both ways. Raises RuntimeError if the pictures differ."""
    works, patches = _small_batch()
    with finisher.scope():
        finisher.inputs(works)
        made = finisher.compose(works, to_device(patches, finisher.avatars._device))
    data = finisher.encode(works, made)
    for row, right in zip(made.rows, reference.compose(works, patches), strict=True):
        picture = row.permute(1, 2, 0).cpu().numpy()
        if picture.shape != right.shape:
            raise RuntimeError(f"a picture of {picture.shape} instead of {right.shape}")
        if np.abs(picture.astype(int) - right).max() > _TOLERANCE:
            raise RuntimeError("the device's pictures are not those of the CPU")
    for work, one in zip(works, data, strict=True):
        encoder = work.spec.video.encoder
        if not one.startswith(_BEGINS[encoder]):
            raise RuntimeError(f"the device made no {encoder.upper()}")
    while finisher.avatars.used_bytes:
        finisher.evict()


@dataclass(frozen=True, slots=True)
class _Frames:
    """A chunk that no model is asked about."""

    first_frame: int
    frame_count: int
    blocks: range = range(0)


def _small_batch() -> tuple[list[FrameWork], np.ndarray]:
    """Frames of noise and their patches: one full, one of the mouth, one transparent."""
    random = np.random.default_rng(0)
    mask = np.zeros((32, 40), np.uint8)
    mask[4:28, 4:36] = random.integers(0, 256, (24, 32), dtype=np.uint8)
    pictures = DecodedPictures(random.integers(0, 256, (2, 48, 64, 3), dtype=np.uint8))
    face = AvatarFace(
        crop_boxes=np.array([[12, 6, 52, 40], [12, 7, 42, 39]], np.int32),
        paste_boxes=np.array([[10, 8, 50, 40]] * 2, np.int32),
        masks=(mask, mask),
        inputs=np.zeros((2, 8, 4, 4), np.float16),
        jaw=_random_jaw(random),
        colours=np.array([[-40, -20], [60, 10]], np.int16),
    )
    region = face.region(64, 48)
    avatar = PreparedAvatar("check", "check", 64, 48, 25.0, pictures, region, face)
    person = Masks(random.integers(0, 256, (2, 48, 64), dtype=np.uint8))
    clear = avatar.before(Background(TRANSPARENT), person)
    source = ChunkWork(_Frames(0, 3))
    shown = (
        (avatar, VideoFormat()),
        (avatar, VideoFormat(region="mouth")),
        (clear, VideoFormat(encoder="png")),
    )
    works = [FrameWork(StreamSpec(0, *one, 0, 0), source, row) for row, one in enumerate(shown)]
    return works, random.integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def _random_jaw(random: np.random.Generator) -> Jaw:
    """Of two frames: its cells are 4 x 8, on a grid of 6 x 12; the jaw is open by two cells."""
    shape = (2, len(JAW_STEPS), 4, 8)
    bowl = np.abs(np.array(JAW_STEPS) - 2)[:, None, None, None]
    return Jaw(
        boxes=np.array([[2, 10, 62, 46], [4, 9, 50, 47]], np.int32),
        down=np.array([[0.5, 2.5], [-0.25, 3]], np.float32),
        reach=np.stack([255 * np.outer(np.hanning(6), np.hanning(12))] * 2).astype(np.uint8),
        looks=np.broadcast_to(128 + 8 * bowl, (*shape, 3)).astype(np.uint8),
        away=random.integers(0, 256, shape, dtype=np.uint8),
    )

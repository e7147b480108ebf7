"""Finishing on a device makes the pictures that the CPU makes, and holds what it may hold.

On a machine without a GPU the same arithmetic runs on CPU tensors.
"""

from __future__ import annotations

import importlib.util
import logging
import sys
import threading
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.drawn_faces import draw_face, face_landmarks
from tests.fake_model import FakeModel
from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.faces.avatar_face import AvatarFace, Jaw
from wsavatar.faces.musetalk.geometry import crop_box, lower_face_mask, paste_box, take_crop
from wsavatar.faces.musetalk.jaw import jaw_of_face
from wsavatar.faces.musetalk.spec import CropMargin
from wsavatar.media.pictures import DecodedPictures
from wsavatar.render.finish import device_jpeg
from wsavatar.render.finish.device import DeviceFinisher, check_finisher
from wsavatar.render.finish.device_avatars import DeviceAvatars
from wsavatar.render.finish.device_jaw import packed
from wsavatar.render.finish.device_jpeg import DeviceEncoder
from wsavatar.render.finish.finisher import make_finisher
from wsavatar.render.finish.host import HostFinisher
from wsavatar.render.jobs import VideoFormat
from wsavatar.render.work import ChunkWork, FrameWork, StreamSpec
from wsavatar.resources import resource_dir
from wsavatar.speech.chunker import Chunk

SIZE = 64
BIG = 1 << 40
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


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


# -- pictures -------------------------------------------------------------------------------------


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


# -- avatars on the device ------------------------------------------------------------------------


def bytes_of(avatar: PreparedAvatar) -> int:
    face = avatar.face
    jaw = packed(face.jaw).nbytes if face.jaw is not None else 0
    return 4 * avatar.frame_count * avatar.width * avatar.height + face.inputs.nbytes + jaw


def test_an_avatar_is_copied_once(device: torch.device) -> None:
    """A second use takes the stored copy and no more memory."""
    avatars, avatar = DeviceAvatars(device, BIG), drawn()
    first = avatars.picture(avatar, 2)
    assert avatars.picture(avatar, 2).data_ptr() == first.data_ptr()
    assert avatars.used_bytes == bytes_of(avatar)
    assert (first[:3].permute(1, 2, 0).cpu().numpy() == avatar.pictures[2]).all()


def test_the_least_recently_used_avatar_is_removed(device: torch.device) -> None:
    """The budget holds; who was used last stays."""
    a, b, c = (drawn(seed=seed) for seed in range(3))
    avatars = DeviceAvatars(device, 2 * bytes_of(a) + 1000)
    kept = avatars.picture(a, 0)
    avatars.picture(b, 0)
    avatars.inputs(a, 0)
    avatars.picture(c, 0)
    assert avatars.used_bytes == 2 * bytes_of(a)
    assert avatars.picture(a, 0).data_ptr() == kept.data_ptr()


def test_an_avatar_over_the_budget_is_never_held(device: torch.device) -> None:
    """It goes to the device frame by frame, with the same pictures and inputs."""
    avatar = drawn()
    small, large = DeviceAvatars(device, 1000), DeviceAvatars(device, BIG)
    for index in range(avatar.frame_count):
        assert torch.equal(small.picture(avatar, index), large.picture(avatar, index))
        assert torch.equal(small.inputs(avatar, index), large.inputs(avatar, index))
        assert torch.equal(small.jaw(avatar, index), large.jaw(avatar, index))
    assert small.used_bytes == 0


def test_an_avatar_over_the_budget_is_pasted_beside_one_that_fits(
    device: torch.device, caplog: pytest.LogCaptureFixture
) -> None:
    """In one batch, with the CPU's pictures; one warning says which setting would help."""
    fits, large = drawn(seed=0), drawn(seed=2, size=(480, 400))
    works, patches = batch([fits, large], [VideoFormat()], 6)
    with caplog.at_level(logging.WARNING):
        pairs = compose_both(device, works, patches, device_avatar_mb=1)
    assert_close(pairs, levels=1, share=0.005)
    (said,) = [record.getMessage() for record in caplog.records]
    assert large.id in said and "Set it to 3 or more" in said


def test_evicting_frees_half_and_at_last_all(device: torch.device) -> None:
    """Each call lets the least recently used go; what is asked for again comes again."""
    a, b = drawn(seed=1), drawn(seed=3)
    avatars = DeviceAvatars(device, BIG)
    before = avatars.picture(a, 0).clone()
    avatars.picture(b, 0)
    avatars.evict()
    assert avatars.used_bytes == bytes_of(b)
    avatars.evict()
    avatars.evict()
    assert avatars.used_bytes == 0
    assert torch.equal(avatars.picture(a, 0), before)


def test_threads_share_one_copy(device: torch.device) -> None:
    """Asked by many threads at once, an avatar is copied once."""
    avatars, avatar = DeviceAvatars(device, BIG), drawn()
    places: list[int] = []
    threads = [
        threading.Thread(target=lambda: places.append(avatars.picture(avatar, 0).data_ptr()))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(places) == 8 and len(set(places)) == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_uploads_share_one_stream_s_memory() -> None:
    """Avatars come and go; what they leave free is kept for the next, not for each anew."""
    torch.cuda.empty_cache()
    finisher = DeviceFinisher(torch.device("cuda", 0), RenderSettings())
    before = {segment["stream"] for segment in torch.cuda.memory_snapshot()}
    for seed in range(6):
        finisher.prepare(drawn(seed=seed))
        finisher.evict()
    after = {segment["stream"] for segment in torch.cuda.memory_snapshot()}
    assert len(after - before) <= 1  # torch has few streams: it may have been used before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_an_avatar_that_is_let_go_outlives_the_batches_that_read_it() -> None:
    """Its memory is not another's before a batch that waits on the device is done with it."""
    finisher = DeviceFinisher(torch.device("cuda", 0), RenderSettings())
    works, patches = batch([drawn(seed=0)], [VideoFormat()], 4)
    right = HostFinisher(RenderSettings()).compose(works, patches)
    on_device = torch.from_numpy(patches).to("cuda")
    other = replace(
        drawn(seed=1), pictures=DecodedPictures(255 - np.stack(works[0].spec.avatar.pictures))
    )
    finisher.prepare(works[0].spec.avatar)
    with finisher.scope():
        finisher.compose(works, on_device)
        torch.cuda.synchronize()
        torch.cuda._sleep(1_000_000_000)  # about half a second, in which the avatar goes
        made = finisher.compose(works, on_device)
        finisher.evict()
        finisher.prepare(other)
        assert not made.done.query(), "the device was too fast to show anything"
        made.done.synchronize()
    pairs = [
        (row.permute(1, 2, 0).cpu().numpy(), picture)
        for row, picture in zip(made.rows, right, strict=True)
    ]
    assert_close(pairs, levels=1, share=0.005)


# -- bytes ----------------------------------------------------------------------------------------


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


# -- the check at the start -----------------------------------------------------------------------


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

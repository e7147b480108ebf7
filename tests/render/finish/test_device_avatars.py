"""Avatars on a device: copied once, within a budget, and kept while a batch reads them."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.render.finish.on_device import assert_close, batch, compose_both, drawn
from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.media.pictures import DecodedPictures
from wsavatar.render.finish.device import DeviceFinisher
from wsavatar.render.finish.device_avatars import DeviceAvatars
from wsavatar.render.finish.device_jaw import packed
from wsavatar.render.finish.host import HostFinisher
from wsavatar.render.jobs import VideoFormat

BIG = 1 << 40


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

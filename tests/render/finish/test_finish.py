"""The CPU's finisher, and who gets which: from patches to JPEG bytes."""

from __future__ import annotations

import logging
from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch

from tests.fake_model import CROP, SIZE, FakeModel, make_avatar
from wsavatar.avatars.avatar import PreparedAvatar
from wsavatar.config import RenderSettings
from wsavatar.media.audio_file import AudioTrack
from wsavatar.media.pictures import DecodedPictures
from wsavatar.render.film import film_of
from wsavatar.render.finish.finisher import make_finisher
from wsavatar.render.finish.host import HostFinisher
from wsavatar.render.jobs import VideoFormat
from wsavatar.render.work import ChunkWork, FrameWork, StreamSpec
from wsavatar.speech.chunker import Chunk


def works_of(*videos: VideoFormat, avatar: PreparedAvatar | None = None) -> list[FrameWork]:
    source = ChunkWork(
        Chunk(0, len(videos), 0, np.zeros((0, 0), np.float32), None, 0, Fraction(25))
    )
    avatar = avatar or make_avatar()
    return [
        FrameWork(StreamSpec(row, avatar, video, 7, 0), source, row)
        for row, video in enumerate(videos)
    ]


def with_soft_border() -> PreparedAvatar:
    """All of one grey, its patch blended at the left."""
    avatar = make_avatar()
    mask = np.full((32, 32), 255, np.uint8)
    mask[:, :4] = 128
    face = replace(avatar.face, masks=(mask,) * avatar.frame_count)
    grey = np.full((avatar.frame_count, SIZE, SIZE, 3), 120, np.uint8)
    return replace(avatar, pictures=DecodedPictures(grey), face=face)


def test_a_picture_is_cut_and_scaled_to_what_its_stream_asked_for() -> None:
    """Whole or mouth, reduced by one scale; a width beyond the avatar's enlarges nothing."""
    works = works_of(
        VideoFormat(),
        VideoFormat(region="mouth"),
        VideoFormat(max_width=32),
        VideoFormat(region="mouth", max_width=32),
        VideoFormat(max_width=1000),
    )
    patches = np.full((5, CROP, CROP, 3), 100, np.uint8)
    finisher = HostFinisher(RenderSettings())
    pictures = finisher.compose(works, patches)
    sizes = [(picture.shape[1], picture.shape[0]) for picture in pictures]
    assert sizes == [(64, 64), (32, 32), (32, 32), (16, 16), (64, 64)]
    assert sizes == [work.spec.picture_size for work in works]
    assert (pictures[1] == 100).all()
    for data, size in zip(finisher.encode(works, pictures), sizes, strict=True):
        shape = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape
        assert shape == (size[1], size[0], 3)


def test_an_outcome_names_its_frame_and_the_region_it_covers() -> None:
    """Time, number, generation and the region in the avatar's own pixels go with the bytes."""
    work = works_of(VideoFormat(), VideoFormat(region="mouth", max_width=32))[1]
    frame = work.rendered(b"jpeg")
    assert (frame.frame_index, frame.pts_us, frame.generation) == (1, 40_000, 7)
    assert (frame.region, frame.size) == ((16, 20, 32, 32), (16, 16))
    assert (frame.codec, frame.data) == ("jpeg", b"jpeg")


def test_inputs_are_the_avatar_s_rows() -> None:
    """Each row has the avatar's frame below it."""
    works = works_of(VideoFormat(), VideoFormat())
    rows = HostFinisher(RenderSettings()).inputs(works)
    for work, row in zip(works, rows, strict=True):
        assert (row == work.spec.avatar.face.inputs[work.source_index]).all()


def test_colour_match_is_a_setting() -> None:
    """With it, a mouth a little too dark is pasted in the frame's own colours."""
    works = works_of(VideoFormat(), avatar=with_soft_border())
    dark = np.full((1, CROP, CROP, 3), 117, np.uint8)
    centre = (36, 32)
    for match, level in ((False, 117), (True, 120)):
        (picture,) = HostFinisher(RenderSettings(colour_match=match)).compose(works, dark)
        assert (picture[centre] == level).all()


def test_finished_videos_match_colours_too() -> None:
    """`render` shows the frames that a live session would, with the same setting."""
    avatar = with_soft_border()
    silence = AudioTrack(np.zeros((16_000, 1), np.float32), 16_000)
    plain, matched = (
        [
            tick.picture
            for tick in film_of(
                FakeModel(),
                avatar,
                silence,
                Fraction(25),
                RenderSettings(sharpness=0, colour_match=match),
            )
        ]
        for match in (False, True)
    )
    # The model draws frame 14 in 112 where the picture has 120: it may come 6 levels nearer.
    assert (plain[14][36, 32] == 112).all() and (matched[14][36, 32] == 118).all()


def test_a_model_on_the_cpu_is_finished_on_the_cpu() -> None:
    """Whatever a model calls its device, only CUDA makes pictures elsewhere."""
    assert isinstance(make_finisher(FakeModel(), RenderSettings()), HostFinisher)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_cannot_finish_falls_back_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """If a CUDA device fails its check, pictures are finished on the CPU, with one warning."""
    model = FakeModel()
    model.device = SimpleNamespace(type="cuda")  # as a model on a device that is gone
    with caplog.at_level(logging.WARNING):
        finisher = make_finisher(model, RenderSettings())
    assert isinstance(finisher, HostFinisher)
    assert [r.levelname for r in caplog.records if "on the CPU" in r.message] == ["WARNING"]

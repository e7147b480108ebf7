"""How an avatar's pictures are held: decoded in memory, or in a video, decoded when wanted.

A video that cannot be read in any order (`wsavatar.media.video_pictures`) is written anew, once,
into the directory of caches.
"""

from __future__ import annotations

import hashlib
import logging
from itertools import islice
from pathlib import Path

from wsavatar.avatars.format import AvatarError, AvatarFile
from wsavatar.avatars.whole_file import written_whole
from wsavatar.media.pictures import DecodedPictures, Pictures
from wsavatar.media.video import VideoError, VideoInfo, open_video, read_video
from wsavatar.media.video_pictures import GROUP_FRAMES, UnfitVideoError, VideoPictures
from wsavatar.media.video_writer import VideoWriter
from wsavatar.resources import cache_fault

__all__ = ["open_pictures"]

_COPY_CRF = 4
"""Pictures of a copy are at least 50 dB from those of the video."""

_log = logging.getLogger(__name__)


def open_pictures(video: Path, avatar: AvatarFile, decoded_bytes: int, copies: Path) -> Pictures:
    """The pictures of an avatar's ``video``: decoded if they take up to ``decoded_bytes``.

    ``copies``: the directory for a video written anew. Raises AvatarError for a video that cannot
    be read, or is not what ``avatar`` says.
    """
    try:
        if 3 * avatar.width * avatar.height * avatar.frame_count <= decoded_bytes:
            info, frames = read_video(video, max_frames=avatar.frame_count + 1)
            _check(video, info, avatar)
            return DecodedPictures(frames)
        pictures = _in_any_order(video, avatar, copies)
        _check(video, pictures.info, avatar)
        return pictures
    except (VideoError, OSError) as error:
        raise AvatarError(str(error)) from error


def _check(video: Path, info: VideoInfo, avatar: AvatarFile) -> None:
    found = (info.width, info.height, info.frame_count, round(float(info.fps), 2))
    said = (avatar.width, avatar.height, avatar.frame_count, round(avatar.fps, 2))
    if found != said:
        raise AvatarError(
            f"{video}: is {found[0]}x{found[1]}, {found[2]} frames at {found[3]}/s; "
            f"avatar.json says {said[0]}x{said[1]}, {said[2]} at {said[3]}/s"
        )


def _in_any_order(video: Path, avatar: AvatarFile, copies: Path) -> VideoPictures:
    try:
        return VideoPictures(video)
    except UnfitVideoError as error:
        with video.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()[:32]
        copy = copies / f"{avatar.id}.{digest}.mp4"
        if not copy.is_file():
            if fault := cache_fault(copies):
                raise AvatarError(
                    f"{error}, and {copies} cannot be used for a copy ({fault}): set avatars.cache "
                    "to a folder that can be written to"
                ) from error
            _log.warning("%s; it is written anew, once: %s", error, copy)
            copies.mkdir(parents=True, exist_ok=True)
            _write_copy(video, avatar, copy)
        return VideoPictures(copy)


def _write_copy(video: Path, avatar: AvatarFile, copy: Path) -> None:
    """Raises AvatarError for another video than said."""
    with written_whole(copy, 0o600) as unfinished, open_video(video) as (info, shown):
        _check(video, info, avatar.model_copy(update={"frame_count": info.frame_count}))
        with VideoWriter(
            unfinished,
            width=info.width,
            height=info.height,
            fps=info.fps,
            crf=_COPY_CRF,
            group_frames=GROUP_FRAMES,
        ) as out:
            for _, picture in islice(shown, avatar.frame_count + 1):
                out.write(picture)
        for old in copy.parent.glob(f"{avatar.id}.*.mp4"):  # of another video
            old.unlink(missing_ok=True)

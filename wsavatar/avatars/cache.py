"""The disk cache of models' data of avatars: one safetensors file for each, without pickles.

A file's name depends on everything that its content depends on. No process reads an incomplete
one. Its header has a JSON manifest with a
checksum of the content: a damaged or foreign file is reported and ignored. The model knows the
meaning of the arrays. Pictures are not stored: decoding the idle video costs less than reading
them.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from wsavatar.avatars.format import AvatarError, AvatarFile, file_in
from wsavatar.avatars.whole_file import written_whole
from wsavatar.errors import WsavatarError
from wsavatar.resources import cache_fault

__all__ = ["FaceCache", "cache_key"]

CACHE_VERSION = 4
"""Increase it with any change of the file format."""
_KEPT_PER_AVATAR = 4
_MAX_FILE_BYTES = 4 * 1024**3

_WORDS = {"name", "description", "license", "poster"}
_WORDS |= {"voice", "language", "instructions", "greeting"}
"""Of ``avatar.json``: what may be edited without preparing the avatar again."""

Restored = TypeVar("Restored")

_log = logging.getLogger(__name__)


class _DamagedError(WsavatarError):
    """A cache file is damaged or foreign; the message says how."""


def cache_key(folder: Path, avatar: AvatarFile, model_key: str) -> str:
    """Digest of what a face depends on: this format, the model, the avatar's pictures."""
    shape = avatar.model_dump(mode="json", exclude=_WORDS | {"alpha"})
    digest = hashlib.sha256(json.dumps([CACHE_VERSION, model_key, shape]).encode())
    names = [avatar.video, *([avatar.alpha] if avatar.alpha else [])]
    names += [avatar.landmarks] if isinstance(avatar.landmarks, str) else []
    for name in names:
        digest.update(_digest_of(file_in(folder, name)))
    return digest.hexdigest()[:32]


def _digest_of(path: Path) -> bytes:
    try:
        stat = path.stat()
        return _digest_as_of(path, (stat.st_mtime_ns, stat.st_size, stat.st_ino))
    except OSError as error:
        raise AvatarError(f"{path}: cannot be read ({error.strerror})") from error


@lru_cache(maxsize=256)
def _digest_as_of(path: Path, stamp: tuple[int, int, int]) -> bytes:
    """Of a file that has this ``stamp``: it is read only if it has changed."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


class FaceCache:
    """Loads and saves faces' arrays in ``directory``. Disk errors only cost time.

    Nothing is logged where the directory cannot be used at all (`wsavatar.resources.cache_fault`).
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "avatars"

    def path(self, avatar_id: str, key: str) -> Path:
        return self.directory / f"{avatar_id}.{key}.safetensors"

    def load(
        self, avatar_id: str, key: str, restore: Callable[[Mapping[str, np.ndarray]], Restored]
    ) -> Restored | None:
        """The result of ``restore`` for the saved arrays; None if they are missing or damaged.

        ``restore`` raises ValueError or KeyError for arrays that do not fit.
        """
        path = self.path(avatar_id, key)
        try:
            return restore(_read(path, key))
        except FileNotFoundError:
            return None
        except OSError as error:
            if not cache_fault(self.directory):
                _log.warning(
                    "cache %s cannot be read (%s): preparing %r again", path, error, avatar_id
                )
            return None
        except (_DamagedError, SafetensorError, ValueError, KeyError) as error:
            _log.warning("cache %s is damaged (%s): preparing %r again", path, error, avatar_id)
            return None

    def save(self, avatar_id: str, key: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Save a face's arrays for the next start; logs disk errors."""
        if cache_fault(self.directory):
            return
        path = self.path(avatar_id, key)
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            _write(path, key, arrays)
            self._forget_old(avatar_id, path)
        except (OSError, SafetensorError) as error:  # the latter where the disk is full
            _log.warning(
                "cache %s cannot be written (%s): the next start prepares again", path, error
            )

    def ids(self) -> set[str]:
        """Of the avatars of which something is kept, of whatever directories."""
        return {path.name.partition(".")[0] for path in self.directory.glob("[!.]*.*")}

    def forget(self, avatar_id: str) -> None:
        """Delete everything that is kept of an avatar."""
        for suffix in ("safetensors", "mp4"):
            for path in self.directory.glob(f"{avatar_id}.*.{suffix}"):
                path.unlink(missing_ok=True)

    def _forget_old(self, avatar_id: str, newest: Path) -> None:
        """Keep the newest few files of an avatar, so that models may alternate."""
        others = [p for p in self.directory.glob(f"{avatar_id}.*.safetensors") if p != newest]
        try:
            others.sort(key=lambda path: path.stat().st_mtime, reverse=True)
        except FileNotFoundError:  # another process deletes them
            return
        for path in others[_KEPT_PER_AVATAR - 1 :]:
            path.unlink(missing_ok=True)


def _checksum(tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype} {array.shape}\n".encode())
        digest.update(array.data)
    return digest.hexdigest()


def _write(path: Path, key: str, arrays: Mapping[str, np.ndarray]) -> None:
    # safetensors writes an array's memory as it is, whatever its strides say.
    tensors = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    manifest = {"version": CACHE_VERSION, "key": key, "sha256": _checksum(tensors)}
    with written_whole(path, 0o600) as unfinished:
        save_file(tensors, unfinished, metadata={"wsavatar": json.dumps(manifest)})


def _read(path: Path, key: str) -> dict[str, np.ndarray]:
    if path.stat().st_size > _MAX_FILE_BYTES:
        raise _DamagedError("it is too large")
    with safe_open(path, framework="np") as file:
        manifest = json.loads((file.metadata() or {}).get("wsavatar", "{}"))
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    if not isinstance(manifest, dict) or manifest.get("version") != CACHE_VERSION:
        raise _DamagedError("its manifest is missing or of another version")
    if manifest.get("key") != key:
        raise _DamagedError("it was written for other inputs")
    if manifest.get("sha256") != _checksum(tensors):
        raise _DamagedError("its checksum differs")
    return tensors

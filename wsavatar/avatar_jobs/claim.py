"""A file for one of several servers that watch a directory: while one has it, no other begins.

The claim is the operating system's lock of a small hidden file beside it: it ends with the process,
so a server that was killed keeps nothing.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["claimed"]

_TAKEN = {errno.EACCES, errno.EAGAIN, errno.EDEADLK}

if sys.platform == "win32":
    import msvcrt

    def _lock(handle: int) -> None:
        msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
else:
    import fcntl

    def _lock(handle: int) -> None:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextlib.contextmanager
def claimed(file: Path) -> Iterator[bool]:
    """Gives True where ``file`` is this block's alone, until its end; False where another has it,
    or had it and moved it away.

    On a disk that has no locks, or may not be written to, everybody has it.
    """
    # Not its own name: that may be as long as a name can be.
    name = hashlib.sha256(os.fsencode(file.name)).hexdigest()[:16]
    lock = file.with_name(f".claim-{name}")
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError:
        yield file.exists()
        return
    is_mine = False
    try:
        is_mine = _is_free(handle, lock)
        yield is_mine and file.exists()
    finally:
        if is_mine:
            _remove(lock)
        os.close(handle)
        if is_mine and sys.platform == "win32":  # there an open file cannot be removed
            _remove(lock)


def _is_free(handle: int, lock: Path) -> bool:
    """Take the lock. Who had it has removed its file, perhaps after we opened it."""
    try:
        _lock(handle)
    except OSError as error:
        return error.errno not in _TAKEN
    try:
        return os.path.samestat(os.fstat(handle), lock.stat())
    except OSError:
        return False


def _remove(lock: Path) -> None:
    with contextlib.suppress(OSError):
        lock.unlink()

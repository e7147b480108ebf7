"""What avatars cost: memory, time to prepare, and the processor's time for a picture to paste into.

    python -m wsavatar.bench.avatar_memory amara leo --set avatars.decoded_mb=0

Memory is the process's own (``RssAnon``; files that it maps do not count), beside the loaded model;
the peak is read every 20 ms. Preparing again is for another ``avatars.cache``.
"""

from __future__ import annotations

import argparse
import gc
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from wsavatar.avatars.avatar import PreparedAvatar, cycle_index
from wsavatar.avatars.store import AvatarStore
from wsavatar.config import load_settings, parse_override
from wsavatar.errors import WsavatarError
from wsavatar.faces.registry import load_face
from wsavatar.serve.assembly import mask_maker

__all__ = ["AvatarCost", "main", "measure"]

_READ_S = 0.02
_PICTURES = 200


@dataclass(frozen=True, slots=True)
class AvatarCost:
    """Memory in MB; milliseconds of the processor."""

    kept_mb: float
    peak_mb: float
    prepared_s: float
    mouth_ms: float
    """To have the pixels that a mouth's frame needs, playing forward and backward."""
    whole_ms: float
    """The same for a whole picture."""


def measure(store: AvatarStore, avatar_id: str) -> AvatarCost:
    """Prepare an avatar and play it. Raises AvatarError."""
    gc.collect()
    before, begun_s = _memory_mb(), time.perf_counter()
    with _peak() as peak:
        avatar = store.get(avatar_id)
        prepared_s = time.perf_counter() - begun_s
        mouth_ms = _each_ms(avatar, lambda index: avatar.pictures.part(index, avatar.region).copy())
        whole_ms = _each_ms(avatar, lambda index: avatar.pictures[index].copy())
        gc.collect()
        kept = _memory_mb() - before
    return AvatarCost(kept, max(peak) - before, prepared_s, mouth_ms, whole_ms)


def _each_ms(avatar: PreparedAvatar, take: Callable[[int], object]) -> float:
    """Around the end of the cycle, so that half of it goes backward."""
    first = max(0, avatar.frame_count - _PICTURES // 2)
    begun_s = time.process_time()
    for number in range(_PICTURES):
        take(cycle_index(first + number, avatar.frame_count))
    return 1000 * (time.process_time() - begun_s) / _PICTURES


@contextmanager
def _peak() -> Iterator[list[float]]:
    """Readings of the memory while the block runs."""
    seen, over = [_memory_mb()], threading.Event()

    def watch() -> None:
        while not over.wait(_READ_S):
            seen[0] = max(seen[0], _memory_mb())

    watcher = threading.Thread(target=watch, name="memory")
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def _memory_mb() -> float:
    for line in Path("/proc/self/status").read_text("ascii").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise WsavatarError("this system does not say how much memory a process has")


def main(argv: Sequence[str] | None = None) -> int:
    """Print a line for each avatar."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("avatars", nargs="+", metavar="ID")
    parser.add_argument("--config", metavar="FILE_OR_NAME")
    parser.add_argument("--set", action="append", default=[], metavar="SECTION.KEY=VALUE")
    args = parser.parse_args(argv)
    try:
        settings = load_settings(args.config, dict(map(parse_override, args.set)))
        store = AvatarStore(settings.avatars, load_face(settings), mask_maker(settings))
        for avatar_id in args.avatars:
            cost, avatar = measure(store, avatar_id), store.read(avatar_id)
            print(
                f"{avatar_id}: {avatar.width}x{avatar.height}, {avatar.frame_count} frames: "
                f"{cost.kept_mb:.0f} MB, peak {cost.peak_mb:.0f} MB, "
                f"prepared in {cost.prepared_s:.1f} s, "
                f"mouth {cost.mouth_ms:.2f} ms, whole {cost.whole_ms:.2f} ms",
                flush=True,
            )
    except WsavatarError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

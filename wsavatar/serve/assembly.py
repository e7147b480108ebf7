"""Builds the server's engine from the settings: models, avatars, renderer, dialogues.

The only module that knows every package. Slow (it loads weights and prepares
avatars), so it is called on a thread. Where devices have processes of their own, only those load a
model.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from wsavatar.avatars.format import AvatarError
from wsavatar.config import Settings
from wsavatar.faces.registry import LoadedFace, load_face, speech_windows
from wsavatar.machine import may_have_gpu, yield_to_others
from wsavatar.resources import cache_directory, cache_fault, resource_dir
from wsavatar.serve.person import mask_maker
from wsavatar.session.engine import Engine

if TYPE_CHECKING:
    from wsavatar.avatars.avatar import PreparedAvatar
    from wsavatar.avatars.store import AvatarStore
    from wsavatar.render.pool import FacePool
    from wsavatar.render.remote.avatars import RemoteAvatars
    from wsavatar.render.remote.device_channel import AvatarKey
    from wsavatar.render.remote.device_process import Loaded
    from wsavatar.render.remote.processes import ProcessWorker
    from wsavatar.render.worker import Post
    from wsavatar.videos.jobs import VideoJobs

__all__ = [
    "configured_devices",
    "load_device",
    "load_engine",
    "load_models",
    "mask_maker",
    "load_renderer",
    "warn_of_cache",
    "open_pool",
    "process_workers",
    "works_in_processes",
]

_log = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
"""Time after which a thread must give Python's lock to another that waits for it.

A worker queues a batch in dozens of short calls and needs the lock for each. With an event loop
that is always busy, 60 such calls took up to 70 ms (p99) at Python's default of 5 ms, and 0.4 ms
at this value, without a loss for the event loop.
"""

Progress = Callable[[str], None]
AnyAvatars: TypeAlias = "AvatarStore | RemoteAvatars"
MakeProcess: TypeAlias = "Callable[[Post], ProcessWorker]"

_SECTIONS = tuple(Settings.model_fields)


def load_engine(settings: Settings, progress: Progress = lambda text: None) -> Engine:
    """Load everything that a server needs. Raises CheckpointError, AvatarError or ValueError."""
    from wsavatar.dialogue.engines import Engines
    from wsavatar.dialogue.registry import create
    from wsavatar.serve.avatar_making import avatar_making

    engines = Engines(settings)
    pool, avatars = load_renderer(settings, progress)
    maker, dropped = avatar_making(settings, avatars, lambda: pool.capacity.over)
    return Engine(
        renderer=pool,
        avatars=avatars,
        create_dialogue=partial(create, engines),
        speech=engines,
        maker=maker,
        dropped=dropped,
        videos=_video_jobs(settings, pool, avatars),
    )


def load_renderer(
    settings: Settings, progress: Progress = lambda text: None
) -> tuple[FacePool, AnyAvatars]:
    """Load what makes frames, with the default avatar prepared. Raises as `load_engine`."""
    from wsavatar.avatars.store import AvatarStore

    settings = _with_an_avatar(settings)
    warn_of_cache(settings)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    progress("looking for devices")
    if works_in_processes(settings):
        return _in_processes(settings, progress)
    yield_to_others()  # inherited by the threads that OpenVINO and torch start
    models = load_models(settings, progress)
    avatars = AvatarStore(settings.avatars, models[0], mask_maker(settings))
    default = _default_avatar(avatars, progress)
    gc.collect()  # the server leaves all that is here now out of later collections
    return open_pool(settings, models, [default]), avatars


def _video_jobs(settings: Settings, pool: FacePool, avatars: AnyAvatars) -> VideoJobs | None:
    from wsavatar.videos.jobs import VideoJobs
    from wsavatar.videos.maker import VideoMaker

    if not settings.videos.enabled:
        return None
    return VideoJobs(settings.videos, VideoMaker(pool, avatars, Fraction(settings.render.fps)))


def _in_processes(settings: Settings, progress: Progress) -> tuple[FacePool, RemoteAvatars]:
    """A pool of processes. This one loads no model: it knows the avatars' files alone."""
    from wsavatar.render.pool import FacePool
    from wsavatar.render.remote.avatars import RemoteAvatars
    from wsavatar.render.remote.processes import prepare_avatar

    devices = configured_devices(settings)
    progress(f"starting {len(devices)} processes, for {', '.join(devices)}")
    workers: list[ProcessWorker] = []

    def kept(make: MakeProcess, post: Post) -> ProcessWorker:
        workers.append(make(post))
        return workers[-1]

    pool = FacePool(
        (),
        settings.render,
        workers=[partial(kept, make) for make in process_workers(settings, devices)],
        windows=speech_windows(settings),
    )
    ask = partial(prepare_avatar, workers)
    avatars = RemoteAvatars(settings.avatars, ask, mask_maker(settings))
    return pool, avatars


def load_models(settings: Settings, progress: Progress = lambda text: None) -> list[LoadedFace]:
    """One model a device; ``auto`` is every CUDA device, or the CPU where there is none."""
    return _load_on(settings, configured_devices(settings), progress)


def open_pool(
    settings: Settings, models: Sequence[LoadedFace], at_hand: Sequence[PreparedAvatar] = ()
) -> FacePool:
    """The configured pool: of ``models``, one for each device, or of processes.

    Avatars ``at_hand`` are copied to the devices at the start, so that no first frame waits.

    With processes (`ModelSettings.processes`) no model is used; they load their own at the pool's
    start, at the same time, and every avatar they are asked for must be in the configured folder.
    Raises ValueError without models and without processes.
    """
    from wsavatar.render.pool import FacePool

    if works_in_processes(settings):
        workers = process_workers(settings, configured_devices(settings))
        windows = speech_windows(settings)
        return FacePool((), settings.render, workers=workers, windows=windows, at_hand=at_hand)
    return FacePool(models, settings.render, at_hand=at_hand)


def process_workers(settings: Settings, devices: Sequence[str]) -> list[MakeProcess]:
    """For `FacePool`: a worker in a process of its own for each device."""
    from wsavatar.render.pool import finisher_threads
    from wsavatar.render.remote.processes import ProcessWorker

    # A plain instance: the loaded one's class is local to its loading, so it cannot be pickled.
    plain = Settings.model_construct(**{name: getattr(settings, name) for name in _SECTIONS})
    share_of_cores = max(1, (os.cpu_count() or 1) // len(devices))
    seen: Counter[str] = Counter()
    workers: list[MakeProcess] = []
    for device in devices:
        seen[device] += 1
        workers.append(
            partial(
                ProcessWorker,
                device if seen[device] == 1 else f"{device} ({seen[device]})",
                partial(load_device, plain, device, share_of_cores),
                settings.render,
                finishers=finisher_threads(len(devices)),
            )
        )
    return workers


def load_device(settings: Settings, device: str, threads: int) -> Loaded:
    """In a device's process: load its model and the default avatar.

    ``threads``: how many of the machine's cores torch may load a GPU's model with.
    """
    from wsavatar.avatars.store import AvatarStore
    from wsavatar.render.remote.device_process import Loaded

    sys.setswitchinterval(SWITCH_INTERVAL_S)
    if device.startswith("cuda"):
        import torch

        torch.set_num_threads(threads)  # other processes load at the same time
        torch.cuda.set_device(device)  # otherwise the first GPU is used too
    model = load_face(settings, device)
    store = AvatarStore(settings.avatars, model, mask_maker(settings))
    _default_avatar(store, lambda text: _log.info("%s: %s", device, text))

    def get(key: AvatarKey) -> PreparedAvatar:
        avatar = store.get(key.id, background=key.background)
        if avatar.digest != key.digest:
            raise AvatarError(f"{key.id!r} was replaced: choose it again")
        return avatar

    return Loaded(model, get)


def configured_devices(settings: Settings) -> list[str]:
    """Their names; ``auto`` is every CUDA device, or the CPU where there is none."""
    devices = list(settings.model.devices)
    if devices == ["auto"]:
        devices = _cuda_devices() or ["cpu"]
    return devices


def _cuda_devices() -> list[str]:
    if not may_have_gpu():
        return []
    import torch  # takes seconds

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def works_in_processes(settings: Settings) -> bool:
    """Whether each configured device gets a process of its own."""
    if settings.model.processes == "auto":
        return len({name for name in configured_devices(settings) if name.startswith("cuda")}) > 1
    return settings.model.processes == "per_device"


def _load_on(settings: Settings, devices: Sequence[str], progress: Progress) -> list[LoadedFace]:
    models = []
    for device in devices:
        progress(f"loading the model on {device}")
        models.append(load_face(settings, device))
    return models


def _tenths(progress: Progress, what: str) -> Callable[[int, int], None]:
    """Says that an avatar is being prepared, and every tenth of that."""
    progress(f"preparing avatar {what}")
    told = 0

    def report(done: int, total: int) -> None:
        nonlocal told
        if told != (told := 10 * done // total):
            progress(f"preparing avatar {what}: {10 * told} %")

    return report


def _with_an_avatar(settings: Settings) -> Settings:
    """The settings, with the bundled avatars where there are no others yet.

    What is wrong with the avatars is said before a model is loaded. Raises AvatarError.
    """
    from wsavatar.avatars.library import AvatarLibrary

    given = settings.avatars
    if given.directory is not None and not given.directory.is_dir():
        raise AvatarError(
            f"avatars.directory: there is no folder {given.directory}: make it, for photos and "
            "videos of faces; or leave the setting out, for the bundled avatars"
        )
    library = AvatarLibrary(given)
    if not library.list():
        _log.warning("%s has no avatar yet: those of the package are there too", given.directory)
        places = (*given.more_directories, resource_dir("avatars"))
        given = given.model_copy(update={"more_directories": places})
        settings = settings.model_copy(update={"avatars": given})
        library = AvatarLibrary(given)
    library.read(library.default_id)
    return settings


def warn_of_cache(settings: Settings) -> None:
    """Log one warning where nothing can be kept in the cache: starts only take longer then."""
    cache = settings.avatars.cache or cache_directory()
    fault = cache_fault(cache / "avatars") or cache_fault(cache / "openvino")
    if fault:
        _log.warning(
            "avatars.cache: %s cannot be used (%s): every start converts and prepares again what "
            "is not in it; choose a folder that can be written to",
            cache,
            fault,
        )


def _default_avatar(store: AvatarStore, progress: Progress) -> PreparedAvatar:
    return store.get(store.default_id, _tenths(progress, store.default_id))

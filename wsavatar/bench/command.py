"""The arguments of ``bench``, and the choice of what is measured on which devices.

The measurements themselves are in the modules beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from wsavatar import machine
from wsavatar.bench.report import BenchError, Report, as_json, compare, table
from wsavatar.bench.timing import is_cuda
from wsavatar.config import Settings

if TYPE_CHECKING:
    from wsavatar.avatars.store import AvatarStore
    from wsavatar.bench.renderer import BenchInput
    from wsavatar.bench.report import Precision, ReferenceSpeed, Scaling, Throughput
    from wsavatar.faces.musetalk.model import MuseTalk
    from wsavatar.faces.registry import LoadedFace

__all__ = ["PARTS", "add_arguments", "measure", "parse_parts", "run"]

Row = TypeVar("Row")

PARTS = (
    "stages",
    "throughput",
    "latency",
    "reference",
    "ceiling",
    "scaling",
    "precision",
    "overload",
)
_ON_CPU = {"stages", "throughput", "latency"}
_ON_CUDA = {*_ON_CPU, "reference", "ceiling"}
_MUSETALKS = {"reference", "ceiling", "precision"}
"""Parts about networks that only MuseTalk has."""
_CUDA_BATCH = 16
OVERLOAD_S = 12.0
"""Of speech at each load, at least."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``bench``."""
    parser.add_argument("--avatar", metavar="ID", help="avatar (default: avatars.default)")
    parser.add_argument(
        "--avatar-size", metavar="WxH", help="scale that avatar to this size, such as 1280x720"
    )
    parser.add_argument(
        "--seconds",
        type=float,
        metavar="S",
        help="seconds of audio: maximum of a repetition (default: 6, on a CUDA device 32), or "
        "length of each session's speech (default: 60)",
    )
    parser.add_argument(
        "--threads", type=int, metavar="N", help="CPU threads (default: model.cpu_threads)"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    group = parser.add_argument_group("renderer, in this process, on the first device")
    group.add_argument(
        "--parts",
        metavar="A,B",
        help=f"what to measure, of {', '.join(PARTS)} "
        "(default: the first three, and the next two on a CUDA device; reference not where "
        "model.decoder is tiny)",
    )
    group.add_argument(
        "--reference",
        action="store_true",
        help="also measure the official script's method, eager and pasted on the CPU",
    )
    group.add_argument(
        "--scaling", action="store_true", help="also measure 1, 2, 4, … and all configured devices"
    )
    group.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="largest batch, 1 to 64; measured at 1, 2, 4, … N "
        f"(default: render.batch_size, on a CUDA device {_CUDA_BATCH})",
    )
    live = parser.add_argument_group("server, in real time")
    live.add_argument(
        "--sessions",
        type=int,
        metavar="N",
        help="start a server with these settings and N clients that speak at the same time",
    )
    live.add_argument(
        "--conversation",
        type=int,
        metavar="N",
        help="hold a conversation with a server of these settings and scripted engines: N turns, "
        "N interruptions, N times a 'mm-hmm'",
    )
    live.add_argument(
        "--url",
        metavar="WS_URL",
        help="use a running server with the same settings: ws://host:8765/v1/realtime",
    )
    live.add_argument(
        "--audio",
        type=Path,
        metavar="FILE",
        help="speech of the clients: wav, flac, ogg, … (default: the offline voice)",
    )
    live.add_argument(
        "--encoding",
        choices=("binary", "json"),
        default="binary",
        help="encoding of frames and audio (default: binary)",
    )


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Measure and print. Returns 1 where the sessions' figures are not valid. Raises BenchError."""
    if args.sessions is None and (args.url or args.audio):
        raise BenchError("--url and --audio need --sessions N")
    with tempfile.TemporaryDirectory(prefix="wsavatar-bench-") as directory:
        overrides = _overrides(args, settings, Path(directory))
        if args.conversation is not None:
            from wsavatar.bench import conversation

            turns = min(max(args.conversation, 1), 1000)
            return conversation.run(_with(settings, overrides), turns, as_json=args.json)
        if args.sessions is not None:
            return _run_sessions(args, _with(settings, overrides), overrides, Path(directory))
        report = _run_renderer(args, _with(settings, overrides))
    print(json.dumps(as_json(report), indent=2) if args.json else table(report))
    return 0


def _overrides(args: argparse.Namespace, settings: Settings, directory: Path) -> dict[str, Any]:
    """Settings given by the options, by their dotted names."""
    overrides: dict[str, Any] = {}
    if args.threads is not None:
        overrides["model.cpu_threads"] = max(0, args.threads)
    if args.avatar:
        overrides["avatars.default"] = args.avatar
    if args.avatar_size:
        overrides |= _resized(args, settings, directory)
    return overrides


def _resized(args: argparse.Namespace, settings: Settings, directory: Path) -> dict[str, Any]:
    """Write an avatars' folder for this run with the avatar at ``--avatar-size``."""
    from wsavatar.avatars.format import read_avatar_file
    from wsavatar.avatars.library import avatar_directory
    from wsavatar.bench.resized import parse_size, write_resized

    if args.url:
        raise BenchError("--avatar-size needs a server that is started here: leave --url out")
    width, height = parse_size(args.avatar_size)
    source = avatar_directory(settings.avatars)
    id = args.avatar or settings.avatars.default
    if not id:
        folders = sorted(path.parent for path in source.glob("*/avatar.json"))
        if not folders:
            raise BenchError(f"{source} has no avatar")
        id = min(folders, key=lambda folder: read_avatar_file(folder).name.casefold()).name
    _say(f"making avatar {id} {width}x{height}")
    made = write_resized(source / id, width, height, directory / "avatars")
    return {"avatars.directory": directory / "avatars", "avatars.default": made}


def _with(settings: Settings, overrides: dict[str, Any]) -> Settings:
    for name, value in overrides.items():
        section, key = name.split(".")
        changed = getattr(settings, section).model_copy(update={key: value})
        settings = settings.model_copy(update={section: changed})
    return settings


# -- the renderer ---------------------------------------------------------------------------------


def _run_renderer(args: argparse.Namespace, settings: Settings) -> Report:
    if args.batch_size is not None and not 1 <= args.batch_size <= 64:
        raise BenchError(f"--batch-size {args.batch_size}: from 1 to 64")
    if args.seconds is not None and not 1 <= args.seconds <= 600:
        raise BenchError(f"--seconds {args.seconds:g}: from 1 to 600")
    chosen = None if args.parts is None else parse_parts(args.parts)
    extra = {name for name in ("reference", "scaling") if getattr(args, name)}
    tiny = (settings.model.model_extra or {}).get("decoder") == "tiny"
    if tiny and "reference" in extra | (chosen or set()):
        raise BenchError(
            "reference: the official script decodes with the VAE only; set model.decoder: vae to "
            "compare the same networks"
        )
    from wsavatar.faces.registry import load_face
    from wsavatar.serve.assembly import configured_devices, load_models, works_in_processes

    scales = "scaling" in extra | (chosen or set())
    if scales and not works_in_processes(settings):
        models = load_models(settings, _say)
    else:
        _say("loading the model")
        models = [load_face(settings, _first_device(settings))]
    on_cuda = str(models[0].device).startswith("cuda")
    usual = (_ON_CUDA if on_cuda else _ON_CPU) - ({"reference"} if tiny else set())
    if not _is_musetalk(models[0]):
        usual -= _MUSETALKS
    parts = extra | (usual if chosen is None else chosen)
    if parts & _MUSETALKS and not _is_musetalk(models[0]):
        raise BenchError(f"--parts: {', '.join(sorted(parts & _MUSETALKS))} is of musetalk only")
    greatest = args.batch_size or (_CUDA_BATCH if on_cuda else settings.render.batch_size)
    devices = len(configured_devices(settings)) if scales else 1
    seconds = args.seconds or (32.0 if on_cuda else 6.0) * devices
    return measure(models, settings, greatest, seconds, parts)


def _is_musetalk(model: LoadedFace) -> bool:
    from wsavatar.faces.musetalk.model import MuseTalk

    return isinstance(model, MuseTalk)


def _first_device(settings: Settings) -> str:
    first = settings.model.devices[0]
    if first != "auto":
        return first
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def parse_parts(text: str) -> set[str]:
    """``stages,ceiling`` to a set. Raises BenchError with the known names."""
    parts = {part.strip() for part in text.split(",") if part.strip()}
    if not parts or parts - set(PARTS):
        raise BenchError(f"--parts {text}: expected {', '.join(PARTS)}, separated by commas")
    return parts


def measure(
    models: Sequence[LoadedFace],
    settings: Settings,
    greatest: int,
    seconds: float,
    parts: set[str],
) -> Report:
    """Measure ``parts`` at batch 1, 2, 4, … ``greatest``. Blocks for about a minute.

    All parts but scaling run on the first model. Raises BenchError where frames failed.
    """
    from wsavatar.avatars.store import AvatarStore
    from wsavatar.bench import renderer
    from wsavatar.faces.registry import model_directory
    from wsavatar.serve.assembly import mask_maker

    model, directory = models[0], model_directory(settings)
    store = AvatarStore(settings.avatars, model, mask_maker(settings))
    _say(f"preparing avatar {store.default_id}")
    avatar = store.get(store.default_id)
    inputs = renderer.BenchInput.of(avatar, settings.render, model.windows, seconds)
    sizes = renderer.batch_sizes(greatest)
    if parts != {"scaling"}:  # a pool warms up its own models
        _say("warming up")
        model.warm_up(sizes)
    found: dict[str, Any] = {}
    if "stages" in parts:
        found["stages_ms"] = _at_each(
            sizes, "the stages", lambda size: renderer.measure_stages(model, inputs, size)
        )
    if "throughput" in parts:
        found["throughput"] = _at_each(
            sizes,
            "frames per second",
            lambda size: renderer.measure_throughput([model], inputs, size),
            _speed,
        )
    if "latency" in parts:
        _say("measuring the first frame")
        found["first_frame"] = renderer.measure_first_frame(model, inputs)
    if "reference" in parts:
        found["reference"] = _measure_reference(
            cast("MuseTalk", model), directory, inputs, greatest
        )
        model.release()  # its memory would count as ours in the next part
    if "ceiling" in parts:
        found["ceiling"] = _measure_ceiling(cast("MuseTalk", model), directory, settings)
    if "scaling" in parts:
        found["scaling"] = _measure_scaling(models, settings, inputs, greatest)
    if "precision" in parts:
        found["precision"] = _measure_precision(model, settings, store, greatest, seconds)
    if "overload" in parts:
        from wsavatar.bench.overload import measure_overload

        long = max(seconds, OVERLOAD_S)
        spoken = renderer.BenchInput.of(avatar, settings.render, model.windows, long)
        found["overload"] = measure_overload(model, spoken, settings.render, _say)
    found["comparison"] = compare(
        found.get("throughput", ()), found.get("reference", ()), found.get("ceiling")
    )
    return Report(
        machine=asdict(machine.describe()) | {"cuda": _cuda(models)},
        model=_model(models, settings, directory),
        avatar={"id": avatar.id, "width": avatar.width, "height": avatar.height},
        frames=inputs.frames,
        repetitions=renderer.REPETITIONS,
        **found,
    )


def _measure_precision(
    model: LoadedFace, settings: Settings, store: AvatarStore, size: int, seconds: float
) -> tuple[Precision, ...]:
    """Float32 beside the configured dtype, or beside the next faster one where that is float32."""
    from wsavatar.bench.precision import measure_precision
    from wsavatar.bench.speech import synthesised_speech
    from wsavatar.dialogue.base import SPEECH_RATE
    from wsavatar.faces.registry import load_face
    from wsavatar.media.audio import resample

    def load(dtype: str) -> MuseTalk:
        _say(f"loading the model in {dtype}")
        chosen = settings.model.model_copy(update={"dtype": dtype})
        return cast("MuseTalk", load_face(settings.model_copy(update={"model": chosen}), place))

    model = cast("MuseTalk", model)
    place = str(model.device)
    other = "bfloat16" if place == "cpu" else "float16"
    models = [model, load(other)] if model.dtype == "float32" else [load("float32"), model]
    speech = synthesised_speech()[: round(seconds * SPEECH_RATE)]
    rate = models[0].spec.grid.sample_rate
    avatars = [store.get(entry.id) for entry in store.list()]
    return measure_precision(models, avatars, resample(speech, SPEECH_RATE, rate), size, _say)


def _measure_scaling(
    models: Sequence[LoadedFace], settings: Settings, inputs: BenchInput, size: int
) -> tuple[Scaling, ...]:
    from wsavatar.bench import renderer
    from wsavatar.serve.assembly import configured_devices, open_pool

    devices = configured_devices(settings)
    _say(f"measuring over up to {len(devices)} devices")
    chosen = settings.model_copy(update={"render": inputs.at_batch(size)})
    pool = open_pool(chosen, models)
    return renderer.measure_scaling(pool, len(devices), inputs, size, _say)


def _at_each(
    sizes: Sequence[int],
    what: str,
    call: Callable[[int], Row],
    figure: Callable[[Row], str] | None = None,
) -> tuple[Row, ...]:
    """Measure at each batch size. ``figure`` formats a row for the progress output."""
    rows = []
    for size in sizes:
        _say(f"measuring {what} at batch {size}")
        rows.append(call(size))
        if figure is not None:
            _say(f"batch {size}: {figure(rows[-1])}")
    return tuple(rows)


def _speed(row: Throughput | ReferenceSpeed) -> str:
    return f"{row.frames_per_s:.1f} frames/s"


def _measure_reference(model: MuseTalk, directory: Path, inputs: Any, greatest: int) -> Any:
    from wsavatar.bench import reference
    from wsavatar.bench.renderer import make_conditions

    _say("loading the reference path")
    path = reference.ReferencePath(directory, model.spec.version, model.device, model.dtype)
    sizes = [size for size in reference.REFERENCE_SIZES if size <= greatest] or [greatest]
    works = make_conditions(model, inputs, max(sizes))
    conditions = [work.source.condition[work.row] for work in works]
    if len(conditions) < max(sizes):
        raise BenchError(f"--seconds: too short for the reference path at batch {max(sizes)}")
    quality = inputs.settings.jpeg_quality
    return _at_each(
        sizes,
        "the reference path",
        lambda size: reference.measure_reference(path, inputs.avatar, conditions, size, quality),
        _speed,
    )


def _measure_ceiling(model: MuseTalk, directory: Path, settings: Settings) -> Any:
    from wsavatar.bench import ceiling
    from wsavatar.faces.musetalk.configured import options

    _say("measuring the ceiling")
    load = ceiling.CUDA_TEST if is_cuda(model.device) else ceiling.CPU_TEST
    return ceiling.measure_ceiling(
        directory, model.spec, model.device, model.dtype, load, options(settings).decoder
    )


def _cuda(models: Sequence[LoadedFace]) -> list[str]:
    if not any(str(model.device).startswith("cuda") for model in models):
        return []
    return [device.title for device in machine.cuda_devices()]


def _model(models: Sequence[LoadedFace], settings: Settings, directory: Path) -> dict[str, Any]:
    dtype = getattr(models[0], "dtype", settings.model.dtype)
    return {
        "directory": str(directory),
        **(settings.model.model_extra or {}),
        "devices": [str(model.device) for model in models],
        "dtype": dtype,
    }


# -- sessions -------------------------------------------------------------------------------------


def _run_sessions(
    args: argparse.Namespace, settings: Settings, overrides: dict[str, Any], directory: Path
) -> int:
    from wsavatar.bench.server_process import ServerProcess
    from wsavatar.bench.sessions import run_sessions, sessions_table
    from wsavatar.bench.speech import recorded_speech, synthesised_speech

    seconds = 60.0 if args.seconds is None else args.seconds
    if not 1 <= args.sessions <= 1000:
        raise BenchError(f"--sessions {args.sessions}: from 1 to 1000")
    if not 2 <= seconds <= 3600:
        raise BenchError(f"--seconds {seconds:g}: from 2 to 3600 with --sessions")
    speech = recorded_speech(args.audio) if args.audio else synthesised_speech()
    if args.url:
        report = run_sessions(_workload(args, settings, seconds, args.url), speech, directory, _say)
    else:
        overrides["server.max_sessions"] = max(settings.server.max_sessions, args.sessions)
        arguments = ["--config", args.config] if args.config else []
        given = [
            *args.set,
            *(f"{name}={json.dumps(v, default=str)}" for name, v in overrides.items()),
        ]
        arguments += [word for setting in given for word in ("--set", setting)]
        with ServerProcess(arguments, directory / "server.log", _say) as server:
            workload = _workload(args, settings, seconds, server.url)
            report = run_sessions(workload, speech, directory, _say)
    print(json.dumps(asdict(report), indent=2) if args.json else sessions_table(report))
    return 0 if report.valid else 1


def _workload(args: argparse.Namespace, settings: Settings, seconds: float, url: str) -> Any:
    from urllib.parse import urlsplit, urlunsplit

    from wsavatar.bench.sessions import Workload
    from wsavatar.faces.registry import speech_windows

    parts = urlsplit(url)
    if parts.scheme not in ("ws", "wss") or not parts.netloc:
        raise BenchError(f"--url {url}: expected ws://host:port/v1/realtime")
    page = urlunsplit((parts.scheme.replace("ws", "http"), parts.netloc, "/api/stats", "", ""))
    endpoint = url if parts.path.strip("/") else urlunsplit(parts._replace(path="/v1/realtime"))
    return Workload(
        sessions=args.sessions,
        seconds=seconds,
        url=endpoint,
        stats_url=page,
        token=next(iter(settings.server.auth_tokens), ""),
        encoding=cast("Any", args.encoding),
        avatar=settings.avatars.default,
        fps=settings.render.fps,
        chunk_ms=settings.audio.live_chunk_ms,
        first_ms=settings.audio.first_chunk_ms,
        windows=speech_windows(settings),
    )


def _say(text: str) -> None:
    print(f"{text} …", file=sys.stderr, flush=True)

"""The figures of a bench run, as plain data and as a table.

It knows the meaning of the figures and how to compare them, not how they are measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from wsavatar.errors import WsavatarError

__all__ = [
    "BenchError",
    "Ceiling",
    "Comparison",
    "ConvolutionRate",
    "FirstFrame",
    "Overload",
    "Precision",
    "ReferenceSpeed",
    "Report",
    "Scaling",
    "StageTimes",
    "Throughput",
    "as_json",
    "compare",
    "table",
]


class BenchError(WsavatarError, RuntimeError):
    """The measurement is not possible or would not be valid; the message says why."""


@dataclass(frozen=True, slots=True)
class StageTimes:
    """Milliseconds a frame of each stage, run one after another, at one batch size."""

    batch_size: int
    features: float
    generate: float
    paste: float
    jpeg: float

    @property
    def total(self) -> float:
        """Sum of all stages."""
        return self.features + self.generate + self.paste + self.jpeg


@dataclass(frozen=True, slots=True)
class Throughput:
    """Frames per second from features to JPEG bytes on one device, at one batch size.

    Memory is the peak on a CUDA device, None elsewhere.
    """

    batch_size: int
    frames_per_s: float
    allocated_mib: int | None = None
    """In tensors of torch, without the memory of CUDA graphs."""
    reserved_mib: int | None = None
    """All memory that torch took from the device, with its graphs' pools and its cache."""


@dataclass(frozen=True, slots=True)
class FirstFrame:
    """From a complete chunk to its first JPEG on the event loop, in milliseconds."""

    chunk_s: float
    chunks: int
    p50_ms: float
    p95_ms: float


@dataclass(frozen=True, slots=True)
class Scaling:
    """Frames per second over the first ``devices`` of the configured devices."""

    devices: int
    frames_per_s: float
    ratio: float
    """To the speed of one device."""


@dataclass(frozen=True, slots=True)
class Overload:
    """What the renderer shows of so many live sessions."""

    times: float
    """The load, in multiples of what it shows at best."""
    sessions: int
    frames_per_s: float
    """Of all sessions together."""
    share_of_best: float
    least: float
    """Frames a second of the session that got least."""
    most: float
    longest_gap: int
    """Frames that one session lost in a row."""


@dataclass(frozen=True, slots=True)
class Precision:
    """The model in one dtype: its speed, and its pictures against float32's."""

    dtype: str
    frames: int
    block_ms: float
    """Audio features of a block (0.1 s of audio), the median."""
    frame_ms: float
    """UNet and VAE, the median."""
    psnr_db: float
    """Of all frames together."""
    worst_frame_db: float
    greatest_difference: int
    """Of 255 levels."""


@dataclass(frozen=True, slots=True)
class ReferenceSpeed:
    """Frames per second of the reference path at one batch size."""

    batch_size: int
    frames_per_s: float
    """Up to the pasted picture, as numpy on the host."""
    with_jpeg_frames_per_s: float


@dataclass(frozen=True, slots=True)
class ConvolutionRate:
    """A 3x3 convolution, ``channels`` in and out, on ``side`` x ``side`` pixels."""

    channels: int
    side: int
    tflops: float


@dataclass(frozen=True, slots=True)
class Ceiling:
    """Upper bound of this device, measured on random data."""

    batch_size: int
    convolutions: tuple[ConvolutionRate, ...]
    matmul_tflops: float
    copy_gb_per_s: float
    gflop_per_frame: float
    """UNet and decoder, a multiplication and an addition counted as two."""

    @property
    def tflops(self) -> float:
        """The best rate of the convolutions."""
        return max(one.tflops for one in self.convolutions)

    @property
    def frames_per_s(self) -> float:
        """If all operations of UNet and decoder ran at that rate and nothing else took time."""
        return 1000 * self.tflops / self.gflop_per_frame


@dataclass(frozen=True, slots=True)
class Comparison:
    """Ratios at one batch size; None where not measured in this run."""

    batch_size: int
    frames_per_s: float
    times_reference: float | None
    times_reference_with_jpeg: float | None
    share_of_ceiling: float | None


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one run; parts that were not measured are empty or None."""

    machine: dict[str, Any]
    model: dict[str, Any]
    avatar: dict[str, Any]
    frames: int
    """Maximum of a repetition."""
    repetitions: int
    stages_ms: tuple[StageTimes, ...] = ()
    throughput: tuple[Throughput, ...] = ()
    first_frame: FirstFrame | None = None
    reference: tuple[ReferenceSpeed, ...] = ()
    ceiling: Ceiling | None = None
    comparison: tuple[Comparison, ...] = ()
    scaling: tuple[Scaling, ...] = ()
    precision: tuple[Precision, ...] = ()
    """The first row is float32."""
    overload: tuple[Overload, ...] = ()
    """The first row is the best load."""


def compare(
    throughput: Sequence[Throughput],
    reference: Sequence[ReferenceSpeed],
    ceiling: Ceiling | None,
) -> tuple[Comparison, ...]:
    """Our speed against the reference and the ceiling of the same run."""
    others = {one.batch_size: one for one in reference}
    rows = []
    for ours in throughput:
        speed, other = ours.frames_per_s, others.get(ours.batch_size)
        if other is None and ceiling is None:
            continue
        rows.append(
            Comparison(
                ours.batch_size,
                speed,
                round(speed / other.frames_per_s, 2) if other else None,
                round(speed / other.with_jpeg_frames_per_s, 2) if other else None,
                round(speed / ceiling.frames_per_s, 3) if ceiling else None,
            )
        )
    return tuple(rows)


def as_json(report: Report) -> dict[str, Any]:
    """The report for JSON, with derived figures."""
    values = asdict(report)
    for row, stages in zip(values["stages_ms"], report.stages_ms, strict=True):
        row["total"] = round(stages.total, 3)
    if report.ceiling is not None:
        values["ceiling"] |= {
            "tflops": report.ceiling.tflops,
            "frames_per_s": round(report.ceiling.frames_per_s, 1),
        }
    return values


def table(report: Report) -> str:
    """The report as a text table."""
    this, model, avatar = report.machine, report.model, report.avatar
    cuda = f"; {', '.join(this['cuda'])}" if this["cuda"] else ""
    lines = [
        f"machine  {this['cpu']}, {this['cores']} cores{cuda}",
        f"model    {model['directory']}, {model['dtype']} on {', '.join(model['devices'])}",
        f"avatar   {avatar['id']}, {avatar['width']}x{avatar['height']}",
        f"frames   up to {report.frames} a repetition, medians of {report.repetitions}",
    ]
    blocks = (
        _stage_lines(report.stages_ms),
        _throughput_lines(report.throughput),
        _first_frame_lines(report.first_frame),
        _reference_lines(report.reference),
        _ceiling_lines(report.ceiling),
        _comparison_lines(report.comparison),
        _scaling_lines(report.scaling),
        _precision_lines(report.precision),
        _overload_lines(report.overload),
    )
    for block in blocks:
        lines += ["", *block] if block else []
    return "\n".join(lines)


def _columns(*cells: object) -> str:
    """A row: the first cell aligned to the left, the others to the right."""
    first, *others = (f"{cell:.2f}" if isinstance(cell, float) else str(cell) for cell in cells)
    return f"  {first:<22}" + "".join(f"{cell:>14}" for cell in others)


def _stage_lines(rows: Iterable[StageTimes]) -> list[str]:
    lines = [
        _columns(
            f"batch {row.batch_size}", row.features, row.generate, row.paste, row.jpeg, row.total
        )
        for row in rows
    ]
    head = _columns("", "features", "UNet and VAE", "paste", "JPEG", "sum")
    return ["stages, ms a frame", head, *lines] if lines else []


def _throughput_lines(rows: Sequence[Throughput]) -> list[str]:
    with_memory = any(row.reserved_mib is not None for row in rows)
    lines = [
        _columns(
            f"batch {row.batch_size}",
            f"{row.frames_per_s:.1f}",
            *((row.allocated_mib, row.reserved_mib) if with_memory else ()),
        )
        for row in rows
    ]
    head = _columns("", "frames/s", *(("MiB in tensors", "MiB reserved") if with_memory else ()))
    return ["features to JPEG bytes, one device", head, *lines] if lines else []


def _first_frame_lines(first: FirstFrame | None) -> list[str]:
    if first is None:
        return []
    return [
        f"first frame after a complete {first.chunk_s:g} s chunk ({first.chunks} chunks)",
        _columns("median", f"{first.p50_ms:.1f} ms"),
        _columns("p95", f"{first.p95_ms:.1f} ms"),
    ]


def _reference_lines(rows: Iterable[ReferenceSpeed]) -> list[str]:
    lines = [
        _columns(
            f"batch {row.batch_size}",
            f"{row.frames_per_s:.1f}",
            f"{row.with_jpeg_frames_per_s:.1f}",
        )
        for row in rows
    ]
    head = _columns("", "frames/s", "with JPEG")
    return ["reference: eager, to numpy, pasted by PIL", head, *lines] if lines else []


def _ceiling_lines(ceiling: Ceiling | None) -> list[str]:
    if ceiling is None:
        return []
    return [
        f"ceiling, random data, batch {ceiling.batch_size}",
        *(
            _columns(f"3x3, {one.channels} ch, {one.side}x{one.side}", f"{one.tflops:.1f} TFLOP/s")
            for one in ceiling.convolutions
        ),
        _columns("matmul", f"{ceiling.matmul_tflops:.1f} TFLOP/s"),
        _columns("copy on the device", f"{ceiling.copy_gb_per_s:.0f} GB/s"),
        _columns("a frame", f"{ceiling.gflop_per_frame:.1f} GFLOP"),
        _columns("at most", f"{ceiling.frames_per_s:.0f} frames/s"),
    ]


def _comparison_lines(rows: Iterable[Comparison]) -> list[str]:
    def ratio(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}x"

    def share(value: float | None) -> str:
        return "-" if value is None else f"{100 * value:.1f} %"

    lines = [
        _columns(
            f"batch {row.batch_size}",
            f"{row.frames_per_s:.1f}",
            ratio(row.times_reference),
            ratio(row.times_reference_with_jpeg),
            share(row.share_of_ceiling),
        )
        for row in rows
    ]
    head = _columns("", "frames/s", "to reference", "its JPEGs too", "of ceiling")
    return ["ours, side by side", head, *lines] if lines else []


def _scaling_lines(rows: Iterable[Scaling]) -> list[str]:
    lines = [
        _columns(f"{row.devices} devices", f"{row.frames_per_s:.1f}", f"{row.ratio:.2f}x")
        for row in rows
    ]
    return ["over devices, chunks in turn", *lines] if lines else []


def _precision_lines(rows: Iterable[Precision]) -> list[str]:
    lines = [
        _columns(
            row.dtype,
            row.block_ms,
            row.frame_ms,
            f"{row.psnr_db:.1f}",
            f"{row.worst_frame_db:.1f}",
            row.greatest_difference,
        )
        for row in rows
    ]
    head = _columns("", "ms a block", "ms a frame", "dB", "worst frame", "levels")
    return ["pictures against float32", head, *lines] if lines else []


def _overload_lines(rows: Iterable[Overload]) -> list[str]:
    lines = [
        _columns(
            f"{row.times:g} times, {row.sessions} sessions",
            f"{row.frames_per_s:.1f}",
            f"{100 * row.share_of_best:.1f} %",
            f"{row.least:.1f} to {row.most:.1f}",
            row.longest_gap,
        )
        for row in rows
    ]
    head = _columns("", "frames/s", "of the best", "a session", "lost in a row")
    return ["live sessions beyond the capacity", head, *lines] if lines else []

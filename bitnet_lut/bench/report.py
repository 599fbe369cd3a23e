"""What was measured, as text."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from bitnet_lut.bench.engine import ModelFigure, Report
from bitnet_lut.bench.kernels import KernelFigure
from bitnet_lut.bench.machine import machine
from bitnet_lut.bench.profile import Profile
from bitnet_lut.bench.tune import TOKENS, Tuning

__all__ = ["kernel_rows", "report_kernels", "report_model", "report_tuning", "table"]

_MODEL_HEADER = (
    *("threads", "kernel", "isa", "what", "tokens/s", "slowest", "fastest"),
    *("GB/s", "GMAC/s", "of roof", "J/token"),
)

_SPEEDS = ("GMAC/s", "GB/s", "of roof")
_COUNTS = ("MACs/instruction", "instructions/cycle", "misses/KB")
_DOUBT = " !"  # after a figure above a roof


def report_model(found: Report) -> Iterator[str]:
    """Lines of text: the machine, the model, the figures and the profiles."""
    sizes = ", ".join(f"{kind} {size / 1e6:.1f} MB" for kind, size in found.weight_bytes.items())
    yield f"machine  {found.machine}"
    yield f"model    {found.model}: {sizes}"
    yield ""
    yield from table([_MODEL_HEADER, *map(_model_cells, found.figures)])
    yield ""
    yield from _roofs(found)
    if found.profiles:
        yield ""
        yield "ms per token by part, with all threads waiting for each other after every part"
        yield from table([*_profiles(found.profiles)])


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of aligned columns, the first one to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *cells = zip(row, widths, strict=True)
        yield "  ".join([f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in cells)])


def _model_cells(figure: ModelFigure) -> list[str]:
    joules = figure.joules_per_token
    return [
        str(figure.threads),
        figure.kernel,
        figure.isa,
        figure.name,
        *(f"{speed:.1f}" for speed in (figure.tokens_per_second, *figure.spread)),
        "" if figure.gb_s is None else f"{figure.gb_s:.1f}",
        f"{figure.gmac_s:.1f}",
        f"{figure.share_of_roof:.0%}",
        "unknown" if joules is None else f"{joules:.3f}",
    ]


def _roofs(found: Report) -> Iterator[str]:
    """The roofs, and the bytes that were counted."""
    rows = {(figure.threads, figure.isa): figure for figure in found.figures}
    for (threads, isa), figure in rows.items():
        yield (
            f"roof, threads {threads}, {isa}: {figure.read_roof_gb_s:.1f} GB/s read, "
            f"{figure.integer_roof_gmac_s:.0f} G multiply-adds/s; measured between the rounds"
        )
    counted = {figure.name: figure for figure in found.figures if figure.bytes_per_token}
    for name, figure in counted.items():
        parts = figure.bytes_per_token.items()
        sizes = ", ".join(f"{part} {size / 1e6:.1f} MB" for part, size in parts)
        yield f"read per token of {name}: {sizes}"


def _profiles(profiles: Sequence[Profile]) -> Iterator[list[str]]:
    """The rows of one table with a column for each profile."""
    yield ["", *(f"{profile.name}, threads {profile.threads}" for profile in profiles)]
    for part in profiles[0].parts:
        yield [part, *(_milliseconds(profile, profile.parts[part]) for profile in profiles)]
    yield ["together", *(_milliseconds(profile, profile.seconds) for profile in profiles)]
    yield ["without waiting", *(_milliseconds(p, p.untraced) for p in profiles)]


def _milliseconds(profile: Profile, seconds: float) -> str:
    return f"{1e3 * seconds / profile.tokens:.3f}"


def report_kernels(figures: Sequence[KernelFigure]) -> Iterator[str]:
    """The machine, a table of figures, and the roofs; what exceeds a roof is marked."""
    yield f"machine  {machine()}"
    yield ""
    counts = _COUNTS if figures[0].counts else ()
    header = ("kernel", "tier", "threads", "shape", "weights", "tokens", *_SPEEDS, *counts)
    order = sorted(
        figures, key=lambda one: (one.threads, not one.cached, one.rows, one.cols, one.tokens)
    )
    yield from table([header, *map(_kernel_cells, order)])
    yield ""
    roofs = {(one.isa, one.threads): one for one in figures}
    for (isa, threads), one in roofs.items():
        cache = "" if math.isinf(one.cache_gb_s) else f" ({one.cache_gb_s:.0f} from the L2 caches)"
        yield (
            f"roof of {isa}, threads {threads}: {one.read_gb_s:.1f} GB/s read{cache}, "
            f"{one.integer_gmac_s:.0f} G multiply-adds/s"
        )
    doubtful = sum(not one.is_possible for one in figures)
    if doubtful:
        yield ""
        yield f"{_DOUBT}: {doubtful} above a roof twice: measured wrongly, or some work is left out"


def _kernel_cells(one: KernelFigure) -> tuple[str, ...]:
    return (
        one.kernel,
        one.isa,
        str(one.threads),
        f"{one.rows}x{one.cols}",
        "in cache" if one.cached else "from memory",
        str(one.tokens),
        f"{one.gmac_s:.1f}",
        f"{one.gb_s:.1f}",
        f"{one.share:.0%}{'' if one.is_possible else _DOUBT}",
        *_count_cells(one),
    )


def _count_cells(one: KernelFigure) -> tuple[str, ...]:
    """What the processor counted, beside the work: multiply-adds, and bytes of packed weights."""
    if one.counts is None:
        return ()
    products = one.rows * one.cols * one.tokens
    return (
        f"{products / max(1.0, one.counts.instructions):.1f}",
        f"{one.counts.instructions / max(1.0, one.counts.cycles):.2f}",
        f"{1e3 * one.counts.cache_misses * one.intensity / products:.2f}",
    )


def kernel_rows(figures: Sequence[KernelFigure]) -> list[dict[str, Any]]:
    """The figures as JSON and CSV have them: the fields of each, its share of the roof, and
    whether it is possible.
    """
    rows = []
    for one in figures:
        row = {name: value for name, value in asdict(one).items() if name != "counts"}
        counted = {} if one.counts is None else asdict(one.counts)
        rows.append(row | {"share": one.share, "is_possible": one.is_possible} | counted)
    return [
        {name: None if value == math.inf else value for name, value in row.items()} for row in rows
    ]


def report_tuning(tuning: Tuning) -> Iterator[str]:
    """How long each kernel takes for each group, by tokens at once, and which one is chosen."""
    choice = tuning.choice
    header = ("matrices", "shape", "kernel", *(f"ms, {n} tokens" for n in TOKENS), "")
    rows = [
        (
            one.group,
            f"{one.rows}x{one.cols}",
            one.kernel,
            *(f"{1e3 * one.seconds[n]:.3f}" for n in TOKENS),
            "chosen" if choice[one.group] == one.kernel else "",
        )
        for one in tuning.timings
    ]
    return table([header, *rows])

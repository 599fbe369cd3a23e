"""What was measured, as text."""

from collections.abc import Iterator, Sequence

from bitnet_lut.bench.engine import ModelFigure, Report
from bitnet_lut.bench.kernels import KernelFigure
from bitnet_lut.bench.machine import machine
from bitnet_lut.bench.profile import Profile
from bitnet_lut.bench.tune import TOKENS, Tuning

__all__ = ["report_kernels", "report_model", "report_tuning", "table"]

_MODEL_HEADER = (
    *("threads", "kernel", "isa", "what", "tokens/s", "slowest", "fastest"),
    *("GB/s", "GMAC/s", "of roof", "J/token"),
)


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
    """The machine, a table of figures, and the roofs."""
    yield f"machine  {machine()}, threads {figures[0].threads}"
    yield ""
    header = ("kernel", "tier", "shape", "weights", "tokens", "GMAC/s", "GB/s", "of roof")
    order = sorted(figures, key=lambda one: (not one.cached, one.rows, one.cols, one.tokens))
    yield from table([header, *map(_kernel_cells, order)])
    yield ""
    for isa in dict.fromkeys(one.isa for one in figures):
        read = max(one.read_gb_s for one in figures if one.isa == isa)
        integer = max(one.integer_gmac_s for one in figures if one.isa == isa)
        yield f"roof of {isa}: {read:.1f} GB/s read, {integer:.0f} G multiply-adds/s"


def _kernel_cells(one: KernelFigure) -> tuple[str, ...]:
    return (
        one.kernel,
        one.isa,
        f"{one.rows}x{one.cols}",
        "in cache" if one.cached else "from memory",
        str(one.tokens),
        f"{one.gmac_s:.1f}",
        f"{one.gb_s:.1f}",
        f"{one.share:.0%}",
    )


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

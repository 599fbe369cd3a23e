"""The text of a report, for people."""

from collections.abc import Iterator, Sequence

from bitnet_lut.bench.engine import Figure, Report
from bitnet_lut.bench.profile import Profile

__all__ = ["report", "table"]

_HEADER = (
    *("threads", "kernel", "isa", "what", "tokens/s", "slowest", "fastest"),
    *("GB/s", "GMAC/s", "of roof", "J/token"),
)


def report(found: Report) -> Iterator[str]:
    """Lines of text: the machine, the model, the figures and the profiles."""
    sizes = ", ".join(f"{kind} {size / 1e6:.1f} MB" for kind, size in found.weight_bytes.items())
    yield f"machine  {found.machine}"
    yield f"model    {found.model}: {sizes}"
    yield ""
    yield from table([_HEADER, *map(_cells, found.figures)])
    yield ""
    yield from _roofs(found)
    if found.profiles:
        yield ""
        yield "ms a token by part, while the threads wait for each other after every part"
        yield from table([*_profiles(found.profiles)])


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Lines of columns as wide as they need to be, the first one aligned to the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *cells = zip(row, widths, strict=True)
        yield "  ".join([f"{first[0]:<{first[1]}}", *(f"{cell:>{width}}" for cell, width in cells)])


def _cells(figure: Figure) -> list[str]:
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
    """What the shares are of, and the bytes that were counted."""
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
    """One table, a column for each profile."""
    yield ["", *(f"{profile.name}, threads {profile.threads}" for profile in profiles)]
    for part in profiles[0].parts:
        yield [part, *(_milliseconds(profile, profile.parts[part]) for profile in profiles)]
    yield ["together", *(_milliseconds(profile, profile.seconds) for profile in profiles)]
    yield ["without waiting", *(_milliseconds(p, p.untraced) for p in profiles)]


def _milliseconds(profile: Profile, seconds: float) -> str:
    return f"{1e3 * seconds / profile.tokens:.3f}"

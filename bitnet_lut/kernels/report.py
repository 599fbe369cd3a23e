"""The text of the commands about kernels, for people."""

import runpy
from collections.abc import Iterator, Sequence
from pathlib import Path

from bitnet_lut import _native, _registry
from bitnet_lut.bench.machine import machine
from bitnet_lut.bench.report import table
from bitnet_lut.kernels.bench import Figure
from bitnet_lut.kernels.bounds import sums_of
from bitnet_lut.kernels.kernel import Kernel, get, names
from bitnet_lut.kernels.proof import Fault, prove
from bitnet_lut.kernels.tune import TOKENS, Tuning
from bitnet_lut.runtime.cpu import choose_isa

__all__ = ["chosen", "list_kernels", "load", "prove_kernel", "report_bench", "report_tuning"]

ANY = "any"  # in place of a tier, for kernels from outside


def load(paths: Sequence[Path]) -> None:
    """Run Python files that register kernels."""
    for path in paths:
        runpy.run_path(str(path.resolve()))


def chosen(name: str | None, isa: str) -> list[Kernel]:
    """The kernels called *name* (None: every one) on the tiers *isa*.

    isa: names and commas, "auto", or "all" for every tier that runs here and has functions of its
    own for the kernel. A kernel from outside is there once.
    """
    wanted = names() if name is None else name.split(",")
    if isa == "all":
        tiers = [tier for tier in _native.tier_names() if not _native.missing_features(tier)]
    else:
        tiers = list(dict.fromkeys(map(choose_isa, isa.split(","))))
    found = []
    for one in wanted:
        outside = one in _registry.functions
        kernels = [get(one, tier) for tier in (tiers[:1] if outside else tiers)]
        found += [kernel for kernel in kernels if isa != "all" or kernel.own]
    return found


def list_kernels() -> Iterator[str]:
    """A line for every kernel and tier."""
    rows = [("kernel", "tier", "bits a weight", "panel", "longest row", "functions", "runs here")]
    for name in names():
        for isa in (ANY,) if name in _registry.functions else _native.tier_names():
            missing = [] if isa == ANY else _native.missing_features(isa)
            kernel = Kernel(name, choose_isa() if isa == ANY else "scalar" if missing else isa)
            sums = sums_of(name, isa) or kernel.sums
            own = sums_of(name, isa) is not None if missing else kernel.own
            rows.append(
                (
                    name,
                    isa,
                    f"{kernel.bits_per_weight():.3f}",
                    str(kernel.panel),
                    _longest_row(sums.largest_cols if sums else None),
                    "from outside" if isa == ANY else "its own" if own else "scalar's",
                    f"no: lacks {', '.join(missing)}" if missing else "yes",
                )
            )
    return table(rows)


def prove_kernel(kernel: Kernel) -> str:
    """A line about a kernel that is right; raises Fault, with its name, otherwise."""
    label = f"{kernel.name} {ANY if kernel.outside else kernel.isa}"
    try:
        proof = prove(kernel)
    except Fault as fault:
        raise Fault(f"{label}: {fault}") from fault
    blocks = kernel.sums.blocks if kernel.sums else ()
    narrow = "".join(f"; int{block.bits} sums up to {block.largest:,}" for block in blocks)
    return (
        f"{label}: {proof.products:,} products exact; largest safe K "
        f"{_longest_row(proof.largest_cols)}, the limit is {_native.MAX_COLS:,}{narrow}"
    )


def _longest_row(cols: int | None) -> str:
    return "unknown" if cols is None else f"{cols:,}"


def report_bench(figures: Sequence[Figure]) -> Iterator[str]:
    """The machine, a table of figures, and the roofs."""
    yield f"machine  {machine()}, threads {figures[0].threads}"
    yield ""
    header = ("kernel", "tier", "shape", "weights", "tokens", "GMAC/s", "GB/s", "of roof")
    order = sorted(figures, key=lambda one: (not one.cached, one.rows, one.cols, one.tokens))
    yield from table([header, *map(_cells, order)])
    yield ""
    for isa in dict.fromkeys(one.isa for one in figures):
        read = max(one.read_gb_s for one in figures if one.isa == isa)
        integer = max(one.integer_gmac_s for one in figures if one.isa == isa)
        yield f"roof of {isa}: {read:.1f} GB/s read, {integer:.0f} G multiply-adds/s"


def _cells(one: Figure) -> tuple[str, ...]:
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
    """What each kernel takes for each group, by tokens at once, and which one is used."""
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

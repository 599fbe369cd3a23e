"""``bitnet-lut kernels`` lists, proves and measures ternary kernels."""

import argparse
import csv
import json
import runpy
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bitnet_lut.cli.options import numbers, progress_bar

if TYPE_CHECKING:
    from bitnet_lut.bench.kernels import KernelFigure
    from bitnet_lut.kernels import Kernel
    from bitnet_lut.kernels.proof import Proof

SUMMARY = "list the ternary kernels and their tiers"
EXAMPLE = "bitnet-lut kernels bench i2_s,tl5 --shape 2560x6912"

_ANY = "any"  # in place of a tier, for kernels from outside
_FAULT = 1  # exit code of a kernel that is wrong, or of a figure that cannot be right


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``kernels``, ``kernels test`` and ``kernels bench``."""
    nested = parser.add_subparsers(metavar="test | bench")
    summaries = {
        "test": "prove that kernels are right",
        "bench": "measure kernels beside the machine's roofs",
    }
    examples = {"test": "bitnet-lut kernels test tl5", "bench": EXAMPLE}
    test, bench = (
        nested.add_parser(
            name,
            help=summary,
            description=f"{summary.capitalize()}.",
            epilog=f"example: {examples[name]}",
        )
        for name, summary in summaries.items()
    )
    for one, isa in ((test, "all"), (bench, "auto")):
        one.add_argument("name", nargs="?", help="such as i2_s, or i2_s,tl5; default: all")
        one.add_argument(
            "--isa",
            default=isa,
            metavar="TIERS",
            help=f"tiers with commas between them, auto or all; default {isa}",
        )
    _add_bench_arguments(bench)
    test.set_defaults(execute=_test)
    bench.set_defaults(execute=_bench)
    for one in (parser, test, bench):
        one.add_argument(
            "--load",
            type=Path,
            action="append",
            default=[],
            metavar="FILE",
            help="a Python file that registers kernels; may be repeated",
        )


def _add_bench_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--against", default="all", metavar="NAMES", help="default: all others")
    parser.add_argument(
        "--shape",
        default="2b-4t",
        metavar="SHAPES",
        help="such as 640x2560,2560x2560, or a shape of bitnet-lut synth; default 2b-4t",
    )
    parser.add_argument("--tokens", type=numbers, default=[1, 4, 128], help="default 1,4,128")
    parser.add_argument("--threads", type=numbers, default=[1], help="such as 1,2; default 1")
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="draw the roofs and all figures; needs matplotlib, and the name says the format",
    )
    parser.add_argument(
        "--counters",
        action="store_true",
        help="show instructions, cycles and cache misses too, where the system can count them",
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON")
    form.add_argument("--csv", action="store_true", help="print CSV, a line for each figure")


def execute(options: argparse.Namespace) -> int:
    """List the kernels."""
    from bitnet_lut.bench.report import table

    _load(options.load)
    for line in table([_HEADER, *_rows()]):
        print(line)
    return 0


def _test(options: argparse.Namespace) -> int:
    from bitnet_lut.kernels.proof import Fault, prove

    _load(options.load)
    for kernel in _chosen(options.name, options.isa):
        label = f"{kernel.name} {_ANY if kernel.outside else kernel.isa}"
        try:
            proof = prove(kernel)
        except Fault as fault:
            print(f"bitnet-lut: error: {label}: {fault}", file=sys.stderr)
            return _FAULT
        print(f"{label}: {_found(kernel, proof)}", flush=True)
    return 0


def _found(kernel: "Kernel", proof: "Proof") -> str:
    from bitnet_lut import _native

    blocks = kernel.sums.blocks if kernel.sums else ()
    narrow = "".join(f"; int{block.bits} sums up to {block.largest:,}" for block in blocks)
    return (
        f"{proof.products:,} products exact; largest safe K {_longest_row(proof.largest_cols)}, "
        f"the limit is {_native.MAX_COLS:,}{narrow}"
    )


def _longest_row(cols: int | None) -> str:
    return "unknown" if cols is None else f"{cols:,}"


def _bench(options: argparse.Namespace) -> int:
    from bitnet_lut.bench.kernels import bench, matrix_shapes

    if not options.threads or not options.tokens:
        raise ValueError("--threads and --tokens need at least one number each")
    if options.plot is not None:
        from bitnet_lut.bench.pictures import check_suffix, roofline, save

        check_suffix(options.plot)
    counters = options.counters and _has_counters()
    shapes = [found for shape in options.shape.split(",") for found in matrix_shapes(shape)]
    _load(options.load)
    kernels = _chosen(options.name, options.isa)
    if options.name is not None:
        others = _chosen(None if options.against == "all" else options.against, options.isa)
        kernels += [one for one in others if one.name not in options.name.split(",")]
    figures: list[KernelFigure] = []
    with progress_bar("figures") as progress:
        for threads in options.threads:
            before = len(figures)
            figures += bench(
                kernels,
                list(dict.fromkeys(shapes)),
                tokens=options.tokens,
                threads=threads,
                counters=counters,
                progress=partial(_show, progress, before, len(options.threads)),
            )
    _print_figures(figures, options)
    if options.plot is not None:
        save(roofline(figures, f"Kernels, {options.shape}"), options.plot)
    return 0 if all(one.is_possible for one in figures) else _FAULT


def _has_counters() -> bool:
    """Whether the processor's counters can be read; says on standard error if not."""
    from bitnet_lut.bench.counters import why_not

    reason = why_not()
    if reason is not None:
        print(f"bitnet-lut: counters are not available: {reason}", file=sys.stderr)
    return reason is None


def _show(
    progress: Callable[[int, int], None], before: int, sweep: int, done: int, total: int
) -> None:
    """Show the progress of one number of threads among *sweep*."""
    progress(before + done, sweep * total)


def _print_figures(figures: "Sequence[KernelFigure]", options: argparse.Namespace) -> None:
    from bitnet_lut.bench.machine import machine
    from bitnet_lut.bench.report import kernel_rows, report_kernels

    if options.json:
        shown = {"machine": asdict(machine()), "figures": kernel_rows(figures)}
        print(json.dumps(shown, indent=1))
    elif options.csv:
        rows = kernel_rows(figures)
        writer = csv.DictWriter(sys.stdout, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        for line in report_kernels(figures):
            print(line)


def _load(paths: Sequence[Path]) -> None:
    """Run Python files that register kernels; ValueError says in which line one failed."""
    for path in paths:
        if path.exists() and not path.is_file():
            raise ValueError(f"{path}: not a regular file")
        name = str(path.resolve(strict=True))
        try:
            runpy.run_path(name)
        except (Exception, SystemExit) as error:
            raise ValueError(
                f"{path}{_line(error, name)}: {type(error).__name__}: {error}"
            ) from error


def _line(error: BaseException, file: str) -> str:
    """Which line of *file* was running when *error* was raised, if any was."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f", line {lines[-1]}" if lines else ""


def _chosen(name: str | None, isa: str) -> "list[Kernel]":
    """The kernels called *name* (None: every one) on the tiers *isa*.

    isa: names and commas, "auto", or "all" for every tier that runs here and has functions of its
    own for the kernel. A kernel from outside is listed once.
    """
    from bitnet_lut import _native, _registry
    from bitnet_lut.kernels import get, names
    from bitnet_lut.runtime.cpu import choose_isa

    if isa == "all":
        tiers = [tier for tier in _native.tier_names() if not _native.missing_features(tier)]
    else:
        tiers = list(dict.fromkeys(map(choose_isa, isa.split(","))))
    found = []
    for one in names() if name is None else name.split(","):
        outside = one in _registry.functions
        kernels = [get(one, tier) for tier in (tiers[:1] if outside else tiers)]
        found += [kernel for kernel in kernels if isa != "all" or kernel.own]
    return found


_HEADER = ("kernel", "tier", "bits a weight", "panel", "longest row", "functions", "runs here")


def _rows() -> Iterator[tuple[str, ...]]:
    """A row for every kernel and tier."""
    from bitnet_lut import _native, _registry
    from bitnet_lut.kernels import Kernel, names
    from bitnet_lut.kernels.bounds import sums_of
    from bitnet_lut.runtime.cpu import choose_isa

    for name in names():
        for isa in (_ANY,) if name in _registry.functions else _native.tier_names():
            missing = [] if isa == _ANY else _native.missing_features(isa)
            kernel = Kernel(name, choose_isa() if isa == _ANY else "scalar" if missing else isa)
            sums = sums_of(name, isa) or kernel.sums
            own = sums_of(name, isa) is not None if missing else kernel.own
            yield (
                name,
                isa,
                f"{kernel.bits_per_weight():.3f}",
                str(kernel.panel),
                _longest_row(sums.largest_cols if sums else None),
                "from outside" if isa == _ANY else "its own" if own else "scalar's",
                f"no: lacks {', '.join(missing)}" if missing else "yes",
            )

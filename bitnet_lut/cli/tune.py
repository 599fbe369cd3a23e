"""``bitnet-lut tune`` measures which kernels are fastest for a model."""

import argparse

from bitnet_lut.cli.options import SOURCE, add_isa, local_path, positive, progress_bar

SUMMARY = "measure which kernels are fastest for a model"
EXAMPLE = "bitnet-lut tune -m model.gguf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tune``."""
    from bitnet_lut.runtime.cpu import default_threads

    parser.add_argument("-m", "--model", metavar="FILE", help=f"{SOURCE}; default: the 2B-4T shape")
    add_isa(parser)
    parser.add_argument(
        "--threads", type=positive, default=default_threads(), help="default: all available cores"
    )
    parser.add_argument("--dry-run", action="store_true", help="measure, but keep nothing")


def execute(options: argparse.Namespace) -> int:
    """Measure, print the figures, and keep the choice for later models."""
    from bitnet_lut.bench import tune
    from bitnet_lut.bench.report import report_tuning
    from bitnet_lut.checkpoint import open_checkpoint
    from bitnet_lut.convert.synth import SHAPES
    from bitnet_lut.runtime.cpu import choose_isa

    if options.model is None:
        config = SHAPES["2b-4t"].config
    else:
        with open_checkpoint(local_path(options.model)) as checkpoint:
            config = checkpoint.config
    with progress_bar("groups") as progress:
        tuning = tune.measure(config, choose_isa(options.isa), options.threads, progress=progress)
    for line in report_tuning(tuning):
        print(line)
    path = None if options.dry_run else tune.remember(tuning)
    if path is not None:
        print(f"kept in {path}")
    return 0

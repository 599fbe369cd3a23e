"""``bitnet-lut synth`` writes a model with random weights."""

import argparse

from bitnet_lut.cli.options import progress_bar

SUMMARY = "write a model with random weights, to measure with"
EXAMPLE = "bitnet-lut synth --shape 2b-4t -o random.gguf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``synth``."""
    from bitnet_lut.convert.synth import HEADS, SHAPES, TYPES

    parser.add_argument("--shape", choices=SHAPES, default="2b-4t", help="the model to resemble")
    parser.add_argument("--type", choices=TYPES, default="i2_s", help="type of linear layers")
    parser.add_argument(
        "--head", choices=HEADS, default="q6_k", help="type of embedding and output matrix"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", required=True, metavar="FILE")


def execute(options: argparse.Namespace) -> int:
    """Write the file."""
    from bitnet_lut.convert.synth import synthesize

    with progress_bar("B") as progress:
        synthesize(
            options.output,
            options.shape,
            type=options.type,
            head=options.head,
            seed=options.seed,
            progress=progress,
        )
    return 0

"""``bitnet-lut inspect`` shows what a file holds."""

import argparse

from bitnet_lut.cli.options import SOURCE, add_reading_options, local_path, progress_bar

SUMMARY = "show what a file holds, and what is odd about it"
EXAMPLE = "bitnet-lut inspect model.gguf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``inspect``."""
    parser.add_argument("file", help=SOURCE)
    add_reading_options(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the inspection."""
    from bitnet_lut.diagnose import inspect_model
    from bitnet_lut.diagnose.report import report

    with progress_bar("tensors") as progress:
        inspection = inspect_model(
            local_path(options.file),
            i2_s_layout=options.i2_s_layout,
            tiles=dict(options.tiles),
            progress=progress,
        )
    for line in report(inspection):
        print(line)
    return 0

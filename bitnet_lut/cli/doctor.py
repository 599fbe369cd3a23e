"""``bitnet-lut doctor`` says what is wrong with a model."""

import argparse
import json

from bitnet_lut.cli.options import (
    SOURCE,
    add_reading_options,
    local_path,
    positive,
    progress_bar,
    text_file,
)

SUMMARY = "say what is wrong with a model, and prove it"
EXAMPLE = "bitnet-lut doctor model.gguf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``doctor``."""
    parser.add_argument("source", help=f"{SOURCE}, or the folder of a training run")
    parser.add_argument(
        "--text", metavar="FILE", help="text that the model should predict well, in UTF-8"
    )
    parser.add_argument(
        "--reference", metavar="SOURCE", help="a good source of what should be the same model"
    )
    parser.add_argument(
        "--write-fixed",
        metavar="OUT",
        help="write the mended model, a GGUF file, if a trial finds what is wrong",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("-t", "--threads", type=positive, help="default: the cores allowed")
    add_reading_options(parser)


def execute(options: argparse.Namespace) -> int:
    """Print the diagnosis; returns 0 if nothing is wrong, 1 if something is."""
    from bitnet_lut.diagnose import doctor
    from bitnet_lut.diagnose.telling import tell

    with progress_bar("examinations") as progress:
        diagnosis = doctor(
            local_path(options.source),
            text=text_file(options.text) if options.text else None,
            reference=local_path(options.reference) if options.reference else None,
            i2_s_layout=options.i2_s_layout,
            tiles=dict(options.tiles),
            threads=options.threads,
            write_fixed=options.write_fixed,
            progress=progress,
        )
    if options.json:
        print(json.dumps(diagnosis.to_json(), indent=2))
    else:
        for line in tell(diagnosis):
            print(line)
    return 0 if diagnosis.healthy else 1

"""``bitnet-lut compare`` says how far two models are apart."""

import argparse
import json
from pathlib import Path

from bitnet_lut.cli.options import SOURCES, ids, positive, progress_bar

SUMMARY = "say how far two models are apart: weights, and logits over a text"
EXAMPLE = "bitnet-lut compare model.gguf converted.gguf"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``compare``."""
    parser.add_argument("a", metavar="A", help=SOURCES)
    parser.add_argument("b", metavar="B", help="likewise")
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--text", metavar="FILE", help="text to run, in UTF-8; default: a built-in")
    given.add_argument("--ids", type=ids, help="ids to run, as 1,2,3")
    parser.add_argument(
        "--tokens", type=positive, default=256, help="run at most so many; default 256"
    )
    parser.add_argument(
        "--top-k", type=positive, default=5, help="likeliest tokens to compare; default 5"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        help="mean KL of the logits, in nats, that is none; default: 0 between our engine and the "
        "reference, 0.02 to other programs",
    )
    parser.add_argument("--all", action="store_true", help="show every tensor that differs")
    parser.add_argument("--json", action="store_true", help="print JSON")


def execute(options: argparse.Namespace) -> int:
    """Print the comparison; returns 0 if A and B are the same, 1 if not."""
    from bitnet_lut.diagnose import compare
    from bitnet_lut.diagnose.comparison_report import report_comparison

    with progress_bar("tensors") as progress:
        found = compare(
            options.a,
            options.b,
            text=Path(options.text).read_text(encoding="utf-8") if options.text else None,
            ids=options.ids,
            tokens=options.tokens,
            k=options.top_k,
            tolerance=options.tolerance,
            progress=progress,
        )
    if options.json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        for line in report_comparison(found, every=options.all):
            print(line)
    return 0 if found.same else 1

"""``bitnet-lut bench`` measures the speed of a model."""

import argparse
import json

from bitnet_lut.cli.options import (
    SOURCE,
    add_isa,
    local_path,
    natural,
    numbers,
    positive,
    progress_bar,
)

SUMMARY = "measure the speed of a model on this machine"
EXAMPLE = "bitnet-lut bench -m model.gguf --threads 1,2"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``bench``."""
    from bitnet_lut.runtime.cpu import default_threads

    parser.add_argument("-m", "--model", required=True, metavar="FILE", help=SOURCE)
    parser.add_argument(
        "--threads",
        type=numbers,
        default=[default_threads()],
        help="such as 1,2; default: all available cores",
    )
    parser.add_argument("--prompt", type=numbers, default=[128, 512], help="tokens; '' for none")
    parser.add_argument("--generate", type=numbers, default=[64], help="tokens; '' for none")
    parser.add_argument(
        "--position", type=natural, default=0, help="tokens in the cache before generation"
    )
    parser.add_argument("--rounds", type=positive, default=5, help="default 5")
    add_isa(parser)
    parser.add_argument("--kernel", default="auto", help="kernel of the ternary layers")
    parser.add_argument("--profile", action="store_true", help="show the time by part of the model")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def execute(options: argparse.Namespace) -> int:
    """Measure, and print a table or JSON."""
    from bitnet_lut.bench.engine import bench
    from bitnet_lut.bench.report import report_model

    with progress_bar("rounds") as progress:
        found = bench(
            local_path(options.model),
            threads=options.threads,
            prompt=options.prompt,
            generate=options.generate,
            position=options.position,
            rounds=options.rounds,
            isa=options.isa,
            kernel=options.kernel,
            profiled=options.profile,
            progress=progress,
        )
    if options.json:
        print(json.dumps(found.as_json(), indent=1))
        return 0
    for line in report_model(found):
        print(line)
    return 0

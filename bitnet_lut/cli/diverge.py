"""``bitnet-lut diverge`` finds the first op at which two programs part."""

import argparse
import json
from pathlib import Path

from bitnet_lut.cli.options import SOURCES, ids, positive, text

SUMMARY = "find the first op at which two programs part, and say why"
EXAMPLE = "bitnet-lut diverge model.gguf transformers:folder"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``diverge``."""
    parser.add_argument("a", metavar="A", help=SOURCES)
    parser.add_argument("b", metavar="B", nargs="?", help="likewise; not needed with --dump")
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--prompt", type=text, help="text to run; default: a short sentence")
    given.add_argument("--text", metavar="FILE", help="text to run, in UTF-8")
    given.add_argument("--ids", type=ids, help="ids to run, as 1,2,3")
    parser.add_argument(
        "--tokens", type=positive, default=16, help="run at most so many; default 16"
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        help="relative difference that is none; default: 0 between our engine and the reference, "
        "1e-4 to other programs",
    )
    parser.add_argument("--all", action="store_true", help="show every op of every layer")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--plot", metavar="FILE", help="draw a picture; needs matplotlib")
    parser.add_argument("--html", metavar="FILE", help="write a page")
    parser.add_argument(
        "--dump", metavar="FILE", help="write the results of A to a dump, .npz or .safetensors"
    )


def execute(options: argparse.Namespace) -> int:
    """Print what parts; returns 0 if nothing does, 1 if something does."""
    prompt = options.prompt
    if options.text is not None:
        prompt = Path(options.text).read_text(encoding="utf-8")
    if options.dump is not None:
        return _dump(options, prompt)
    if options.b is None:
        raise ValueError("B is missing: give two sources, or --dump FILE")

    from bitnet_lut.diagnose import diverge
    from bitnet_lut.diagnose.divergence_report import draw_plot, html_page, report_divergence
    from bitnet_lut.formats.output import write_text

    found = diverge(
        options.a,
        options.b,
        prompt=prompt,
        ids=options.ids,
        tokens=options.tokens,
        tolerance=options.tolerance,
    )
    if options.html is not None:
        write_text(options.html, html_page(found))
    if options.plot is not None:
        draw_plot(found, options.plot)
    if options.json:
        print(json.dumps(found.to_json(), indent=2))
    else:
        for line in report_divergence(found, every=options.all):
            print(line)
    return 0 if found.same else 1


def _dump(options: argparse.Namespace, prompt: str | None) -> int:
    """Write the results of one source."""
    if options.b is not None:
        raise ValueError("--dump writes the results of one source: give A alone")

    from bitnet_lut.diagnose import save_dump
    from bitnet_lut.diagnose.diverge import trace_source

    trace = trace_source(options.a, prompt=prompt, ids=options.ids, tokens=options.tokens)
    save_dump(trace, options.dump)
    print(f"{options.dump}: {len(trace.results)} ops of {trace.tokens} tokens")
    return 0

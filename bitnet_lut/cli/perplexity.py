"""``bitnet-lut perplexity`` says how well a model predicts a text."""

import argparse
import json
import sys
from dataclasses import asdict

from bitnet_lut.cli.generating import add_model_options, open_model
from bitnet_lut.cli.options import positive, progress_bar, text_file

SUMMARY = "say how well a model predicts a text"
EXAMPLE = "bitnet-lut perplexity -m model.gguf --text wiki.test.raw"

_MEANINGS = {
    "llama.cpp": "windows that do not overlap, the second half of each scored",
    "transformers": "a window that slides by the stride",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``perplexity``."""
    parser.add_argument("--text", required=True, metavar="TEXT", help="a file of text in UTF-8")
    parser.add_argument(
        "--like",
        choices=tuple(_MEANINGS),
        default="llama.cpp",
        help="; ".join(f"{like}: {meaning}" for like, meaning in _MEANINGS.items()),
    )
    parser.add_argument(
        "--stride",
        type=positive,
        metavar="IDS",
        help="with --like transformers: how far the window slides; default 512",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    context = "ids in a window; default 512 for llama.cpp, the model's limit for transformers"
    add_model_options(parser, context=context)


def execute(options: argparse.Namespace) -> int:
    """Print the perplexity and what it was computed from."""
    from bitnet_lut.evaluate import perplexity

    text = text_file(options.text)
    model = open_model(options)
    with progress_bar("tokens") as progress:
        found = perplexity(
            model,
            text,
            like=options.like,
            context=options.context,
            stride=options.stride,
            progress=progress,
        )
    if options.json:
        shown = {**asdict(found), "model": options.model, "text": options.text, "kv": options.kv}
        json.dump(shown, sys.stdout, indent=2)
        print()
        return 0
    print(f"perplexity     {found.perplexity:.4f} +/- {found.error:.4f}")
    print(f"bits per byte  {found.bits_per_byte:.4f}")
    print(f"tokens         {found.tokens:,} scored of {found.text_tokens:,}")
    print(f"windows        {found.windows:,}, context {found.context}, stride {found.stride}")
    print(f"like           {found.like}: {_MEANINGS[found.like]}")
    return 0

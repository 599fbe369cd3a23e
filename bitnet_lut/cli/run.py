"""``bitnet-lut run`` continues a prompt."""

import argparse
import sys
from dataclasses import fields
from typing import TYPE_CHECKING

from bitnet_lut.cli.options import (
    SOURCE,
    add_isa,
    add_pre_tokenizer,
    add_reading_options,
    input_text,
    positive,
    progress_bar,
    text,
)

if TYPE_CHECKING:
    from bitnet_lut import Sampling, Timings

SUMMARY = "continue a prompt"
EXAMPLE = 'bitnet-lut run -m model.gguf -n 64 "The capital of France is"'

_INTERRUPTED = 130


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``run``."""
    parser.add_argument(
        "prompt", type=text, nargs="?", help="- or nothing: read it from standard input"
    )
    parser.add_argument(
        "-m", "--model", metavar="FILE", help=f"{SOURCE}; default: the demonstration model"
    )
    parser.add_argument("-n", "--tokens", type=positive, default=256, help="most to generate")
    parser.add_argument(
        "--stop", type=text, action="append", default=[], metavar="TEXT", help="end before TEXT"
    )
    parser.add_argument("--ignore-eos", action="store_true", help="continue past end tokens")
    parser.add_argument(
        "--no-speculate",
        dest="speculate",
        action="store_false",
        help="never check guessed tokens several in a step; the text is the same",
    )
    parser.add_argument("--threads", type=positive, help="default: all available cores")
    parser.add_argument("--context", type=positive, help="positions to reserve memory for")
    parser.add_argument("--kv", choices=("f16", "f32"), default="f16", help="type of the KV cache")
    add_isa(parser)
    parser.add_argument("--kernel", default="auto", help="kernel of the ternary layers")
    _add_sampling(parser)
    add_reading_options(parser)
    add_pre_tokenizer(parser)


def _add_sampling(parser: argparse.ArgumentParser) -> None:
    from bitnet_lut.runtime.sampling import Sampling

    for option in fields(Sampling):
        if option.name == "logit_bias":  # a mapping
            continue
        flag = f"--{option.name.replace('_', '-')}"
        kind = int if option.name in ("top_k", "seed", "penalty_window") else float
        parser.add_argument(
            flag, type=kind, default=option.default, help=f"default {option.default}"
        )


def _sampling(options: argparse.Namespace) -> "Sampling":
    from bitnet_lut.runtime.sampling import Sampling

    names = [option.name for option in fields(Sampling) if hasattr(options, option.name)]
    return Sampling(**{name: getattr(options, name) for name in names})


def execute(options: argparse.Namespace) -> int:
    """Print the continuation; the memory it takes and its speed go to standard error."""
    prompt = input_text(options.prompt, "prompt")

    from bitnet_lut.demo import MODEL
    from bitnet_lut.model import Model

    if options.model is None:
        print("no -m: using the small demonstration model of the package", file=sys.stderr)
    with progress_bar("B") as progress:
        model = Model(
            options.model or MODEL,
            threads=options.threads,
            kernel=options.kernel,
            isa=options.isa,
            context=options.context,
            kv=options.kv,
            i2_s_layout=options.i2_s_layout,
            tiles=dict(options.tiles),
            pre_tokenizer=options.pre_tokenizer,
            progress=progress,
        )
    print(model.info, file=sys.stderr, flush=True)  # before the cache is allocated
    stream = model.stream(
        prompt,
        max_tokens=options.tokens,
        sampling=_sampling(options),
        stop=options.stop,
        ignore_eos=options.ignore_eos,
        speculate=options.speculate,
    )
    code = 0
    try:
        for piece in stream:
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        code = _INTERRUPTED
    print(flush=True)
    result = stream.result
    reason = result.finish_reason if code == 0 else "Ctrl-C"
    print(f"{_speeds(result.timings)}; ended by {reason}", file=sys.stderr)
    return code


def _speeds(timings: "Timings") -> str:
    if not timings.prompt_seconds:
        return f"prompt: {timings.prompt_tokens} tokens, not finished"
    return (
        f"prompt: {timings.prompt_tokens} tokens, {timings.prompt_tokens_per_second:.1f} tokens/s; "
        f"first token after {timings.time_to_first_token:.2f} s; "
        f"generation: {timings.generated_tokens} tokens, "
        f"{timings.generation_tokens_per_second:.1f} tokens/s"
    )

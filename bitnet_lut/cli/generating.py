"""What ``run`` and ``chat`` share: which model, and how it chooses tokens."""

import argparse
import sys
from dataclasses import fields
from typing import TYPE_CHECKING, get_args

from bitnet_lut.cli.options import (
    SOURCE,
    add_isa,
    add_pre_tokenizer,
    add_reading_options,
    positive,
    progress_bar,
)

if TYPE_CHECKING:
    from bitnet_lut import Model, Sampling

__all__ = ["add_model_options", "add_sampling", "open_model", "sampling"]


def add_model_options(
    parser: argparse.ArgumentParser, *, context: str = "positions to reserve memory for"
) -> None:
    """Add which model is opened, and how it computes; *context* says what that option means."""
    parser.add_argument(
        "-m", "--model", metavar="FILE", help=f"{SOURCE}; default: the demonstration model"
    )
    parser.add_argument("--threads", type=positive, help="default: all available cores")
    parser.add_argument("--context", type=positive, help=context)
    parser.add_argument("--kv", choices=("f16", "f32"), default="f16", help="type of the KV cache")
    add_isa(parser)
    parser.add_argument("--kernel", default="auto", help="kernel of the ternary layers")
    add_reading_options(parser)
    add_pre_tokenizer(parser)


def open_model(options: argparse.Namespace) -> "Model":
    """Open the model; what it is and takes goes to standard error."""
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
    return model


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add how tokens are chosen."""
    from bitnet_lut.runtime.sampling import Order, Sampling

    for option in fields(Sampling):
        if option.name in ("logit_bias", "dry_sequence_breakers"):  # not a single value
            continue
        default = option.default
        kind = int if option.name == "seed" else type(default)
        parser.add_argument(
            f"--{option.name.replace('_', '-')}",
            type=kind,
            choices=get_args(Order) if option.name == "order" else None,
            default=default,
            help=f"default {default}",
        )


def sampling(options: argparse.Namespace) -> "Sampling":
    """How the options say that tokens are chosen."""
    from bitnet_lut.runtime.sampling import Sampling

    names = [option.name for option in fields(Sampling) if hasattr(options, option.name)]
    return Sampling(**{name: getattr(options, name) for name in names})

"""What ``run`` and ``chat`` share: which model, and how it chooses tokens."""

import argparse
import sys
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any, get_args

from bitnet_lut._native import CACHE_KINDS
from bitnet_lut.cli.options import (
    SOURCE,
    add_isa,
    add_pre_tokenizer,
    add_reading_options,
    bias,
    positive,
    text,
)

if TYPE_CHECKING:
    from bitnet_lut import Model, Sampling

__all__ = ["add_model_options", "add_sampling", "given_sampling", "open_model", "sampling"]

_LISTS = ("logit_bias", "dry_sequence_breakers")  # options of their own


def add_model_options(
    parser: argparse.ArgumentParser, *, context: str = "positions to reserve memory for"
) -> None:
    """Add which model is opened, and how it computes; *context* says what that option means."""
    parser.add_argument(
        "-m", "--model", metavar="FILE", help=f"{SOURCE}; default: the demonstration model"
    )
    parser.add_argument("--threads", type=positive, help="default: all available cores")
    parser.add_argument("--context", type=positive, help=context)
    parser.add_argument(
        "--kv",
        choices=CACHE_KINDS,
        default="f16",
        help="keep keys and values in 16, 32 or 8 bits; default f16",
    )
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
    )
    print(model.info, file=sys.stderr, flush=True)  # before the cache is allocated
    return model


def add_sampling(parser: argparse.ArgumentParser) -> None:
    """Add how tokens are chosen."""
    from bitnet_lut.runtime.sampling import Order, Sampling

    parser.add_argument(
        "--model-sampling",
        action="store_true",
        help="choose tokens as the model's files recommend, except what other options say",
    )
    for option in fields(Sampling):
        name, default = option.name, option.default
        if name in _LISTS:
            continue
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=int if name == "seed" else type(default),
            choices=get_args(Order) if name == "order" else None,
            help=f"default {default}",
        )
    parser.add_argument(
        "--logit-bias",
        type=bias,
        action="append",
        metavar="ID=NUMBER",
        help="add NUMBER to the logits of a token, -inf forbids it; may be repeated",
    )
    parser.add_argument(
        "--dry-sequence-breaker",
        dest="dry_sequence_breakers",
        type=text,
        action="append",
        metavar="TEXT",
        help="no repeat reaches over TEXT, in place of line breaks, colons, quotes and asterisks; "
        "may be repeated",
    )


def given_sampling(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `Sampling` that the options give; ValueError for one out of its range."""
    from bitnet_lut.runtime.sampling import Sampling

    names = [option.name for option in fields(Sampling)]
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    given |= {"logit_bias": dict(given["logit_bias"])} if "logit_bias" in given else {}
    Sampling(**given)
    return given


def sampling(options: argparse.Namespace, given: dict[str, Any], model: "Model") -> "Sampling":
    """How tokens are chosen; *given* is what `given_sampling` found."""
    from bitnet_lut.runtime.sampling import Sampling

    return replace(model.default_sampling if options.model_sampling else Sampling(), **given)

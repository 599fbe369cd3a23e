"""``bitnet-lut convert`` writes a model in another format."""

import argparse
import sys
from pathlib import Path

from bitnet_lut.cli.options import SOURCE, add_reading_options, local_path, progress_bar

SUMMARY = "write a model in another format"
EXAMPLE = "bitnet-lut convert folder -o model.gguf --type tl5"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``convert``."""
    from bitnet_lut.convert import ARCHITECTURES, HEADS, TARGETS
    from bitnet_lut.convert.vocabulary import NAMED_PRE_TOKENIZERS

    parser.add_argument("source", help=f"{SOURCE}, or torch state dict beside its config.json")
    parser.add_argument("-o", "--output", required=True, metavar="FILE", help="or a new folder")
    parser.add_argument(
        "--type",
        choices=TARGETS,
        default="i2_s",
        help="type of linear layers; hf is a packed folder for transformers; default i2_s",
    )
    parser.add_argument(
        "--head", choices=HEADS, help="type of embedding and output matrix; default: unchanged"
    )
    repairs = parser.add_argument_group("repairs")
    repairs.add_argument(
        "--pre-tokenizer", choices=NAMED_PRE_TOKENIZERS, help="how text is cut into words"
    )
    repairs.add_argument("--chat-template", type=Path, metavar="FILE", help="a Jinja template")
    repairs.add_argument("--activation", choices=("silu", "relu2"), help="of the feed-forward part")
    repairs.add_argument("--arch", choices=ARCHITECTURES, help="replaces an old name")
    add_reading_options(parser)


def execute(options: argparse.Namespace) -> int:
    """Convert, and print what changed."""
    from bitnet_lut.convert import convert
    from bitnet_lut.convert.report import report
    from bitnet_lut.formats.input import read_text

    template = options.chat_template
    with progress_bar("B") as progress:
        conversion = convert(
            local_path(options.source),
            options.output,
            type=options.type,
            head=options.head,
            pre_tokenizer=options.pre_tokenizer,
            chat_template=None if template is None else read_text(template),
            activation=options.activation,
            architecture=options.arch,
            i2_s_layout=options.i2_s_layout,
            tiles=dict(options.tiles),
            progress=progress,
        )
    for line in report(conversion):
        print(line)
    for warning in conversion.warnings:
        print(f"bitnet-lut: warning: {warning}", file=sys.stderr)
    return 0

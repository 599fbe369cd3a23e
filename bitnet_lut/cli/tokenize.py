"""``bitnet-lut tokenize`` shows the tokens of a text."""

import argparse
import re

from bitnet_lut.cli.options import SOURCE, add_pre_tokenizer, input_text, local_path, text

SUMMARY = "show the ids and pieces of a text"
EXAMPLE = 'bitnet-lut tokenize model.gguf "The capital of France is"'


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of ``tokenize``."""
    parser.add_argument("file", help=SOURCE)
    parser.add_argument("text", type=text, help="- reads it from standard input")
    parser.add_argument("--ids", action="store_true", help="decode ids such as '1, 2, 3' instead")
    add_pre_tokenizer(parser)


def execute(options: argparse.Namespace) -> int:
    """Print a line for each token, or the text of ids."""
    given = input_text(options.text, "text")

    from bitnet_lut.formats.gguf import GGUFFile
    from bitnet_lut.text.tokenizer import Tokenizer

    path = local_path(options.file)
    if path.is_dir():
        tokenizer = Tokenizer.from_folder(path)
    else:
        with GGUFFile(path) as file:
            tokenizer = Tokenizer.from_gguf(
                file.metadata, name=file.name, pre=options.pre_tokenizer
            )
    if options.ids:
        print(tokenizer.decode([int(id) for id in re.split(r"[\s,]+", given.strip())]))
        return 0
    for id in tokenizer.encode(given):
        print(f"{id:>7}  {_shown(tokenizer.piece(id))}")
    return 0


def _shown(piece: bytes) -> str:
    """Text in quotes; bytes where they are a part of a character."""
    try:
        return repr(piece.decode())
    except UnicodeDecodeError:
        return repr(piece)

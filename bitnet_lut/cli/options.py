"""What several commands share: types of arguments and groups of options."""

import argparse
import os
import re
import sys
from pathlib import Path

from bitnet_lut.runtime.progress import progress_bar

__all__ = [
    "SOURCE",
    "SOURCES",
    "add_isa",
    "add_pre_tokenizer",
    "add_reading_options",
    "bias",
    "ids",
    "input_text",
    "local_path",
    "natural",
    "numbers",
    "positive",
    "progress_bar",
    "text",
    "text_file",
]

SOURCE = "GGUF file, folder or Hugging Face repository"
SOURCES = (
    "model file or folder, with options after a colon, as model.gguf:kernel=tl2,isa=avx2,kv=f16; "
    "reference:FILE, the forward pass in NumPy; transformers:FOLDER; or a dump, .npz or "
    ".safetensors"
)
_LARGEST = 2**31 - 1


def text(argument: str) -> str:
    """Text given as an argument: UTF-8, whatever the locale says."""
    try:
        return os.fsencode(argument).decode("utf-8")
    except UnicodeError:
        raise argparse.ArgumentTypeError(f"{argument!r} is not UTF-8 text") from None


def input_text(argument: str | None, what: str) -> str:
    """The text *argument*, or all of standard input for "-" and, off a terminal, for None.

    One line break at the end of standard input does not count. Raises ValueError if there is no
    text, or if it is not UTF-8.
    """
    if argument not in (None, "-"):
        return argument
    if sys.stdin is None or (argument is None and sys.stdin.isatty()):
        raise ValueError(f"no {what}: give one, or - to read it from standard input")
    try:
        found = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8 text at byte {error.start}") from None
    found = found.removesuffix("\n").removesuffix("\r")
    if not found:
        raise ValueError(f"no {what}: standard input is empty")
    return found


def text_file(file: str) -> str:
    """The text in *file*; ValueError, which names it, if it is not UTF-8."""
    try:
        return Path(file).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: not UTF-8 text at byte {error.start}") from None


def positive(argument: str) -> int:
    """A whole number from 1 to 2**31 - 1."""
    if not argument.isascii() or not argument.isdigit() or not argument.strip("0"):
        raise argparse.ArgumentTypeError(f"{argument!r} is not a positive whole number")
    if len(argument.lstrip("0")) > 10 or int(argument) > _LARGEST:
        raise argparse.ArgumentTypeError(f"{argument} is too large, the most is {_LARGEST}")
    return int(argument)


def natural(argument: str) -> int:
    """A whole number from 0 to 2**31 - 1."""
    return 0 if argument == "0" else positive(argument)


def numbers(argument: str) -> list[int]:
    """Positive whole numbers with commas between them, or none."""
    return [positive(number) for number in argument.split(",")] if argument else []


def ids(argument: str) -> list[int]:
    """Whole numbers with commas between them."""
    return [natural(number.strip()) for number in argument.split(",")]


def bias(argument: str) -> tuple[int, float]:
    """A token and a number, as in 17=-2.5."""
    id, _, number = argument.partition("=")
    try:
        return natural(id), float(number)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{argument!r} is not of the form ID=NUMBER") from None


def tile(argument: str) -> tuple[tuple[int, int], tuple[int, int, int]]:
    """A shape (rows, cols) and its tile (BM, BK, bm), as in 3840x2560=256,128,64."""
    match = re.fullmatch(r"(\d{1,9})x(\d{1,9})=(\d{1,9}),(\d{1,9}),(\d{1,9})", argument)
    if match is None:
        raise argparse.ArgumentTypeError(f"{argument!r} is not of the form ROWSxCOLS=BM,BK,bm")
    rows, cols, *sizes = map(int, match.groups())
    return (rows, cols), (sizes[0], sizes[1], sizes[2])


def add_isa(parser: argparse.ArgumentParser) -> None:
    """Add --isa, for one tier."""
    parser.add_argument(
        "--isa",
        default="auto",
        metavar="TIER",
        help="instruction sets to use, see bitnet-lut info; default: the best here",
    )


def add_reading_options(parser: argparse.ArgumentParser) -> None:
    """Add what a file does not say about its own layouts."""
    parser.add_argument(
        "--i2-s-layout",
        choices=("128x32", "64x16", "1x4", "sequential"),
        default="128x32",
        help="layout of I2_S tensors; no file states it; default 128x32, as in published files",
    )
    parser.add_argument(
        "--tiles",
        type=tile,
        action="append",
        default=[],
        metavar="ROWSxCOLS=BM,BK,bm",
        help="tiles of TL1 and TL2 tensors of one shape; no file states them; may be repeated",
    )


def add_pre_tokenizer(parser: argparse.ArgumentParser) -> None:
    """Add --pre-tokenizer, for reading."""
    from bitnet_lut.text.vocabulary import PRE_TOKENIZERS

    parser.add_argument(
        "--pre-tokenizer",
        choices=("auto", *PRE_TOKENIZERS),
        default="auto",
        help="replaces the file's; 'default' gives bitnet.cpp's ids for the official 2B file",
    )


def local_path(source: str) -> Path:
    """Where *source* is on this machine; a repository of the Hugging Face hub is fetched."""
    from bitnet_lut.checkpoint import hub

    return hub.download(source) if hub.is_repo_id(source) else Path(source)

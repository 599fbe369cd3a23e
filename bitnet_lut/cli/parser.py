"""The commands, and what happens to their errors."""

import argparse
import os
import signal
import sys
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from io import TextIOWrapper
from typing import NoReturn, Protocol

from bitnet_lut.cli import (
    bench,
    chat,
    compare,
    convert,
    diverge,
    doctor,
    info,
    inspect,
    kernels,
    perplexity,
    run,
    serve,
    synth,
    tokenize,
    tune,
    web,
)

__all__ = ["COMMANDS", "run_command"]

_FAILURE, _BROKEN_PIPE = 2, 141  # the latter as a shell reports the signal


class _Command(Protocol):
    """A module of this package."""

    SUMMARY: str
    EXAMPLE: str

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Add the command's arguments."""

    def execute(self, options: argparse.Namespace) -> int:
        """Run the command; returns the exit code."""


COMMANDS: dict[str, _Command] = {
    "run": run,
    "chat": chat,
    "serve": serve,
    "web": web,
    "doctor": doctor,
    "diverge": diverge,
    "compare": compare,
    "inspect": inspect,
    "convert": convert,
    "tokenize": tokenize,
    "synth": synth,
    "perplexity": perplexity,
    "bench": bench,
    "kernels": kernels,
    "tune": tune,
    "info": info,
}


class _Parser(argparse.ArgumentParser):
    """Reports an error in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        self.exit(_FAILURE, f"bitnet-lut: error: {message} (try {self.prog} --help)\n")


def run_command(arguments: Sequence[str]) -> int:
    """Run the command that *arguments* begin with; returns the exit code."""
    # Python has None for a stream that was closed before it started.
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: PTH123, SIM115
    if sys.stdout is None:
        return _fail("standard output is closed")
    if isinstance(sys.stdout, TextIOWrapper):  # a model may write what the terminal cannot show
        sys.stdout.reconfigure(errors="replace")
    with _leaving_by_exception():
        return _run(arguments)


def _run(arguments: Sequence[str]) -> int:
    from bitnet_lut.errors import NumericsError

    try:
        if "_ARGCOMPLETE" in os.environ:
            _complete()
        options = _parser(arguments[:1]).parse_args(arguments)
        code: int = options.execute(options)
        sys.stdout.flush()
    except BrokenPipeError:
        _discard_output()
        return _BROKEN_PIPE
    except (OSError, ValueError, MemoryError, ImportError, OverflowError, NumericsError) as error:
        _discard_output()
        return _fail(_one_line(error))
    except RuntimeError as error:
        if "can't start new thread" not in str(error):
            raise
        return _fail(f"{error}: there is too little memory for so many, see --threads")
    return code


@contextmanager
def _leaving_by_exception() -> Iterator[None]:
    """Make SIGTERM and SIGHUP raise SystemExit, so that half files are removed."""

    def leave(number: int, frame: object) -> NoReturn:
        sys.exit(128 + number)  # as a shell reports it

    replaced = []
    if threading.current_thread() is threading.main_thread():
        wanted = [getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")]
        replaced = [one for one in wanted if one and signal.getsignal(one) is signal.SIG_DFL]
    for one in replaced:
        signal.signal(one, leave)
    try:
        yield
    finally:
        for one in replaced:
            signal.signal(one, signal.SIG_DFL)


def _fail(message: str) -> int:
    print(f"bitnet-lut: error: {message}", file=sys.stderr)
    return _FAILURE


def _one_line(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror is not None:
        return (
            error.strerror
            if error.filename in (None, "")
            else f"{error.filename}: {error.strerror}"
        )
    return " ".join(str(error).split()) or type(error).__name__


def _discard_output() -> None:
    """Drop output that cannot be written, or Python complains once more when it exits."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complete() -> None:
    """Tell a shell what may come next, and exit; return where argcomplete is missing."""
    try:
        import argcomplete
    except ImportError:
        return
    argcomplete.autocomplete(_parser(COMMANDS))


def _parser(wanted: Collection[str]) -> argparse.ArgumentParser:
    """The parser of all commands, with the arguments of those *wanted*."""
    from bitnet_lut import __version__

    parser = _Parser(
        prog="bitnet-lut",
        description="Ternary (BitNet b1.58) language models on CPUs.",
        epilog='example: bitnet-lut run "The capital of France is"',
    )
    parser.add_argument("--version", action="version", version=f"bitnet-lut {__version__}")
    parsers = parser.add_subparsers(required=True, metavar="command")
    for name, command in COMMANDS.items():
        sub = parsers.add_parser(
            name,
            help=command.SUMMARY,
            description=f"{command.SUMMARY.capitalize()}.",
            epilog=f"example: {command.EXAMPLE}",
        )
        if name in wanted:
            command.add_arguments(sub)
            sub.set_defaults(execute=command.execute)
    return parser

"""The command line, bitnet-lut: a module for each command.

Nothing heavy is imported before a command is known, so that help comes at once, and nothing at all
before Ctrl-C is handled.
"""

import sys

TYPE_CHECKING = False  # importing it from typing would import typing
if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

_INTERRUPTED = 130  # as a shell reports the signal


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run a command; returns the exit code: 0, 2 after an error, 130 after Ctrl-C."""
    try:
        from bitnet_lut.cli.parser import run_command

        return run_command(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt:
        print("bitnet-lut: interrupted", file=sys.stderr)
        return _INTERRUPTED

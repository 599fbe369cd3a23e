"""Calling the command line."""

import subprocess
import sys

from bitnet_lut.cli import main

COMMAND = [sys.executable, "-m", "bitnet_lut"]


def call(*arguments: object, given: bytes = b"", **more) -> subprocess.CompletedProcess[bytes]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(command, input=given, capture_output=True, timeout=60, **more)


def refused(capsys, *arguments: object) -> str:
    """The one line of an error."""
    try:
        code = main([*map(str, arguments)])
    except SystemExit as stop:  # from argparse
        code = stop.code
    said = capsys.readouterr()
    assert code == 2
    assert said.out == ""
    *before, last = said.err.splitlines()
    assert all(line.startswith("weights ") for line in before)
    assert last.startswith("bitnet-lut: error: ")
    return last

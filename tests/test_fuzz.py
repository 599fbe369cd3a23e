"""A few seconds of the fuzzers of tests/fuzz, which run for longer by hand."""

import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).with_name("fuzz")
# What is asked of a target in a second or less.
EXECUTIONS = {
    "safetensors": 2000,
    "index": 2000,
    "config": 4000,
    "checkpoint": 500,
    "tokenizer": 1000,
    "tokenizer_configs": 500,
    "native": 500,
    "template": 300,
    "schema": 300,
    "saved": 500,
    "measurements": 3000,
}


def test_every_target_is_run():
    assert EXECUTIONS.keys() == {path.name for path in (FUZZ / "corpus").iterdir()}


@pytest.mark.parametrize("target", EXECUTIONS)
def test_seeds_are_read_and_mutations_are_read_or_refused(tmp_path, target):
    """In a process of its own: panics of the tokenizers library are told on standard error."""
    count = EXECUTIONS[target]
    command = [sys.executable, str(FUZZ / "run.py"), target, "--failures", str(tmp_path)]
    seeds = subprocess.run(
        [*command, "--executions", "0"], capture_output=True, text=True, timeout=120
    )
    number = len(list((FUZZ / "corpus" / target).iterdir()))
    assert seeds.stdout.startswith(f"{target}: {number} executions, 0 refused, 0 failed"), (
        seeds.stdout + seeds.stderr
    )
    done = subprocess.run(
        [*command, "--executions", str(count)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr

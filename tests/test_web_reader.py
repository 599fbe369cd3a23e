"""The reader of the browser, run by node: it refuses damaged files in the words of Python."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_data import GOLDEN
from model_files import rewritten
from node import NODE, answering
from safetensors.numpy import save_file
from test_malformed import ACCEPTED, FAULTS

from bitnet_lut.demo import MODEL
from bitnet_lut.formats.gguf import U16

# What only the tokenizer sees: see test_web_tokenizer.py.
OF_TOKENIZER = {"bos_out_of_range", "merge_unknown_token", "token_type_short"}

pytestmark = pytest.mark.skipif(NODE is None, reason="NO NODE: nothing is run by it")

Read = Callable[[Path], dict[str, Any] | None]


@pytest.fixture(scope="module")
def read() -> Iterator[Read]:
    """Function that reads a file and all its ternary tensors, and gives the error or None."""
    with answering("web_reader.mjs") as ask:
        yield lambda path: ask(str(path))


@pytest.mark.parametrize("name", sorted(FAULTS.keys() - OF_TOKENIZER))
def test_damaged_files_are_refused(read, name):
    path = GOLDEN / "malformed" / f"{name}.gguf"
    error = read(path)
    assert (error["name"], error["code"]) == ("BitNetError", "format"), error
    assert error["message"].startswith(f"{path}: ")
    assert re.search(FAULTS[name], error["message"], re.IGNORECASE), error["message"]


@pytest.mark.parametrize("name", sorted(ACCEPTED))
def test_others_are_read(read, name):
    assert read(GOLDEN / "malformed" / f"{name}.gguf") is None


def test_any_damage_ends_in_an_error_that_says_so(read, tmp_path):
    """Bytes of the header are changed at random: files are read, or refused in words."""
    data = MODEL.read_bytes()
    random = np.random.default_rng(7)
    path = tmp_path / "damaged.gguf"
    refused = 0
    for _ in range(400):
        damaged = bytearray(data[: random.integers(4, len(data) + 1)])
        for at in random.integers(0, min(len(damaged), 3000), random.integers(1, 4)):
            damaged[at] = random.integers(256)
        path.write_bytes(damaged)
        error = read(path)
        if error is not None:
            assert error["name"] == "BitNetError", error
            refused += 1
    assert refused > 300


def test_types_that_only_python_reads_name_the_command(read, tmp_path):
    data = MODEL.read_bytes()
    at = data.index(b"token_embd.weight") + len(b"token_embd.weight") + 4 + 16
    path = tmp_path / "model.gguf"
    path.write_bytes(data[:at] + b"\x0c" + data[at + 1 :])  # q4_k
    error = read(path)
    assert error["code"] == "unsupported"
    assert f"bitnet-lut convert {path} -o converted.gguf --head q6_k" in error["message"]


ARCH = "bitnet-b1.58"
LIES = {
    "rope": ({f"{ARCH}.rope.dimension_count": 2**31 - 2}, "the rope dimension 2147483646 is odd"),
    "head": (
        {f"{ARCH}.attention.key_length": 2**31 - 2, f"{ARCH}.rope.dimension_count": 2**31 - 2},
        "a row of 8589934584 weights is too long",
    ),
    "ffn": ({f"{ARCH}.feed_forward_length": 2**31 - 1}, "a row of 2147483647 weights is too long"),
}


@pytest.mark.parametrize("case", LIES)
def test_sizes_that_lie_are_refused_before_anything_is_allocated(read, tmp_path, case):
    keys, expected = LIES[case]
    path = rewritten(MODEL, tmp_path / "model.gguf", keys=keys)
    started = time.monotonic()
    error = read(path)
    assert (error["name"], error["code"]) == ("BitNetError", "format"), error
    assert re.search(expected, error["message"]), error["message"]
    assert time.monotonic() - started < 2  # a table of that size takes longer


@pytest.mark.parametrize("name", ["constructor", "__proto__", "toString"])
def test_names_of_javascript_are_no_architectures(read, tmp_path, name):
    path = rewritten(MODEL, tmp_path / "model.gguf", keys={"general.architecture": name})
    assert f"general.architecture is '{name}': only bitnet-b1.58, " in read(path)["message"]


def test_parts_and_other_containers_are_told_apart(read, tmp_path):
    keys = {"split.count": (U16, 3), "split.no": (U16, 1)}
    error = read(rewritten(MODEL, tmp_path / "model.gguf", keys=keys))
    assert error["code"] == "unsupported"
    assert "part 2 of a model that is split into 3 files" in error["message"]
    assert "llama-gguf-split --merge" in error["message"]
    path = tmp_path / "model.safetensors"
    save_file({"weight": np.zeros((2, 2), np.float32)}, path)
    error = read(path)
    assert error["code"] == "unsupported"
    assert "safetensors: bitnet-lut convert FOLDER -o converted.gguf" in error["message"]


def test_what_is_not_there_is_named(read, tmp_path):
    error = read(tmp_path / "missing.gguf")
    assert error["code"] == "network"
    assert "missing.gguf" in error["message"]

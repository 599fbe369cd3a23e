"""Damaged headers, made at random: the browser reads the files that Python reads, and no others."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_data import GOLDEN
from node import NODE, answering

from bitnet_lut.checkpoint.gguf import GGUFCheckpoint
from bitnet_lut.errors import FormatError
from bitnet_lut.families import is_linear, tensor_shapes
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.text.tokenizer import Tokenizer

CASES = 200  # of each file
FILES = ["malformed/base", "ik-bn/model-iq1_bn", "ik-bn/model-iq2_bn", "tokenizers/spm"]
NUMBERS = [0, 1, 2**31, 2**32 - 1, 2**32, 2**53, 2**63 - 1, 2**63, 2**64 - 32]

pytestmark = pytest.mark.skipif(NODE is None, reason="NO NODE: the reader of it is not tried")

Ask = Callable[[Any], dict[str, Any] | None]


@pytest.fixture(scope="module")
def read() -> Iterator[Ask]:
    with answering("web_reader.mjs") as ask:
        yield ask


@pytest.fixture(scope="module")
def tokenize() -> Iterator[Ask]:
    with answering("web_tokenizer.mjs") as ask:
        yield ask


def damaged(data: bytes, header: int, random: np.random.Generator) -> bytes:
    """Change one place of a header: a bit, a byte, a number, or a few bytes more or fewer."""
    changed = bytearray(data)
    at = int(random.integers(header))
    kind = random.integers(5)
    if kind == 0:
        changed[at] ^= 1 << int(random.integers(8))
    elif kind == 1:
        changed[at] = random.integers(256)
    elif kind == 2:
        number = NUMBERS[random.integers(len(NUMBERS))]
        changed[at : at + 8] = number.to_bytes(8, "little")
    elif kind == 3:
        changed[at:at] = random.bytes(random.integers(1, 9))
    else:
        del changed[at : at + int(random.integers(1, 9))]
    return bytes(changed)


def refusal(work: Callable[[], Any]) -> str | None:
    try:
        work()
    except FormatError as error:
        return str(error)
    return None


def read_checkpoint(path: Path) -> None:
    with GGUFCheckpoint(path, mapped=False) as checkpoint:
        for name in filter(is_linear, tensor_shapes(checkpoint.config)):
            checkpoint.matrix(name)


def open_tokenizer(path: Path) -> None:
    Tokenizer.from_gguf(GGUFFile(path, mapped=False).metadata, name=str(path))


def check(error: dict[str, Any] | None, expected: str | None, count: Counter[str]) -> None:
    if error is not None:
        assert error["name"] == "BitNetError", (error, expected)
    if expected is None or "code 3" not in expected:  # which C refuses in the browser
        assert (error is None) == (expected is None), (error, expected)
    count["read" if error is None else "refused"] += 1


@pytest.mark.parametrize("name", FILES[:3])
def test_models(read: Ask, tmp_path: Path, name: str) -> None:
    source = GOLDEN / f"{name}.gguf"
    data, header = source.read_bytes(), GGUFFile(source).data_offset
    random = np.random.default_rng(len(name))
    path = tmp_path / "model.gguf"
    count: Counter[str] = Counter()
    for _ in range(CASES):
        path.write_bytes(damaged(data, header, random))
        check(read(str(path)), refusal(lambda: read_checkpoint(path)), count)
    assert min(count["read"], count["refused"]) > CASES // 10, count


@pytest.mark.parametrize("name", [FILES[0], FILES[3]])
def test_vocabularies(tokenize: Ask, tmp_path: Path, name: str) -> None:
    source = GOLDEN / f"{name}.gguf"
    data, header = source.read_bytes(), GGUFFile(source).data_offset
    random = np.random.default_rng(len(name))
    path = tmp_path / "model.gguf"
    job = {"file": str(path)}
    count: Counter[str] = Counter()
    for _ in range(CASES):
        path.write_bytes(damaged(data, header, random))
        check((tokenize(job) or {}).get("error"), refusal(lambda: open_tokenizer(path)), count)
    assert min(count["read"], count["refused"]) > CASES // 10, count

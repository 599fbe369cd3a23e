"""The decoders of the browser, run by node: the rows and scales of Python's."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from node import NODE, answering

from bitnet_lut.errors import FormatError
from bitnet_lut.formats import ggml, iq1_bn, tl1, tl2, tl5
from bitnet_lut.formats.codecs import TERNARY, Hints

IDS = {entry.name: id for id, entry in ggml.GGML_TYPES.items() if entry.name in TERNARY}
BY_BLOCKS = ["tq1_0", "tq2_0", "iq1_bn", "iq2_bn"]
# What Python and the browser both say of damage.
MEANINGS = ["data is damaged", "scales differ within row", "is negative or not finite"]
MEANINGS += ["its count of negative ones is"]

pytestmark = pytest.mark.skipif(NODE is None, reason="NO NODE: no decoder of the browser is run")

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Function that has node decode a tensor; see web_codecs.mjs."""
    with answering("web_codecs.mjs") as ask:
        yield lambda **job: ask(job)


def decoded(ask: Ask, folder: Path, type_id: int, data: Any, rows: int, cols: int) -> Any:
    """Codes, scales and bytes as node has them, or the error."""
    file, out = folder / "tensor", folder / "codes"
    file.write_bytes(data.tobytes())
    answer = ask(file=str(file), out=str(out), type=type_id, rows=rows, cols=cols)
    if "error" in answer:
        return answer["error"]
    scales = np.array(answer["scales"], np.float32)
    return np.fromfile(out, np.uint8), scales, answer["bytes"]


def read(kind: str, data: Any, rows: int, cols: int) -> Any:
    """Codes and scales as Python has them; TL5 stays packed, as its kernel wants it."""
    if kind == "tl5":
        return tl5.read_packed(data, rows, cols)
    return TERNARY[kind].read(data, rows, cols, Hints())


def check(ask: Ask, folder: Path, kind: str, data: Any, rows: int, cols: int) -> None:
    """Compare rows, scales and size with Python's."""
    codes, scales = read(kind, data, rows, cols)
    found, found_scales, size = decoded(ask, folder, IDS[kind], data, rows, cols)
    assert size == TERNARY[kind].nbytes(rows, cols) == data.size
    np.testing.assert_array_equal(found, codes.reshape(-1))
    np.testing.assert_array_equal(
        np.broadcast_to(found_scales, rows), np.broadcast_to(scales, rows)
    )


def weights(rows: int, cols: int) -> Any:
    return np.random.default_rng(rows + cols).integers(-1, 2, (rows, cols), np.int8)


PACK = {kind: codec.writer.pack for kind, codec in TERNARY.items() if codec.writer}
PACK["iq1_bn"] = iq1_bn.pack


@pytest.mark.parametrize("per_row", [False, True])
@pytest.mark.parametrize("kind", [*BY_BLOCKS, "tl5"])
def test_types_with_a_scale_per_row(ask, tmp_path, kind, per_row):
    rows, cols = 70, 512
    scales = np.float32([0.5]) if not per_row else np.float32(2.0) ** -np.arange(rows).clip(0, 9)
    check(ask, tmp_path, kind, PACK[kind](weights(rows, cols), scales).reshape(-1), rows, cols)


@pytest.mark.parametrize("kind", BY_BLOCKS[:2])
def test_blocks_of_zeros(ask, tmp_path, kind):
    values = weights(4, 1024)
    values[1, 256:512] = 0
    values[2] = 0
    check(ask, tmp_path, kind, PACK[kind](values, np.float32([0.5])).reshape(-1), 4, 1024)


@pytest.mark.parametrize("shape", [(8, 256), (8, 192), (32, 20), (5, 128)])
def test_i2_s_of_whole_rows_and_others(ask, tmp_path, shape):
    writer = TERNARY["i2_s"].writer
    scale = np.float32([0.75])
    data = np.concatenate([writer.pack(weights(*shape), scale).reshape(-1), writer.tail(scale)])
    check(ask, tmp_path, "i2_s", data, *shape)


@pytest.mark.parametrize("shape", sorted(tl1.KNOWN_TILES)[:5], ids=str)
@pytest.mark.parametrize("codec", [tl1, tl2], ids=["tl1", "tl2"])
def test_tiles_of_bitnet_cpp(ask, tmp_path, codec, shape):
    data = codec.pack(weights(*shape), 0.25, tile=codec.KNOWN_TILES[shape])
    check(ask, tmp_path, codec.__name__.rpartition(".")[2], data, *shape)


@pytest.mark.parametrize("kind", ["tl1", "tl2"])
def test_tiles_that_are_not_known_are_asked_for(ask, tmp_path, kind):
    error = decoded(ask, tmp_path, IDS[kind], np.zeros(1, np.uint8), 128, 384)
    assert error["message"].endswith("bitnet-lut convert takes them as --tiles 128x384=BM,BK,bm")


def refused_by_python(kind: str, data: Any, rows: int, cols: int) -> str | None:
    """What Python says is wrong with a tensor."""
    try:
        read(kind, data, rows, cols)
    except FormatError as error:
        return str(error)
    return None


SHAPES = {"i2_s": (8, 192), "tl1": (1536, 1536), "tl2": (1536, 1536)}


def packed(kind: str, rows: int, cols: int) -> Any:
    """A valid tensor, uint8."""
    values, scale = weights(rows, cols), np.float32([0.5])
    if kind in ("tl1", "tl2"):
        return {"tl1": tl1, "tl2": tl2}[kind].pack(values, 0.5)
    body = PACK[kind](values, scale).reshape(-1)
    return np.concatenate([body, TERNARY[kind].writer.tail(scale)]) if kind == "i2_s" else body


@pytest.mark.parametrize("kind", [*BY_BLOCKS, "i2_s", "tl1", "tl2", "tl5"])
def test_damaged_bytes_are_refused_or_read_as_python_does(ask, tmp_path, kind):
    """A byte is changed at random: both read the same rows, or both refuse them."""
    rows, cols = SHAPES.get(kind, (4, 512))
    valid = packed(kind, rows, cols)
    random = np.random.default_rng(3)
    refused = 0
    for _ in range(200 if rows < 100 else 12):
        data = valid.copy()
        data[random.integers(data.size)] = random.integers(256)
        refusal = refused_by_python(kind, data, rows, cols)
        if refusal is None:
            check(ask, tmp_path, kind, data, rows, cols)
            continue
        found = decoded(ask, tmp_path, IDS[kind], data, rows, cols)
        meaning = next(text for text in MEANINGS if text in refusal)
        assert meaning in found["message"], (found, refusal)
        refused += 1
    assert refused > 0

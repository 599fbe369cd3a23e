"""The engine of the browser, run by node: the same bits as Python's."""

import base64
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from golden_data import GOLDEN
from node import NODE, answering

from bitnet_lut import Model
from bitnet_lut.convert import convert
from bitnet_lut.demo import MODEL

IDS = [1, 2, 3, 0, 5, 7, 11, 13, 2, 2, 9, 4, 4, 8, 6, 10, 12, 1, 3]

pytestmark = pytest.mark.skipif(
    NODE is None, reason="NO NODE: the engine of the browser is not run"
)

Ask = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Function that has node run a job; see web_engine.mjs."""
    with answering("web_engine.mjs") as ask:
        yield lambda **job: ask(job)


def check(ask: Ask, file: Path, **options: Any) -> dict[str, Any]:
    """Compare the logits of two runs with Python's, bit for bit."""
    with Model(file) as model:
        expected = model.forward(IDS)
    answer = ask(file=str(file), ids=IDS, **options)
    assert "error" not in answer, answer
    for logits in answer["logits"]:
        found = np.frombuffer(base64.b64decode(logits), np.uint32)
        np.testing.assert_array_equal(found, expected.view(np.uint32).reshape(-1))
    return answer


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("kernel", ["i2_s", "tl1", "tl2", "tl5"])
def test_logits_of_the_demonstration_model(ask, kernel, threads):
    answer = check(ask, MODEL, build="simd", kernel=kernel, threads=threads)
    assert (answer["tier"], answer["kernel"]) == ("wasm128", kernel)


@pytest.mark.parametrize("build", ["simd", "relaxed"])
@pytest.mark.parametrize("tier", ["auto", "wasmrelaxed", "wasm128", "scalar"])
def test_logits_on_every_tier(ask, build, tier):
    answer = ask(file=str(MODEL), ids=IDS, build=build, tier=tier, threads=2)
    if "error" in answer and "CompileError" in answer["error"]["name"]:
        pytest.skip("NO RELAXED SIMD: this node does not know it")
    if build == "simd" and tier == "wasmrelaxed":
        assert "wasmrelaxed is not one of wasm128, scalar" in answer["error"]["message"]
        return
    found = check(ask, MODEL, build=build, tier=tier, threads=2)
    best = "wasmrelaxed" if build == "relaxed" else "wasm128"
    assert found["tier"] == (best if tier == "auto" else tier)


GOLDEN_MODELS = [
    "bitnet-b1.58/model-i2_s",
    "bitnet-1bitllm/model-i2_s",
    "llama-1.58/model-i2_s",
    "llama-1.58/model-tq1_0",
    "llama-1.58/model-tq2_0",
    "ik-bn/model-iq1_bn",
    "ik-bn/model-iq2_bn",
    "qwen2-plain/model-q4_0",
    "qwen2-plain/model-q8_0",
]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", GOLDEN_MODELS)
def test_logits_of_golden_models(ask, name, threads):
    check(ask, GOLDEN / f"{name}.gguf", build="simd", threads=threads)


@pytest.mark.parametrize("head", ["f16", "q8_0", "q6_k", "q4_0"])
@pytest.mark.parametrize("type", ["tq1_0", "iq2_bn", "tl5"])
def test_logits_of_converted_files(ask, tmp_path, type, head):
    file = tmp_path / "model.gguf"
    convert(MODEL, file, type=type, head=head)
    for kernel in ("i2_s", "tl5"):
        check(ask, file, build="simd", kernel=kernel, threads=2)


def test_memory_is_told_before_it_is_taken(ask, tmp_path):
    key = b"bitnet-b1.58.context_length" + struct.pack("<I", 4)
    data = MODEL.read_bytes()
    assert data.count(key) == 1
    at = data.index(key) + len(key)
    file = tmp_path / "long.gguf"
    file.write_bytes(data[:at] + struct.pack("<I", 2**24) + data[at + 4 :])
    answer = ask(file=str(file), ids=IDS, threads=2, context=2**24, build="simd")
    assert answer["error"]["code"] == "memory"
    assert re.search(r"the model needs 5\d,\d{3} MB of memory", answer["error"]["message"])


def test_ids_outside_the_vocabulary_are_refused(ask):
    answer = ask(file=str(MODEL), ids=[1, 1536], threads=1)
    assert answer["error"] == {
        "name": "BitNetError",
        "code": "argument",
        "message": "token id 1536 is outside the vocabulary of 1536",
    }

"""The tiny models of the reference data, read once each."""

import functools
import json
from typing import Any

import numpy as np
from alone import Alone
from golden_data import GOLDEN
from numpy.typing import NDArray
from tiny_model import dense_product

from bitnet_lut import _native, reference
from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.families import ModelConfig

Floats = NDArray[np.float32]

# Model file, and the reference results that belong to it.
REFERENCES = {
    "bitnet-b1.58/model-i2_s.gguf": "bitnet-b1.58/reference",
    "bitnet-b1.58/hf-packed": "bitnet-b1.58/reference",
    "bitnet-b1.58/hf-master-bf16": "bitnet-b1.58/reference",
    "llama-1.58/model-i2_s.gguf": "llama-1.58/reference",
    "llama-1.58/hf-packed": "llama-1.58/reference",
    "llama-1.58/model-tl2-id39.gguf": "llama-1.58/reference",
    "llama-1.58/model-tq1_0.gguf": "llama-1.58/reference",
    "llama-1.58/model-tq2_0.gguf": "llama-1.58/reference",
    "bitnet-1bitllm/model-i2_s.gguf": "bitnet-1bitllm/reference",
    "qwen2-plain/model-q4_0.gguf": "qwen2-plain/reference-q4_0",
    "qwen2-plain/model-q8_0.gguf": "qwen2-plain/reference-q8_0",
}


@functools.cache
def facts(model: str) -> dict[str, Any]:
    """The json beside the reference results of *model*."""
    path = GOLDEN / f"{REFERENCES[model]}.json"
    return json.loads(path.read_text())  # type: ignore[no-any-return]


@functools.cache
def results(model: str) -> dict[str, NDArray]:
    """The arrays of the reference results of *model*."""
    return dict(np.load(GOLDEN / f"{REFERENCES[model]}.npz"))


@functools.cache
def load(model: str) -> tuple[ModelConfig, dict[str, Any]]:
    """Config and tensors of a model file."""
    tiles = {}
    if "tl2" in model:
        tiles = {(m, k): (bm, bk, b) for m, k, bm, bk, b in facts(model)["tl2_tiles_M_K_BM_BK_bm"]}
    with open_checkpoint(GOLDEN / model, tiles=tiles) as checkpoint:
        return checkpoint.config, checkpoint.tensors()


@functools.cache
def weights(model: str, isa: str) -> _native.Weights:
    config, tensors = load(model)
    return _native.Weights(config, tensors, isa=isa)


@functools.cache
def pool(threads: int = 2) -> _native.Pool:
    return _native.Pool(threads)


def session(model: str, isa: str, *, kv: str = "f32", threads: int = 2) -> Alone:
    context = load(model)[0].context_length
    return Alone(weights(model, isa), pool(threads), context, kind=kv)


def logits(model: str, isa: str, ids: NDArray[np.int32], *, kv: str = "f32") -> Floats:
    """Logits (n, vocab) of every position of *ids* (n,)."""
    out = np.zeros((len(ids), load(model)[0].vocab_size), np.float32)
    session(model, isa, kv=kv).step(ids, out)
    return out


def logits_of_rounded_input(
    model: str, isa: str, ids: NDArray[np.int32], *, kv: str = "f32"
) -> Floats:
    """The same with the input of the output matrix rounded to float16, as bitnet.cpp may do."""
    config, tensors = load(model)
    seen: list[Floats] = []

    def probe(layer: int, op: str, array: Floats) -> None:
        if op == "output_norm":
            seen.append(array)

    out = np.zeros((len(ids), config.vocab_size), np.float32)
    session(model, isa, kv=kv).step(ids, out, probe=probe)
    head = tensors["token_embd.weight" if config.tied_head else "output.weight"]
    rounded = reference.to_half(np.concatenate(seen)).astype(np.float32)
    return dense_product(head, rounded, isa=isa)

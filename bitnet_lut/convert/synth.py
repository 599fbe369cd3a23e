"""Models of full size with random weights, to measure speed and memory without downloading any.

Linear layers are a quarter -1, half 0 and a quarter +1, scaled to keep activations near 1; logits
come out with a standard deviation of about 3. The vocabulary is byte-level BPE of made-up words:
any text can be encoded, and generated text is meaningless.

A seed gives the same bytes everywhere, because only the raw stream of PCG64 is used. Each tensor
has its own stream, so weights do not depend on the types of tensors.
"""

import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain, count, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.errors import FormatError
from bitnet_lut.families import FAMILIES, ModelConfig, family_of, is_linear, tensor_shapes
from bitnet_lut.formats import ggml, i2_s
from bitnet_lut.formats.codecs import TERNARY, tensor_nbytes
from bitnet_lut.formats.gguf_writer import GGUFWriter
from bitnet_lut.formats.ternary import Bytes

__all__ = ["HEADS", "SHAPES", "TYPES", "ModelShape", "synthesize"]

# Types of linear layers, and the general.file_type that goes with them.
_FLOATS = {"f16": 1, "q8_0": 7, "q4_0": 2}
_WRITERS = {
    name: codec.writer
    for name, codec in TERNARY.items()
    if codec.writer is not None and not codec.writer.whole
}
TYPES = {**{name: writer.file_type for name, writer in _WRITERS.items()}, **_FLOATS}
HEADS = ("f16", "q8_0", "q6_k", "q4_0")

_TYPE_IDS = {entry.name: type_id for type_id, entry in ggml.GGML_TYPES.items()}
_WEIGHTS_AT_ONCE = 2**22
_LOGIT_DEVIATION = 3.0
_POOL = 2**14  # runs of quantized weights from which embeddings are put together

# GPT-2's letters for the 256 bytes, in the order of its vocabulary.
_BYTES = [*map(chr, chain(range(33, 127), range(161, 173), range(174, 324)))]
_SPACE = "\u0120"

_ONSETS = [*"bcdfghjklmnprstvwyz", "ch", "sh", "th", "st", "tr", "pr", "pl", "gr", "wh", "qu"]
_VOWELS = [*"aeiou", "ea", "ou", "ai", "ee", "oo", "io"]
_CODAS = [*"nrstldmkpgfy", "ng", "nt", "st", "nd", "ss", "ll", "rs", "ck", "ns", "ly", "ch", "th"]


@dataclass(frozen=True)
class ModelShape:
    """What a synthetic model copies of a published one: its graph and the rules of its vocabulary.

    special: texts of control tokens by id; all other ids are bytes and words.
    """

    config: ModelConfig
    pre: str
    bos_id: int
    eos_id: int
    add_bos: bool
    special: Mapping[int, str]


def synthesize(
    path: str | os.PathLike[str],
    shape: str | ModelShape,
    *,
    type: str = "i2_s",
    head: str = "q6_k",
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Write a GGUF file of a model with random weights, a few megabytes at a time.

    shape: a key of SHAPES, or a `ModelShape`. type: type of the linear layers, a key of TYPES.
    head: type of the embedding and of the output matrix, one of HEADS.
    progress: called with the bytes of tensors written so far and in all.
    Raises ValueError for an unknown choice or a type whose blocks do not divide the rows of this
    shape, and OSError if the file cannot be written; then no file is left.
    """
    shape = _choose(shape, SHAPES, "shape") if isinstance(shape, str) else shape
    _choose(type, dict.fromkeys(TYPES), "type")
    _choose(head, dict.fromkeys(HEADS), "head")
    table = []
    for name, dims in tensor_shapes(shape.config).items():
        kind = "f32" if len(dims) == 1 else type if is_linear(name) else head
        try:
            table.append((name, dims, kind, tensor_nbytes(kind, dims)))
        except FormatError as error:
            raise ValueError(f"{name} cannot be of type {kind}: {error}") from None
    total = sum(nbytes for *_, nbytes in table)
    done = 0
    entries = [(name, dims, _TYPE_IDS[kind], nbytes) for name, dims, kind, nbytes in table]
    with GGUFWriter(path, _metadata(shape, type), entries) as writer:
        for index, (name, dims, kind, _) in enumerate(table):
            for piece in _tensor(_Bits(seed, index), name, dims, kind):
                writer.write(name, piece)
                done += piece.nbytes
                progress(done, total)


def _choose(name: str, known: Mapping[str, Any], what: str) -> Any:
    if name not in known:
        raise ValueError(f"{what} is {name!r}: it must be one of {', '.join(known)}")
    return known[name]


class _Bits:
    """Random numbers for one tensor, the same in every version of NumPy."""

    def __init__(self, seed: int, index: int) -> None:
        self._stream = np.random.PCG64([seed, index])

    def bytes(self, size: int) -> Bytes:
        words: NDArray[np.uint64] = self._stream.random_raw(-(-size // 8))
        return words.astype("<u8", copy=False).view(np.uint8)[:size]

    def normal(self, size: int) -> NDArray[np.float32]:
        """Nearly normal numbers, of mean 0 and deviation 1: sums of eight bytes."""
        octets = self.bytes(8 * size).reshape(size, 8)
        sums: NDArray[np.float32] = octets.sum(axis=1, dtype=np.float32)
        sums -= np.float32(8 * 127.5)
        sums /= np.float32(math.sqrt(8 * (256**2 - 1) / 12))
        return sums


def _tensor(bits: _Bits, name: str, dims: tuple[int, ...], kind: str) -> Iterator[Bytes]:
    """The bytes of a tensor, in pieces."""
    if len(dims) == 1:
        return iter([(1 + bits.normal(*dims) / 16).astype("<f4").view(np.uint8)])
    rows, cols = dims
    return _linear(bits, rows, cols, kind) if is_linear(name) else _dense(bits, rows, cols, kind)


def _linear(bits: _Bits, rows: int, cols: int, kind: str) -> Iterator[Bytes]:
    """Ternary weights whose products with activations of deviation 1 have deviation 1."""
    scale = np.array([math.sqrt(2 / cols)], np.float32)
    step = max(8, _WEIGHTS_AT_ONCE // cols // 8 * 8)  # rows of whole groups of 128 weights
    for start in range(0, rows, step):
        height = min(step, rows - start)
        codes = bits.bytes(height * cols // 4)
        codes ^= (codes & (codes >> np.uint8(1)) & np.uint8(0x55)) << np.uint8(1)  # 3 becomes 1
        if kind == "i2_s":  # random codes are already in its layout
            yield codes
            continue
        ternary = i2_s.unpack_rows(codes.reshape(height, -1), cols)
        if kind in _WRITERS:
            yield _WRITERS[kind].pack(ternary, scale)
        else:
            yield ggml.quantize(kind, ternary * scale)
    if kind in _WRITERS and (tail := _WRITERS[kind].tail) is not None:
        yield tail(scale)


def _dense(bits: _Bits, rows: int, cols: int, kind: str) -> Iterator[Bytes]:
    """Normal weights, in runs taken from a pool, because quantizing all would take a minute."""
    run = 256 if kind == "q6_k" else 32
    size = min(_POOL, rows * cols // run)
    weights = bits.normal(size * run).reshape(size, run)
    pool = ggml.quantize(kind, weights * np.float32(_LOGIT_DEVIATION / math.sqrt(cols)))
    step = max(1, _WEIGHTS_AT_ONCE // cols)
    for start in range(0, rows, step):
        runs = min(step, rows - start) * cols // run
        yield pool[bits.bytes(2 * runs).view("<u2") % size]


def _metadata(shape: ModelShape, type: str) -> dict[str, Any]:
    config = replace(shape.config, name=f"{shape.config.name} with random weights")
    tokens, merges = _vocabulary(config.vocab_size, shape.special)
    types = np.ones(len(tokens), np.int32)
    types[[*shape.special]] = 3  # control
    tokenizer = {
        "model": "gpt2",
        "pre": shape.pre,
        "tokens": tokens,
        "scores": np.zeros(len(tokens), np.float32),
        "token_type": types,
        "merges": merges,
        "bos_token_id": shape.bos_id,
        "eos_token_id": shape.eos_id,
        "add_bos_token": shape.add_bos,
    }
    return {
        **family_of(config).gguf_metadata(config),
        "general.file_type": TYPES[type],
        "general.quantization_version": 2,
        **{f"tokenizer.ggml.{key}": value for key, value in tokenizer.items()},
    }


def _vocabulary(size: int, special: Mapping[int, str]) -> tuple[list[str], list[str]]:
    """*size* different tokens, and every merge of two of them into a third, in order of tokens."""
    words = islice(chain(_BYTES, _words()), size - len(special))
    tokens = [special[i] if i in special else next(words) for i in range(size)]
    mergeable = set(tokens).difference(special.values())
    merges = []
    for text in tokens:
        for cut in range(1, len(text)) if text in mergeable else ():
            left, right = text[:cut], text[cut:]
            if left in mergeable and right in mergeable:
                merges.append(f"{left} {right}")
    return tokens, merges


def _words() -> Iterator[str]:
    """Endless different texts, each made of two earlier texts or letters."""
    seen = set(_BYTES)

    def new(texts: list[str]) -> list[str]:
        fresh = [text for text in dict.fromkeys(texts) if text not in seen]
        seen.update(fresh)
        return fresh

    yield from new(_ONSETS + _VOWELS + _CODAS)
    opened = [onset + vowel for onset in _ONSETS for vowel in _VOWELS]
    short = opened + [vowel + coda for vowel in _VOWELS for coda in _CODAS]
    short += [text.title() for text in short]
    yield from new(short)
    yield from new([_SPACE + text for text in [*_ONSETS, *_VOWELS, *short]])
    closed = [text + coda for text in opened for coda in _CODAS]
    yield from new(closed)
    begun = [_SPACE + text for text in closed]
    yield from new(begun)
    for shift in count():
        yield from new([b + closed[(i + shift) % len(closed)] for i, b in enumerate(begun)])


def _of_llama3(first: int, size: int) -> dict[int, str]:
    """Llama 3's control tokens, *size* of them from id *first* on."""
    texts = {
        0: "<|begin_of_text|>",
        1: "<|end_of_text|>",
        6: "<|start_header_id|>",
        7: "<|end_header_id|>",
        9: "<|eot_id|>",
    }
    others = (i for i in range(size) if i not in texts)
    texts |= {i: f"<|reserved_special_token_{n}|>" for n, i in enumerate(others)}
    return {first + i: text for i, text in sorted(texts.items())}


_LLAMA3 = ("llama-bpe", 128000, 128001, True, _of_llama3(128000, 256))
_TINY = ("llama-bpe", 502, 503, True, _of_llama3(502, 10))
_FALCON3 = ("falcon3", 11, 11, False, {11: "<|endoftext|>", 2023: "<|pad|>"})
_1BITLLM = (
    "default",
    1,
    2,
    True,
    {0: "<unk>", 1: "<s>", 2: "</s>", 32000: "<pad>", 32001: "</line>"},
)

# vocabulary | architecture | layers, embedding, feed-forward, heads, kv heads | tokens, context |
# theta, epsilon
_ROWS: dict[str, tuple[Any, ...]] = {
    "2b-4t": (_LLAMA3, "bitnet-b1.58", 30, 2560, 6912, 20, 5, 128256, 4096, 500000.0, 1e-5),
    "large": (_1BITLLM, "bitnet", 24, 1536, 4096, 16, 16, 32002, 2048, 10000.0, 1e-5),
    "3b": (_1BITLLM, "bitnet", 26, 3200, 8640, 32, 32, 32002, 2048, 10000.0, 1e-5),
    "llama3-8b": (_LLAMA3, "llama", 32, 4096, 14336, 32, 8, 128256, 8192, 500000.0, 1e-5),
    "falcon3-7b": (_FALCON3, "llama", 28, 3072, 23040, 12, 4, 131072, 32768, 1000042.0, 1e-6),
    "tiny": (_TINY, "bitnet-b1.58", 2, 256, 512, 4, 2, 512, 512, 500000.0, 1e-5),
}


def _shape(
    name: str,
    vocabulary: tuple[str, int, int, bool, Mapping[int, str]],
    architecture: str,
    layers: int,
    embedding: int,
    feed_forward: int,
    heads: int,
    kv_heads: int,
    tokens: int,
    context: int,
    theta: float,
    epsilon: float,
) -> ModelShape:
    family = FAMILIES[architecture]
    config = ModelConfig(
        architecture=architecture,
        vocab_size=tokens,
        context_length=context,
        embedding_length=embedding,
        feed_forward_length=feed_forward,
        block_count=layers,
        head_count=heads,
        head_count_kv=kv_heads,
        head_dim=embedding // heads,
        rope_dim=embedding // heads,
        rope_theta=theta,
        rope_kind=family.gguf_rope,
        rms_eps=epsilon,
        activation="relu2" if architecture == "bitnet-b1.58" else "silu",
        sub_norms=family.sub_norms,
        qkv_bias=family.qkv_bias,
        tied_head=family.ternary,  # as in all published models
        name=name,
    )
    return ModelShape(config, *vocabulary)


# The shapes of published models, and a "tiny" one for tests.
SHAPES: Mapping[str, ModelShape] = {name: _shape(name, *row) for name, row in _ROWS.items()}

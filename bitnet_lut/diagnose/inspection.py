"""What a model file holds, and what is odd about it, without running the model."""

import math
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from bitnet_lut.checkpoint import Checkpoint, open_checkpoint
from bitnet_lut.checkpoint.ternary_hash import TERNARY_HASH_KEY, TernaryHash
from bitnet_lut.errors import FormatError
from bitnet_lut.families import FAMILIES, ModelConfig, family_of, scale_name, tensor_shapes
from bitnet_lut.formats import ggml, i2_s
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.safetensors import open_folder, read_json
from bitnet_lut.formats.tensors import TernaryMatrix
from bitnet_lut.formats.tiles import Shape, Tile
from bitnet_lut.text.tokenizer import Tokenizer

__all__ = [
    "INVERSE_GAIN",
    "Inspection",
    "Oddity",
    "StoredTensor",
    "TernaryStatistics",
    "count_codes",
    "gguf_oddities",
    "inspect_model",
    "read_gguf",
    "some",
    "vocabulary_oddities",
]

_T = TypeVar("_T")

# A ternary layer multiplies the deviation of its input by scale * sqrt(cols * share of non-zeros):
# by 1 to 100 in working models, and by thousands where the scale was inverted.
INVERSE_GAIN = 300
_CONTROL_TEXT = re.compile(r"<\|[^|<>]+\|>")
_BYTES_AT_ONCE = 2**21
_MOST_QUOTED = 4

# How many of the four codes of a byte are 0, 1, 2, 3: (256, 4).
_CODES_OF_BYTE = np.stack(
    [(np.arange(256)[:, None] >> np.arange(0, 8, 2) & 3 == code).sum(axis=1) for code in range(4)],
    axis=1,
)


@dataclass(frozen=True)
class StoredTensor:
    """A tensor as the file lists it.

    shape: NumPy order. weights: how many it holds; packed checkpoints hold four in a byte.
    nbytes: bytes without padding, if that is known.
    """

    name: str
    shape: tuple[int, ...]
    type: str
    weights: int
    nbytes: int


@dataclass(frozen=True)
class TernaryStatistics:
    """Shares of -1, 0 and +1 in a ternary matrix, and its scale: the largest if each row has one.

    invalid: how many weights have code 3, which no writer makes.
    """

    name: str
    scale: float
    negative: float
    zero: float
    positive: float
    invalid: int


@dataclass(frozen=True)
class Inspection:
    """What a file or folder holds.

    container: kind, version and size.
    metadata: the metadata of a GGUF file, or the config.json of a folder.
    config, tokenizer: None if the model cannot be run or its vocabulary not be used; odd says why.
    ternary: statistics of each ternary matrix.
    odd: sentences about what is unusual or wrong.
    """

    name: str
    container: str
    metadata: Mapping[str, object]
    tensors: tuple[StoredTensor, ...]
    config: ModelConfig | None
    tokenizer: Tokenizer | None
    ternary: tuple[TernaryStatistics, ...]
    ternary_sha256: str | None
    odd: tuple[str, ...]


class Oddity(NamedTuple):
    """What is unusual about a file: a sentence, what follows from it, and what to do."""

    text: str
    meaning: str
    fix: str


def inspect_model(
    source: str | os.PathLike[str],
    *,
    i2_s_layout: i2_s.Layout = "128x32",
    tiles: Mapping[Shape, Tile] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Inspection:
    """Read a whole GGUF file or Hugging Face folder, as far as possible.

    i2_s_layout, tiles: see ``checkpoint.open_checkpoint``.
    progress: called with the matrices read so far and in all.
    Raises FormatError if not even the tensor table can be read, and OSError.
    """
    name = os.fspath(source)
    odd: list[str] = []
    attempt = partial(_attempt, name, odd)
    checkpoint = attempt(
        "it cannot be run", lambda: open_checkpoint(source, i2_s_layout=i2_s_layout, tiles=tiles)
    )
    no_vocabulary = "its vocabulary cannot be used"
    if Path(source).is_dir():
        container, metadata, tensors = _read_folder(Path(source))
        tokenizer = attempt(no_vocabulary, lambda: Tokenizer.from_folder(source))
    else:
        with GGUFFile(source) as file:
            container, metadata, tensors = read_gguf(file, checkpoint)
            odd += [oddity.text for oddity in gguf_oddities(file, tensors, checkpoint)]
        tokenizer = attempt(no_vocabulary, lambda: Tokenizer.from_gguf(metadata, name=name))
        odd += [oddity.text for oddity in vocabulary_oddities(metadata, tokenizer)]
    ternary, digest = ([], None) if checkpoint is None else _weights(checkpoint, odd, progress)
    if metadata.get(TERNARY_HASH_KEY, digest) != digest and checkpoint is not None:
        odd.append("its ternary weights do not have the hash that its conversion wrote")
    return Inspection(
        name=name,
        container=container,
        metadata=metadata,
        tensors=tuple(tensors),
        config=checkpoint.config if checkpoint else None,
        tokenizer=tokenizer,
        ternary=tuple(ternary),
        ternary_sha256=digest,
        odd=tuple(odd),
    )


def _attempt(name: str, odd: list[str], failure: str, read: Callable[[], _T]) -> _T | None:
    """The result of *read*; None, with the reason in *odd*, if it raises FormatError."""
    try:
        return read()
    except FormatError as error:
        odd.append(f"{failure}: {str(error).removeprefix(f'{name}: ')}")
        return None


def _weights(
    checkpoint: Checkpoint, odd: list[str], progress: Callable[[int, int], None]
) -> tuple[list[TernaryStatistics], str | None]:
    """Statistics and hash of the ternary weights; what is odd about any weights goes into *odd*."""
    faults: dict[str, list[str]] = {}
    hashed = TernaryHash(checkpoint.config)
    with checkpoint:
        ternary = list(_statistics(checkpoint, hashed, faults, progress))
    odd += scale_oddities(ternary, checkpoint.config)
    odd += [f"{fault}: {some(names)}" for fault, names in faults.items()]
    return ternary, hashed.hexdigest()


_Container = tuple[str, Mapping[str, object], list[StoredTensor]]


def read_gguf(file: GGUFFile, checkpoint: Checkpoint | None) -> _Container:
    """What a GGUF file is, its metadata and its tensor table."""
    known = checkpoint.nbytes if checkpoint else {}
    tensors = []
    for info in file.tensors.values():
        entry = ggml.GGML_TYPES.get(info.type_id)
        kind = entry.name if entry else f"type {info.type_id}"
        if info.type_id == 39 and info.name in known:
            kind = "tl2"  # MXFP4, the other meaning of the id, cannot be read
        nbytes = known.get(info.name, info.span)
        tensors.append(StoredTensor(info.name, info.shape, kind, math.prod(info.shape), nbytes))
    return f"GGUF version {file.version}, {file.size:,} bytes", file.metadata, tensors


def _read_folder(folder: Path) -> _Container:
    config = read_json(folder / "config.json")
    places = open_folder(folder)
    tensors = []
    for name, file in places.items():
        info = file.tensors[name]
        weights = math.prod(info.shape) * (4 if info.dtype == "U8" else 1)
        tensors.append(StoredTensor(name, info.shape, info.dtype.lower(), weights, info.nbytes))
    files = len(set(map(id, places.values())))
    total = sum(tensor.nbytes for tensor in tensors)
    container = f"Hugging Face folder, {files} safetensors, {total:,} bytes of tensors"
    return container, config, tensors


def _statistics(
    checkpoint: Checkpoint,
    digest: TernaryHash,
    faults: dict[str, list[str]],
    progress: Callable[[int, int], None],
) -> Iterator[TernaryStatistics]:
    """Read every weight, and hash the ternary ones.

    Faults of tensors are added to *faults*: {fault: names}.
    """
    shapes = tensor_shapes(checkpoint.config)
    for done, (name, shape) in enumerate(shapes.items(), 1):
        try:
            if len(shape) == 1:
                vector = checkpoint.vector(name)
                empty, finite = not vector.any(), bool(np.isfinite(vector).all())
            elif isinstance(matrix := checkpoint.matrix(name), TernaryMatrix):
                digest.add(name, matrix)
                found = count_codes(name, matrix)
                empty, finite = found.zero == 1, True
                if found.invalid:
                    faults.setdefault("code 3 in I2_S, which no writer makes", []).append(name)
                yield found
            else:
                empty, finite = not matrix.data.any(), True
        except FormatError as error:
            fault = str(error).removeprefix(f"{checkpoint.name}: tensor {name!r}: ")
            faults.setdefault(fault, []).append(name)
            continue
        if empty:
            faults.setdefault("nothing but zeros", []).append(name)
        if not finite:
            faults.setdefault("NaN or infinity", []).append(name)
        progress(done, len(shapes))


def count_codes(name: str, matrix: TernaryMatrix) -> TernaryStatistics:
    """Shares of the codes of a matrix. Two bytes at a time are counted, which halves the work."""
    pairs = matrix.packed.reshape(-1).view(np.uint16)
    histogram = np.zeros(1 << 16, np.int64)
    for start in range(0, pairs.size, _BYTES_AT_ONCE):
        histogram += np.bincount(pairs[start : start + _BYTES_AT_ONCE], minlength=1 << 16)
    table = histogram.reshape(256, 256)
    codes = (table.sum(axis=0) + table.sum(axis=1)) @ _CODES_OF_BYTE
    codes[1] -= 4 * matrix.packed.size - matrix.rows * matrix.cols  # padding
    shares = codes / (matrix.rows * matrix.cols)
    scale = float(matrix.scale.max())
    return TernaryStatistics(name, scale, shares[0], shares[1], shares[2], int(codes[3]))


def gguf_oddities(
    file: GGUFFile, tensors: Iterable[StoredTensor], checkpoint: Checkpoint | None
) -> Iterator[Oddity]:
    """What is unusual in the metadata and the tensor table."""
    old_names = {old: name for name, family in FAMILIES.items() for old in family.old_names}
    architecture = str(file.metadata.get("general.architecture"))
    if architecture in old_names:
        yield Oddity(
            f"its architecture has the old name {architecture}, now {old_names[architecture]}",
            "newer programs do not know the old name",
            "convert it with this package, which writes the new one",
        )
    clashing = [info for info in file.tensors.values() if info.type_id == 39]
    if clashing:
        kinds = {tensor.type for tensor in tensors if tensor.name == clashing[0].name}
        yield Oddity(
            f"type id 39 of {some(info.name for info in clashing)} is TL2 in bitnet.cpp until "
            f"2026 and MXFP4 in llama.cpp: {'TL2 by its size' if 'tl2' in kinds else 'unclear'}",
            "llama.cpp reads garbage from it without a word",
            "convert it to i2_s, whose type id means one thing",
        )
    unknown = [tensor.name for tensor in tensors if tensor.type.startswith("type ")]
    if unknown:
        yield Oddity(
            f"unknown tensor types: {some(unknown)}",
            "they cannot be decoded",
            "convert it again from its original, to a type that is known here",
        )
    if checkpoint is not None:
        yield from _disagreements(file, checkpoint, architecture)


def _disagreements(file: GGUFFile, checkpoint: Checkpoint, architecture: str) -> Iterator[Oddity]:
    """What the file holds beyond its graph, or states otherwise than it is."""
    config = checkpoint.config
    used = tensor_shapes(config)
    scales = {scale_name(name) for name in used}
    unused = [name for name in file.tensors if name not in used and name not in scales]
    if unused:
        yield Oddity(
            f"tensors that the model does not use: {some(unused)}",
            "they are ignored; what they were meant for is missing from the graph",
            "make sure that they belong to another part, such as a vision tower",
        )
    stated = file.metadata.get(family_of(config).gguf_key("vocab_size", architecture))
    if stated not in (None, config.vocab_size):
        yield Oddity(
            f"vocab_size is {stated}, but there are {config.vocab_size} tokens",
            "the tokens and the embedding agree, so the key is wrong, and a program may refuse it",
            "convert it with this package, which writes the true number",
        )


def vocabulary_oddities(
    metadata: Mapping[str, object], tokenizer: Tokenizer | None
) -> Iterator[Oddity]:
    """What is unusual in the vocabulary."""
    if tokenizer is None:
        return
    if metadata["tokenizer.ggml.model"] == "gpt2" and "tokenizer.ggml.pre" not in metadata:
        yield Oddity(
            f"tokenizer.ggml.pre is missing: {tokenizer.pre!r} is used here, 'default' by "
            "bitnet.cpp and llama.cpp",
            "programs cut words and numbers differently and give different texts",
            "convert it with --pre-tokenizer, which writes the key",
        )
    if not tokenizer.eos_ids:
        yield Oddity(
            "no end token: only a limit ends a generation",
            "every text runs until it is cut off",
            "convert it again with the tokenizer files of the original beside it",
        )
    tokens = metadata["tokenizer.ggml.tokens"]
    assert isinstance(tokens, list)
    repeated = [text for text, times in Counter(tokens).items() if times > 1]
    if repeated:
        yield Oddity(
            f"tokens that appear more than once: {some(map(repr, repeated))}",
            "only one of each can come out of a text",
            "convert it again with the tokenizer files of the original beside it",
        )
    types = metadata.get("tokenizer.ggml.token_type")
    if isinstance(types, np.ndarray):
        pairs = zip(tokens, types.tolist(), strict=True)
        plain = [text for text, kind in pairs if kind == 1 and _CONTROL_TEXT.fullmatch(text)]
        if plain:
            yield Oddity(
                f"control tokens that are typed as normal ones: {some(plain)}",
                "programs show them as text, and texts of users can spell them",
                "convert it again with the tokenizer files of the original beside it",
            )


def scale_oddities(ternary: Iterable[TernaryStatistics], config: ModelConfig) -> Iterator[str]:
    shapes = tensor_shapes(config)
    found = list(ternary)
    if found and all(matrix.scale == 1 for matrix in found):
        yield "every weight scale is 1: a conversion may have lost them"
    inverse = [
        matrix.name
        for matrix in found
        if matrix.scale * math.sqrt(shapes[matrix.name][1] * (1 - matrix.zero)) > INVERSE_GAIN
    ]
    if inverse:
        yield f"weight scales so large that they look like their inverse: {some(inverse)}"
    dead = [matrix.name for matrix in found if matrix.scale == 0 and matrix.zero < 1]
    if dead:
        yield f"weights that are not all zero, but their scale is: {some(dead)}"


def some(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - _MOST_QUOTED} more" if len(every) > _MOST_QUOTED else ""
    return ", ".join(every[:_MOST_QUOTED]) + more

"""Writing a checkpoint as a GGUF file."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitnet_lut.checkpoint.base import (
    TERNARY_HASH_KEY,
    Checkpoint,
    StoredMatrix,
)
from bitnet_lut.convert.vocabulary import from_folder
from bitnet_lut.convert.weights import (
    Options,
    Rounded,
    TensorReader,
    blocks,
    dense_pieces,
    may_be_ternary,
)
from bitnet_lut.errors import FormatError
from bitnet_lut.families import FAMILIES, ModelConfig, family_of, is_linear, tensor_shapes
from bitnet_lut.formats import ggml, strips
from bitnet_lut.formats.codecs import TERNARY, Writer, tensor_nbytes
from bitnet_lut.formats.gguf import ARRAY
from bitnet_lut.formats.gguf_writer import GGUFWriter
from bitnet_lut.formats.ternary import Bytes, Scale, Weights, need_multiple

__all__ = ["HEADS", "TYPES", "GGUFTarget"]

HEADS = ("f16", "q8_0", "q6_k", "q4_0")

_NO_HASH = "0" * 64  # stands in place of the hash until that is known
_STRIPS = {block: kind for kind, block in strips.TYPES.items()}
_TYPE_IDS = {entry.name: type_id for type_id, entry in ggml.GGML_TYPES.items()}
# Keys that describe the source file, not the model.
_DROPPED = ("general.alignment", "split.", TERNARY_HASH_KEY)


def _pack_f16(ternary: Weights, scale: Scale) -> Bytes:
    with np.errstate(over="ignore", under="ignore"):
        narrow = scale.astype(np.float16)
    if np.any(np.isinf(narrow) | ((narrow == 0) & (scale != 0))):
        raise FormatError(f"scale {scale[0]} is out of the range of float16")
    return ggml.quantize("f16", ternary * scale).reshape(-1)


# Types of linear layers, by their names in ``formats.ggml``.
TYPES: Mapping[str, Writer] = {
    **{name: codec.writer for name, codec in TERNARY.items() if codec.writer is not None},
    "f16": Writer(1, _pack_f16, scale_per_row=False),
}


class GGUFTarget:
    """A file to be written.

    config: what the file will say. nbytes: bytes of its tensors. all_ternary: whether linear layers
    must be ternary. warnings: sentences about what differs from the source.
    """

    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        """Plan the file; FormatError if the model does not suit the types asked for."""
        self._type = options.type
        self.config = _config(checkpoint, options)
        self.warnings: list[str] = []
        self._metadata = self._describe(checkpoint, options)
        self._tensors = _plan(checkpoint, options)
        self.nbytes = sum(tensor.nbytes for tensor in self._tensors.values())
        self.all_ternary = options.type != "f16"
        self._marked = (
            self.all_ternary
            or may_be_ternary(checkpoint)
            or any(checkpoint.stored(name) is None for name in filter(is_linear, self._tensors))
        )

    def write(
        self,
        path: Path,
        reader: TensorReader,
        rounded: Callable[[Rounded], None],
        wrote: Callable[[int], None],
    ) -> None:
        """Write the file.

        rounded: called for matrices that changed. wrote: called with bytes written.
        """
        mark = {TERNARY_HASH_KEY: _NO_HASH} if self._marked else {}
        table = [(name, t.shape, _TYPE_IDS[t.type], t.nbytes) for name, t in self._tensors.items()]
        alignment = TYPES[self._type].alignment
        metadata = {**self._metadata, **mark}
        with GGUFWriter(path, metadata, table, alignment, in_place=True) as writer:
            for name, tensor in self._tensors.items():
                for piece in _pieces(name, tensor, reader, rounded):
                    writer.write(name, piece)
                    wrote(piece.nbytes)
            if self._marked:
                writer.amend(TERNARY_HASH_KEY, reader.hash.hexdigest() or _NO_HASH)

    def _describe(self, checkpoint: Checkpoint, options: Options) -> dict[str, Any]:
        """The metadata, except the hash."""
        if checkpoint.kind == "gguf":
            found = self._copy(checkpoint, options)
        else:
            found = _describe(self.config, checkpoint)
            found |= self._vocabulary(checkpoint, options.pre_tokenizer)
        if options.chat_template is not None:
            found["tokenizer.chat_template"] = options.chat_template
        found["general.file_type"] = TYPES[self._type].file_type
        found["general.quantization_version"] = 2
        return found

    def _copy(self, checkpoint: Checkpoint, options: Options) -> dict[str, Any]:
        """The metadata of a GGUF file with the repairs asked for."""
        old = str(checkpoint.metadata["general.architecture"])
        new = options.architecture or old
        found: dict[str, Any] = {}
        for key, value in checkpoint.metadata.items():
            if key.startswith(_DROPPED):
                continue
            renamed = f"{new}.{key.removeprefix(f'{old}.')}" if key.startswith(f"{old}.") else key
            value_type = checkpoint.value_types.get(key, ARRAY)
            found[renamed] = value if value_type == ARRAY else (value_type, value)
        found["general.architecture"] = new
        if options.activation or new != old:  # the default activation depends on the name
            found[family_of(self.config).gguf_key("activation", new)] = self.config.activation
        byte_level = checkpoint.metadata.get("tokenizer.ggml.model") == "gpt2"
        if options.pre_tokenizer is not None:
            if not byte_level:
                raise ValueError(f"{checkpoint.name}: only byte-level BPE has a pre-tokenizer")
            found["tokenizer.ggml.pre"] = options.pre_tokenizer
        elif byte_level and "tokenizer.ggml.pre" not in found:
            self.warnings.append(
                "tokenizer.ggml.pre is missing, so other programs use the pre-tokenizer 'default'; "
                "--pre-tokenizer writes it"
            )
        return found

    def _vocabulary(self, checkpoint: Checkpoint, pre: str | None) -> dict[str, Any]:
        """The vocabulary of a folder."""
        assert checkpoint.folder is not None
        if not (checkpoint.folder / "tokenizer.json").is_file():
            self.warnings.append("there is no tokenizer.json: the file has no vocabulary")
            return {}
        found, warnings = from_folder(checkpoint.folder, self.config.vocab_size, pre)
        self.warnings += warnings
        return found


def _config(checkpoint: Checkpoint, options: Options) -> ModelConfig:
    """The config of the file to be: names, RoPE and precision as in GGUF."""
    old = checkpoint.config
    architecture = options.architecture or old.architecture
    family = FAMILIES[architecture]
    if family.graph != family_of(old).graph:
        raise ValueError(f"a model of architecture {old.architecture} cannot be a {architecture}")
    return dataclasses.replace(
        old,
        architecture=architecture,
        activation=options.activation or old.activation,
        rope_kind=family.gguf_rope,
        rope_theta=float(np.float32(old.rope_theta)),
        rms_eps=float(np.float32(old.rms_eps)),
    )


def _describe(config: ModelConfig, checkpoint: Checkpoint) -> dict[str, Any]:
    """Metadata that say what a config says; a model without a name is called by its folder."""
    name = config.name or Path(checkpoint.folder or checkpoint.name).resolve().name
    return family_of(config).gguf_metadata(dataclasses.replace(config, name=name))


@dataclass(frozen=True)
class _Tensor:
    """A tensor of the file to be: its shape, type name and bytes."""

    shape: tuple[int, ...]
    type: str
    nbytes: int


def _plan(checkpoint: Checkpoint, options: Options) -> dict[str, _Tensor]:
    """What the file will hold; FormatError if a shape does not suit its type."""
    planned = {}
    for name, shape in tensor_shapes(checkpoint.config).items():
        kind = "f32" if len(shape) == 1 else options.type
        if len(shape) == 2 and not is_linear(name):
            stored = checkpoint.stored(name)
            assert stored is not None
            kind = options.head or stored.type
            if TYPES[options.type].strips and name == checkpoint.config.head_name:
                kind = _STRIPS.get(kind, kind)
        try:
            nbytes = tensor_nbytes(kind, shape)
            if is_linear(name):
                group = TYPES[kind].group
                need_multiple(math.prod(shape), group, f"weights of a tensor of type {kind}")
            planned[name] = _Tensor(shape, kind, nbytes)
        except FormatError as error:
            raise FormatError(f"{checkpoint.name}: tensor {name!r}: {error}") from None
    return planned


def _pieces(
    name: str, tensor: _Tensor, reader: TensorReader, rounded: Callable[[Rounded], None]
) -> Iterator[Bytes]:
    """The bytes of a tensor, some rows at a time if its type allows that."""
    if len(tensor.shape) == 1:
        yield reader.vector(name).astype("<f4").view(np.uint8)
        return
    matrix = reader.matrix(name)
    if isinstance(matrix, StoredMatrix):
        in_strips = tensor.type in strips.TYPES
        type = strips.TYPES[tensor.type] if in_strips else tensor.type
        for piece in dense_pieces(name, matrix, type, rounded):
            yield strips.pack(tensor.type, piece, matrix.shape[1]) if in_strips else piece
        return
    kind = TYPES[tensor.type]
    scale = matrix.scale
    if scale.size > 1 and not kind.scale_per_row:
        raise FormatError(
            f"tensor {name!r}: each row has a scale of its own, which {tensor.type} cannot hold; "
            f"{', '.join(other for other, t in TYPES.items() if t.scale_per_row)} can"
        )
    try:
        for rows, ternary in blocks(matrix, whole=kind.whole):
            yield kind.pack(ternary, scale if scale.size == 1 else scale[rows])
    except ValueError as error:
        raise FormatError(f"tensor {name!r} as {tensor.type}: {error}") from None
    if kind.tail is not None:
        yield kind.tail(scale)

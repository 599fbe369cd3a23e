"""Writing a checkpoint as a folder that transformers loads: packed weights in safetensors.

Everything that is not ternary is float32: transformers computes in the types it finds and cannot
mix them, so a smaller type would change the results.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.checkpoint.base import (
    TERNARY_HASH_KEY,
    Checkpoint,
    StoredMatrix,
)
from bitnet_lut.checkpoint.hf import quantization_settings
from bitnet_lut.convert.vocabulary import (
    copy_folder,
    replace_chat_template,
    to_folder,
    write_json,
)
from bitnet_lut.convert.weights import Options, Rounded, TensorReader, dense_pieces
from bitnet_lut.errors import FormatError
from bitnet_lut.families import FAMILIES, ModelConfig, family_of, is_linear, tensor_shapes
from bitnet_lut.formats import ggml, hf, i2_s
from bitnet_lut.formats.safetensors import DTYPES, read_json
from bitnet_lut.formats.safetensors_writer import SafetensorsWriter
from bitnet_lut.formats.tensors import TernaryMatrix
from bitnet_lut.formats.ternary import Bytes, Scale

__all__ = ["HFTarget", "transformers_config"]

_WEIGHTS_AT_ONCE = 2**22


class HFTarget:
    """A folder to be written.

    config: what the folder will say. nbytes: bytes of its tensors. all_ternary: linear layers must
    be ternary. warnings: sentences about what differs from the source.
    """

    all_ternary = True

    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        """Plan the folder; FormatError if transformers has no such graph."""
        self._checkpoint = checkpoint
        self._options = options
        self.config = transformers_config(checkpoint, options)
        self.warnings: list[str] = []
        self._tensors = _plan(checkpoint, self.config)
        self.nbytes = sum(
            math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize for _, dtype, shape in self._tensors
        )

    def write(
        self,
        folder: Path,
        reader: TensorReader,
        rounded: Callable[[Rounded], None],
        wrote: Callable[[int], None],
    ) -> None:
        """Write all files into an existing folder.

        rounded: called for matrices that changed. wrote: called with bytes written.
        """
        special = self._write_vocabulary(folder)
        with SafetensorsWriter(folder / "model.safetensors", self._tensors) as writer:
            for name, data in self._pieces(reader, rounded):
                writer.write(name, data)
                wrote(data.nbytes)
        family = family_of(self.config)
        stated = {
            **family.hf_settings(self.config),
            "use_cache": True,
            "quantization_config": quantization_settings(family.hf_linear_class),
            **special,
            "torch_dtype": "float32",
            TERNARY_HASH_KEY: reader.hash.hexdigest(),
        }
        write_json(folder / "config.json", stated)

    def _pieces(
        self, reader: TensorReader, rounded: Callable[[Rounded], None]
    ) -> Iterator[tuple[str, NDArray[Any]]]:
        """The data of all tensors, by Hugging Face names."""
        family = family_of(self.config)
        for name, shape in tensor_shapes(self.config).items():
            target = family.hf_name(name)
            if len(shape) == 1:
                yield target, reader.vector(name).astype("<f4")
                continue
            matrix = reader.matrix(name)
            if isinstance(matrix, StoredMatrix):
                for piece in dense_pieces(name, matrix, "f32", rounded):
                    yield target, piece
                continue
            yield f"{target}_scale", _weight_scale(name, matrix, self.config).astype("<f4")
            for piece in _packed(matrix):
                yield target, piece

    def _write_vocabulary(self, folder: Path) -> dict[str, Any]:
        """Write or copy the files of a vocabulary; return what config.json says of it."""
        source, options = self._checkpoint, self._options
        if source.folder is not None:
            copy_folder(source.folder, folder)
            settings = read_json(source.folder / "config.json")
            special = {f"{token}_token_id" for token in ("bos", "eos", "pad")}
            found = {key: settings.get(key) for key in special & settings.keys()}
        elif "tokenizer.ggml.tokens" in source.metadata:
            pre = options.pre_tokenizer or "auto"
            context = self.config.context_length
            found = to_folder(source.metadata, folder, source.name, pre=pre, context=context)
        else:
            found = dict.fromkeys(("bos_token_id", "eos_token_id"))
        if not (folder / "tokenizer.json").is_file():
            self.warnings.append("there is no vocabulary to write")
        if options.chat_template is not None:
            replace_chat_template(folder, options.chat_template)
        return found


def transformers_config(checkpoint: Checkpoint, options: Options) -> ModelConfig:
    """The config of a model as transformers runs it; FormatError if it has no such graph."""
    config = checkpoint.config
    if options.architecture is not None:
        raise ValueError("architecture is for GGUF files; a folder has the class of its graph")
    if options.pre_tokenizer is not None and checkpoint.folder is not None:
        raise ValueError("pre_tokenizer is for GGUF files; a folder's tokenizer.json is copied")
    reason = None
    family = FAMILIES[family_of(config).graph]
    if config.qkv_bias and not family.qkv_bias:
        reason = "biases of q, k and v"
    elif config.rope_dim != config.head_dim:
        reason = f"RoPE over {config.rope_dim} of the {config.head_dim} elements of a head"
    if reason:
        raise FormatError(
            f"{checkpoint.name}: a folder for transformers cannot have {reason}; convert to GGUF"
        )
    return dataclasses.replace(
        config,
        architecture=family.name,
        activation=options.activation or config.activation,
        rope_kind="neox",
    )


def _plan(checkpoint: Checkpoint, config: ModelConfig) -> list[tuple[str, str, tuple[int, ...]]]:
    """What model.safetensors will hold: (Hugging Face name, dtype, shape)."""
    family = family_of(config)
    found: list[tuple[str, str, tuple[int, ...]]] = []
    for name, shape in tensor_shapes(config).items():
        if not is_linear(name):
            found.append((family.hf_name(name), "F32", shape))
            continue
        if shape[0] % 4:
            raise FormatError(
                f"{checkpoint.name}: tensor {name!r} has {shape[0]} rows: packed weights of "
                "transformers need a multiple of 4"
            )
        found.append((family.hf_name(name), "U8", (shape[0] // 4, shape[1])))
        found.append((f"{family.hf_name(name)}_scale", "F32", (1,)))
    return found


def _weight_scale(name: str, matrix: TernaryMatrix, config: ModelConfig) -> Scale:
    if matrix.scale.size > 1:
        raise FormatError(
            f"tensor {name!r}: each row has a scale of its own, which transformers cannot hold"
        )
    multiplies = family_of(config).hf_linear_class == "autobitlinear"
    return matrix.scale if multiplies else _inverse(matrix.scale)


def _inverse(scale: Scale) -> Scale:
    """A number whose inverse in float32 is the scale, or as near to it as possible.

    A bfloat16 is preferred, because published checkpoints hold those.
    """
    if not scale.all():
        return np.ones(1, np.float32)  # the weights are all 0
    nearest = np.float32(1) / scale
    beside = [np.nextafter(nearest, np.float32(toward)) for toward in (0, np.inf)]
    short = ggml.dequantize("bf16", ggml.quantize("bf16", nearest[None]), 1)[0]
    candidates = np.concatenate([short, nearest, *beside])
    return candidates[[np.abs(np.float32(1) / candidates - scale).argmin()]]


def _packed(matrix: TernaryMatrix) -> Iterator[Bytes]:
    """Packed bytes of some rows at a time; each packed row holds four of the matrix."""
    quarter = matrix.rows // 4
    step = max(1, _WEIGHTS_AT_ONCE // matrix.cols // 4)
    codes = matrix.packed.reshape(4, quarter, -1)
    for start in range(0, quarter, step):
        part = codes[:, start : start + step]
        rows = np.ascontiguousarray(part).reshape(-1, part.shape[2])
        yield hf.pack(i2_s.unpack_rows(rows, matrix.cols))

"""Writing a checkpoint as a folder that transformers loads: packed weights in safetensors."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.checkpoint_base import (
    TERNARY_ARCHITECTURES,
    TERNARY_HASH_KEY,
    Checkpoint,
    StoredMatrix,
    is_linear,
)
from bitnet_lut.checkpoint_hf import hf_name
from bitnet_lut.config import ModelConfig, tensor_shapes
from bitnet_lut.convert_vocabulary import write_json
from bitnet_lut.convert_weights import Rounded, TensorReader, dense_pieces
from bitnet_lut.errors import FormatError
from bitnet_lut.formats import ggml, hf, i2_s
from bitnet_lut.formats.safetensors_writer import SafetensorsWriter
from bitnet_lut.formats.ternary import Bytes, Scale
from bitnet_lut.tensors import TernaryMatrix

__all__ = ["hf_config", "hf_settings", "hf_tensors", "write_hf"]

_DTYPES = {"f32": "F32", "f16": "F16", "bf16": "BF16"}
_TYPES = {dtype: type for type, dtype in _DTYPES.items()}
_CLASSES = {
    "bitnet-b1.58": ("BitNetForCausalLM", "bitnet"),
    "llama": ("LlamaForCausalLM", "llama"),
    "qwen2": ("Qwen2ForCausalLM", "qwen2"),
}
_WEIGHTS_AT_ONCE = 2**22


class HFTarget:
    """A folder to be written.

    config: what the folder will say. nbytes: of its tensors. all_ternary: linear layers must be
    ternary. warnings: of what is not the same in it.
    """

    all_ternary = True

    def __init__(self, checkpoint: Checkpoint, options: Options) -> None:
        """Plan it; FormatError where transformers has no place for the model."""
        self._checkpoint = checkpoint
        self._options = options
        self.config = _config(checkpoint, options)
        self.warnings: list[str] = []
        self._tensors = _plan(checkpoint, options)
        self.nbytes = sum(
            math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
            for dtype, shape in self._tensors.values()
        )

    def write(
        self,
        folder: Path,
        reader: TensorReader,
        rounded: Callable[[Rounded], None],
        wrote: Callable[[int], None],
    ) -> None:
        """Write all files into a folder that is there.

        rounded: called for matrices that did not stay the same. wrote: called with bytes written.
        """
        special = self._write_vocabulary(folder)
        table = [(name, dtype, shape) for name, (dtype, shape) in self._tensors.items()]
        narrow = all(dtype in ("BF16", "U8") or n.endswith("_scale") for n, dtype, _ in table)
        with SafetensorsWriter(folder / "model.safetensors", table) as writer:
            for name, tensor, data in self._pieces(reader, rounded):
                narrow = narrow and (tensor != "scale" or _vector_dtype(data) == "BF16")
                writer.write(name, data)
                wrote(data.nbytes)
        stated = {
            **_settings(self.config),
            **special,
            "torch_dtype": "bfloat16" if narrow else "float32",
            TERNARY_HASH_KEY: reader.hash.hexdigest(),
        }
        write_json(folder / "config.json", stated)
def _multiplies(config: ModelConfig) -> bool:
    """Whether layers multiply by weight_scale, as Microsoft's do; those of others divide by it."""
    return config.architecture in TERNARY_ARCHITECTURES


def _shortest(value: float) -> float:
    """A float32 of a GGUF file with the fewest digits that tell it, as 1e-05; others as they are."""
    narrow = np.float32(value)
    return float(str(narrow)) if float(narrow) == value else value


def _vector_dtype(vector: NDArray[np.float32]) -> str:
    """BF16 for numbers that it holds exactly."""
    return "F32" if np.any(vector.view(np.uint32) & np.uint32(0xFFFF)) else "BF16"


def _weight_scale(name: str, matrix: TernaryMatrix, config: ModelConfig) -> Scale:
    if matrix.scale.size > 1:
        raise FormatError(
            f"tensor {name!r}: its rows have scales of their own, which transformers cannot hold"
        )
    return matrix.scale if _multiplies(config) else _inverse(matrix.scale)


def _inverse(scale: Scale) -> Scale:
    """A number whose inverse is the scale or, if float32 has none, nearest to it.

    A bfloat16 is preferred, which is what published checkpoints hold.
    """
    if not scale.all():
        return np.ones(1, np.float32)  # the weights are all 0
    one = np.float32(1)
    nearest = one / scale
    around = [nearest]
    for toward in (0, np.inf):
        around.append(np.nextafter(nearest, np.float32(toward)))
    short = ggml.dequantize("bf16", ggml.quantize("bf16", nearest[None]), 1)[0]
    candidates = np.concatenate([short, *around])
    return candidates[[np.abs(one / candidates - scale).argmin()]]


def _packed(matrix: TernaryMatrix) -> Iterator[Bytes]:
    """Packed bytes of some rows at a time; each packed row holds four of the matrix."""
    quarter = matrix.rows // 4
    step = max(1, _WEIGHTS_AT_ONCE // matrix.cols // 4)
    codes = matrix.packed.reshape(4, quarter, -1)
    for start in range(0, quarter, step):
        part = codes[:, start : start + step]
        rows = np.ascontiguousarray(part).reshape(-1, part.shape[2])
        yield hf.pack(i2_s.unpack_rows(rows, matrix.cols))

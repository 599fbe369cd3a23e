"""The demonstration model as arrays that a test may change."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.checkpoint.ternary_hash import TERNARY_HASH_KEY
from bitnet_lut.demo import MODEL
from bitnet_lut.families import is_linear
from bitnet_lut.formats import ggml, i2_s
from bitnet_lut.formats.gguf import ARRAY, GGUFFile
from bitnet_lut.formats.gguf_writer import GGUFWriter

Floats = NDArray[np.float32]
Weights = NDArray[np.int8]
_F32, _F16, _I2_S = 0, 1, 36


class Draft:
    """The model, and a file of it.

    ternary: int8 (rows, cols), and scales; vectors, embedding: float32. raw: bytes of a tensor to
    be written in place of the array. keys: metadata; None takes a key out.
    """

    def __init__(self) -> None:
        self.ternary: dict[str, Weights] = {}
        self.scales: dict[str, float] = {}
        self.vectors: dict[str, Floats] = {}
        self.matrices: dict[str, Floats] = {}
        self.raw: dict[str, NDArray[np.uint8]] = {}
        self.keys: dict[str, Any] = {}
        with GGUFFile(MODEL) as file:
            for name, info in file.tensors.items():
                data = file.data(name, info.span)
                if is_linear(name):
                    size = i2_s.nbytes(*info.shape)
                    self.ternary[name], scale = i2_s.unpack(data[:size], *info.shape)
                    self.scales[name] = float(scale[0])
                elif len(info.shape) == 1:
                    self.vectors[name] = data[: 4 * info.shape[0]].view("<f4").copy()
                else:
                    rows, cols = info.shape
                    half = data[: 2 * rows * cols].reshape(rows, -1)
                    self.matrices[name] = ggml.dequantize("f16", half, cols)
            for key, value in file.metadata.items():
                if key == TERNARY_HASH_KEY:
                    continue  # or it would give every change away
                kind = file.value_types[key]
                self.keys[key] = value if kind == ARRAY else (kind, value)

    def save(self, path: Path) -> Path:
        """Write the file."""
        tensors: dict[str, tuple[tuple[int, ...], int, NDArray[np.uint8]]] = {}
        for name, matrix in self.matrices.items():
            tensors[name] = matrix.shape, _F16, ggml.quantize("f16", matrix).reshape(-1)
        for name, vector in self.vectors.items():
            tensors[name] = vector.shape, _F32, vector.astype("<f4").view(np.uint8)
        for name, ternary in self.ternary.items():
            packed = i2_s.pack(ternary, self.scales[name])
            tensors[name] = ternary.shape, _I2_S, self.raw.get(name, packed)
        table = [(name, shape, type, data.size) for name, (shape, type, data) in tensors.items()]
        keys = {key: value for key, value in self.keys.items() if value is not None}
        with GGUFWriter(path, keys, table) as writer:
            for name, (_, _, data) in tensors.items():
                writer.write(name, np.ascontiguousarray(data))
        return path

    def each(self, change: Callable[[Weights, float], tuple[Weights, float]]) -> None:
        """Change every ternary matrix and its scale."""
        for name, ternary in self.ternary.items():
            self.ternary[name], self.scales[name] = change(ternary, self.scales[name])

    def order(self, layers: Sequence[int]) -> None:
        """Put layer ``layers[n]`` in place n."""

        def ordered(group: Mapping[str, Any]) -> dict[str, Any]:
            found = {}
            for name in group:
                parts = name.split(".")
                if parts[0] == "blk":
                    parts[1] = str(layers[int(parts[1])])
                found[name] = group[".".join(parts)]
            return found

        self.ternary, self.scales = ordered(self.ternary), ordered(self.scales)
        self.vectors = ordered(self.vectors)

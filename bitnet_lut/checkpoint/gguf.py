"""GGUF files as checkpoints: which codec reads which tensor."""

import os
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.checkpoint.base import (
    TERNARY_HASH_KEY,
    Checkpoint,
    StoredMatrix,
    dense_matrix,
    ternarize,
    ternary_matrix,
)
from bitnet_lut.errors import FormatError
from bitnet_lut.families import config_from_gguf, family_of, is_linear, scale_name, tensor_shapes
from bitnet_lut.formats import ggml, i2_s, strips, tl5
from bitnet_lut.formats.codecs import TERNARY, Hints, tensor_nbytes
from bitnet_lut.formats.gguf import GGUFFile, TensorInfo
from bitnet_lut.formats.tensors import DenseMatrix, PackedMatrix, StripMatrix, TernaryMatrix
from bitnet_lut.formats.ternary import Bytes, Scale, check_scales, from_scaled
from bitnet_lut.formats.tiles import Shape, Tile

_FLOATS = ("f32", "f16", "bf16")
_KEPT = (*_FLOATS, "q8_0", "q4_0", "q6_k")  # what the engine computes with
_WIDENED = ("q4_1", "q5_0", "q5_1", "q2_k", "q3_k", "q4_k", "q5_k")  # read as f32
# Type ids that bitnet.cpp and llama.cpp use for different types; the size of the tensor decides.
_CLASHES = {36: ("i2_s",), 38: ("tl1",), 39: ("tl2", "mxfp4"), 42: ("tl2",)}


class GGUFCheckpoint(Checkpoint):
    """A GGUF file as a checkpoint."""

    kind = "gguf"
    folder = None

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes | memoryview,
        *,
        i2_s_layout: i2_s.Layout = "128x32",
        tiles: Mapping[Shape, Tile] | None = None,
        mapped: bool = True,
    ) -> None:
        """Open a file and check its metadata and tensor table; see ``open_checkpoint``."""
        self._file = GGUFFile(source, mapped=mapped)
        self._layout = i2_s_layout
        self._tiles = tiles or {}
        self.name = self._file.name
        self.metadata = self._file.metadata
        self.value_types = self._file.value_types
        self.config = config_from_gguf(self._file)
        self._check_shapes({name: info.shape for name, info in self._file.tensors.items()})
        types, nbytes = {}, {}
        for name in tensor_shapes(self.config):
            with self._naming(name):
                types[name], nbytes[name] = self._resolve(self._file.tensors[name])
        self.ternary_masters = family_of(self.config).ternary
        self.types = MappingProxyType(types)
        self.nbytes = MappingProxyType(nbytes)
        self.layouts = MappingProxyType(
            {name: tl5.KERNEL for name, kind in types.items() if kind == "tl5"}
        )
        self.strips = frozenset(name for name, kind in types.items() if kind in strips.TYPES)
        self._check_rope_factors()

    def matrix(self, name: str) -> TernaryMatrix | DenseMatrix:
        """Read a matrix by its GGUF name; it may view the mapped file."""
        with self._naming(name):
            rows, cols = self._file.tensors[name].shape
            kind = self.types[name]
            data = self._file.data(name, self.nbytes[name])
            matrix = self._read(kind, data, rows, cols, is_linear(name))
            if isinstance(matrix, TernaryMatrix):
                return TernaryMatrix(rows, cols, matrix.packed, self._scaled(name, matrix.scale))
            if scale_name(name) in self._file.tensors:
                raise FormatError(f"type {kind} with the separate scale {scale_name(name)!r}")
            return matrix

    def packed(self, name: str) -> PackedMatrix | StripMatrix:
        """View a linear layer in the layout of a kernel, or a matrix in strips."""
        with self._naming(name):
            rows, cols = self._file.tensors[name].shape
            data = self._file.data(name, self.nbytes[name])
            if name in self.strips:
                return StripMatrix(strips.TYPES[self.types[name]], rows, cols, data)
            packed, scale = tl5.read_packed(data, rows, cols)
            kernel = self.layouts[name]
            return PackedMatrix(kernel, rows, cols, packed, self._scaled(name, scale))

    def stored(self, name: str) -> StoredMatrix | None:
        """The numbers of a matrix as the file holds them; None if it holds ternary codes."""
        kind = self.types[name]
        if kind in TERNARY:
            return None
        rows, cols = self._file.tensors[name].shape
        raw: Callable[[slice], Bytes]
        if kind in strips.TYPES:
            data = self._file.data(name, self.nbytes[name])
            raw = partial(strips.unpack_rows, kind, data, rows, cols)
            kind = strips.TYPES[kind]
        else:
            raw = partial(self._rows, name)
        if scale_name(name) not in self._file.tensors:
            return StoredMatrix(kind, (rows, cols), raw)
        with self._naming(name):
            factor = check_scales(self._read_f32(scale_name(name), (1,)))
            return StoredMatrix(kind, (rows, cols), raw, float(factor[0]))

    def vector(self, name: str) -> NDArray[np.float32]:
        """Read a norm or bias by its GGUF name into a new float32 array."""
        (size,) = self._file.tensors[name].shape
        data = self._file.data(name, self.nbytes[name])
        return ggml.dequantize(self.types[name], data[None], size).reshape(size)

    def _rows(self, name: str, part: slice) -> Bytes:
        """Some rows of a matrix that is stored row by row, uint8 (n, bytes of one)."""
        rows = self._file.tensors[name].shape[0]
        start, stop, _ = part.indices(rows)
        size = self.nbytes[name] // rows
        return self._file.data(name, (stop - start) * size, start * size).reshape(-1, size)

    def release(self) -> None:
        """Hand the pages of the mapped file back to the system."""
        self._file.release()

    def check_unchanged(self) -> None:
        """FormatError if the file was written to or changed its size since it was opened."""
        self._file.check_unchanged()

    def close(self) -> None:
        """Forget the file; it stays mapped until the last array that views it is gone."""
        self._file.close()

    def _read(
        self, kind: str, data: Bytes, rows: int, cols: int, linear: bool
    ) -> TernaryMatrix | DenseMatrix:
        """Bring a matrix of any type into a form that the engine computes with."""
        if kind in TERNARY:
            hints = Hints(self._layout, self._tiles.get((rows, cols)))
            return TernaryMatrix(rows, cols, *TERNARY[kind].read(data, rows, cols, hints))
        if kind in strips.TYPES:
            blocks = strips.unpack(kind, data, rows, cols)
            return DenseMatrix(strips.TYPES[kind], rows, cols, blocks)
        if linear and kind in _FLOATS:
            floats = StoredMatrix(kind, (rows, cols), data.reshape(rows, -1).__getitem__)
            if self.ternary_masters:
                return ternarize(floats)
            if TERNARY_HASH_KEY in self.metadata and (ternary := from_scaled(floats)):
                return ternary_matrix(ternary)
        if kind in _KEPT:
            return dense_matrix(kind, data, rows, cols)
        widened = ggml.dequantize(kind, data.reshape(rows, -1), cols)
        return dense_matrix("f32", widened.reshape(-1).view(np.uint8), rows, cols)

    def _resolve(self, info: TensorInfo) -> tuple[str, int]:
        """Type and bytes of a tensor of the graph; FormatError if they do not suit it."""
        kind = self._type(info)
        if kind in TERNARY:
            allowed = is_linear(info.name)
        elif kind in strips.TYPES:
            allowed = len(info.shape) == 2 and not is_linear(info.name)
        else:
            allowed = kind in (_FLOATS if len(info.shape) == 1 else (*_KEPT, *_WIDENED))
        if not allowed:
            raise FormatError(f"type {info.type_id} ({kind}) is not supported for this tensor")
        nbytes = tensor_nbytes(kind, info.shape)
        if nbytes > info.span:
            raise FormatError(
                f"type {kind} of shape {info.shape} takes {nbytes} bytes, "
                f"but at offset {info.offset} there are {info.span}: truncated or overlapping"
            )
        return kind, nbytes

    def _type(self, info: TensorInfo) -> str:
        """Name of a tensor's type; if its id is ambiguous, the type whose size fits exactly."""
        if info.type_id not in _CLASHES:
            if info.type_id not in ggml.GGML_TYPES:
                raise FormatError(f"type {info.type_id} is unknown")
            return ggml.GGML_TYPES[info.type_id].name
        if len(info.shape) != 2:
            raise FormatError(f"type {info.type_id} holds matrices, not shape {info.shape}")
        sizes: dict[str, int] = {}
        for kind in _CLASHES[info.type_id]:
            if kind in TERNARY or info.shape[1] % 32 == 0:
                sizes[kind] = tensor_nbytes(kind, info.shape)
        fitting = [k for k, size in sizes.items() if 0 <= info.span - size < self._file.alignment]
        if len(fitting) == 1:
            return fitting[0]
        needs = " or ".join(f"{size} bytes as {kind}" for kind, size in sizes.items())
        raise FormatError(
            f"type {info.type_id} of shape {info.shape} takes {needs}, but at offset {info.offset} "
            f"there are {info.span}: damaged, or another program's type"
        )

    def _check_rope_factors(self) -> None:
        name = "rope_freqs.weight"
        if name not in self._file.tensors:
            return
        with self._naming(name):
            factors = self._read_f32(name, (self.config.rope_dim // 2,))
            if np.any(factors != 1):
                raise FormatError(f"scaled RoPE (factors up to {factors.max()}) is not supported")

    def _scaled(self, name: str, scale: Scale) -> Scale:
        """The scale of a ternary matrix, multiplied by the separate one if the file has one."""
        if scale_name(name) not in self._file.tensors:
            return scale
        return check_scales(scale * self._read_f32(scale_name(name), (1,)))

    def _read_f32(self, name: str, shape: tuple[int]) -> NDArray[np.float32]:
        """Read a float32 vector that is not part of every graph."""
        info = self._file.tensors[name]
        if info.shape != shape or info.type_id != 0:
            raise FormatError(
                f"{name!r} has shape {info.shape} and type {info.type_id}, not {shape} and 0 (f32)"
            )
        return self._file.data(name, 4 * shape[0]).view("<f4").astype(np.float32)

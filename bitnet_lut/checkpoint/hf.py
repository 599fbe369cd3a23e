"""Hugging Face folders as checkpoints: config.json and safetensors files."""

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.checkpoint.base import (
    Checkpoint,
    StoredMatrix,
    dense_matrix,
    ternarize,
    ternary_matrix,
)
from bitnet_lut.errors import FormatError
from bitnet_lut.families import config_from_hf, family_of, is_linear, scale_name, tensor_shapes
from bitnet_lut.formats import hf
from bitnet_lut.formats.safetensors import (
    SafetensorsFile,
    SafetensorsInfo,
    open_folder,
    read_json,
)
from bitnet_lut.formats.tensors import DenseMatrix, TernaryMatrix
from bitnet_lut.formats.ternary import Bytes, Scale, check_scales

_FLOATS = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


class HFCheckpoint(Checkpoint):
    """The folder of a Hugging Face checkpoint; its q and k rows are not permuted."""

    kind = "hf"
    metadata = MappingProxyType({})

    def __init__(
        self,
        folder: str | os.PathLike[str],
        file: SafetensorsFile | None = None,
        *,
        mapped: bool = True,
    ) -> None:
        """Open the files of a folder and check config.json and the tensors' shapes and dtypes.

        file: holds all tensors instead of the folder's safetensors files.
        """
        self.folder: Path = Path(folder)
        self.name = file.name if file else str(self.folder)
        path = self.folder / "config.json"
        if not path.exists():
            raise FormatError(f"{self.name}: neither a GGUF file nor a folder with config.json")
        settings = read_json(path)
        self.config = config_from_hf(settings, str(path))
        self._quantization = _quantization(settings, str(path))
        family = family_of(self.config)
        self.ternary_masters = self._quantization is not None or family.ternary
        files = dict.fromkeys(file.tensors, file) if file else open_folder(folder, mapped=mapped)
        self._places = {family.gguf_name(name): (file, name) for name, file in files.items()}
        self._check_shapes({name: self._shape(name) for name in self._places})
        for name, shape in tensor_shapes(self.config).items():
            with self._naming(name):
                self._check_dtype(name, len(shape))
        found = {name: self._info(name) for name in tensor_shapes(self.config)}
        self.nbytes = MappingProxyType({name: info.nbytes for name, info in found.items()})
        self.types = MappingProxyType({name: info.dtype.lower() for name, info in found.items()})

    def matrix(self, name: str) -> TernaryMatrix | DenseMatrix:
        """Read a matrix by its GGUF name; it may view a mapped file."""
        file, hf_name = self._place(name)
        rows, cols = self._shape(name)
        dtype = self._info(name).dtype
        with self._naming(name):
            if dtype == "U8":
                return ternary_matrix((hf.unpack(file.array(hf_name), rows), self._scale(name)))
            if is_linear(name) and self.ternary_masters:
                return ternarize(self._floats(name))
            return dense_matrix(_FLOATS[dtype], file.raw(hf_name), rows, cols)

    def stored(self, name: str) -> StoredMatrix | None:
        """The numbers of a matrix as the file holds them; None if it holds ternary codes."""
        return None if self._info(name).dtype == "U8" else self._floats(name)

    def vector(self, name: str) -> NDArray[np.float32]:
        """Read a norm or bias by its GGUF name into a new float32 array."""
        file, hf_name = self._place(name)
        return file.array(hf_name).astype(np.float32)

    def release(self) -> None:
        """Hand the pages of the mapped files back to the system."""
        for file in self._files():
            file.release()

    def check_unchanged(self) -> None:
        """FormatError if a file was written to or changed its size since it was opened."""
        for file in self._files():
            file.check_unchanged()

    def close(self) -> None:
        """Forget the files; they stay mapped until the last array that views them is gone."""
        self._places.clear()

    def _files(self) -> Collection[SafetensorsFile]:
        return {id(file): file for file, _ in self._places.values()}.values()

    def _place(self, name: str) -> tuple[SafetensorsFile, str]:
        """File of a tensor, and its name there."""
        if not self._places:
            raise ValueError(f"{self.name} is closed")
        return self._places[name]

    def _floats(self, name: str) -> StoredMatrix:
        file, hf_name = self._place(name)
        rows, cols = self._shape(name)
        size = self._info(name).nbytes // rows

        def raw(part: slice) -> Bytes:
            start, stop, _ = part.indices(rows)
            return file.raw(hf_name, start * size, (stop - start) * size).reshape(-1, size)

        return StoredMatrix(_FLOATS[self._info(name).dtype], (rows, cols), raw)

    def _info(self, name: str) -> SafetensorsInfo:
        file, hf_name = self._place(name)
        return file.tensors[hf_name]

    def _shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor when it is unpacked."""
        info = self._info(name)
        if info.dtype == "U8" and is_linear(name) and len(info.shape) == 2:
            return 4 * info.shape[0], info.shape[1]
        return info.shape

    def _check_dtype(self, name: str, n_dims: int) -> None:
        dtype = self._info(name).dtype
        packed = dtype == "U8" and n_dims == 2 and is_linear(name)
        if not packed and dtype not in _FLOATS:
            raise FormatError(f"dtype {dtype} is not supported for this tensor")
        if packed and self._quantization is None:
            raise FormatError("packed weights, but config.json has no quantization_config")
        if packed != (scale_name(name) in self._places):
            fault = "missing for packed" if packed else f"not expected for {dtype}"
            raise FormatError(f"weight_scale is {fault} weights")

    def _scale(self, name: str) -> Scale:
        """Scale of packed weights: weight_scale, or its inverse for "bitlinear" layers."""
        file, hf_name = self._place(scale_name(name))
        stored = file.array(hf_name)
        if stored.size != 1:
            raise FormatError(f"weight_scale has shape {stored.shape}, not (1,)")
        scale = check_scales(stored.reshape(1))
        if self._quantization == "bitlinear":
            with np.errstate(divide="ignore"):
                scale = np.float32(1) / scale
        return check_scales(scale)


def quantization_settings(linear_class: str) -> dict[str, str]:
    """The quantization_config of packed weights; linear_class is that of the `Family`."""
    return {
        "quant_method": "bitnet",
        "linear_class": linear_class,
        "quantization_mode": "offline",
    }


def _quantization(settings: Mapping[str, Any], source: str) -> str | None:
    """Class of the ternary layers, "bitlinear" or "autobitlinear"; None if it is not stated."""
    stated = settings.get("quantization_config")
    if stated is None:
        return None
    where = f"{source}: quantization_config"
    if not isinstance(stated, dict) or stated.get("quant_method") != "bitnet":
        raise FormatError(f"{where}: only quant_method bitnet is supported")
    if stated.get("modules_to_not_convert") not in (None, [], ["lm_head"]):
        raise FormatError(f"{where}: modules_to_not_convert is supported for lm_head only")
    linear_class = stated.get("linear_class", "bitlinear")
    if linear_class not in ("bitlinear", "autobitlinear"):
        raise FormatError(f"{where}: linear_class {str(linear_class)[:80]!r} is not supported")
    return str(linear_class)

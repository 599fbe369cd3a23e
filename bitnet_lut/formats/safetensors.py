"""Reading safetensors files, and folders of them as Hugging Face checkpoints are stored.

A file is a little-endian uint64 header size, a JSON header and the tensor data::

    {"name": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [0, 12]}, ...}

Offsets are relative to the end of the header, and the tensors fill the data without gaps.
"""

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.ggml import bf16_to_f32
from bitnet_lut.formats.gguf import release_pages
from bitnet_lut.formats.input import InputFile, read_bytes

# NumPy type of each dtype; dtypes that NumPy lacks are read as unsigned integers of the same size.
DTYPES = {
    "BOOL": "?",
    "U8": "u1",
    "I8": "i1",
    "F8_E4M3": "u1",
    "F8_E5M2": "u1",
    "U16": "<u2",
    "I16": "<i2",
    "F16": "<f2",
    "BF16": "<u2",
    "U32": "<u4",
    "I32": "<i4",
    "F32": "<f4",
    "U64": "<u8",
    "I64": "<i8",
    "F64": "<f8",
}
_MAX_HEADER = 100_000_000  # as in the safetensors library
_MAX_DIMS = 8
_SHARD_NAME = re.compile(r"[\w.-]+\.safetensors")


@dataclass(frozen=True)
class SafetensorsInfo:
    """One tensor: its dtype ("BF16", "F32", "U8" ...), shape, and place in the file, in bytes."""

    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


class SafetensorsFile:
    """The tensor table of a safetensors file, and its tensors.

    name: the path; opens every error message.
    tensors: in the order of the data.
    """

    name: str
    tensors: Mapping[str, SafetensorsInfo]

    def __init__(self, path: str | os.PathLike[str], *, mapped: bool = True) -> None:
        """Open a file and check its header; FormatError if it is damaged, OSError if not there.

        mapped: map the tensors; else they are read, which is an error rather than the end of the
            process where somebody shortens the file meanwhile.
        """
        self._file = InputFile(path)
        self.name, self.size = self._file.name, self._file.size
        if self.size < 8:
            raise FormatError(f"{self.name}: {self.size} bytes are not a safetensors file")
        header_bytes = int(self._file.read(0, 8).view("<u8")[0])
        if header_bytes > min(self.size - 8, _MAX_HEADER):
            raise FormatError(
                f"{self.name}: a header of {header_bytes} bytes does not fit in a file of "
                f"{self.size}: damaged, or not a safetensors file"
            )
        start = 8 + header_bytes
        text = self._file.read(8, header_bytes).tobytes()
        header = parse_json(text, f"{self.name}: the header")
        header.pop("__metadata__", None)
        table = [(name, self._info(name, entry, start)) for name, entry in header.items()]
        self.tensors = dict(sorted(table, key=lambda item: (item[1].offset, item[1].nbytes)))
        self._check_gaps(start)
        self._map = self._file.map() if mapped else None

    def raw(self, name: str, start: int = 0, nbytes: int | None = None) -> NDArray[np.uint8]:
        """The bytes of a tensor, or *nbytes* from its byte *start* on: read-only uint8, 1-D.

        They are a view of a file that is mapped, and else a copy.
        """
        info = self.tensors[name]
        nbytes = info.nbytes - start if nbytes is None else nbytes
        if self._map is None:
            return self._file.read(info.offset + start, nbytes)
        return np.frombuffer(self._map, np.uint8, nbytes, info.offset + start)

    def array(self, name: str) -> NDArray[Any]:
        """Return a tensor in its shape: BF16 widened to float32, others a read-only view."""
        info = self.tensors[name]
        values = self.raw(name).view(DTYPES[info.dtype]).reshape(info.shape)
        return bf16_to_f32(values) if info.dtype == "BF16" else values

    def release(self) -> None:
        """Hand the pages that were read back to the system; views read them from the file again."""
        if self._map is not None:
            release_pages(self._map)

    def check_unchanged(self) -> None:
        """FormatError if the file was written to or changed its size since it was opened."""
        self._file.check_unchanged()

    def _info(self, name: str, entry: Any, start: int) -> SafetensorsInfo:
        """Check one entry of the header, except its place among the others."""
        fields: dict[str, Any] = entry if isinstance(entry, dict) else {}
        dtype = fields.get("dtype")
        shape = fields.get("shape")
        offsets = fields.get("data_offsets")
        what = f"{self.name}: tensor {name[:80]!r}"
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise FormatError(f"{what} has an unsupported dtype {str(dtype)[:80]!r}")
        if not _are_counts(shape) or len(shape) > _MAX_DIMS:
            raise FormatError(f"{what} has a bad shape {str(shape)[:80]}")
        if 0 in shape and math.prod(filter(None, shape)) >= 2**59:  # too many for NumPy
            raise FormatError(f"{what} is empty and has the bad shape {shape}")
        if not _are_counts(offsets) or len(offsets) != 2:
            raise FormatError(f"{what} has bad data_offsets {str(offsets)[:80]}")
        begin, end = offsets
        nbytes = math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
        if end - begin != nbytes:
            raise FormatError(
                f"{what} of dtype {dtype} and shape {shape} takes {nbytes} bytes, "
                f"but its data_offsets are {offsets}"
            )
        return SafetensorsInfo(dtype, tuple(shape), start + begin, nbytes)

    def _check_gaps(self, start: int) -> None:
        for name, info in self.tensors.items():
            if info.offset != start:
                raise FormatError(
                    f"{self.name}: tensor {name[:80]!r} starts at byte {info.offset}, "
                    f"but the one before it ends at {start}"
                )
            start += info.nbytes
        if start != self.size:
            raise FormatError(
                f"{self.name}: tensors end at byte {start} of a file of {self.size}: "
                "truncated or damaged"
            )


def open_folder(
    folder: str | os.PathLike[str], *, mapped: bool = True
) -> dict[str, SafetensorsFile]:
    """Open the file of every tensor of a checkpoint: model.safetensors, or the shards of its index.

    Raises FormatError if both are missing, or the index names a file outside the folder or a tensor
    that is not in its file.
    """
    path = Path(folder)
    if (path / "model.safetensors").exists():
        single = SafetensorsFile(path / "model.safetensors", mapped=mapped)
        return dict.fromkeys(single.tensors, single)
    index = path / "model.safetensors.index.json"
    if not index.exists():
        raise FormatError(f"{path}: model.safetensors and {index.name} are both missing")
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict):
        raise FormatError(f"{index}: weight_map is missing")
    shards: dict[str, SafetensorsFile] = {}
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or not _SHARD_NAME.fullmatch(shard):
            raise FormatError(f"{index}: {str(shard)[:80]!r} is not the name of a safetensors file")
        if shard not in shards:
            if not (path / shard).exists():
                raise FormatError(f"{path}: {shard}, which {index.name} names, is missing")
            shards[shard] = SafetensorsFile(path / shard, mapped=mapped)
        if name not in shards[shard].tensors:
            raise FormatError(f"{path / shard}: tensor {name[:80]!r} of {index.name} is missing")
    return {name: shards[shard] for name, shard in weight_map.items()}


def read_json(path: Path) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises FormatError if it does not or is not a regular file, OSError if it cannot be read.
    """
    return parse_json(read_bytes(path), str(path))


def parse_json(text: bytes | str, what: str) -> dict[str, Any]:
    """Parse a JSON object in UTF-8.

    Raises FormatError, opened by *what*, for anything else, for a repeated key, and for an escape
    of half a character, as \\ud800.
    """
    try:
        text = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        value = json.loads(text, object_pairs_hook=_unique)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not valid JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{what} is not a JSON object")
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key, value in pairs:
        if key in result:
            raise ValueError(f"{key[:80]!r} appears twice")
        result[key] = value
    return result


def _are_counts(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(v) is int and 0 <= v < 2**63 for v in values)

"""Writing safetensors files piece by piece, so that a model never has to fit in memory."""

import json
import math
import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from bitnet_lut.formats.safetensors import DTYPES

__all__ = ["SafetensorsWriter"]

_ALIGNMENT = 8  # of the data; spaces after the header fill the gap


class SafetensorsWriter:
    """Writes the header at once and then the tensors, in any order and each in pieces.

    The file is written under its final name: a caller that may fail writes into a temporary folder.
    """

    def __init__(
        self, path: str | os.PathLike[str], tensors: Sequence[tuple[str, str, Sequence[int]]]
    ) -> None:
        """Write the header; tensors: (name, dtype as "BF16", shape) each."""
        ordered = sorted(tensors, key=lambda tensor: -np.dtype(DTYPES[tensor[1]]).itemsize)
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        self._places: dict[str, tuple[int, int]] = {}
        end = 0
        for name, dtype, shape in ordered:
            start, end = end, end + math.prod(shape) * np.dtype(DTYPES[dtype]).itemsize
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
            self._places[name] = start, end
        if len(self._places) != len(tensors):
            raise ValueError(f"a tensor name appears twice among {[name for name, *_ in tensors]}")
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % _ALIGNMENT)
        self.nbytes = 8 + len(text) + end
        self._data_offset = 8 + len(text)
        self._path = Path(path)
        self._file = self._path.open("wb")
        self._file.write(struct.pack("<Q", len(text)) + text)

    def write(self, name: str, data: Any) -> None:
        """Append *data*, a C-contiguous buffer, to tensor *name*."""
        start, end = self._places[name]
        nbytes = memoryview(data).nbytes
        if nbytes > end - start:
            raise ValueError(f"tensor {name!r}: {nbytes} bytes given, {end - start} are left")
        self._file.seek(self._data_offset + start)
        self._file.write(data)
        self._places[name] = start + nbytes, end

    def close(self) -> None:
        """Complete the file; ValueError if a tensor was not written to its end."""
        self._file.close()
        for name, (start, end) in self._places.items():
            if start < end:
                raise ValueError(f"{self._path}: tensor {name!r} lacks {end - start} bytes")

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file, complete or not."""
        if error is None:
            self.close()
        else:
            with suppress(OSError):
                self._file.close()

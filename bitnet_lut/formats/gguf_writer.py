"""Writing GGUF files (version 3) tensor by tensor, so that a model never has to fit in memory."""

import math
import os
import struct
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.formats import gguf
from bitnet_lut.formats.output import Output

__all__ = ["GGUFWriter"]


class GGUFWriter:
    """Writes the header at once and then the tensors in the order they were declared.

    The file takes its name when it is closed complete, and an exception inside the ``with`` block
    removes it: see `Output`.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        metadata: Mapping[str, Any],
        tensors: Sequence[tuple[str, Sequence[int], int, int]],
        alignment: int = gguf.ALIGNMENT,
        *,
        in_place: bool = False,
    ) -> None:
        """Write the header.

        metadata: bool, int (uint32, or what it needs), float (float32), str, list of str, int
            (int32) or float (float32), NumPy scalars and 1-D arrays by their dtype, or a pair
            (value type, value).
        tensors: (name, shape in NumPy order, ggml type id, bytes of data) each.
        alignment: a power of two that every tensor is aligned to; stored unless it is the default.
        in_place: write at *path* itself, which belongs to another `Output`.
        """
        if alignment.bit_count() != 1:
            raise ValueError(f"alignment {alignment} is not a power of two")
        names = [name for name, *_ in tensors]
        if len(set(names)) != len(names):
            raise ValueError(f"a tensor name appears twice among {sorted(names)}")
        stored = {key: value for key, value in metadata.items() if key != "general.alignment"}
        if alignment != gguf.ALIGNMENT:
            stored["general.alignment"] = (gguf.U32, alignment)
        header, self._texts = _header(stored, tensors, alignment)
        self._alignment = alignment
        self._left = {name: nbytes for name, _, _, nbytes in tensors}
        self._path = Path(path)
        total = len(header) + sum(self._left.values())
        self._output = None if in_place else Output(path, nbytes=total)
        place = self._path if self._output is None else self._output.temporary
        self._file = place.open("wb")
        try:
            self._file.write(header)
        except BaseException as error:
            self._fail(error)
            raise

    def write(self, name: str, data: Any) -> None:
        """Append *data*, a C-contiguous buffer, to tensor *name*; ValueError if out of order."""
        nbytes = memoryview(data).nbytes
        expected = next(iter(self._left), None)
        if name != expected:
            raise ValueError(f"tensor {name!r} written where {expected!r} is due")
        if nbytes > self._left[name]:
            raise ValueError(f"tensor {name!r}: {nbytes} bytes given, {self._left[name]} are left")
        self._file.write(data)
        self._left[name] -= nbytes
        if self._left[name] == 0:
            del self._left[name]
            self._file.write(bytes(-self._file.tell() % self._alignment))

    def amend(self, key: str, text: str) -> None:
        """Replace a string of the metadata by one of as many bytes, which is known only later."""
        start, old = self._texts[key]
        if len(text.encode()) != len(old.encode()):
            raise ValueError(f"{key}: {text!r} does not take the bytes of {old!r}")
        end = self._file.tell()
        self._file.seek(start)
        self._file.write(_string(text))
        self._file.seek(end)

    def close(self) -> None:
        """Give the complete file its name; ValueError (and no file) if tensors are unwritten."""
        if self._file.closed:
            return
        try:
            if self._left:
                name, nbytes = next(iter(self._left.items()))
                raise ValueError(f"{self._path}: tensor {name!r} lacks {nbytes} bytes")
            self._file.close()  # writes what is buffered, for which the disk may be too full
        except BaseException as error:
            self._fail(error)
            raise
        if self._output is not None:
            self._output.commit()

    def __enter__(self) -> Self:
        """The writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file, or remove it if there was an exception."""
        if error is None:
            self.close()
        else:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Remove the file; raises an error of the disk again, in terms of its path."""
        with suppress(OSError):
            self._file.close()
        if self._output is not None:
            self._output.__exit__(type(error), error, None)


def _header(
    metadata: Mapping[str, Any], tensors: Sequence[tuple[str, Sequence[int], int, int]], align: int
) -> tuple[bytes, dict[str, tuple[int, str]]]:
    """All bytes before the data section, padding included; offset and text of each string value."""
    parts = [struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(metadata))]
    texts: dict[str, tuple[int, str]] = {}
    position = len(parts[0])
    for key, value in metadata.items():
        value_type, encoded = _encode(key, value)
        entry = [_string(key), struct.pack("<I", value_type), encoded]
        if value_type == gguf.STRING:
            text = value[1] if isinstance(value, tuple) else value
            texts[key] = position + len(entry[0]) + len(entry[1]), text
        position += sum(map(len, entry))
        parts += entry
    offset = 0
    for name, shape, type_id, nbytes in tensors:
        if not shape or math.prod(shape) < 1 or nbytes < 1:
            raise ValueError(f"tensor {name!r} is empty: shape {tuple(shape)}, {nbytes} bytes")
        dims = struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        parts += [_string(name), dims, struct.pack("<IQ", type_id, offset)]
        offset += nbytes + -nbytes % align
    header = b"".join(parts)
    return header + bytes(-len(header) % align if tensors else 0), texts


def _encode(key: str, value: Any) -> tuple[int, bytes]:
    """The value type and the bytes of a value of the metadata."""
    value_type, value = value if isinstance(value, tuple) else (_value_type(key, value), value)
    if value_type == gguf.STRING:
        return value_type, _string(value)
    if value_type == gguf.ARRAY:
        return value_type, _encode_array(key, value)
    try:
        return value_type, struct.pack("<" + gguf.NUMBER_CODES[value_type], value)
    except struct.error as error:
        raise ValueError(f"{key}: {value!r} is not of value type {value_type}: {error}") from None


def _encode_array(key: str, values: Any) -> bytes:
    if isinstance(values, list) and all(isinstance(text, str) for text in values):
        element_type, elements = gguf.STRING, b"".join(map(_string, values))
    else:
        numbers = values if isinstance(values, np.ndarray) else _numbers(values)
        if numbers.ndim != 1:
            raise TypeError(f"{key}: GGUF has no arrays of {numbers.ndim} dimensions")
        element_type = _number_type(key, numbers.dtype)
        elements = numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()
    return struct.pack("<IQ", element_type, len(values)) + elements


def _value_type(key: str, value: Any) -> int:
    match value:
        case bool():
            return gguf.BOOL
        case np.generic():
            return _number_type(key, value.dtype)
        case int():
            bits = value.bit_length()
            if value < 0:
                return gguf.I32 if bits < 32 else gguf.I64
            return gguf.U32 if bits <= 32 else gguf.U64
        case float():
            return gguf.F32
        case str():
            return gguf.STRING
        case list() | np.ndarray():
            return gguf.ARRAY
    raise TypeError(f"{key}: GGUF has no value type for {type(value).__name__}")


def _numbers(values: list[Any]) -> NDArray[Any]:
    """Python's numbers in the types that tokenizers use: int32 (int64 where needed), float32."""
    numbers = np.array(values)
    if numbers.dtype.kind == "f":
        return numbers.astype(np.float32)
    narrow = np.iinfo(np.int32)
    if numbers.dtype.kind == "i" and narrow.min <= numbers.min() and numbers.max() <= narrow.max:
        return numbers.astype(np.int32)
    return numbers


def _number_type(key: str, dtype: np.dtype[Any]) -> int:
    for value_type, code in gguf.NUMBER_CODES.items():
        if dtype.newbyteorder("<") == np.dtype("<" + code):
            return value_type
    raise TypeError(f"{key}: GGUF has no value type for {dtype}")


def _string(text: str) -> bytes:
    encoded = text.encode()
    return struct.pack("<Q", len(encoded)) + encoded

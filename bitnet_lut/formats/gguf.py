"""Reading GGUF files, versions 2 and 3, little-endian (the container of llama.cpp and bitnet.cpp).

    "GGUF" | u32 version | u64 tensors | u64 keys | keys | tensor table | padding | tensor data
    key    : string name | u32 value type | value
    string : u64 bytes | UTF-8 text
    array  : u32 element type | u64 count | elements
    tensor : string name | u32 n_dims | u64 dims (fastest first) | u32 type | u64 offset in the data

The container does not state a tensor's length: only the type does, so a reader of tensors must
compare what its type needs with the span up to the next tensor, which is all that is known here.
"""

import math
import mmap
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.input import InputFile

__all__ = [
    "ALIGNMENT",
    "ARRAY",
    "BOOL",
    "F32",
    "F64",
    "I8",
    "I16",
    "I32",
    "I64",
    "NUMBER_CODES",
    "STRING",
    "U8",
    "U16",
    "U32",
    "U64",
    "GGUFFile",
    "MetadataValue",
    "TensorInfo",
    "release_pages",
]

# Value types of metadata, and the struct (and NumPy) code of those that are numbers.
U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
NUMBER_CODES = {
    U8: "B",
    I8: "b",
    U16: "H",
    I16: "h",
    U32: "I",
    I32: "i",
    F32: "f",
    BOOL: "?",
    U64: "Q",
    I64: "q",
    F64: "d",
}
ALIGNMENT = 32

# The fewest bytes an entry can take: a count is checked against them before it is believed.
_LEAST_KEY = 8 + 4 + 1
_LEAST_STRING = 8
_LEAST_TENSOR = 8 + 4 + 8 + 4 + 8
_MAX_DIMS = 4
_MAX_QUOTED = 80

MetadataValue: TypeAlias = int | float | bool | str | list[str] | NDArray[Any]
_FIRST_READ = 2**16  # bytes of a header that are read at once, and then twice as many


@dataclass(frozen=True)
class TensorInfo:
    """One row of the tensor table.

    shape: NumPy order, so a weight is (rows = output features, cols = input features).
    type_id: the ggml type, not checked here.
    offset: absolute, in bytes; a multiple of the file's alignment relative to the data section.
    span: bytes to the next tensor or to the end of the file; never past the end.
    """

    name: str
    shape: tuple[int, ...]
    type_id: int
    offset: int
    span: int


class GGUFFile:
    """The metadata and tensor table of a GGUF file, and read-only views of its tensors.

    name: the path, or "<bytes>"; opens every error message.
    metadata: numbers, booleans and strings as Python's; arrays of strings as lists; arrays of
        numbers as read-only NumPy arrays of their own type.
    value_types: the value type (``U32``, ``F32``, ``ARRAY`` ...) of every key.
    tensors: in the order of the table.
    """

    name: str
    version: int
    size: int
    alignment: int
    data_offset: int
    metadata: Mapping[str, MetadataValue]
    value_types: Mapping[str, int]
    tensors: Mapping[str, TensorInfo]

    def __init__(
        self,
        source: str | os.PathLike[str] | bytes | bytearray | memoryview,
        *,
        mapped: bool = True,
    ) -> None:
        """Open the file at a path, or take the bytes of one, and read all but its tensor data.

        mapped: map the tensors of a file; else `data` reads them, which is an error rather than the
            end of the process where somebody shortens the file meanwhile.
        Everything is checked against the size of the file: names and keys are unique, offsets
        aligned and inside the file, and no two tensors start at the same byte. Raises FormatError,
        and OSError if the file cannot be opened.
        """
        self._file: InputFile | None = None
        self._data: memoryview | mmap.mmap | InputFile | None
        if isinstance(source, (bytes, bytearray, memoryview)):
            self.name = "<bytes>"
            self._data = memoryview(source).toreadonly().cast("B")
            self.size = len(self._data)
            cursor = _Cursor(self._data, self.name)
        else:
            self._data = self._file = InputFile(source)
            self.name, self.size = self._file.name, self._file.size
            cursor = _Cursor(self._file, self.name)
        self.version, n_tensors, n_keys = _read_header(cursor)
        self.metadata, self.value_types = _read_metadata(cursor, n_keys)
        self.alignment = self._check_alignment()
        self.tensors = self._locate(_read_table(cursor, n_tensors), cursor.position)
        if mapped and self._file is not None:
            self._data = self._file.map()

    def data(self, name: str, nbytes: int, start: int = 0) -> NDArray[np.uint8]:
        """*nbytes* of tensor *name* from byte *start* of it on: read-only uint8.

        It is a view that keeps the file mapped or, of a file that is not mapped, a copy. Raises
        FormatError if the file has no such tensor or the tensor's span is shorter.
        """
        if self._data is None:
            raise ValueError(f"{self.name} is closed")
        if name not in self.tensors:
            raise FormatError(f"{self.name}: tensor {name!r} is missing")
        info = self.tensors[name]
        if start < 0 or not 0 <= nbytes <= info.span - start:
            raise FormatError(
                f"{self.name}: tensor {name!r} of shape {info.shape} and type {info.type_id} needs "
                f"{start + nbytes} bytes, but at offset {info.offset} there are {info.span}"
            )
        if isinstance(self._data, InputFile):
            return self._data.read(info.offset + start, nbytes)
        return np.frombuffer(self._data, np.uint8, nbytes, info.offset + start)

    def check_unchanged(self) -> None:
        """FormatError if the file was written to or changed its size since it was opened."""
        if self._file is not None:
            self._file.check_unchanged()

    def release(self) -> None:
        """Hand the pages that were read back to the system; views read them from the file again."""
        if isinstance(self._data, mmap.mmap):
            release_pages(self._data)

    def close(self) -> None:
        """Forget the file; it stays mapped until the last array that views it is gone."""
        if self._file is not None:
            self._file.close()
        self._file = self._data = None

    def __enter__(self) -> Self:
        """The file itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def _check_alignment(self) -> int:
        alignment = self.metadata.get("general.alignment", ALIGNMENT)
        if self.value_types.get("general.alignment", U32) != U32 or not isinstance(alignment, int):
            raise FormatError(f"{self.name}: general.alignment is {alignment!r}, not a uint32")
        if alignment.bit_count() != 1:
            raise FormatError(f"{self.name}: general.alignment {alignment} is not a power of two")
        return alignment

    def _locate(self, table: list[TensorInfo], end_of_table: int) -> dict[str, TensorInfo]:
        """Make the offsets of *table* absolute and measure the spans between them."""
        self.data_offset = -(-end_of_table // self.alignment) * self.alignment
        starts = [self.data_offset + info.offset for info in table]
        order = sorted(range(len(table)), key=starts.__getitem__)
        spans = [0] * len(table)
        for rank, index in enumerate(order):
            name, start = table[index].name, starts[index]
            if start >= self.size:
                raise FormatError(
                    f"{self.name}: tensor {_quote(name)} has offset {table[index].offset}, byte "
                    f"{start} of the file, past its end at {self.size}: truncated or damaged"
                )
            if (start - self.data_offset) % self.alignment:
                raise FormatError(
                    f"{self.name}: tensor {_quote(name)} has offset {table[index].offset}, which "
                    f"is not a multiple of the alignment {self.alignment}"
                )
            following = order[rank + 1] if rank + 1 < len(order) else None
            spans[index] = (self.size if following is None else starts[following]) - start
            if spans[index] == 0 and following is not None:
                raise FormatError(
                    f"{self.name}: tensors {_quote(name)} and {_quote(table[following].name)} "
                    f"overlap: both have offset {table[index].offset}"
                )
        return {
            info.name: TensorInfo(info.name, info.shape, info.type_id, start, span)
            for info, start, span in zip(table, starts, spans, strict=True)
        }


class _Cursor:
    """Reads values in order, each checked against the end of the file."""

    def __init__(self, source: memoryview | InputFile, name: str) -> None:
        self._file = source if isinstance(source, InputFile) else None
        self.buffer = memoryview(b"") if isinstance(source, InputFile) else source
        self.size = source.size if isinstance(source, InputFile) else len(source)
        self.position = 0
        self.name = name

    def _load(self, end: int) -> None:
        """Have the file up to byte *end*, or more, in the buffer."""
        if self._file is not None and end > len(self.buffer):
            end = max(end, 2 * len(self.buffer), _FIRST_READ)
            self.buffer = self._file.read(0, min(end, self.size)).data

    def take(self, nbytes: int, what: str) -> int:
        """Step over *nbytes*; their offset."""
        start = self.position
        if nbytes > self.size - start:
            raise FormatError(
                f"{self.name}: the file ends inside {what}: {nbytes} bytes at offset {start} do "
                f"not fit in its {self.size}: truncated or damaged"
            )
        self.position = start + nbytes
        self._load(self.position)
        return start

    def number(self, code: str, what: str) -> Any:
        layout = "<" + code
        start = self.take(struct.calcsize(layout), what)
        return struct.unpack_from(layout, self.buffer, start)[0]

    def count(self, least_bytes: int, what: str) -> int:
        """A count of entries that take at least *least_bytes* each."""
        count: int = self.number("Q", f"the number of {what}")
        room = (self.size - self.position) // least_bytes
        if count > room:
            raise FormatError(
                f"{self.name}: the number of {what} is {count}, but the file ends inside them: "
                f"its {self.size} bytes have room for {room} at most from offset {self.position}"
            )
        return count

    def string(self, what: str) -> str:
        nbytes = self.number("Q", f"the length of {what}")
        start = self.take(nbytes, what)
        try:
            return str(self.buffer[start : start + nbytes], "utf-8")
        except UnicodeDecodeError as error:
            raise FormatError(
                f"{self.name}: {what} at offset {start} is not UTF-8: {error.reason}, byte "
                f"0x{error.object[error.start]:02x} at offset {start + error.start}"
            ) from None

    def strings(self, count: int, what: str) -> list[str]:
        # A vocabulary has 400 000 of them, so nothing is called per string that can be avoided.
        length_at = struct.Struct("<Q").unpack_from
        texts: list[str] = []
        append = texts.append
        while len(texts) < count:
            buffer, loaded, position = self.buffer, len(self.buffer), self.position
            try:
                for _ in range(count - len(texts)):
                    start = position + 8
                    end = start + length_at(buffer, position)[0]
                    if end > loaded:
                        break
                    append(str(buffer[start:end], "utf-8"))
                    position = end
            except (struct.error, UnicodeDecodeError):
                pass
            self.position = position
            if len(texts) < count:  # loads more of the file, or fails in words
                append(self.string(f"element {len(texts)} of {what}"))
        return texts

    def numbers(self, code: str, count: int, what: str) -> NDArray[Any]:
        dtype = np.dtype("<" + code)
        start = self.take(count * dtype.itemsize, what)
        if code == "?":
            self._check_bool(np.frombuffer(self.buffer, np.uint8, count, start), what)
        numbers = np.frombuffer(self.buffer, dtype, count, start).copy()
        numbers.flags.writeable = False
        return numbers

    def value(self, value_type: int, what: str) -> MetadataValue:
        if value_type == STRING:
            return self.string(what)
        if value_type == ARRAY:
            return self._array(what)
        if value_type == BOOL:
            return bool(self.numbers("?", 1, what)[0])
        value: int | float = self.number(self._code(value_type, what), what)
        return value

    def _array(self, what: str) -> list[str] | NDArray[Any]:
        element_type = self.number("I", f"the element type of {what}")
        if element_type == STRING:
            return self.strings(self.count(_LEAST_STRING, f"strings of {what}"), what)
        code = self._code(element_type, f"an element of {what}")
        return self.numbers(code, self.count(struct.calcsize(code), f"elements of {what}"), what)

    def _code(self, value_type: int, what: str) -> str:
        if value_type == ARRAY:
            raise FormatError(f"{self.name}: {what} is an array: nested arrays are not supported")
        if value_type not in NUMBER_CODES:
            raise FormatError(f"{self.name}: {what} has the unknown value type {value_type}")
        return NUMBER_CODES[value_type]

    def _check_bool(self, values: NDArray[np.uint8], what: str) -> None:
        if values.size and values.max() > 1:
            raise FormatError(f"{self.name}: {what} is a bool with the value {values.max()}")


def release_pages(mapped: mmap.mmap) -> None:
    """Take the pages of a read-only map out of this process, where the system can do that."""
    if hasattr(mmap, "MADV_DONTNEED"):
        mapped.madvise(mmap.MADV_DONTNEED)


def _read_header(cursor: _Cursor) -> tuple[int, int, int]:
    """The version, the number of tensors, the number of keys."""
    if cursor.size == 0:
        raise FormatError(f"{cursor.name}: the file is empty")
    start = cursor.take(4, "the magic bytes")
    magic = bytes(cursor.buffer[start : start + 4])
    if magic != b"GGUF":
        raise FormatError(f"{cursor.name}: not a GGUF file: it begins with {magic!r}")
    version = cursor.number("I", "the version")
    if version not in (2, 3):
        if version % 65536 == 0 and version:
            raise FormatError(f"{cursor.name}: big-endian GGUF files are not supported")
        raise FormatError(f"{cursor.name}: GGUF version {version} is not supported, only 2 and 3")
    # The number of keys follows that of tensors, so the first can only be checked roughly.
    n_tensors = cursor.count(_LEAST_TENSOR, "tensors")
    n_keys = cursor.count(_LEAST_KEY, "metadata keys")
    return version, n_tensors, n_keys


def _read_metadata(cursor: _Cursor, count: int) -> tuple[dict[str, MetadataValue], dict[str, int]]:
    metadata: dict[str, MetadataValue] = {}
    value_types: dict[str, int] = {}
    for index in range(count):
        key = cursor.string(f"the name of metadata key {index}")
        if key in metadata:
            raise FormatError(f"{cursor.name}: metadata key {_quote(key)} appears twice")
        what = f"the value of {_quote(key)}"
        value_types[key] = cursor.number("I", f"the value type of {_quote(key)}")
        metadata[key] = cursor.value(value_types[key], what)
    return metadata, value_types


def _read_table(cursor: _Cursor, count: int) -> list[TensorInfo]:
    """The tensor table with offsets as they are in the file and spans not yet known."""
    table: dict[str, TensorInfo] = {}
    for index in range(count):
        name = cursor.string(f"the name of tensor {index}")
        if name in table:
            raise FormatError(f"{cursor.name}: tensor {_quote(name)} appears twice")
        shape = _read_shape(cursor, f"tensor {_quote(name)}")
        type_id = cursor.number("I", f"the type of tensor {_quote(name)}")
        offset = cursor.number("Q", f"the offset of tensor {_quote(name)}")
        table[name] = TensorInfo(name, shape, type_id, offset, 0)
    return list(table.values())


def _read_shape(cursor: _Cursor, what: str) -> tuple[int, ...]:
    n_dims = cursor.number("I", f"the number of dimensions of {what}")
    if not 1 <= n_dims <= _MAX_DIMS:
        raise FormatError(f"{cursor.name}: {what} has {n_dims} dimensions, not 1 to {_MAX_DIMS}")
    dims = [cursor.number("Q", f"the dimensions of {what}") for _ in range(n_dims)]
    if min(dims) == 0 or math.prod(dims) >= 1 << 63:
        fault = "a dimension of 0" if min(dims) == 0 else "more than 2^63 elements"
        raise FormatError(f"{cursor.name}: {what} has {fault}: its dimensions are {dims}")
    return tuple(reversed(dims))


def _quote(text: str) -> str:
    return repr(text if len(text) <= _MAX_QUOTED else text[:_MAX_QUOTED] + "...")

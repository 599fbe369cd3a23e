"""Files that hold the state of a sequence: a header, the contents of a cache, and a checksum.

=========  =====================================================================
bytes      what
=========  =====================================================================
8          the letters ``BLUTSAVE``
u32        version, 1
u32        bytes of the header
u64        bytes of the data
header     JSON, UTF-8
data       keys and values as the engine reads them
32         BLAKE2b of all the bytes before
=========  =====================================================================

Numbers are little-endian. A file is hostile input: sizes are compared with those of the file before
anything is read, and nothing of it is used before the checksum was right.
"""

import hashlib
import json
import os
import struct
from collections.abc import Mapping, Sequence
from reprlib import repr as quote
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_lut._native import Cache
from bitnet_lut.errors import FormatError
from bitnet_lut.formats.input import InputFile
from bitnet_lut.formats.output import Output
from bitnet_lut.formats.safetensors import parse_json
from bitnet_lut.runtime.engine import Engine

__all__ = ["load_cache", "read_state", "save_cache", "write_state"]

_MAGIC = b"BLUTSAVE"
_VERSION = 1
_SIZES = struct.Struct("<8sIIQ")
_CHECKSUM = 32
_MOST_HEADER = 2**26


def write_state(
    path: str | os.PathLike[str], header: Mapping[str, Any], data: NDArray[np.uint8]
) -> None:
    """Write *header* and *data* (n,) to *path*, which only its owner may read.

    The old file is replaced when the new one is complete. Raises OSError if it cannot be written.
    """
    text = json.dumps(header).encode()
    checksum = hashlib.blake2b(digest_size=_CHECKSUM)
    nbytes = _SIZES.size + len(text) + data.nbytes + _CHECKSUM
    with Output(path, nbytes=nbytes, private=True) as temporary, temporary.open("wb") as file:
        for part in (_SIZES.pack(_MAGIC, _VERSION, len(text), data.nbytes), text, data.data):
            checksum.update(part)
            file.write(part)
        file.write(checksum.digest())
        file.flush()
        os.fsync(file.fileno())


def read_state(path: str | os.PathLike[str]) -> tuple[dict[str, Any], NDArray[np.uint8]]:
    """The header and the data (n,) of a file that `write_state` wrote.

    Raises FormatError for a file that is no such file, or is damaged, and OSError if it cannot be
    read.
    """
    file = InputFile(path)
    try:
        start = file.read(0, min(file.size, _SIZES.size)).tobytes()
        header_bytes, data_bytes = _sizes(start, file)
        text = file.read(len(start), header_bytes).tobytes()
        data = file.read(len(start) + header_bytes, data_bytes)
        stored = file.read(file.size - _CHECKSUM, _CHECKSUM).tobytes()
    finally:
        file.close()
    checksum = hashlib.blake2b(digest_size=_CHECKSUM)
    for part in (start, text, data.data):
        checksum.update(part)
    if checksum.digest() != stored:
        raise FormatError(f"{file.name}: the checksum does not fit: the file is damaged")
    return parse_json(text, f"the header of {file.name}"), data


def _sizes(start: bytes, file: InputFile) -> tuple[int, int]:
    """Bytes of the header and of the data, which add up to the size of the file."""
    if not start.startswith(_MAGIC):
        raise FormatError(f"{file.name}: not a saved session or conversation")
    if len(start) < _SIZES.size:
        raise FormatError(f"{file.name}: truncated: {file.size} bytes")
    _, version, header_bytes, data_bytes = _SIZES.unpack(start)
    if version != _VERSION:
        raise FormatError(f"{file.name}: version {version} of the format; {_VERSION} is supported")
    expected = _SIZES.size + header_bytes + data_bytes + _CHECKSUM
    if expected != file.size or header_bytes > _MOST_HEADER:
        raise FormatError(
            f"{file.name}: {file.size} bytes, but the header speaks of {expected}: truncated or "
            "damaged"
        )
    return header_bytes, data_bytes


def save_cache(
    path: str | os.PathLike[str],
    engine: Engine,
    cache: Cache,
    ids: Sequence[int],
    more: Mapping[str, Any],
) -> None:
    """Write a *cache*, the *ids* (n) it holds, and *more* of a header; errors as `write_state`."""
    header = {
        "model": engine.fingerprint(),
        "kind": cache.kind,
        "ids": [int(id) for id in ids],
        **more,
    }
    write_state(path, header, cache.read())


def load_cache(
    path: str | os.PathLike[str], engine: Engine, context: int, content: str
) -> tuple[dict[str, Any], Cache, list[int]]:
    """The header of a file, a cache of *context* positions filled from it, and the ids it holds.

    content: what the header must say the file is.
    Raises FormatError for a file that is damaged, holds something else, or belongs to another model
    or kind of cache, ValueError if *context* is too short, and OSError.
    """
    header, data = read_state(path)
    if header.get("content") != content:
        raise FormatError(f"{path}: holds a {quote(header.get('content'))}, not a {content}")
    if header.get("kind") != engine.kind:
        raise FormatError(
            f"{path}: its cache holds {quote(header.get('kind'))}, this model was opened with "
            f"kv={engine.kind!r}"
        )
    if header.get("model") != engine.fingerprint():
        raise FormatError(f"{path}: was saved with another model")
    ids = header.get("ids")
    vocab_size = engine.config.vocab_size
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < vocab_size for i in ids):
        raise FormatError(f"{path}: the ids are {quote(ids)}")
    if len(ids) > context:
        raise ValueError(
            f"{path}: holds {len(ids)} tokens, the context has room for {context}: open the model "
            "with a longer context"
        )
    cache = engine.cache(context)
    expected = engine.cache_bytes(len(ids)) if ids else 0
    if data.nbytes != expected:
        raise FormatError(f"{path}: {data.nbytes} bytes of cache for {len(ids)} tokens")
    cache.fill(data, len(ids))
    return header, cache, ids

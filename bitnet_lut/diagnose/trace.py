"""The results of every op of one run, and files of them."""

import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.checkpoint.ternary_hash import permutation
from bitnet_lut.diagnose.ops import OPS, Place, key_of, order_of, place_of
from bitnet_lut.errors import FormatError
from bitnet_lut.families import ModelConfig, RopeKind
from bitnet_lut.formats.output import Output
from bitnet_lut.formats.safetensors import SafetensorsFile
from bitnet_lut.formats.safetensors_writer import SafetensorsWriter

__all__ = ["SUFFIXES", "Trace", "load_dump", "save_dump", "to_file_order", "to_hf_order"]

SUFFIXES = (".npz", ".safetensors")
_IDS = "ids"

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Trace:
    """What every op of one run gave.

    name: where it comes from. results: float32 (tokens, width) by place, queries and keys in the
    order of Hugging Face checkpoints; the last ops may have fewer rows, which are the last ones.
    ids: the tokens, None if a dump does not say. unknown: names in a dump that are no ops.
    exact: the RoPE ("norm" or "neox") for which the heads are ordered where they follow our
    definition bit for bit, which takes the sums of attention in that order; else None.
    """

    name: str
    results: Mapping[Place, Floats]
    ids: tuple[int, ...] | None = None
    exact: RopeKind | None = None
    unknown: tuple[str, ...] = ()

    @property
    def tokens(self) -> int:
        """How many tokens ran."""
        return max(len(array) for array in self.results.values())


def to_hf_order(config: ModelConfig, place: Place, array: Floats) -> Floats:
    """Columns of queries and keys as Hugging Face checkpoints order them; other ops as they are."""
    order = _order(config, place, array)
    return array if order is None else array[:, np.argsort(order)]


def to_file_order(config: ModelConfig, place: Place, array: Floats) -> Floats:
    """The reverse of `to_hf_order`: the order in which a file of this config has them."""
    order = _order(config, place, array)
    return array if order is None else array[:, order]


def _order(config: ModelConfig, place: Place, array: Floats) -> NDArray[np.intp] | None:
    order = permutation(f"{key_of(place)}.weight", config)
    return order if order is not None and len(order) == array.shape[1] else None


def save_dump(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Write a trace to PATH.npz or PATH.safetensors, by the names of `ops`.

    Raises ValueError for another suffix, and OSError.
    """
    arrays = {key_of(place): array for place, array in trace.results.items()}
    if _suffix(path) == ".npz":
        members: dict[str, Any] = dict(arrays)
        if trace.ids is not None:
            members[_IDS] = np.array(trace.ids, np.int64)
        with Output(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **members)
        return
    table = [(name, "F32", array.shape) for name, array in arrays.items()]
    if trace.ids is not None:
        table.append((_IDS, "I64", (len(trace.ids),)))
    with Output(path) as temporary, SafetensorsWriter(temporary, table) as writer:
        for name, array in arrays.items():
            writer.write(name, np.ascontiguousarray(array, np.float32))
        if trace.ids is not None:
            writer.write(_IDS, np.array(trace.ids, np.int64))


def load_dump(path: str | os.PathLike[str]) -> Trace:
    """Read a dump of this or another engine; `ops` has the names.

    Every array is (tokens, width), (width,) for one token, or has more axes of size 1 in front.
    NaN and infinity are kept: they are what is looked for. "ids" (tokens,) may be there. Other
    names are noted as unknown. Raises FormatError for a file that is damaged, holds no op or a bad
    array, ValueError for another suffix, and OSError.
    """
    name = os.fspath(path)
    npz = _suffix(path) == ".npz"
    arrays = _read_npz(Path(path)) if npz else _read_safetensors(Path(path))
    ids = arrays.pop(_IDS, None)
    places = {key: place_of(key) for key in arrays}
    known = {place: _checked(name, key, arrays[key]) for key, place in places.items() if place}
    unknown = tuple(key for key, place in places.items() if place is None)
    if not known:
        raise FormatError(
            f"{name}: it holds no op: names are {', '.join(OPS)}, with blk.N. in front "
            f"inside a layer, and not {', '.join(unknown[:3]) or 'none'}"
        )
    results = {place: known[place] for place in sorted(known, key=order_of)}
    return Trace(name, results, _checked_ids(name, ids, results), unknown=unknown)


def _suffix(path: str | os.PathLike[str]) -> str:
    suffix = Path(path).suffix
    if suffix not in SUFFIXES:
        raise ValueError(f"{os.fspath(path)}: a dump ends in {' or '.join(SUFFIXES)}")
    return suffix


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    with path.open("rb") as opened:
        try:
            file = np.load(opened, allow_pickle=False)
        except (zipfile.BadZipFile, EOFError, ValueError):
            raise FormatError(f"{path}: it is not a NumPy archive (.npz), or damaged") from None
        if isinstance(file, np.ndarray):
            raise FormatError(f"{path}: it is one array, not an archive of named ones")
        with file:
            return {key: _member(path, file, key) for key in file.files}


def _member(path: Path, file: Any, key: str) -> NDArray[Any]:
    try:
        array: NDArray[Any] = file[key]
    except (ValueError, EOFError, OSError, KeyError, zipfile.BadZipFile, zipfile.error) as error:
        if "pickle" in str(error):
            raise FormatError(
                f"{path}: array {key[:80]!r} holds Python objects, which are not loaded: save "
                "plain floats"
            ) from None
        raise FormatError(f"{path}: array {key[:80]!r} is damaged: {str(error)[:80]}") from None
    return array


def _read_safetensors(path: Path) -> dict[str, NDArray[Any]]:
    file = SafetensorsFile(path)
    return {key: file.array(key) for key in file.tensors}


def _checked(name: str, key: str, array: NDArray[Any]) -> Floats:
    what = f"{name}: {key}"
    if array.dtype.kind != "f":
        raise FormatError(f"{what} is of type {array.dtype}: results are floats")
    shape = array.shape
    while len(shape) > 2 and shape[0] == 1:
        shape = shape[1:]
    if len(shape) == 1:
        shape = (1, *shape)
    if len(shape) != 2 or 0 in shape:
        raise FormatError(f"{what} has shape {array.shape}, it must be (tokens, width)")
    with np.errstate(over="ignore", invalid="ignore"):
        return np.ascontiguousarray(array.reshape(shape), np.float32)


def _checked_ids(
    name: str, ids: NDArray[Any] | None, results: Mapping[Place, Floats]
) -> tuple[int, ...] | None:
    tokens = max(len(array) for array in results.values())
    for place, array in results.items():
        if len(array) != tokens and place[1] in ("embedding", "attn_norm"):
            raise FormatError(
                f"{name}: {key_of(place)} has {len(array)} rows, other ops have {tokens}"
            )
    if ids is None:
        return None
    flat = ids.reshape(-1)
    if ids.dtype.kind not in "iu" or len(flat) != tokens:
        raise FormatError(
            f"{name}: ids are {ids.dtype} {ids.shape}, they must be whole numbers, one for each of "
            f"{tokens} tokens"
        )
    return tuple(flat.tolist())

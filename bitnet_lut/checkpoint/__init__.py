"""Opening a model, whatever it is stored as."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import get_args

from bitnet_lut.checkpoint.base import Checkpoint
from bitnet_lut.checkpoint.gguf import GGUFCheckpoint
from bitnet_lut.checkpoint.hf import HFCheckpoint
from bitnet_lut.checkpoint.hub import not_found
from bitnet_lut.checkpoint.state_dict import SUFFIXES, TorchCheckpoint
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tiles import Shape, Tile

__all__ = ["Checkpoint", "find_state_dict", "open_checkpoint"]


def open_checkpoint(
    source: str | os.PathLike[str] | bytes | memoryview,
    *,
    i2_s_layout: i2_s.Layout = "128x32",
    tiles: Mapping[Shape, Tile] | None = None,
    mapped: bool = True,
) -> Checkpoint:
    """Open a GGUF file, its bytes, the folder of a Hugging Face checkpoint, or a torch state dict.

    i2_s_layout: layout of I2_S tensors, which files do not state; see ``formats.i2_s``.
    tiles: {(rows, cols): (BM, BK, bm)} for TL1 and TL2 tensors whose tiles are not those in
        bitnet.cpp's own list; files do not state them, see ``formats.tiles``.
    mapped: map files into memory. The system ends a process that touches a part of a mapped file
        which somebody has cut off meanwhile (SIGBUS). False reads each tensor into memory of its
        own when it is asked for; a file that was shortened is then a FormatError.

    Metadata and the tensor table are read and checked; tensors are read when they are asked for.
    Raises FormatError if the file is damaged, contradicts itself or is not supported, OSError if
    it cannot be read, and FileNotFoundError if there is none. A state dict needs torch (else
    ImportError) and a config.json beside it.
    """
    if i2_s_layout not in get_args(i2_s.Layout):
        known = ", ".join(get_args(i2_s.Layout))
        raise ValueError(f"i2_s_layout is {i2_s_layout!r}: it must be one of {known}")
    if tiles is not None and not isinstance(tiles, Mapping):
        raise TypeError(f"tiles is {tiles!r}, it must map shapes to tiles")
    if isinstance(source, bytes | memoryview):
        return GGUFCheckpoint(source, i2_s_layout=i2_s_layout, tiles=tiles)
    if not os.fspath(source) or not Path(source).exists():
        raise not_found(source)
    state_dict = find_state_dict(source)
    if state_dict is not None:
        return TorchCheckpoint(state_dict, mapped=mapped)
    if Path(source).is_dir():
        return HFCheckpoint(source, mapped=mapped)
    return GGUFCheckpoint(source, i2_s_layout=i2_s_layout, tiles=tiles, mapped=mapped)


def find_state_dict(source: str | os.PathLike[str]) -> Path | None:
    """The torch state dict that a path stands for; None where it stands for anything else."""
    path = Path(source)
    if not path.is_dir():
        return path if path.suffix in SUFFIXES else None
    inside = path / "pytorch_model.bin"  # what folders held before there was safetensors
    return inside if inside.is_file() and not any(path.glob("*.safetensors")) else None

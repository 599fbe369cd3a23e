"""Opening a model, whatever it is stored as."""

import os
from collections.abc import Mapping
from pathlib import Path

from bitnet_lut.checkpoint.base import Checkpoint
from bitnet_lut.checkpoint.gguf import GGUFCheckpoint
from bitnet_lut.checkpoint.hf import HFCheckpoint
from bitnet_lut.checkpoint.state_dict import SUFFIXES, TorchCheckpoint
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tiles import Shape, Tile

__all__ = ["Checkpoint", "open_checkpoint"]


def open_checkpoint(
    source: str | os.PathLike[str] | bytes | memoryview,
    *,
    i2_s_layout: i2_s.Layout = "128x32",
    tiles: Mapping[Shape, Tile] | None = None,
) -> Checkpoint:
    """Open a GGUF file, its bytes, the folder of a Hugging Face checkpoint, or a torch state dict.

    i2_s_layout: of I2_S tensors, which files do not tell; see ``formats.i2_s``.
    tiles: {(rows, cols): (BM, BK, bm)} of TL1 and TL2 tensors, which files do not tell, where
        they are not those of bitnet.cpp's own list; see ``formats.tiles``.

    Metadata and the tensor table are read and checked; tensors are read when they are asked for.
    Raises FormatError if the file is damaged, contradicts itself or is not supported, and OSError
    if it cannot be read. A state dict needs torch (else ImportError) and a config.json beside it.
    """
    path = None if isinstance(source, bytes | memoryview) else Path(source)
    if path is not None and path.is_dir():
        state_dict = path / "pytorch_model.bin"  # what folders held before there was safetensors
        if state_dict.is_file() and not any(path.glob("*.safetensors")):
            return TorchCheckpoint(state_dict)
        return HFCheckpoint(path)
    if path is not None and path.suffix in SUFFIXES:
        return TorchCheckpoint(path)
    return GGUFCheckpoint(source, i2_s_layout=i2_s_layout, tiles=tiles)

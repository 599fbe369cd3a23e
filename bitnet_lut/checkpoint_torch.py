"""State dicts that torch has saved as checkpoints; config.json and tokenizer.json lie beside them.

torch is needed for nothing but this, and reads the file without running any code that is in it.
"""

import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from bitnet_lut.checkpoint_hf import HFCheckpoint
from bitnet_lut.errors import FormatError
from bitnet_lut.formats.safetensors import SafetensorsFile, SafetensorsInfo
from bitnet_lut.formats.ternary import Bytes

__all__ = ["SUFFIXES", "TorchCheckpoint"]

SUFFIXES = (".pt", ".pth", ".bin")

_DTYPES = {
    "torch.float32": "F32",
    "torch.float16": "F16",
    "torch.bfloat16": "BF16",
    "torch.uint8": "U8",
}
# What training scripts put a state dict under, and compiled or parallel modules before its names.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("_orig_mod.", "module.")


class TorchCheckpoint(HFCheckpoint):
    """A state dict with the names of transformers, and the config.json beside it."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        """Map the file; ImportError without torch."""
        file = _StateDict(path)
        super().__init__(Path(path).parent, dict.fromkeys(file.tensors, file))
        self.name = file.name


class _StateDict(SafetensorsFile):
    """The tensors of a state dict, as if a safetensors file held them."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.name = os.fspath(path)
        self._state = _load(self.name)
        self.tensors = {name: _info(tensor) for name, tensor in self._state.items()}

    def raw(self, name: str) -> Bytes:
        import torch

        flat = self._state[name].detach().contiguous().reshape(-1)
        raw: Bytes = flat.view(torch.uint8).numpy()
        return raw

    def release(self) -> None:
        """Map the file anew: torch gives no hold of the pages of the map it has."""
        self._state = _load(self.name)


def _load(path: str) -> dict[str, Any]:
    """The tensors of a file by their names, mapped where the file's format allows it."""
    try:
        import torch
    except ImportError:
        raise ImportError(
            f"{path}: reading a torch state dict needs torch (pip install torch); or save the "
            "model as safetensors"
        ) from None
    options: dict[str, Any] = {"map_location": "cpu", "weights_only": True}
    with Path(path).open("rb") as file:
        mapped = file.read(2) == b"PK"  # a zip file; before torch 1.6 there was another format
    try:
        state = torch.load(path, mmap=mapped, **options)
    except (RuntimeError, UnpicklingError, EOFError, ValueError, KeyError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise FormatError(f"{path}: not a torch state dict: {reason}") from None
    for wrapper in _WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict):
        raise FormatError(f"{path}: holds a {type(state).__name__}, not a state dict")
    tensors: dict[str, Any] = {}
    for name, value in state.items():
        if isinstance(name, str) and isinstance(value, torch.Tensor):
            for prefix in _PREFIXES:
                name = name.removeprefix(prefix)
            tensors[name] = value
    return tensors


def _info(tensor: Any) -> SafetensorsInfo:
    dtype = str(tensor.dtype)
    return SafetensorsInfo(
        dtype=_DTYPES.get(dtype, dtype),
        shape=tuple(tensor.shape),
        offset=0,
        nbytes=tensor.numel() * tensor.element_size(),
    )

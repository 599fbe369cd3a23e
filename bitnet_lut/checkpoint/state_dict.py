"""State dicts saved by torch, with config.json and tokenizer.json in the same folder.

Nothing else here needs torch, which reads the file without running code that is in it.
"""

import os
from importlib import import_module
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from bitnet_lut.checkpoint.hf import HFCheckpoint
from bitnet_lut.errors import FormatError
from bitnet_lut.formats.input import InputFile
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
# Keys under which training scripts store a state dict, and prefixes that compiled or parallel
# modules add to its names.
_WRAPPERS = ("state_dict", "model_state_dict", "model")
_PREFIXES = ("_orig_mod.", "module.")


class TorchCheckpoint(HFCheckpoint):
    """A state dict with the names of transformers, and the config.json in its folder."""

    def __init__(self, path: str | os.PathLike[str], *, mapped: bool = True) -> None:
        """Map or read the file; ImportError without torch."""
        super().__init__(Path(path).parent, _StateDict(path, mapped=mapped))


class _StateDict(SafetensorsFile):
    """The tensors of a state dict, as if a safetensors file held them."""

    def __init__(self, path: str | os.PathLike[str], *, mapped: bool) -> None:
        self._file = InputFile(path)
        self.name, self.size = self._file.name, self._file.size
        # Only zip files can be mapped; torch before 1.6 wrote another format.
        self._mapped = mapped and self._file.read(0, min(2, self.size)).tobytes() == b"PK"
        self._state = _load(self.name, mapped=self._mapped)
        self.tensors = {name: _info(tensor) for name, tensor in self._state.items()}

    def raw(self, name: str, start: int = 0, nbytes: int | None = None) -> Bytes:
        flat = self._state[name].detach().contiguous().reshape(-1)
        raw: Bytes = flat.view(_torch(self.name).uint8).numpy()
        return raw[start:] if nbytes is None else raw[start : start + nbytes]

    def release(self) -> None:
        """Map the file again: torch does not let go of the pages of its own map."""
        if self._mapped:
            self._state = _load(self.name, mapped=True)


def _load(path: str, *, mapped: bool) -> dict[str, Any]:
    """The tensors of a file by their names; the file is mapped, or else read as a whole."""
    torch = _torch(path)
    try:
        state = torch.load(path, mmap=mapped, map_location="cpu", weights_only=True)
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


def _torch(path: str) -> Any:
    try:
        return import_module("torch")
    except ImportError:
        raise ImportError(
            f"{path}: reading a torch state dict needs torch (pip install torch); or save the "
            "model as safetensors"
        ) from None


def _info(tensor: Any) -> SafetensorsInfo:
    dtype = str(tensor.dtype)
    return SafetensorsInfo(
        dtype=_DTYPES.get(dtype, dtype),
        shape=tuple(tensor.shape),
        offset=0,
        nbytes=tensor.numel() * tensor.element_size(),
    )

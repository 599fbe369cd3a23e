"""A Hugging Face folder that a test may change: a copy of another one."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.formats import ggml, hf
from bitnet_lut.formats.safetensors import SafetensorsFile
from bitnet_lut.formats.safetensors_writer import SafetensorsWriter


class HFFolder:
    """settings: config.json. tensors: float32, or uint8 where packed."""

    def __init__(self, source: Path, folder: Path) -> None:
        shutil.copytree(source, folder)
        self.path = folder
        self.settings: dict[str, Any] = json.loads((source / "config.json").read_text())
        file = SafetensorsFile(source / "model.safetensors")
        self.tensors: dict[str, NDArray[Any]] = {name: file.array(name) for name in file.tensors}

    def save(self, dtype: str = "F32") -> Path:
        """Write the folder, its floats in a dtype."""
        (self.path / "config.json").write_text(json.dumps(self.settings))
        names = {np.dtype("u1"): "U8", np.dtype("f4"): dtype}
        table = [(name, names[t.dtype], t.shape) for name, t in self.tensors.items()]
        (self.path / "model.safetensors").unlink()
        with SafetensorsWriter(self.path / "model.safetensors", table) as writer:
            for name, tensor in self.tensors.items():
                data = np.ascontiguousarray(tensor)
                if data.dtype == np.float32:
                    data = ggml.quantize(dtype.lower(), data.reshape(1, -1))
                writer.write(name, data)
        return self.path

    def drop_quantization(self) -> None:
        """Make packed weights plain floats, with nothing that says they are ternary."""
        del self.settings["quantization_config"]
        for name in [name for name, t in self.tensors.items() if t.dtype == np.uint8]:
            packed, scale = self.tensors[name], self.tensors.pop(f"{name}_scale")
            weights = hf.unpack(packed, 4 * len(packed))
            self.tensors[name] = (weights * (np.float32(1) / scale)).astype(np.float32)

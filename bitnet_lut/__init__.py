"""Ternary (BitNet b1.58) language models on CPUs.

>>> from bitnet_lut import Model
>>> model = Model("model.gguf")
>>> model.generate("The capital of France is", max_tokens=8).text
"""

from importlib.metadata import version

from bitnet_lut.errors import FormatError, NumericsError
from bitnet_lut.model import Model, Session
from bitnet_lut.runtime.cpu import CpuInfo, cpu_info
from bitnet_lut.runtime.generate import Generation, TextStream, Timings
from bitnet_lut.runtime.sampling import Sampling

__all__ = [
    "CpuInfo",
    "FormatError",
    "Generation",
    "Model",
    "NumericsError",
    "Sampling",
    "Session",
    "TextStream",
    "Timings",
    "__version__",
    "cpu_info",
]

__version__ = version("bitnet_lut")

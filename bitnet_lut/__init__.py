"""Ternary (BitNet b1.58) language models on CPUs.

>>> from bitnet_lut import Model
>>> model = Model("model.gguf")
>>> model.generate("The capital of France is", max_tokens=8).text
"""

from pathlib import Path

try:
    from bitnet_lut import _native as _native
except ImportError:
    _here = Path(__file__).parent
    if any(_here.glob("_native*.so")) or any(_here.glob("_native*.pyd")):
        raise
    raise ImportError(
        f"{_here} is the source folder of bitnet_lut, without its compiled module: start Python in "
        "another folder to import the installed package, or compile here with "
        "'pip install -e .'"
    ) from None

from bitnet_lut.errors import FormatError, NumericsError
from bitnet_lut.families import ModelConfig
from bitnet_lut.model import Model
from bitnet_lut.runtime.cpu import CpuInfo, cpu_info
from bitnet_lut.runtime.generation import Generation, Timings
from bitnet_lut.runtime.info import ModelInfo
from bitnet_lut.runtime.layers import Layer, Linear
from bitnet_lut.runtime.logprobs import TokenLogprob
from bitnet_lut.runtime.sampling import Sampling
from bitnet_lut.runtime.session import Session, SessionBatch
from bitnet_lut.runtime.stream import TextStream
from bitnet_lut.text.tokenizer import StreamDecoder, Tokenizer

__all__ = [
    "CpuInfo",
    "FormatError",
    "Generation",
    "Layer",
    "Linear",
    "Model",
    "ModelConfig",
    "ModelInfo",
    "NumericsError",
    "Sampling",
    "Session",
    "SessionBatch",
    "StreamDecoder",
    "TextStream",
    "Timings",
    "TokenLogprob",
    "Tokenizer",
    "__version__",
    "cpu_info",
]


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version  # slow to import, and rarely needed

        return version("bitnet_lut")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

"""Ternary (BitNet b1.58) language models on CPUs.

>>> from bitnet_lut import Model
>>> model = Model("model.gguf")
>>> model.generate("The capital of France is", max_tokens=8).text
"""

from importlib import import_module
from importlib.util import find_spec

if find_spec("bitnet_lut._native") is None:
    raise ImportError(
        f"{__path__[0]} is the source folder of bitnet_lut, without its compiled module: start "
        "Python in another folder to import the installed package, or compile here with "
        "'pip install -e .'"
    )

TYPE_CHECKING = False  # importing it from typing would import typing
if TYPE_CHECKING:
    from bitnet_lut.aio import AsyncModel, AsyncTextStream
    from bitnet_lut.errors import FormatError, GrammarError, NumericsError
    from bitnet_lut.families import ModelConfig
    from bitnet_lut.model import Model
    from bitnet_lut.runtime.conversation import Answer, Conversation, Turn
    from bitnet_lut.runtime.cpu import CpuInfo, cpu_info
    from bitnet_lut.runtime.generation import Generation, Timings
    from bitnet_lut.runtime.info import ModelInfo
    from bitnet_lut.runtime.layers import Layer, Linear
    from bitnet_lut.runtime.likelihood import Loglikelihood
    from bitnet_lut.runtime.logprobs import TokenLogprob
    from bitnet_lut.runtime.sampling import Sampling
    from bitnet_lut.runtime.session import Session, SessionBatch
    from bitnet_lut.runtime.stream import TextStream
    from bitnet_lut.text.chat import ChatTemplates
    from bitnet_lut.text.grammar import Lark, Regex
    from bitnet_lut.text.messages import Message
    from bitnet_lut.text.tokenizer import StreamDecoder, Tokenizer

    __version__: str

__all__ = [
    "Answer",
    "AsyncModel",
    "AsyncTextStream",
    "ChatTemplates",
    "Conversation",
    "CpuInfo",
    "FormatError",
    "Generation",
    "GrammarError",
    "Lark",
    "Layer",
    "Linear",
    "Loglikelihood",
    "Message",
    "Model",
    "ModelConfig",
    "ModelInfo",
    "NumericsError",
    "Regex",
    "Sampling",
    "Session",
    "SessionBatch",
    "StreamDecoder",
    "TextStream",
    "Timings",
    "TokenLogprob",
    "Tokenizer",
    "Turn",
    "__version__",
    "cpu_info",
]

# A name is imported at its first use, so that the command line and submodules start at once.
_MODULES = {
    "bitnet_lut.aio": ("AsyncModel", "AsyncTextStream"),
    "bitnet_lut.errors": ("FormatError", "GrammarError", "NumericsError"),
    "bitnet_lut.families": ("ModelConfig",),
    "bitnet_lut.model": ("Model",),
    "bitnet_lut.runtime.conversation": ("Answer", "Conversation", "Turn"),
    "bitnet_lut.runtime.cpu": ("CpuInfo", "cpu_info"),
    "bitnet_lut.runtime.generation": ("Generation", "Timings"),
    "bitnet_lut.runtime.info": ("ModelInfo",),
    "bitnet_lut.runtime.layers": ("Layer", "Linear"),
    "bitnet_lut.runtime.likelihood": ("Loglikelihood",),
    "bitnet_lut.runtime.logprobs": ("TokenLogprob",),
    "bitnet_lut.runtime.sampling": ("Sampling",),
    "bitnet_lut.runtime.session": ("Session", "SessionBatch"),
    "bitnet_lut.runtime.stream": ("TextStream",),
    "bitnet_lut.text.chat": ("ChatTemplates",),
    "bitnet_lut.text.grammar": ("Lark", "Regex"),
    "bitnet_lut.text.messages": ("Message",),
    "bitnet_lut.text.tokenizer": ("StreamDecoder", "Tokenizer"),
}

if not TYPE_CHECKING:  # which would take any name for one of the package

    def __getattr__(name: str) -> object:
        if name == "__version__":
            from importlib.metadata import version  # slow to import, and rarely needed

            return version("bitnet_lut")
        for module, names in _MODULES.items():
            if name in names:
                globals()[name] = getattr(import_module(module), name)
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

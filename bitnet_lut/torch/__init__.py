"""Ternary layers for training in PyTorch, and the way from a trained model to a file and back.

`BitLinear` takes the place of ``nn.Linear`` in any model, `export` writes a model of transformers
as a GGUF file and checks what that computes, and `load` makes a file a model to train on.

Needs ``pip install 'bitnet_lut[train]'``.
"""

try:
    import torch  # noqa: F401
    import transformers  # noqa: F401
except ImportError as error:
    raise ImportError(
        "bitnet_lut.torch needs PyTorch and transformers: pip install 'bitnet_lut[train]'"
    ) from error

from bitnet_lut.torch.bitlinear import BitLinear, absmean, replace_linears, set_lambda
from bitnet_lut.torch.check import Comparison
from bitnet_lut.torch.exporter import CHECK_TEXT, Export, ExportError, export
from bitnet_lut.torch.loader import load

__all__ = [
    "CHECK_TEXT",
    "BitLinear",
    "Comparison",
    "Export",
    "ExportError",
    "absmean",
    "export",
    "load",
    "replace_linears",
    "set_lambda",
]

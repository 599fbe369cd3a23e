"""A model of transformers in memory, read like a file of its weights."""

import math
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bitnet_lut.checkpoint.base import Checkpoint, StoredMatrix, dense_matrix, ternary_matrix
from bitnet_lut.families import config_from_hf, family_of, is_linear, scale_name, tensor_shapes
from bitnet_lut.formats import hf
from bitnet_lut.formats.tensors import DenseMatrix, TernaryMatrix
from bitnet_lut.formats.ternary import Scale, Weights, check_scales
from bitnet_lut.torch.bitlinear import BitLinear, absmean

__all__ = ["ModelCheckpoint"]


class ModelCheckpoint(Checkpoint):
    """A model with ternary layers; each tensor is copied when it is asked for."""

    kind = "hf"
    metadata = MappingProxyType({})
    ternary_masters = True

    def __init__(self, model: nn.Module, folder: Path, name: str) -> None:
        """Check the graph of *model*.

        folder: has its tokenizer.json. name: what the model is called.
        Raises ValueError for a model without a config, FormatError for a graph that is not
        implemented.
        """
        self._model, self.folder, self.name = model, folder, type(model).__name__
        if not hasattr(model, "config"):
            raise ValueError(f"{self.name} has no config: export its state dict with one")
        settings = {
            **model.config.to_dict(),
            "architectures": [self.name],
            "_name_or_path": name,
        }
        self.config = config_from_hf(settings, f"the config of {self.name}")
        family = family_of(self.config)
        self._state = model.state_dict()
        self._keys = {family.gguf_name(key): key for key in self._state}
        if self.config.tied_head:
            self._keys.pop("output.weight", None)
        for linear in filter(is_linear, tensor_shapes(self.config)):
            self._keys.pop(scale_name(linear), None)
        self._check_shapes({tensor: self._shape(tensor) for tensor in self._keys})
        shapes = tensor_shapes(self.config)
        self.nbytes = {name: 4 * math.prod(shape) for name, shape in shapes.items()}

    def matrix(self, name: str) -> TernaryMatrix | DenseMatrix:
        """Take a matrix by its GGUF name; linear layers must be ternary, or ValueError."""
        if is_linear(name):
            with self._naming(name):
                return ternary_matrix(_ternary(*self._layer(name)))
        weights = self._floats(name)
        return dense_matrix("f32", weights.view(np.uint8), *weights.shape)

    def stored(self, name: str) -> StoredMatrix | None:
        """The numbers of a matrix in float32; None for linear layers, which are ternary."""
        if is_linear(name):
            return None
        weights = self._floats(name)
        rows, cols = weights.shape
        return StoredMatrix("f32", (rows, cols), weights.view(np.uint8).__getitem__)

    def vector(self, name: str) -> NDArray[np.float32]:
        """Copy a norm or bias."""
        return self._floats(name).copy()

    def release(self) -> None:
        """Do nothing: there is no file."""

    def close(self) -> None:
        """Do nothing: there is no file."""

    def _floats(self, name: str) -> NDArray[np.float32]:
        tensor = self._state[self._keys[name]]
        floats: NDArray[np.float32] = tensor.detach().float().cpu().contiguous().numpy()
        return floats

    def _layer(self, name: str) -> tuple[Any, str]:
        """The module of a linear layer, and its name."""
        module = self._keys[name].removesuffix(".weight")
        return self._model.get_submodule(module), module

    def _shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor; that of a linear layer is unpacked."""
        if is_linear(name):
            layer, _ = self._layer(name)
            if hasattr(layer, "out_features") and hasattr(layer, "in_features"):
                return int(layer.out_features), int(layer.in_features)
        return tuple(self._state[self._keys[name]].shape)


def _ternary(layer: Any, name: str) -> tuple[Weights, Scale]:
    """The weights int8 (rows, cols) and the scale (1,) that a layer computes with."""
    weight = layer.weight.detach().cpu()
    if isinstance(layer, BitLinear):
        if layer.lambda_ != 1:
            raise ValueError(f"{name} rounds by lambda_ {layer.lambda_}: set_lambda(model, 1)")
        values, scale = absmean(weight)
    elif getattr(layer, "online_quant", False):  # transformers' AutoBitLinear, in training
        values, scale = absmean(weight)
    elif not hasattr(layer, "weight_scale"):
        raise ValueError(
            f"{name} is a {type(layer).__name__}, which computes with real-valued weights: put "
            "BitLinear in its place (replace_linears) and train the model with it"
        )
    elif weight.dtype != torch.uint8:  # AutoBitLinear with ternary weights
        values, scale = weight.float(), layer.weight_scale.float().cpu()
    elif layer.dtype != torch.float32:
        raise ValueError(f"{name} computes in {layer.dtype}: load it with dtype=torch.float32")
    else:  # transformers' BitLinear
        values = torch.from_numpy(hf.unpack(weight.numpy(), layer.out_features))
        scale = 1 / layer.weight_scale.cpu()
    return values.to(torch.int8).numpy(), check_scales(scale.reshape(1).numpy())

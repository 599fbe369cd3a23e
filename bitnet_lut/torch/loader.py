"""Models of transformers with ternary layers, from files and from state dicts."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor, nn

from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.checkpoint.base import Checkpoint
from bitnet_lut.convert import convert
from bitnet_lut.families import family_of, tensor_shapes
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tensors import TernaryMatrix
from bitnet_lut.torch.bitlinear import replace_linears

__all__ = ["from_state", "load"]

# Real-valued weights lie this far inside the bounds between -1, 0 and +1, in units of the scale.
_MARGIN = 0.05


def load(source: str | os.PathLike[str]) -> nn.Module:
    """Make a ternary model a float32 model of transformers with `BitLinear` layers, to train on.

    source: a GGUF file, or the folder of a packed Hugging Face checkpoint.

    A file does not hold the real-valued weights that the model was trained with, and its ternary
    ones times the scale would not do: zeros among them lower the mean magnitude, which is the
    scale that `absmean` finds. So each gets a real value that rounds to it, spread evenly over the
    range of such values, which for -1 and +1 is as wide as makes the mean the scale. The model
    begins as what the file computes, but for the last bit of scales.
    Raises FormatError if it cannot be read or transformers has no such model, ValueError if its
    linear layers are not ternary, and OSError if it is not there.
    """
    with TemporaryDirectory() as name:
        folder = Path(name) / "packed"
        if convert(source, folder, type="hf").ternarized:
            raise ValueError(
                f"{os.fspath(source)} holds real-valued weights: load it with transformers, and "
                "put BitLinear into it (replace_linears)"
            )
        settings = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        del settings["quantization_config"]
        with open_checkpoint(folder) as checkpoint:
            random = np.random.default_rng(0)
            shapes = tensor_shapes(checkpoint.config)
            name_of = family_of(checkpoint.config).hf_name
            state = {name_of(tensor): _master(checkpoint, tensor, random) for tensor in shapes}
    return from_state(settings, state)


def from_state(config: Any, state: Mapping[str, Tensor]) -> nn.Module:
    """A model of transformers with BitLinear layers from its config, or a dict of it."""
    if isinstance(config, Mapping):
        config = transformers.AutoConfig.for_model(**config)
    model: nn.Module = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    replace_linears(model)
    state = dict(state)
    if config.tie_word_embeddings:
        state.setdefault("lm_head.weight", state["model.embed_tokens.weight"])
    model.load_state_dict(state)
    return model


def _master(checkpoint: Checkpoint, name: str, random: np.random.Generator) -> Tensor:
    """A tensor in float32; of a linear layer real-valued weights that `absmean` takes back."""
    if len(tensor_shapes(checkpoint.config)[name]) == 1:
        return torch.from_numpy(checkpoint.vector(name))
    matrix = checkpoint.matrix(name)
    if not isinstance(matrix, TernaryMatrix):
        stored = checkpoint.stored(name)
        assert stored is not None
        return torch.from_numpy(np.array(stored[:]))
    ternary = i2_s.unpack_rows(matrix.packed, matrix.cols)
    zeros, others = ternary == 0, ternary != 0
    weights = np.zeros(ternary.shape)
    count = int(np.count_nonzero(others))
    if count:
        weights[zeros] = _spread(random, -0.5 + _MARGIN, 0.5 - _MARGIN, ternary.size - count)
        mean = (ternary.size - np.abs(weights).sum()) / count  # at least 1
        least = 0.5 + _MARGIN
        weights[others] = ternary[others] * _spread(random, least, 2 * mean - least, count)
    return torch.from_numpy((weights * matrix.scale).astype(np.float32))


def _spread(random: np.random.Generator, low: float, high: float, count: int) -> Any:
    """*count* numbers at equal distances between two, in random order."""
    return low + (high - low) * (random.permutation(count) + 0.5) / max(count, 1)

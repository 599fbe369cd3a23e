"""Models of transformers with ternary layers, from files and from state dicts."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from torch import Tensor, nn

from bitnet_lut.checkpoint import Checkpoint, open_checkpoint
from bitnet_lut.checkpoint.base import StoredMatrix
from bitnet_lut.convert.hf import transformers_config
from bitnet_lut.convert.weights import Options, TensorReader
from bitnet_lut.families import family_of, tensor_shapes
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.safetensors import read_json
from bitnet_lut.formats.tensors import TernaryMatrix
from bitnet_lut.text import vocabulary
from bitnet_lut.torch.bitlinear import replace_linears

__all__ = ["from_state", "load"]

# Distance of real-valued weights from the bounds between -1, 0 and +1, in units of the scale.
_MARGIN = 0.05


def load(source: str | os.PathLike[str]) -> nn.Module:
    """Make a ternary model a float32 model of transformers with `BitLinear` layers, to train on.

    source: a GGUF file, or the folder of a packed Hugging Face checkpoint.

    A file does not hold the real-valued weights that the model was trained with, and its ternary
    ones times the scale would not do: zeros among them lower the mean magnitude, which is the
    scale that `absmean` finds. So each gets a real value that rounds to it, spread evenly over the
    range of such values, which for -1 and +1 is as wide as makes the mean the scale. The model
    begins as what the file computes, except for the last bit of scales.
    Raises FormatError if it cannot be read or transformers has no such model, ValueError if its
    linear layers are not ternary, and OSError if it is not there.
    """
    with open_checkpoint(source) as checkpoint:
        config = transformers_config(checkpoint, Options("hf"))
        family = family_of(config)
        reader = TensorReader(checkpoint, config, all_ternary=True)
        random = np.random.default_rng(0)
        state: dict[str, Tensor] = {}
        for name, shape in tensor_shapes(config).items():
            tensor = (
                reader.vector(name) if len(shape) == 1 else _master(reader.matrix(name), random)
            )
            state[family.hf_name(name)] = torch.from_numpy(tensor)
            if reader.ternarized:
                raise ValueError(
                    f"{os.fspath(source)} holds real-valued weights: load it with transformers, "
                    "and put BitLinear into it (replace_linears)"
                )
        settings = family.hf_settings(config) | _special_ids(checkpoint)
    return from_state(settings, state)


def _special_ids(checkpoint: Checkpoint) -> dict[str, Any]:
    """What config.json says of the vocabulary."""
    if checkpoint.folder is not None:
        settings = read_json(checkpoint.folder / "config.json")
        names = ("bos_token_id", "eos_token_id", "pad_token_id")
        return {name: settings[name] for name in names if name in settings}
    if "tokenizer.ggml.tokens" not in checkpoint.metadata:
        return dict.fromkeys(("bos_token_id", "eos_token_id"))
    tokens = vocabulary.from_gguf(checkpoint.metadata, checkpoint.name, "auto")
    return {"bos_token_id": tokens.bos_id, "eos_token_id": tokens.eos_id}


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


def _master(
    matrix: TernaryMatrix | StoredMatrix, random: np.random.Generator
) -> NDArray[np.float32]:
    """A matrix in float32; of a linear layer real-valued weights that `absmean` takes back."""
    if isinstance(matrix, StoredMatrix):
        return np.array(matrix[:])
    ternary = i2_s.unpack_rows(matrix.packed, matrix.cols)
    zeros, others = ternary == 0, ternary != 0
    weights = np.zeros(ternary.shape)
    count = int(np.count_nonzero(others))
    if count:
        weights[zeros] = _spread(random, -0.5 + _MARGIN, 0.5 - _MARGIN, ternary.size - count)
        mean = (ternary.size - np.abs(weights).sum()) / count  # at least 1
        least = 0.5 + _MARGIN
        weights[others] = ternary[others] * _spread(random, least, 2 * mean - least, count)
    return (weights * matrix.scale).astype(np.float32)


def _spread(random: np.random.Generator, low: float, high: float, count: int) -> Any:
    """*count* numbers at equal distances between two, in random order."""
    return low + (high - low) * (random.permutation(count) + 0.5) / max(count, 1)

"""Whether a GGUF file computes what a model of transformers does.

Two programs agree to float noise only until one of them rounds an activation to another int8 code
than the other; from there on logits differ by a tenth of their deviation, whether there is a fault
or not. So each ternary layer of the torch model is given the codes that the file's model computes
with at that place, and every step from there to the next layer is compared: either it agrees to
float noise, or something is wrong there.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.families import family_of, input_op, is_linear, tensor_shapes
from bitnet_lut.model import Model
from bitnet_lut.reference import quantize

__all__ = ["Comparison", "compare"]

_MOST_TOKENS = 512  # of the text that is compared

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Comparison:
    """How far the logits of two programs are apart.

    tokens: how many tokens the text has.
    step_difference, step: the largest root mean square difference at one step, relative to what
        is compared there: the input of a linear layer or the logits. Float noise is below 1e-4.
    max_difference, rms_difference: of the logits when the programs run independently. Float noise
        changes some int8 codes, so a few hundredths of the logits' deviation are common.
    agreement: the share of tokens after which both then name the same next token.
    """

    tokens: int
    step_difference: float
    step: str
    max_difference: float
    rms_difference: float
    agreement: float


def compare(model: nn.Module, path: str | os.PathLike[str], text: str) -> Comparison:
    """Run at most 512 tokens of *text* through a model of transformers and the file at *path*.

    The torch model is run in float32 on the CPU, with the embedding and output matrix of the file,
    which may have rounded them; it is not changed.
    """
    with Model(path, kv="f32") as ours:
        ids = ours.tokenize(text)[: min(_MOST_TOKENS, ours.config.context_length)]
        if not ids:
            raise ValueError("the text to check with has no tokens")
        logits = ours.forward(ids)
        inputs = _inputs(ours, ids)
    tensors = _tensors(model, path)
    with _evaluating(model):
        free = _run(model, tensors, ids)
        steps: dict[str, float] = {}
        with _given(model, inputs, steps):
            steps["logits"] = _relative(_run(model, tensors, ids), logits)
    step = max(steps, key=lambda name: np.nan_to_num(steps[name], nan=np.inf))
    return Comparison(
        tokens=len(ids),
        step_difference=steps[step],
        step=step,
        max_difference=float(np.abs(free - logits).max()),
        rms_difference=_rms(free - logits),
        agreement=float((free.argmax(axis=1) == logits.argmax(axis=1)).mean()),
    )


def _inputs(model: Model, ids: list[int]) -> dict[str, Floats]:
    """What each ternary layer is given, by the name of its module: float32 (tokens, cols)."""
    config, family = model.config, family_of(model.config)
    linears = {name: input_op(name, config) for name in filter(is_linear, tensor_shapes(config))}
    pieces: dict[tuple[int, str], list[Floats]] = {place: [] for place in linears.values()}

    def probe(layer: int, op: str, array: Floats) -> None:
        if (layer, op) in pieces:
            pieces[layer, op].append(array)

    model.session(context=len(ids)).trace(ids, probe)
    return {
        family.hf_name(name).removesuffix(".weight"): np.concatenate(pieces[place])
        for name, place in linears.items()
    }


def _tensors(model: nn.Module, path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Parameters and buffers in float32 on the CPU, embedding and output matrix as in the file."""
    tensors = {}
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
        tensors[name] = tensor.detach().to("cpu", dtype)
    with open_checkpoint(path) as checkpoint:
        for name in ("token_embd.weight", "output.weight"):
            stored = checkpoint.stored(name) if name in tensor_shapes(checkpoint.config) else None
            if stored is not None:
                hf_name = family_of(checkpoint.config).hf_name(name)
                tensors[hf_name] = torch.from_numpy(np.array(stored[:]))
    return tensors


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout and the like."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


@contextmanager
def _given(
    model: nn.Module, inputs: Mapping[str, Floats], differences: dict[str, float]
) -> Iterator[None]:
    """Give linear layers these *inputs* and note how much their own differ from them."""

    def replace(name: str, module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        differences[f"the input of {name}"] = _relative(args[0].numpy()[0], inputs[name])
        # The values of the codes and not what they were rounded from: the last bit of a factor
        # could turn one of them over.
        codes, peaks = quantize(inputs[name])
        values = codes * (peaks / np.float32(127))[:, None]
        return (torch.from_numpy(values)[None], *args[1:])

    with ExitStack() as hooks:
        for name in inputs:
            module = model.get_submodule(name)
            hooks.enter_context(module.register_forward_pre_hook(partial(replace, name)))
        yield


def _run(model: nn.Module, tensors: Mapping[str, Tensor], ids: list[int]) -> Floats:
    """Logits float32 (tokens, vocab)."""
    with torch.no_grad():
        output = torch.func.functional_call(
            model, tensors, (torch.tensor([ids]),), {"use_cache": False}
        )
    logits: Floats = output.logits[0].float().numpy()
    return logits


def _relative(found: Floats, expected: Floats) -> float:
    """Root mean square of the difference, relative to that of *expected*."""
    return _rms(found - expected) / max(_rms(expected), float(np.finfo(np.float32).tiny))


def _rms(values: Floats) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype=np.float64))))

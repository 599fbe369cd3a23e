"""The results of every op of a model of transformers, by hooks of torch."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bitnet_lut.diagnose.ops import Place
from bitnet_lut.diagnose.trace import Floats
from bitnet_lut.families import LINEARS, ModelConfig, family_of

__all__ = ["load_model", "trace_module"]


def load_model(folder: str | os.PathLike[str]) -> nn.Module:
    """Open a folder with transformers, in float32 on the CPU, with attention spelled out.

    Raises ImportError without transformers, and what transformers raises.
    """
    from transformers import AutoModelForCausalLM

    with torch.compiler.set_stance("force_eager"):
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, attn_implementation="eager"
        )
    # It reads norms and the embedding of offline quantized folders as bfloat16 all the same, and
    # its own float() refuses these.
    result: nn.Module = nn.Module.float(model).eval()
    return result


def trace_module(model: nn.Module, config: ModelConfig, ids: Sequence[int]) -> dict[Place, Floats]:
    """Run *ids* (n) through *model*, whose modules have the names that *config*'s family gives.

    Ops for which the model has no module are missing. Returns {(layer, op): float32 (n, width)}.
    """
    found: dict[Place, Floats] = {}

    def keep(place: Place, value: Any) -> None:
        tensor = value[0] if isinstance(value, tuple) else value
        if isinstance(tensor, Tensor):
            found[place] = tensor.detach().float().cpu().numpy().reshape(-1, tensor.shape[-1])

    # Transformers compiles its quantizers, which takes seconds and reorders sums.
    with ExitStack() as hooks, torch.no_grad(), torch.compiler.set_stance("force_eager"):
        for name, place, of_input in _hooked(config):
            if (module := _submodule(model, name)) is not None:
                hooks.enter_context(_watch(module, place, of_input, keep))
        output = model(torch.tensor([list(ids)]), use_cache=False)
    keep((-1, "logits"), output.logits)
    if config.embedding_scale != 1:
        found[-1, "embedding"] = found[-1, "embedding"] * np.float32(config.embedding_scale)
    return found


def _watch(
    module: nn.Module, place: Place, of_input: bool, keep: Callable[[Place, Any], None]
) -> Any:
    if of_input:
        return module.register_forward_pre_hook(lambda module, args: keep(place, args))
    return module.register_forward_hook(lambda module, args, output: keep(place, output))


def _hooked(config: ModelConfig) -> Iterator[tuple[str, Place, bool]]:
    """Name of a module, the place it gives, and whether its input is that, not its output."""
    family = family_of(config)

    def module(tensor: str) -> str:
        return family.hf_name(f"{tensor}.weight").removesuffix(".weight")

    yield module("token_embd"), (-1, "embedding"), False
    yield module("output_norm"), (-1, "output_norm"), False
    for layer in range(config.block_count):
        block = f"blk.{layer}."
        for op in ("attn_norm", "ffn_norm", *LINEARS):
            yield module(block + op), (layer, op), False
        for before, norm, after in (
            ("attention", "attn_sub_norm", "attn_output"),
            ("ffn_activation", "ffn_sub_norm", "ffn_down"),
        ):
            yield module(block + (norm if config.sub_norms else after)), (layer, before), True
            yield module(block + after), (layer, norm), True
        yield module(f"{block}attn_q").removesuffix(".self_attn.q_proj"), (layer, "residual"), False


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    """A module by its name; older and newer ones are kept under either of two names."""
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None

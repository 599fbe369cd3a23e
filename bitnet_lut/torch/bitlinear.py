"""The ternary layer, and putting it into models."""

from collections.abc import Callable, Collection
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["BitLinear", "absmean", "replace_linears", "set_lambda"]

_LEAST = 1e-5  # the least mean or maximum to divide by


class BitLinear(nn.Linear):
    """A linear layer with real-valued weights that computes with ternary ones, to be trained.

    Each forward pass rounds weight (out_features, in_features) as `absmean` does, and the inputs
    (..., in_features) of each token to 255 steps between plus and minus the largest of them.
    Gradients pass through both roundings as if they were not there (straight-through).

    lambda_: how far values are rounded, from 0 (as in nn.Linear) to 1. In between, weights and
        inputs are w + lambda_ * (rounded(w) - w). Raising it over the first steps of training turns
        a real-valued model into a ternary one gradually. See `set_lambda`.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = False,
        *,
        lambda_: float = 1.0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        """Draw weights as nn.Linear does."""
        super().__init__(in_features, out_features, bias, device=device, dtype=dtype)
        self.lambda_ = lambda_

    def forward(self, input: Tensor) -> Tensor:
        """Multiply (..., in_features) to (..., out_features)."""
        weight: Tensor = _StraightThrough.apply(self.weight, _round_weight, self.lambda_)
        input = _StraightThrough.apply(input, _round_tokens, self.lambda_)
        return nn.functional.linear(input, weight, self.bias)

    def extra_repr(self) -> str:
        """Sizes and lambda_, for print."""
        return f"{super().extra_repr()}, lambda_={self.lambda_}"


def absmean(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Ternary values float32 (rows, cols), and a scale (), of real-valued weights (rows, cols).

    The scale is the mean magnitude, at least 1e-5; weights below half of it become 0.
    """
    weight = weight.float()
    inverse = 1.0 / weight.abs().mean().clamp(min=_LEAST)
    return (weight * inverse).round().clamp(-1, 1), 1.0 / inverse


def set_lambda(model: nn.Module, lambda_: float) -> None:
    """Set how much all `BitLinear` layers of *model* round, from 0 to 1.

    Raises ValueError if the model has none, or if *lambda_* is not between 0 and 1.
    """
    if not 0 <= lambda_ <= 1:
        raise ValueError(f"lambda_ is {lambda_}: it must be from 0 to 1")
    layers = [module for module in model.modules() if isinstance(module, BitLinear)]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no BitLinear layers: see replace_linears")
    for layer in layers:
        layer.lambda_ = lambda_


def replace_linears(
    model: nn.Module, *, lambda_: float = 1.0, keep: Collection[str] = ("lm_head",)
) -> None:
    """Put a `BitLinear` with the same parameters in place of every nn.Linear of *model*.

    keep: names of modules to leave as they are, complete or their last part.
    Raises ValueError if there is no nn.Linear.
    """
    found = {
        name: module
        for name, module in model.named_modules()
        if type(module) is nn.Linear and not {name, name.rpartition(".")[2]} & {*keep}
    }
    if not found:
        raise ValueError(f"{type(model).__name__} has no nn.Linear layers to replace")
    for name, module in found.items():
        layer = BitLinear(module.in_features, module.out_features, lambda_=lambda_, device="meta")
        layer.weight, layer.bias = module.weight, module.bias
        layer.train(module.training)
        model.set_submodule(name, layer)


class _StraightThrough(torch.autograd.Function):
    """Rounds, wholly or in part, and hands gradients on unchanged."""

    @staticmethod
    def forward(
        ctx: Any, exact: Tensor, rounding: Callable[[Tensor], Tensor], lambda_: float
    ) -> Tensor:
        if lambda_ == 0:
            return exact.view_as(exact)
        rounded = rounding(exact).to(exact.dtype)
        return rounded if lambda_ == 1 else torch.lerp(exact, rounded, lambda_)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return gradients[0], None, None


def _round_weight(weight: Tensor) -> Tensor:
    ternary, scale = absmean(weight)
    return ternary * scale


def _round_tokens(input: Tensor) -> Tensor:
    input = input.float()
    scale = 127 / input.abs().amax(-1, keepdim=True).clamp(min=_LEAST)
    return (input * scale).round().clamp(-128, 127) / scale

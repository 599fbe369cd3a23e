"""The demonstration model for training: the graph of transformers' BitNetForCausalLM.

Weights are real-valued masters. Each forward pass rounds them to -1, 0 and +1 by their mean
magnitude and the inputs of each linear layer to int8 by the largest of a token; gradients pass
through both roundings unchanged (straight-through). The products are exact integers in bfloat16.
What runs between two attentions is compiled, because on a CPU most time would go into passes over
memory; the attention is PyTorch's own.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from bitnet_lut.torch import absmean

__all__ = ["BitNet", "Sizes"]

EPSILON = 1e-5  # of the norms, and the least peak of activations


@dataclass(frozen=True)
class Sizes:
    """The sizes of the model, by the names of transformers' BitNetConfig."""

    vocab_size: int = 2048
    hidden_size: int = 256
    intermediate_size: int = 512
    num_hidden_layers: int = 6
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    max_position_embeddings: int = 512
    rope_theta: float = 10000.0

    @property
    def head_dim(self) -> int:
        """Elements of one head."""
        return self.hidden_size // self.num_attention_heads


class _BitLinear(torch.autograd.Function):
    """x (n, k) float, weight (m, k) -> (n, m) bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ternary, scale = absmean(weight)
        peak = x.abs().amax(-1, keepdim=True).clamp(min=EPSILON)
        codes = (x * (127 / peak)).round().clamp(-128, 127).bfloat16()
        ternary = ternary.bfloat16()
        ctx.save_for_backward(codes, ternary, peak, scale)
        return ((codes @ ternary.T).float() * (peak * (scale / 127))).bfloat16()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        codes, ternary, peak, scale = ctx.saved_tensors
        grad = grads[0].float()
        grad_x = (grad * scale).bfloat16() @ ternary
        grad_weight = (grad * (peak / 127)).bfloat16().T @ codes
        return grad_x.float(), grad_weight.float()


def _linear(x: Tensor, weight: Tensor) -> Tensor:
    apply: Callable[[Tensor, Tensor], Tensor] = _BitLinear.apply
    return apply(x, weight)


def _norm(x: Tensor, weight: Tensor) -> Tensor:
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPSILON) * weight


def _rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """RoPE of (n, heads, d) by angles (n, d / 2): element i turns with element i + d / 2."""
    a, b = x.float().chunk(2, -1)
    cosines, sines = cosines[:, None], sines[:, None]
    return torch.cat([a * cosines - b * sines, b * cosines + a * sines], -1).bfloat16()


@torch.compile
def _queries_keys_values(
    x: Tensor, norm: Tensor, wq: Tensor, wk: Tensor, wv: Tensor, cosines: Tensor, sines: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    x = _norm(x, norm)
    n, head_dim = x.shape[0], 2 * cosines.shape[1]
    q, k, v = (_linear(x, weight).view(n, -1, head_dim) for weight in (wq, wk, wv))
    return _rotate(q, cosines, sines), _rotate(k, cosines, sines), v


@torch.compile
def _after_attention(
    x: Tensor,
    attended: Tensor,
    sub_norm: Tensor,
    wo: Tensor,
    norm: Tensor,
    gate: Tensor,
    up: Tensor,
    ffn_sub_norm: Tensor,
    down: Tensor,
) -> Tensor:
    x = x + _linear(_norm(attended, sub_norm), wo).float()
    inner = _norm(x, norm)
    inner = _linear(inner, gate).float().relu().square() * _linear(inner, up).float()
    return x + _linear(_norm(inner, ffn_sub_norm), down).float()


@torch.compile
def _loss(x: Tensor, norm: Tensor, embedding: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    logits = _norm(x, norm).bfloat16() @ embedding.bfloat16().T
    losses = cross_entropy(logits.float(), targets, reduction="none")
    return (losses * weights).sum() / weights.sum()


class _Attention(nn.Module):
    def __init__(self, shape: Sizes) -> None:
        super().__init__()
        kv_rows = shape.num_key_value_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)
        self.k_proj = nn.Linear(shape.hidden_size, kv_rows, bias=False)
        self.v_proj = nn.Linear(shape.hidden_size, kv_rows, bias=False)
        self.o_proj = nn.Linear(shape.hidden_size, shape.hidden_size, bias=False)
        self.attn_sub_norm = nn.RMSNorm(shape.hidden_size)


class _FeedForward(nn.Module):
    def __init__(self, shape: Sizes) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.up_proj = nn.Linear(shape.hidden_size, shape.intermediate_size, bias=False)
        self.down_proj = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)
        self.ffn_sub_norm = nn.RMSNorm(shape.intermediate_size)


class _Layer(nn.Module):
    def __init__(self, shape: Sizes) -> None:
        super().__init__()
        self.self_attn = _Attention(shape)
        self.mlp = _FeedForward(shape)
        self.input_layernorm = nn.RMSNorm(shape.hidden_size)
        self.post_attention_layernorm = nn.RMSNorm(shape.hidden_size)

    def forward(self, x: Tensor, cosines: Tensor, sines: Tensor, mask: Tensor) -> Tensor:
        batch, _, length, _ = mask.shape
        heads = self.self_attn
        q, k, v = (
            part.view(batch, length, -1, part.shape[-1]).transpose(1, 2)
            for part in _queries_keys_values(
                x,
                self.input_layernorm.weight,
                heads.q_proj.weight,
                heads.k_proj.weight,
                heads.v_proj.weight,
                cosines,
                sines,
            )
        )
        attended = scaled_dot_product_attention(q, k, v, attn_mask=mask, enable_gqa=True)
        return _after_attention(
            x,
            attended.transpose(1, 2).reshape(x.shape),
            heads.attn_sub_norm.weight,
            heads.o_proj.weight,
            self.post_attention_layernorm.weight,
            self.mlp.gate_proj.weight,
            self.mlp.up_proj.weight,
            self.mlp.ffn_sub_norm.weight,
            self.mlp.down_proj.weight,
        )


class _Trunk(nn.Module):
    def __init__(self, shape: Sizes) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(_Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size)


class BitNet(nn.Module):
    """A decoder whose parameters are named as in transformers' BitNetForCausalLM.

    The embedding is also the output matrix.
    """

    cosines: Tensor
    sines: Tensor

    def __init__(self, shape: Sizes) -> None:
        """Draw the weights, normal with a deviation of 0.02."""
        super().__init__()
        self.shape = shape
        self.model = _Trunk(shape)
        for parameter in self.parameters():
            if parameter.ndim == 2:
                nn.init.normal_(parameter, std=0.02)
        frequencies = shape.rope_theta ** -(
            torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
        )
        angles = torch.arange(shape.max_position_embeddings)[:, None] * frequencies
        self.register_buffer("cosines", angles.cos(), persistent=False)
        self.register_buffer("sines", angles.sin(), persistent=False)

    def loss(
        self, ids: Tensor, positions: Tensor, documents: Tensor, targets: Tensor, weights: Tensor
    ) -> Tensor:
        """The weighted mean cross-entropy of packed rows, all (batch, length).

        positions: of each token in its document. documents: their numbers; a token sees only its
        own. targets, weights: the next token, and how much it counts.
        """
        length = ids.shape[1]
        causal = torch.ones(length, length, dtype=torch.bool).tril()
        mask = (documents[:, :, None] == documents[:, None, :])[:, None] & causal
        additive = torch.zeros(mask.shape, dtype=torch.bfloat16).masked_fill_(~mask, -torch.inf)
        flat = positions.reshape(-1)
        cosines, sines = self.cosines[flat], self.sines[flat]
        x = self.model.embed_tokens(ids.reshape(-1))
        for layer in self.model.layers:
            x = layer(x, cosines, sines, additive)
        norm, embedding = self.model.norm.weight, self.model.embed_tokens.weight
        loss: Tensor = _loss(x, norm, embedding, targets.reshape(-1), weights.reshape(-1))
        return loss

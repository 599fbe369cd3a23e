"""The one description of a model's graph that everything else works from."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

from bitnet_lut.errors import FormatError

Activation: TypeAlias = Literal["silu", "relu2"]
RopeKind: TypeAlias = Literal["norm", "neox"]

_MAX_BLOCKS = 1024  # far above any model, and low enough that loops over layers end


@dataclass(frozen=True)
class ModelConfig:
    """The graph and sizes of a decoder-only transformer.

    architecture: name of the family, as ``bitnet_lut.families.FAMILIES`` lists it.
    context_length: tokens the model was made for; embedding_length: width of the residual stream;
    feed_forward_length: rows of gate and up; block_count: layers.
    head_count, head_count_kv: query heads, and key/value heads that they share.
    head_dim: elements of a head; rope_dim: the first elements of it that are rotated.
    rope_theta: base of the rotation angles. rope_kind: "norm" rotates pairs (2i, 2i + 1), "neox"
        pairs (i, i + rope_dim / 2).
    rms_eps: added to the mean square in every RMSNorm.
    activation: "silu" or "relu2" (ReLU squared), in the feed-forward network.
    sub_norms: an RMSNorm before the attention output and before ffn_down.
    qkv_bias: biases on q, k and v; tied_head: the embedding is also the output matrix.
    name: what the file calls the model; "" where it does not say.
    embedding_scale: what embeddings are multiplied by. attention_scale: what q . k is multiplied
        by; None for 1 / sqrt(head_dim).
    """

    architecture: str
    vocab_size: int
    context_length: int
    embedding_length: int
    feed_forward_length: int
    block_count: int
    head_count: int
    head_count_kv: int
    head_dim: int
    rope_dim: int
    rope_theta: float
    rope_kind: RopeKind
    rms_eps: float
    activation: Activation
    sub_norms: bool
    qkv_bias: bool
    tied_head: bool
    name: str = ""
    embedding_scale: float = 1.0
    attention_scale: float | None = None

    @property
    def head_name(self) -> str:
        """Name of the matrix that makes the logits."""
        return "token_embd.weight" if self.tied_head else "output.weight"


def checked(config: ModelConfig, source: str) -> ModelConfig:
    """Return *config* if its numbers fit each other; else raise FormatError, naming *source*."""
    c = config
    faults = {
        f"block_count is {c.block_count}, more than {_MAX_BLOCKS}": c.block_count > _MAX_BLOCKS,
        f"head_count {c.head_count} is not a multiple of head_count_kv {c.head_count_kv}": (
            c.head_count % c.head_count_kv != 0
        ),
        f"the head dimension {c.head_dim} is odd": c.head_dim % 2 != 0,
        f"the rope dimension {c.rope_dim} is odd, or above the head dimension {c.head_dim}": (
            c.rope_dim % 2 != 0 or c.rope_dim > c.head_dim
        ),
    }
    for fault, present in faults.items():
        if present:
            raise FormatError(f"{source}: {fault}")
    return config

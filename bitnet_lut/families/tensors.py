"""Names of tensors as GGUF and Hugging Face files have them, and their shapes."""

import re
from collections.abc import Mapping

from bitnet_lut.families.config import ModelConfig

# The matrices of a block that BitNet makes ternary, "blk.N.<linear>.weight", and the modules that
# transformers keeps them in, below "model.layers.N.".
LINEARS: Mapping[str, str] = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
NORMS: Mapping[str, str] = {
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
_OUTSIDE: Mapping[str, str] = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
# The op whose result a linear layer takes, if that does not depend on sub-norms.
_INPUT_OPS = {
    "attn_q": "attn_norm",
    "attn_k": "attn_norm",
    "attn_v": "attn_norm",
    "ffn_gate": "ffn_norm",
    "ffn_up": "ffn_norm",
}
_IGNORED = "self_attn.rotary_emb.inv_freq"  # computed from the config
_HF_KINDS = {"weight": "weight", "bias": "bias", "scale": "weight_scale"}
_GGUF_KINDS = {hf: kind for kind, hf in _HF_KINDS.items()}
_LAYER = re.compile(r"model\.layers\.(\d+)\.(.+)\.(\w+)")


def is_linear(name: str) -> bool:
    """Whether a tensor is a matrix that BitNet makes ternary: "blk.N.<linear>.weight"."""
    parts = name.split(".")
    return len(parts) == 4 and parts[0] == "blk" and parts[2] in LINEARS and parts[3] == "weight"


def scale_name(name: str) -> str:
    """Name of the separate scale of a linear layer: "blk.N.<linear>.scale"."""
    return f"{name.removesuffix('weight')}scale"


def input_op(name: str, config: ModelConfig) -> tuple[int, str]:
    """Layer and op whose result a linear layer takes; ops are named as probes name them."""
    _, layer, linear, _ = name.split(".")
    if linear == "attn_output":
        return int(layer), "attn_sub_norm" if config.sub_norms else "attention"
    if linear == "ffn_down":
        return int(layer), "ffn_sub_norm" if config.sub_norms else "ffn_activation"
    return int(layer), _INPUT_OPS[linear]


def hf_name(name: str, modules: Mapping[str, str]) -> str:
    """Hugging Face name of a tensor by its GGUF name: "blk.0.attn_q.weight".

    modules: {part: module} of the family's layers.
    """
    part, _, kind = name.rpartition(".")
    if not part.startswith("blk."):
        return f"{_OUTSIDE[part]}.{_HF_KINDS[kind]}"
    _, layer, part = part.split(".")
    return f"model.layers.{layer}.{modules[part]}.{_HF_KINDS[kind]}"


def gguf_name(name: str, parts: Mapping[str, str]) -> str:
    """GGUF name of a tensor by its Hugging Face name; parts: {module: part} of the family's layers.

    Unknown names stay as they are, but those in a layer get "blk.N." in front.
    """
    match = _LAYER.fullmatch(name)
    if match is None or name.endswith(_IGNORED):
        outside = {f"{module}.weight": f"{part}.weight" for part, module in _OUTSIDE.items()}
        return outside.get(name, name)
    layer, module, kind = match.groups()
    if module not in parts or kind not in _GGUF_KINDS:
        return f"blk.{layer}.{module}.{kind}"
    return f"blk.{layer}.{parts[module]}.{_GGUF_KINDS[kind]}"


def block_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name below "blk.N." and shape of every tensor of a block, in NumPy order."""
    embedding, ffn = config.embedding_length, config.feed_forward_length
    q_rows = config.head_count * config.head_dim
    kv_rows = config.head_count_kv * config.head_dim
    block: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (embedding,),
        "attn_q.weight": (q_rows, embedding),
        "attn_k.weight": (kv_rows, embedding),
        "attn_v.weight": (kv_rows, embedding),
        "attn_output.weight": (embedding, q_rows),
        "ffn_norm.weight": (embedding,),
        "ffn_gate.weight": (ffn, embedding),
        "ffn_up.weight": (ffn, embedding),
        "ffn_down.weight": (embedding, ffn),
    }
    if config.sub_norms:
        block |= {"attn_sub_norm.weight": (q_rows,), "ffn_sub_norm.weight": (ffn,)}
    if config.qkv_bias:
        block |= {"attn_q.bias": (q_rows,), "attn_k.bias": (kv_rows,), "attn_v.bias": (kv_rows,)}
    return block


def model_shapes(
    config: ModelConfig, block: Mapping[str, tuple[int, ...]]
) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor of a model whose blocks hold *block*."""
    embedding = config.embedding_length
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (config.vocab_size, embedding),
        "output_norm.weight": (embedding,),
    }
    if not config.tied_head:
        shapes["output.weight"] = (config.vocab_size, embedding)
    for index in range(config.block_count):
        shapes |= {f"blk.{index}.{name}": shape for name, shape in block.items()}
    return shapes

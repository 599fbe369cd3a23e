"""Microsoft's BitNet b1.58 2B4T: sub-norms and squared ReLU. Files of early 2025: bitnet-25."""

from bitnet_lut.families.config import Activation
from bitnet_lut.families.family import Family
from bitnet_lut.families.fields import Reading, decoder_fields

# Vocabulary of 1bitLLM's models, which newer converters file under Microsoft's architecture.
_VOCABULARY_OF_1BITLLM = 32002


def _activation(file: Reading) -> Activation:
    """The activation where a file does not state it, as most GGUF files do not."""
    of_1bitllm = file.values["vocab_size"] == _VOCABULARY_OF_1BITLLM
    return "silu" if file.container == "gguf" and of_1bitllm else "relu2"


def _rope_theta(file: Reading) -> float:
    return 500000.0 if file.container == "hf" else 10000.0


FAMILY = Family(
    name="bitnet-b1.58",
    old_names=("bitnet-25",),
    hf_class="BitNetForCausalLM",
    hf_model_type="bitnet",
    fields=decoder_fields(activation=_activation, rope_theta=_rope_theta),
    ternary=True,
    sub_norms=True,
    hf_linear_class="autobitlinear",
    modules={
        "attn_sub_norm": ("self_attn.attn_sub_norm", "self_attn.inner_attn_ln"),
        "ffn_sub_norm": ("mlp.ffn_sub_norm", "mlp.ffn_layernorm"),
    },
)

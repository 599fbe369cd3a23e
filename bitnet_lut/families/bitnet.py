"""1bitLLM's reproductions of BitNet b1.58: sub-norms and SiLU.

Their class differs from Microsoft's in a capital letter only, and their config.json says
model_type "llama".
"""

from bitnet_lut.families.family import Family

FAMILY = Family(
    name="bitnet",
    hf_class="BitnetForCausalLM",
    hf_model_type=None,
    graph_of="bitnet-b1.58",
    ternary=True,
    sub_norms=True,
    modules={
        "attn_sub_norm": ("self_attn.inner_attn_ln", "self_attn.attn_sub_norm"),
        "ffn_sub_norm": ("mlp.ffn_layernorm", "mlp.ffn_sub_norm"),
    },
)

"""Qwen2 and Qwen2.5: Llama's graph with biases on q, k and v."""

from bitnet_lut.families.family import Family

FAMILY = Family(
    name="qwen2",
    hf_class="Qwen2ForCausalLM",
    hf_model_type="qwen2",
    qkv_bias=True,
)

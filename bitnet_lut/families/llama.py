"""Llama and what shares its graph: Llama3-8B-1.58, Falcon3 and Falcon-E."""

from bitnet_lut.families.family import Family

FAMILY = Family(
    name="llama",
    hf_class="LlamaForCausalLM",
    hf_model_type="llama",
    gguf_rope="norm",  # converters reorder the rows of q and k
)

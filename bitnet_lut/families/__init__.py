"""Model families: how their graphs are described in GGUF and in Hugging Face files."""

from bitnet_lut.families.config import (
    Activation,
    ModelConfig,
    config_from_gguf,
    config_from_hf,
    tensor_shapes,
)

__all__ = ["Activation", "ModelConfig", "config_from_gguf", "config_from_hf", "tensor_shapes"]

"""Small models of transformers with random weights."""

import torch
import transformers
from torch import nn

from bitnet_lut.torch import replace_linears

SIZES = {
    "vocab_size": 512,
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
FAMILIES = {
    "bitnet": {"tie_word_embeddings": True},
    "llama": {"head_dim": 64, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
    "qwen2": {"rms_norm_eps": 1e-5},
}


def new_model(family="bitnet", dtype=torch.float32, **changes):
    torch.manual_seed(0)
    settings = {**SIZES, **FAMILIES[family], **changes}
    config = transformers.AutoConfig.for_model(family, **settings)
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:  # norms and biases, so that none may be left out
            nn.init.normal_(parameter, mean=float("norm" in name), std=0.2)
    return model


def bit_model(family="bitnet", **changes):
    model = new_model(family, **changes)
    replace_linears(model)
    return model

"""Writing the trained model: as a Hugging Face folder of masters, and from that as a GGUF file."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from tokenizers import Tokenizer

from bitnet_lut.convert import convert
from training.demo.corpus import BOS, EOS, EOT
from training.demo.network import EPSILON, BitNet, Sizes

__all__ = ["CHAT_TEMPLATE", "NAME", "write_gguf", "write_master"]

NAME = "bitnet_lut demonstration model"

# The template of microsoft/bitnet-b1.58-2B-4T.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)


def write_master(folder: str | os.PathLike[str], model: BitNet, tokenizer: Tokenizer) -> None:
    """Write the real-valued weights (float32) and the vocabulary for transformers."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in _settings(model.shape, tokenizer).items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")


def _settings(shape: Sizes, tokenizer: Tokenizer) -> dict[str, dict[str, Any]]:
    """The JSON files of the folder, by name."""
    bos_id, eos_id, eot_id = (tokenizer.token_to_id(text) for text in (BOS, EOS, EOT))
    return {
        "config.json": {
            "_name_or_path": NAME,
            "architectures": ["BitNetForCausalLM"],
            "model_type": "bitnet",
            "vocab_size": shape.vocab_size,
            "hidden_size": shape.hidden_size,
            "intermediate_size": shape.intermediate_size,
            "num_hidden_layers": shape.num_hidden_layers,
            "num_attention_heads": shape.num_attention_heads,
            "num_key_value_heads": shape.num_key_value_heads,
            "max_position_embeddings": shape.max_position_embeddings,
            "hidden_act": "relu2",
            "rms_norm_eps": EPSILON,
            "rope_parameters": {"rope_type": "default", "rope_theta": shape.rope_theta},
            "tie_word_embeddings": True,
            "bos_token_id": bos_id,
            "eos_token_id": eos_id,
            "dtype": "float32",
            "quantization_config": {
                "quant_method": "bitnet",
                "linear_class": "autobitlinear",
                "quantization_mode": "online",
            },
        },
        "generation_config.json": {"bos_token_id": bos_id, "eos_token_id": [eos_id, eot_id]},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": BOS,
            "eos_token": EOS,
            "model_max_length": shape.max_position_embeddings,
            "chat_template": CHAT_TEMPLATE,
        },
    }


def write_gguf(path: str | os.PathLike[str], master: str | os.PathLike[str]) -> None:
    """Write the masters of a folder as I2_S, their embedding as F16, and the vocabulary."""
    convert(master, path, type="i2_s", head="f16")

"""Writing the trained model: as a Hugging Face folder of masters, and from that as a GGUF file."""

import json
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.torch import save_file
from tokenizers import Tokenizer

from bitnet_lut.checkpoint import Checkpoint, open_checkpoint
from bitnet_lut.convert.gguf import TYPES
from bitnet_lut.families import ModelConfig, family_of, tensor_shapes
from bitnet_lut.formats import ggml, i2_s
from bitnet_lut.formats.gguf_writer import GGUFWriter
from bitnet_lut.formats.tensors import TernaryMatrix
from training.demo.corpus import BOS, EOS, EOT
from training.demo.network import EPSILON, BitNet
from training.demo.vocabulary import PRE

__all__ = ["CHAT_TEMPLATE", "NAME", "write_gguf", "write_master"]

NAME = "bitnet_lut demonstration model"

# Of microsoft/bitnet-b1.58-2B-4T.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize + ': ' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant: ' }}{% endif %}"
)

_TYPE_IDS = {entry.name: type_id for type_id, entry in ggml.GGML_TYPES.items()}
_NORMAL, _CONTROL = 1, 3


def write_master(folder: str | os.PathLike[str], model: BitNet, tokenizer: Tokenizer) -> None:
    """Write the real-valued weights (float32) and the vocabulary for transformers."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    bos_id, eos_id, eot_id = (tokenizer.token_to_id(text) for text in (BOS, EOS, EOT))
    shape = model.shape
    files: dict[str, dict[str, Any]] = {
        "config.json": {
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
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")


def write_gguf(path: str | os.PathLike[str], master: str | os.PathLike[str]) -> None:
    """Write the masters of a folder as I2_S, their embedding as F16, and the vocabulary."""
    tokenizer = json.loads((Path(master) / "tokenizer.json").read_text())
    with open_checkpoint(master) as checkpoint:
        config = checkpoint.config
        tensors = {name: _tensor(checkpoint, name) for name in tensor_shapes(config)}
        table = [
            (name, shape, _TYPE_IDS[tensors[name][0]], tensors[name][1].nbytes)
            for name, shape in tensor_shapes(config).items()
        ]
        with GGUFWriter(path, _metadata(config, tokenizer), table) as writer:
            for name, (_, data) in tensors.items():
                writer.write(name, data)


def _tensor(checkpoint: Checkpoint, name: str) -> tuple[str, NDArray[Any]]:
    """The type and the data of a tensor in the GGUF file."""
    if len(tensor_shapes(checkpoint.config)[name]) == 1:
        return "f32", checkpoint.vector(name)
    matrix = checkpoint.matrix(name)
    if isinstance(matrix, TernaryMatrix):
        weights = i2_s.unpack_rows(matrix.packed, matrix.cols)
        return "i2_s", i2_s.pack(weights, float(matrix.scale[0]))
    embedding = matrix.data.reshape(-1).view(np.float32).reshape(matrix.rows, matrix.cols)
    return "f16", ggml.quantize("f16", embedding)


def _metadata(config: ModelConfig, tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    vocabulary = tokenizer["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    types = [_CONTROL if text in (BOS, EOS, EOT) else _NORMAL for text in tokens]
    merges = [" ".join(pair) for pair in tokenizer["model"]["merges"]]
    return {
        **family_of(config).gguf_metadata(replace(config, name=NAME)),
        "general.license": "mit",
        "general.file_type": TYPES["i2_s"].file_type,
        "general.quantization_version": 2,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": PRE,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": vocabulary[BOS],
        "tokenizer.ggml.eos_token_id": vocabulary[EOS],
        "tokenizer.ggml.eot_token_id": vocabulary[EOT],
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.chat_template": CHAT_TEMPLATE,
    }

"""Writing a model of transformers as a GGUF file, and checking the file against the model."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.checkpoint.hf import quantization_settings
from bitnet_lut.convert import convert
from bitnet_lut.convert import vocabulary as convert_vocabulary
from bitnet_lut.errors import FormatError
from bitnet_lut.families import ModelConfig, config_from_hf, family_of, is_linear, tensor_shapes
from bitnet_lut.formats import hf
from bitnet_lut.formats.safetensors_writer import SafetensorsWriter
from bitnet_lut.formats.ternary import Scale, Weights
from bitnet_lut.torch.bitlinear import BitLinear, absmean
from bitnet_lut.torch.check import Comparison, compare
from bitnet_lut.torch.loader import from_state

__all__ = ["CHECK_TEXT", "Export", "ExportError", "export"]

CHECK_TEXT = (
    "The quick brown fox jumps over the lazy dog, but in 2024 nobody (not even the dog!) minded. "
    "What is the capital of France? It is Paris; 12 + 30 = 42.\n"
)

# Of ``Comparison.step_difference``: float noise stays below a tenth of it, and leaving out the
# rounding of activations gives ten times as much.
_TOLERANCE = 1e-4
_VOCABULARY = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "generation_config.json",
    "chat_template.jinja",
)


class ExportError(RuntimeError):
    """What was written does not compute what the model does, and was removed again.

    comparison: the figures.
    """

    def __init__(self, message: str, comparison: Comparison) -> None:
        """For `export`."""
        super().__init__(message)
        self.comparison = comparison


@dataclass(frozen=True)
class Export:
    """What `export` wrote, how it compares with the model, and what a person should know."""

    path: Path
    comparison: Comparison
    warnings: tuple[str, ...]


def export(
    model: nn.Module | Mapping[str, Tensor],
    path: str | os.PathLike[str],
    *,
    tokenizer: Any,
    config: Any = None,
    head: str | None = "f16",
    check_text: str = CHECK_TEXT,
) -> Export:
    """Write a model of transformers as a GGUF file (I2_S) and check that it computes the same.

    model: BitNetForCausalLM, LlamaForCausalLM or Qwen2ForCausalLM whose linear layers are
        `BitLinear` or transformers' AutoBitLinear or BitLinear; or the state dict of one of these
        with `BitLinear` layers, whose *config* is then needed: transformers', or a dict.
    tokenizer: a fast tokenizer of transformers, a folder with a tokenizer.json, or a GGUF file with
        the vocabulary. It also says what begins and ends a text.
    head: type of embedding and output matrix: "f16", "q8_0", "q6_k" or "q4_0"; None for float32.
    check_text: what both are run on, at most 512 tokens.

    The model is run in float32 on the CPU, and is not changed.
    Raises ValueError (or FormatError, which is one) for a model that such a file cannot hold, and
    ExportError if the file does not compute what the model does; *path* is then as it was.
    """
    path = Path(path)
    if isinstance(model, Mapping):
        if config is None:
            raise ValueError("a state dict needs its config: export(..., config=model.config)")
        model = from_state(config, model)
    model = getattr(model, "_orig_mod", model)  # inside torch.compile's wrapper
    with TemporaryDirectory(prefix=f".{path.name}.", dir=path.absolute().parent) as name:
        folder, file = Path(name) / "packed", Path(name) / path.name
        folder.mkdir()
        _write_vocabulary(tokenizer, folder)
        _write_packed(model, folder, path.stem)
        try:
            warnings = convert(folder, file, type="i2_s", head=head).warnings
        except FormatError as error:
            raise FormatError(str(error).replace(str(folder), type(model).__name__)) from None
        comparison = compare(model, file, check_text)
        if not comparison.step_difference <= _TOLERANCE:
            raise ExportError(
                f"{path} was not written: on {comparison.tokens} tokens {comparison.step} differs "
                f"by {comparison.step_difference:.2g} from what {type(model).__name__} computes "
                f"(relative; float noise is below {_TOLERANCE}). Its forward pass must be that of "
                "transformers, with ternary layers in every place but the output matrix",
                comparison,
            )
        file.replace(path)
    return Export(path, comparison, warnings)


def _write_vocabulary(tokenizer: Any, folder: Path) -> None:
    """Write tokenizer.json and what belongs to it."""
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(folder)
    elif Path(tokenizer).is_dir():
        for name in _VOCABULARY:
            if (Path(tokenizer) / name).is_file():
                shutil.copyfile(Path(tokenizer) / name, folder / name)
    else:
        with open_checkpoint(tokenizer) as checkpoint:
            context = checkpoint.config.context_length
            metadata = checkpoint.metadata
            convert_vocabulary.to_folder(metadata, folder, checkpoint.name, context=context)
    if not (folder / "tokenizer.json").is_file():
        raise ValueError(f"{tokenizer} has no tokenizer.json: a fast tokenizer is needed")


def _write_packed(model: nn.Module, folder: Path, name: str) -> None:
    """Write config.json and model.safetensors as transformers packs ternary weights."""
    if not hasattr(model, "config"):
        raise ValueError(f"{type(model).__name__} has no config: export its state dict with one")
    settings = {
        # BOS and EOS are the tokenizer's: a config has those of another vocabulary by default.
        **{key: value for key, value in model.config.to_dict().items() if "_token_id" not in key},
        "architectures": [type(model).__name__],
        "_name_or_path": name,
        "quantization_config": quantization_settings("autobitlinear"),
    }
    (folder / "config.json").write_text(json.dumps(settings, default=str), encoding="utf-8")
    tensors = _packed(model, config_from_hf(settings, f"the config of {type(model).__name__}"))
    table = [(key, dtype, array.shape) for key, (dtype, array) in tensors.items()]
    with SafetensorsWriter(folder / "model.safetensors", table) as writer:
        for key, (_, array) in tensors.items():
            writer.write(key, np.ascontiguousarray(array))


def _packed(model: nn.Module, config: ModelConfig) -> dict[str, tuple[str, NDArray[Any]]]:
    """All tensors of a model with their dtypes, linear layers packed."""
    name_of = family_of(config).hf_name
    linears = {name_of(tensor) for tensor in tensor_shapes(config) if is_linear(tensor)}
    tied = {"lm_head.weight"} if config.tied_head else set()
    tensors: dict[str, tuple[str, NDArray[Any]]] = {}
    for key, tensor in model.state_dict().items():
        if key in linears:
            ternary, scale = _ternary(model, key.removesuffix(".weight"))
            if len(ternary) % 4:
                raise ValueError(f"{key} has {len(ternary)} rows: it must be a multiple of 4")
            tensors[key] = "U8", hf.pack(ternary)
            tensors[f"{key}_scale"] = "F32", scale
        elif key.removesuffix("_scale") not in linears | tied:
            tensors[key] = "F32", tensor.detach().float().cpu().numpy()
    return tensors


def _ternary(model: nn.Module, name: str) -> tuple[Weights, Scale]:
    """The weights int8 (rows, cols) and the scale (1,) that a layer computes with."""
    layer = model.get_submodule(name)
    weight = layer.weight.detach().cpu()
    if isinstance(layer, BitLinear):
        if layer.lambda_ != 1:
            raise ValueError(f"{name} rounds by lambda_ {layer.lambda_}: set_lambda(model, 1)")
        values, scale = absmean(weight)
    elif getattr(layer, "online_quant", False):  # transformers' AutoBitLinear, in training
        values, scale = absmean(weight)
    elif not hasattr(layer, "weight_scale"):
        raise ValueError(
            f"{name} is a {type(layer).__name__}, which computes with real-valued weights: put "
            "BitLinear in its place (replace_linears) and train the model with it"
        )
    elif weight.dtype != torch.uint8:  # AutoBitLinear with ternary weights
        values, scale = weight.float(), layer.weight_scale.float().cpu()
    elif layer.dtype != torch.float32:
        raise ValueError(f"{name} computes in {layer.dtype}: load it with dtype=torch.float32")
    else:  # transformers' BitLinear
        values = torch.from_numpy(hf.unpack(weight.numpy(), layer.out_features))
        scale = 1 / layer.weight_scale.cpu()
    return values.to(torch.int8).numpy(), scale.reshape(1).numpy()

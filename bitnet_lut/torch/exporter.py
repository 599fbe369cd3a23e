"""Writing a model of transformers as a GGUF file, and checking the file against the model."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.convert import HEADS, Options, write_checkpoint
from bitnet_lut.convert import vocabulary as convert_vocabulary
from bitnet_lut.formats.output import Output, scratch_folder
from bitnet_lut.torch.check import Comparison, compare
from bitnet_lut.torch.checkpoint import ModelCheckpoint
from bitnet_lut.torch.loader import from_state

__all__ = ["CHECK_TEXT", "Export", "ExportError", "export"]

CHECK_TEXT = (
    "The quick brown fox jumps over the lazy dog, but in 2024 nobody (not even the dog!) minded. "
    "What is the capital of France? It is Paris; 12 + 30 = 42.\n"
)

# Largest ``Comparison.step_difference``: float noise stays below a tenth of it, and leaving out the
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
    if head not in (None, *HEADS):
        raise ValueError(f"head is {head!r}: it must be one of {', '.join(HEADS)}, or None")
    with scratch_folder(path) as scratch:
        folder, file = scratch / "vocabulary", scratch / path.name
        folder.mkdir()
        _write_vocabulary(tokenizer, folder)
        checkpoint = ModelCheckpoint(model, folder, path.stem)
        warnings = write_checkpoint(checkpoint, file, Options("i2_s", head)).warnings
        comparison = compare(model, file, check_text)
        if not comparison.step_difference <= _TOLERANCE:
            raise ExportError(
                f"{path} was not written: on {comparison.tokens} tokens {comparison.step} differs "
                f"by {comparison.step_difference:.2g} from what {type(model).__name__} computes "
                f"(relative; float noise is below {_TOLERANCE}). Its forward pass must be that of "
                "transformers, with ternary layers in every place but the output matrix",
                comparison,
            )
        with Output(path) as temporary:
            file.replace(temporary)
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

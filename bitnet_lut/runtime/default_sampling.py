"""How the makers of a model would choose tokens, as its files say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.safetensors import read_json
from bitnet_lut.runtime.sampling import Sampling

__all__ = ["GGUF_PREFIX", "default_sampling"]

GGUF_PREFIX = "general.sampling."

# What transformers takes where a file that asks for sampling does not say.
_TRANSFORMERS = {"temperature": 1.0, "top_k": 50, "order": "transformers"}
_FOLDER_NAMES = ("temperature", "top_k", "top_p", "min_p", "typical_p", "repetition_penalty")
_GGUF_NAMES = {
    "temp": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "xtc_probability": "xtc_probability",
    "xtc_threshold": "xtc_threshold",
    "penalty_repeat": "repetition_penalty",
    "penalty_last_n": "penalty_window",
}
# Where llama.cpp takes anything below zero for it.
_AT_LEAST_ZERO = ("temperature", "top_k", "penalty_window")


def default_sampling(name: str, folder: Path | None, metadata: Mapping[str, object]) -> Sampling:
    """What a model's files recommend; greedy choice where they say nothing.

    folder: its generation_config.json counts; None: *metadata*, that of the GGUF file *name*, does.
    Raises FormatError if a value makes no sense.
    """
    if folder is None:
        found = _of_gguf(metadata)
    else:
        file = folder / "generation_config.json"
        name, found = str(file), _of_config(read_json(file) if file.is_file() else {})
    try:
        return Sampling(**found)
    except (TypeError, ValueError) as error:
        raise FormatError(f"{name}: the recommended sampling cannot be used: {error}") from None


def _of_config(config: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: config[name] for name in _FOLDER_NAMES if config.get(name) is not None}
    if config.get("do_sample"):
        return _TRANSFORMERS | found
    return {name: value for name, value in found.items() if name == "repetition_penalty"}


def _of_gguf(metadata: Mapping[str, object]) -> dict[str, Any]:
    """A file without a temperature, but with other steps, means the model's own: 1."""
    found: dict[str, Any] = {}
    for key, name in _GGUF_NAMES.items():
        value = metadata.get(GGUF_PREFIX + key)
        if isinstance(value, int | float) and name in _AT_LEAST_ZERO:
            value = max(0, value)
        if value is not None:
            found[name] = value
    return {"temperature": 1.0, **found} if found else {}

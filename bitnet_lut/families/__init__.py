"""Model families: how GGUF and Hugging Face files describe their graphs, and name their tensors.

A family is a `Family` in a file of its own and a line in the table below. Everything else asks
this package: `config_from_gguf` and `config_from_hf` read configs, `family_of` gives the family of
a config, which writes them.
"""

from collections.abc import Mapping
from typing import Any

from bitnet_lut.families import bitnet, bitnet_b158, llama, qwen2
from bitnet_lut.families.config import Activation, ModelConfig, RopeKind
from bitnet_lut.families.family import Family
from bitnet_lut.families.keys import Keys
from bitnet_lut.families.tensors import LINEARS, input_op, is_linear, scale_name
from bitnet_lut.formats.gguf import GGUFFile

__all__ = [
    "FAMILIES",
    "LINEARS",
    "Activation",
    "Family",
    "ModelConfig",
    "RopeKind",
    "config_from_gguf",
    "config_from_hf",
    "family_of",
    "input_op",
    "is_linear",
    "scale_name",
    "tensor_shapes",
]

FAMILIES: Mapping[str, Family] = {
    family.name: family
    for family in (
        bitnet_b158.FAMILY,
        bitnet.FAMILY,
        llama.FAMILY,
        qwen2.FAMILY,
    )
}


def family_of(config: ModelConfig) -> Family:
    """The family of a config."""
    return FAMILIES[config.architecture]


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor the model needs, by its GGUF name, in NumPy order."""
    return family_of(config).tensor_shapes(config)


def config_from_gguf(file: GGUFFile) -> ModelConfig:
    """The model that *file* describes; FormatError names the key that is missing or wrong."""
    keys = Keys(file.metadata, file.name, (float,))
    known = {name: family for family in FAMILIES.values() for name in _gguf_names(family)}
    stated = keys.text("general.architecture")
    if stated not in known:
        keys.refuse("general.architecture", f"only {', '.join(known)} are supported")
    return known[stated].read_gguf(file)


def config_from_hf(settings: Mapping[str, Any], source: str) -> ModelConfig:
    """The model that a parsed config.json describes; *source* is its path, for errors.

    The rows of q and k of such a checkpoint are in the order of RoPE "neox".
    """
    keys = Keys(settings, source, (float, int))
    classes = settings.get("architectures")
    if isinstance(classes, list) and len(classes) == 1 and isinstance(classes[0], str):
        key, stated = "architectures", classes[0]
        known = {family.hf_class: family for family in FAMILIES.values()}
    else:
        key, stated = "model_type", keys.text("model_type")
        known = {f.hf_model_type: f for f in FAMILIES.values() if f.hf_model_type is not None}
    if stated not in known:
        keys.refuse(key, f"only {', '.join(known)} are supported")
    return known[stated].read_hf(settings, source)


def _gguf_names(family: Family) -> tuple[str, ...]:
    return family.name, *family.old_names

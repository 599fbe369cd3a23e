"""The table by which configs are read and written: each value, and its key in each kind of file."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias

import numpy as np

from bitnet_lut.families.config import Activation, ModelConfig
from bitnet_lut.families.keys import Keys

Container: TypeAlias = Literal["gguf", "hf"]

_REQUIRED: Any = object()


@dataclass(frozen=True)
class Field:
    """A value of a config, and where files keep it.

    attribute: its name in `ModelConfig`. Two fields with one attribute must have the same value.
    gguf: key in a GGUF file, below "<architecture>."; hf: key in config.json. None: not kept there.
    kind: the method of `Keys` that reads and checks it.
    default: the value if the key is missing, or a function that computes it from the fields above
        this one. Without a default the key is required.
    written: whether a file for a config needs the key.
    """

    attribute: str
    gguf: str | None
    hf: str | None
    kind: Literal["count", "real", "flag", "activation"]
    default: Any = _REQUIRED
    written: Callable[[ModelConfig], bool] = lambda config: True

    def key(self, container: Container, architecture: str) -> str | None:
        """Complete key in a kind of file."""
        if container == "hf":
            return self.hf
        return None if self.gguf is None else f"{architecture}.{self.gguf}"


class Reading:
    """A config on its way out of a file.

    container: kind of the file. values: values of the fields read so far, by attribute.
    """

    def __init__(self, container: Container, keys: Keys, architecture: str) -> None:
        """architecture: what a GGUF file calls it, which opens its keys."""
        self.container = container
        self.values: dict[str, Any] = {}
        self._keys = keys
        self._architecture = architecture
        self._names: dict[str, str] = {}

    def read(self, fields: Iterable[Field]) -> dict[str, Any]:
        """Values of all fields; FormatError names the key that is missing or wrong."""
        for field in fields:
            key = field.key(self.container, self._architecture)
            name = self._names.setdefault(field.attribute, key or field.attribute)
            if key is not None and (key in self._keys.values or field.default is _REQUIRED):
                value = getattr(self._keys, field.kind)(key)
            else:
                value = field.default(self) if callable(field.default) else field.default
            first = self.values.setdefault(field.attribute, value)
            if key is not None and value != first:
                self._keys.refuse(key, f"it must equal {name}, which is {first}")
        return self.values

    def refuse(self, attribute: str, reason: str) -> NoReturn:
        """Raise the FormatError that quotes the key of a field read before."""
        self._keys.refuse(self._names[attribute], reason)

    def name(self, attribute: str) -> str:
        """Key of a field read before or being read."""
        return self._names[attribute]


def values_for(
    container: Container, fields: Iterable[Field], config: ModelConfig, architecture: str
) -> dict[str, Any]:
    """The entries of a file that describe a config."""
    found = {}
    for field in fields:
        key = field.key(container, architecture)
        if key is not None and field.written(config):
            value = getattr(config, field.attribute)
            found[key] = _shortest(value) if container == "hf" and field.kind == "real" else value
    return found


def decoder_fields(
    *,
    activation: Activation | Callable[[Reading], Activation] = "silu",
    rope_theta: float | Callable[[Reading], float] = 10000.0,
) -> tuple[Field, ...]:
    """The fields of a decoder as most families name them.

    activation, rope_theta: defaults of the family, see `Field`.
    """
    return (
        Field("vocab_size", "vocab_size", "vocab_size", "count"),
        Field("context_length", "context_length", "max_position_embeddings", "count"),
        Field("embedding_length", "embedding_length", "hidden_size", "count"),
        Field("block_count", "block_count", "num_hidden_layers", "count"),
        Field("feed_forward_length", "feed_forward_length", "intermediate_size", "count"),
        Field("head_count", "attention.head_count", "num_attention_heads", "count"),
        Field(
            "head_count_kv",
            "attention.head_count_kv",
            "num_key_value_heads",
            "count",
            _like("head_count"),
        ),
        Field("head_dim", "attention.key_length", "head_dim", "count", _even_share, _uneven_heads),
        Field(
            "head_dim", "attention.value_length", None, "count", _like("head_dim"), _uneven_heads
        ),
        Field("rope_dim", "rope.dimension_count", None, "count", _like("head_dim")),
        Field("rope_theta", "rope.freq_base", "rope_theta", "real", rope_theta),
        Field("rms_eps", "attention.layer_norm_rms_epsilon", "rms_norm_eps", "real"),
        Field("activation", "hidden_activation", "hidden_act", "activation", activation),
        Field("tied_head", None, "tie_word_embeddings", "flag", False),
    )


def _like(attribute: str) -> Callable[[Reading], Any]:
    """Default to the value of another field."""
    return lambda file: file.values[attribute]


def _even_share(file: Reading) -> int:
    """Elements of a head where the file leaves it to the division."""
    embedding, heads = file.values["embedding_length"], file.values["head_count"]
    if embedding % heads:
        file.refuse(
            "head_count",
            f"it must divide {file.name('embedding_length')} {embedding} where there is no "
            f"{file.name('head_dim')}",
        )
    return int(embedding // heads)


def _uneven_heads(config: ModelConfig) -> bool:
    """Whether a file must say how many elements a head has."""
    return config.head_dim * config.head_count != config.embedding_length


def _shortest(value: float) -> float:
    """The shortest decimal for a float32 such as a GGUF file holds: 1e-05; others unchanged."""
    narrow = np.float32(value)
    return float(str(narrow)) if float(narrow) == value else value

"""One description of a model's graph, from GGUF metadata or from a Hugging Face config.json."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NoReturn, TypeAlias, cast, get_args

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.gguf import GGUFFile

__all__ = ["ModelConfig", "config_from_gguf", "config_from_hf", "tensor_shapes"]

Activation: TypeAlias = Literal["silu", "relu2"]

# general.architecture -> our name. Files of early 2025 call the 2B model's graph "bitnet-25".
_GGUF_ARCHITECTURES = {
    "bitnet-b1.58": "bitnet-b1.58",
    "bitnet-25": "bitnet-b1.58",
    "bitnet": "bitnet",
    "llama": "llama",
    "qwen2": "qwen2",
}
# Microsoft's and 1bitLLM's classes differ only in a capital letter; the latter's config.json says
# model_type "llama", so the class is asked first.
_HF_ARCHITECTURES = {
    "BitNetForCausalLM": "bitnet-b1.58",
    "BitnetForCausalLM": "bitnet",
    "LlamaForCausalLM": "llama",
    "Qwen2ForCausalLM": "qwen2",
}
_HF_MODEL_TYPES = {"bitnet": "bitnet-b1.58", "llama": "llama", "qwen2": "qwen2"}

_SUB_NORM_ARCHITECTURES = ("bitnet-b1.58", "bitnet")
# The vocabulary of 1bitLLM's models, which newer converters file under Microsoft's architecture.
_VOCABULARY_OF_1BITLLM = 32002

# Far above any model, and low enough that C's int32 holds each of them and loops over layers end.
_MAX_COUNT = 2**31 - 1
_MAX_BLOCKS = 1024
# Real numbers stay clear of zero and infinity in float32.
_MIN_REAL, _MAX_REAL = 1e-30, 1e30
_MAX_QUOTED = 80


@dataclass(frozen=True)
class ModelConfig:
    """The graph and sizes of a decoder-only transformer.

    architecture: "bitnet-b1.58" (sub-norms, ReLU² unless told otherwise), "bitnet" (sub-norms,
        SiLU), "llama" or "qwen2".
    context_length: tokens the model was made for; embedding_length: width of the residual stream;
    feed_forward_length: rows of gate and up; block_count: layers.
    head_count, head_count_kv: query heads, and key/value heads that they share.
    head_dim: elements of a head; rope_dim: the first elements of it that are rotated.
    rope_kind: "norm" rotates pairs (2i, 2i + 1), "neox" pairs (i, i + rope_dim / 2).
    sub_norms: an RMSNorm before the attention output and before ffn_down.
    qkv_bias: biases on q, k and v; tied_head: the embedding is also the output matrix.
    """

    architecture: str
    vocab_size: int
    context_length: int
    embedding_length: int
    feed_forward_length: int
    block_count: int
    head_count: int
    head_count_kv: int
    head_dim: int
    rope_dim: int
    rope_theta: float
    rope_kind: Literal["norm", "neox"]
    rms_eps: float
    activation: Activation
    sub_norms: bool
    qkv_bias: bool
    tied_head: bool
    name: str = ""

    @property
    def head_name(self) -> str:
        """Which matrix makes the logits."""
        return "token_embd.weight" if self.tied_head else "output.weight"


def config_from_gguf(file: GGUFFile) -> ModelConfig:
    """The model that *file* describes; FormatError names the key that is missing or wrong."""
    keys = _Keys(file.metadata, file.name, (float,))
    stated = keys.text("general.architecture")
    if stated not in _GGUF_ARCHITECTURES:
        keys.refuse("general.architecture", f"only {', '.join(_GGUF_ARCHITECTURES)} are supported")
    architecture = _GGUF_ARCHITECTURES[stated]
    _refuse_gguf_rope_scaling(keys, stated)
    embedding_length = keys.count(f"{stated}.embedding_length")
    head_count = keys.count(f"{stated}.attention.head_count")
    head_dim = _gguf_head_dim(keys, stated, embedding_length, head_count)
    vocab_size = _gguf_vocab_size(keys, stated)
    config = ModelConfig(
        architecture=architecture,
        vocab_size=vocab_size,
        context_length=keys.count(f"{stated}.context_length"),
        embedding_length=embedding_length,
        feed_forward_length=keys.count(f"{stated}.feed_forward_length"),
        block_count=keys.count(f"{stated}.block_count"),
        head_count=head_count,
        head_count_kv=keys.count(f"{stated}.attention.head_count_kv", head_count),
        head_dim=head_dim,
        rope_dim=keys.count(f"{stated}.rope.dimension_count", head_dim),
        rope_theta=keys.real(f"{stated}.rope.freq_base", 10000.0),
        rope_kind="norm" if architecture == "llama" else "neox",
        rms_eps=keys.real(f"{stated}.attention.layer_norm_rms_epsilon"),
        activation=_gguf_activation(keys, stated, vocab_size),
        sub_norms=architecture in _SUB_NORM_ARCHITECTURES,
        qkv_bias=architecture == "qwen2" or "blk.0.attn_q.bias" in file.tensors,
        tied_head="output.weight" not in file.tensors,
        name=keys.text("general.name", ""),
    )
    return _checked(config, file.name)


def config_from_hf(config: Mapping[str, Any], source: str) -> ModelConfig:
    """The model that a parsed config.json describes; *source* is its path, for errors.

    Weights of such a checkpoint are not permuted, so RoPE is always "neox".
    """
    given = {key: value for key, value in config.items() if value is not None}
    keys = _Keys(given, source, (float, int))
    architecture = _hf_architecture(keys)
    bitnet = architecture == "bitnet-b1.58"
    for feature in ("attention_bias", "mlp_bias", "use_sliding_window"):
        if given.get(feature):
            keys.refuse(feature, "this is not supported")
    embedding_length = keys.count("hidden_size")
    head_count = keys.count("num_attention_heads")
    head_dim = keys.count("head_dim", embedding_length // head_count)
    return _checked(
        ModelConfig(
            architecture=architecture,
            vocab_size=keys.count("vocab_size"),
            context_length=keys.count("max_position_embeddings"),
            embedding_length=embedding_length,
            feed_forward_length=keys.count("intermediate_size"),
            block_count=keys.count("num_hidden_layers"),
            head_count=head_count,
            head_count_kv=keys.count("num_key_value_heads", head_count),
            head_dim=head_dim,
            rope_dim=head_dim,
            rope_theta=_hf_rope_theta(keys, 500000.0 if bitnet else 10000.0),
            rope_kind="neox",
            rms_eps=keys.real("rms_norm_eps"),
            activation=_activation(keys, "hidden_act", "relu2" if bitnet else "silu"),
            sub_norms=architecture in _SUB_NORM_ARCHITECTURES,
            qkv_bias=architecture == "qwen2",
            tied_head=keys.flag("tie_word_embeddings", False),
            name=keys.text("_name_or_path", ""),
        ),
        source,
    )


def tensor_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor the model needs, by its GGUF name, in NumPy order."""
    embedding, ffn = config.embedding_length, config.feed_forward_length
    q_rows = config.head_count * config.head_dim
    kv_rows = config.head_count_kv * config.head_dim
    block: dict[str, tuple[int, ...]] = {
        "attn_norm.weight": (embedding,),
        "attn_q.weight": (q_rows, embedding),
        "attn_k.weight": (kv_rows, embedding),
        "attn_v.weight": (kv_rows, embedding),
        "attn_output.weight": (embedding, q_rows),
        "ffn_norm.weight": (embedding,),
        "ffn_gate.weight": (ffn, embedding),
        "ffn_up.weight": (ffn, embedding),
        "ffn_down.weight": (embedding, ffn),
    }
    if config.sub_norms:
        block |= {"attn_sub_norm.weight": (q_rows,), "ffn_sub_norm.weight": (ffn,)}
    if config.qkv_bias:
        block |= {"attn_q.bias": (q_rows,), "attn_k.bias": (kv_rows,), "attn_v.bias": (kv_rows,)}
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (config.vocab_size, embedding),
        "output_norm.weight": (embedding,),
    }
    if not config.tied_head:
        shapes["output.weight"] = (config.vocab_size, embedding)
    for index in range(config.block_count):
        shapes |= {f"blk.{index}.{name}": shape for name, shape in block.items()}
    return shapes


class _Keys:
    """Values by name, checked for presence, type and range; *source* opens every error.

    A real number must be of one of *real_types*: GGUF types its numbers, JSON does not.
    """

    def __init__(
        self, values: Mapping[str, Any], source: str, real_types: tuple[type, ...]
    ) -> None:
        self.values = values
        self.source = source
        self.real_types = real_types

    def refuse(self, key: str, reason: str) -> NoReturn:
        """Raise the FormatError that quotes the value of *key*."""
        value = repr(self.values[key])
        value = value if len(value) <= _MAX_QUOTED else value[:_MAX_QUOTED] + "..."
        raise FormatError(f"{self.source}: {key} is {value}: {reason}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self._get(key, default)
        if not isinstance(value, str):
            self.refuse(key, "it must be a string")
        return value

    def flag(self, key: str, default: bool) -> bool:
        value = self._get(key, default)
        if not isinstance(value, bool):
            self.refuse(key, "it must be true or false")
        return value

    def count(self, key: str, default: int | None = None) -> int:
        value = self._get(key, default)
        if type(value) is not int:
            self.refuse(key, "it must be an integer")
        if not 0 < value <= _MAX_COUNT:
            self.refuse(key, f"it must be in 1..{_MAX_COUNT}")
        return value

    def real(self, key: str, default: float | None = None) -> float:
        value = self._get(key, default)
        if type(value) not in self.real_types:
            self.refuse(key, "it must be a floating-point number")
        if not _MIN_REAL <= value <= _MAX_REAL:
            self.refuse(key, f"it must be in {_MIN_REAL}..{_MAX_REAL}")
        return float(value)

    def _get(self, key: str, default: Any) -> Any:
        value = self.values.get(key, default)
        if value is None:
            raise FormatError(f"{self.source}: {key} is missing")
        return value


def _gguf_vocab_size(keys: _Keys, prefix: str) -> int:
    """The number of tokens, else (a file without a vocabulary) what the file states.

    As in llama.cpp the vocabulary decides: the stated size may predate a padded token list.
    """
    tokens = keys.values.get("tokenizer.ggml.tokens")
    if tokens is None:
        return keys.count(f"{prefix}.vocab_size")
    if not isinstance(tokens, list) or not tokens:
        keys.refuse("tokenizer.ggml.tokens", "it must be an array of strings, and not empty")
    return len(tokens)


def _gguf_head_dim(keys: _Keys, prefix: str, embedding_length: int, head_count: int) -> int:
    key = f"{prefix}.attention.key_length"
    if key not in keys.values and embedding_length % head_count:
        keys.refuse(
            f"{prefix}.attention.head_count",
            f"it must divide embedding_length {embedding_length} where there is no {key}",
        )
    head_dim = keys.count(key, embedding_length // head_count)
    if keys.count(f"{prefix}.attention.value_length", head_dim) != head_dim:
        keys.refuse(f"{prefix}.attention.value_length", f"keys have {head_dim}: must be equal")
    return head_dim


def _gguf_activation(keys: _Keys, prefix: str, vocab_size: int) -> Activation:
    """The activation of the feed-forward network; most files of bitnet-b1.58 do not state it."""
    of_microsoft = prefix in ("bitnet-b1.58", "bitnet-25") and vocab_size != _VOCABULARY_OF_1BITLLM
    return _activation(keys, f"{prefix}.hidden_activation", "relu2" if of_microsoft else "silu")


def _activation(keys: _Keys, key: str, default: Activation) -> Activation:
    name = keys.text(key, default)
    if name not in get_args(Activation):
        keys.refuse(key, f"only {' and '.join(get_args(Activation))} are supported")
    return cast(Activation, name)


def _refuse_gguf_rope_scaling(keys: _Keys, prefix: str) -> None:
    """Only rotations by the plain angles are computed: scaling by 1 or none at all."""
    key = f"{prefix}.rope.scaling.type"
    if keys.text(key, "none") not in ("none", "linear"):
        keys.refuse(key, "scaled RoPE is not supported")
    for key in (f"{prefix}.rope.scaling.factor", f"{prefix}.rope.scale_linear"):
        factor = keys.values.get(key, 1.0)
        if type(factor) is not float or factor not in (0.0, 1.0):  # 0 is llama.cpp's "unset"
            keys.refuse(key, "scaled RoPE is not supported, only the factor 1.0")


def _hf_architecture(keys: _Keys) -> str:
    classes = keys.values.get("architectures")
    if isinstance(classes, list) and len(classes) == 1 and isinstance(classes[0], str):
        key, known = "architectures", _HF_ARCHITECTURES
        name = classes[0]
    else:
        key, known = "model_type", _HF_MODEL_TYPES
        name = keys.text(key)
    if name not in known:
        keys.refuse(key, f"only {', '.join(known)} are supported")
    return known[name]


def _hf_rope_theta(keys: _Keys, default: float) -> float:
    """The base of the angles: at the top in older files, in rope_parameters in newer ones."""
    for key in ("rope_scaling", "rope_parameters"):
        rope = keys.values.get(key, {})
        if not isinstance(rope, dict):
            keys.refuse(key, "it must be an object")
        kind = rope.get("rope_type", rope.get("type", "default"))
        plain = kind == "default" or (kind == "linear" and rope.get("factor") == 1)
        if not plain or rope.get("partial_rotary_factor", 1) != 1:
            keys.refuse(key, "scaled or partial RoPE is not supported")
        if rope.get("rope_theta") is not None:
            return _Keys(rope, f"{keys.source}: {key}", keys.real_types).real("rope_theta")
    return keys.real("rope_theta", default)


def _checked(config: ModelConfig, source: str) -> ModelConfig:
    """*config*, if its numbers fit each other."""
    c = config
    faults = {
        f"block_count is {c.block_count}, more than {_MAX_BLOCKS}": c.block_count > _MAX_BLOCKS,
        f"head_count {c.head_count} is not a multiple of head_count_kv {c.head_count_kv}": (
            c.head_count % c.head_count_kv != 0
        ),
        f"the head dimension {c.head_dim} is odd": c.head_dim % 2 != 0,
        f"the rope dimension {c.rope_dim} is odd, or above the head dimension {c.head_dim}": (
            c.rope_dim % 2 != 0 or c.rope_dim > c.head_dim
        ),
    }
    for fault, present in faults.items():
        if present:
            raise FormatError(f"{source}: {fault}")
    return config

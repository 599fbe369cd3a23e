"""What defines a family of models: its names in both kinds of file, its graph and its defaults."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bitnet_lut.families import tensors
from bitnet_lut.families.config import ModelConfig, RopeKind, checked
from bitnet_lut.families.fields import Field, Reading, decoder_fields, values_for
from bitnet_lut.families.keys import Keys
from bitnet_lut.formats.gguf import GGUFFile

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Family:
    """A family of models; one file of this folder each.

    name: ``general.architecture`` of GGUF files, and ``ModelConfig.architecture``.
    old_names: names that earlier converters gave the architecture.
    hf_class: class of transformers, in ``architectures`` of config.json.
    hf_model_type: ``model_type`` of config.json; None if another family's files say the same.
    graph_of: the family whose graph this one shares, except for the activation; "" if it has its
        own. Folders are written for the class of that family.
    fields: the table by which configs are read and written.
    ternary: whether linear layers are ternary even where a file holds them as floats.
    sub_norms, qkv_bias: see `ModelConfig`. GGUF files may have biases in any family.
    gguf_rope: kind of RoPE that the rows of q and k are ordered for in GGUF files. In Hugging Face
        files they are always ordered for "neox".
    hf_linear_class: class of the packed layers in a folder written for transformers:
        "autobitlinear" multiplies by weight_scale, "bitlinear" divides by it.
    hf_refused: keys of config.json that must be missing, null or false.
    modules: {part: modules}, where transformers keeps further tensors of a layer; part is the name
        in GGUF, as in "blk.0.<part>.weight". The first module is written, any of them is read.
    more_tensors: {name below "blk.N.": shape} of further tensors of a block, for a config.
    """

    name: str
    hf_class: str
    hf_model_type: str | None
    old_names: tuple[str, ...] = ()
    graph_of: str = ""
    fields: tuple[Field, ...] = field(default_factory=decoder_fields)
    ternary: bool = False
    sub_norms: bool = False
    qkv_bias: bool = False
    gguf_rope: RopeKind = "neox"
    hf_linear_class: Literal["bitlinear", "autobitlinear"] = "bitlinear"
    hf_refused: tuple[str, ...] = ("attention_bias", "mlp_bias", "use_sliding_window")
    modules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    more_tensors: Callable[[ModelConfig], Shapes] = lambda config: {}

    @property
    def graph(self) -> str:
        """Name of the graph: two families with the same one differ in the activation only."""
        return self.graph_of or self.name

    def read_gguf(self, file: GGUFFile) -> ModelConfig:
        """The config that a file of this family describes; FormatError names a faulty key."""
        stated = str(file.metadata["general.architecture"])
        values = dict(file.metadata)
        keys = Keys(values, file.name, (float,))
        tokens = values.get("tokenizer.ggml.tokens")
        if tokens is not None:
            if not isinstance(tokens, list) or not tokens:
                keys.refuse("tokenizer.ggml.tokens", "it must be an array of strings, not empty")
            # As in llama.cpp the vocabulary decides: the stated size may predate its padding.
            values[f"{stated}.vocab_size"] = len(tokens)
        _refuse_scaled_rope(keys, stated)
        config = ModelConfig(
            **Reading("gguf", keys, stated).read(self.fields)
            | {
                "architecture": self.name,
                "rope_kind": self.gguf_rope,
                "sub_norms": self.sub_norms,
                "qkv_bias": self.qkv_bias or "blk.0.attn_q.bias" in file.tensors,
                "tied_head": "output.weight" not in file.tensors,
                "name": keys.text("general.name", ""),
            }
        )
        return checked(config, file.name)

    def read_hf(self, settings: Mapping[str, Any], source: str) -> ModelConfig:
        """The config that a parsed config.json describes; FormatError names a faulty key."""
        values = {key: value for key, value in settings.items() if value is not None}
        keys = Keys(values, source, (float, int))
        for feature in self.hf_refused:
            if values.get(feature):
                keys.refuse(feature, "this is not supported")
        theta = _rope_theta(keys)
        if theta is not None:
            values["rope_theta"] = theta
        config = ModelConfig(
            **Reading("hf", keys, self.hf_class).read(self.fields),
            architecture=self.name,
            rope_kind="neox",
            sub_norms=self.sub_norms,
            qkv_bias=self.qkv_bias,
            name=keys.text("_name_or_path", ""),
        )
        return checked(config, source)

    def gguf_metadata(self, config: ModelConfig) -> dict[str, Any]:
        """The metadata of a GGUF file that describe a config."""
        found: dict[str, Any] = {"general.architecture": self.name, "general.name": config.name}
        return found | values_for("gguf", self.fields, config, self.name)

    def hf_settings(self, config: ModelConfig) -> dict[str, Any]:
        """The entries of a config.json that describe a config."""
        found = {"architectures": [self.hf_class], "model_type": self.hf_model_type}
        return found | values_for("hf", self.fields, config, self.name)

    def gguf_key(self, attribute: str, architecture: str | None = None) -> str:
        """Key of a value of the config in GGUF files of this family, or of an old name of it."""
        keys = {entry.attribute: entry.gguf for entry in self.fields if entry.gguf}
        return f"{architecture or self.name}.{keys[attribute]}"

    def hf_name(self, name: str) -> str:
        """Hugging Face name of a tensor of the graph by its GGUF name, "blk.0.attn_q.weight"."""
        first = {part: modules[0] for part, modules in self.modules.items()}
        return tensors.hf_name(name, {**tensors.LINEARS, **tensors.NORMS, **first})

    def gguf_name(self, name: str) -> str:
        """GGUF name of a tensor by its Hugging Face name; unknown names stay as they are."""
        parts = {module: part for part, module in {**tensors.LINEARS, **tensors.NORMS}.items()}
        parts |= {module: part for part, modules in self.modules.items() for module in modules}
        return tensors.gguf_name(name, parts)

    def tensor_shapes(self, config: ModelConfig) -> dict[str, tuple[int, ...]]:
        """Name and shape of every tensor the model needs, by its GGUF name, in NumPy order."""
        return tensors.model_shapes(
            config, {**tensors.block_shapes(config), **self.more_tensors(config)}
        )


def _refuse_scaled_rope(keys: Keys, prefix: str) -> None:
    """FormatError unless rotations are by the plain angles: scaled by 1 or not at all."""
    key = f"{prefix}.rope.scaling.type"
    if keys.text(key, "none") not in ("none", "linear"):
        keys.refuse(key, "scaled RoPE is not supported")
    for key in (f"{prefix}.rope.scaling.factor", f"{prefix}.rope.scale_linear"):
        factor = keys.values.get(key, 1.0)
        if type(factor) is not float or factor not in (0.0, 1.0):  # 0 is llama.cpp's "unset"
            keys.refuse(key, "scaled RoPE is not supported, only the factor 1.0")


def _rope_theta(keys: Keys) -> float | None:
    """The base of the angles where newer files of Hugging Face keep it, in rope_parameters.

    FormatError unless rotations are by the plain angles.
    """
    for key in ("rope_scaling", "rope_parameters"):
        rope = keys.values.get(key, {})
        if not isinstance(rope, dict):
            keys.refuse(key, "it must be an object")
        kind = rope.get("rope_type", rope.get("type", "default"))
        plain = kind == "default" or (kind == "linear" and rope.get("factor") == 1)
        if not plain or rope.get("partial_rotary_factor", 1) != 1:
            keys.refuse(key, "scaled or partial RoPE is not supported")
        if rope.get("rope_theta") is not None:
            return Keys(rope, f"{keys.source}: {key}", keys.real_types).real("rope_theta")
    return None

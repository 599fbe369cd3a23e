import json
from typing import Any

import numpy as np
import pytest

from bitnet_lut.errors import FormatError
from bitnet_lut.families import (
    FAMILIES,
    ModelConfig,
    config_from_gguf,
    config_from_hf,
    tensor_shapes,
)
from bitnet_lut.formats import gguf
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.gguf_writer import GGUFWriter

BITNET = ModelConfig(
    architecture="bitnet-b1.58",
    vocab_size=640,
    context_length=256,
    embedding_length=256,
    feed_forward_length=512,
    block_count=3,
    head_count=4,
    head_count_kv=2,
    head_dim=64,
    rope_dim=64,
    rope_theta=500000.0,
    rope_kind="neox",
    rms_eps=1e-5,
    activation="relu2",
    sub_norms=True,
    qkv_bias=False,
    tied_head=True,
)
LLAMA = ModelConfig(
    architecture="llama",
    vocab_size=512,
    context_length=256,
    embedding_length=256,
    feed_forward_length=768,
    block_count=2,
    head_count=8,
    head_count_kv=2,
    head_dim=64,
    rope_dim=64,
    rope_theta=1000042.0,
    rope_kind="norm",
    rms_eps=1e-6,
    activation="silu",
    sub_norms=False,
    qkv_bias=False,
    tied_head=False,
)
BITNET_OF_1BITLLM = {"architecture": "bitnet", "vocab_size": 702, "activation": "silu"}
BITNET_OF_1BITLLM |= {"block_count": 2, "head_count_kv": 4, "rope_theta": 10000.0}
QWEN2 = {"architecture": "qwen2", "vocab_size": 764, "block_count": 1, "feed_forward_length": 512}
QWEN2 |= {"head_count": 4, "rope_theta": 1e6, "rope_kind": "neox", "qkv_bias": True}

GGUF_KEYS = {
    "vocab_size": 100,
    "context_length": 4096,
    "embedding_length": 96,
    "block_count": 2,
    "feed_forward_length": 160,
    "attention.head_count": 4,
    "attention.layer_norm_rms_epsilon": 1e-5,
}
HF_KEYS = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "max_position_embeddings": 4096,
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "intermediate_size": 160,
    "num_attention_heads": 4,
    "rms_norm_eps": 1e-5,
}


def changed(config: ModelConfig, **values: Any) -> dict[str, Any]:
    return {**vars(config), "name": "", **values}


def plain(config: ModelConfig) -> dict[str, Any]:
    """The config without its name; float32 as the shortest number that it can mean."""
    values = {**vars(config), "name": ""}
    return values | {"rms_eps": float(np.format_float_positional(np.float32(config.rms_eps)))}


@pytest.fixture
def from_gguf(tmp_path):
    """A config from GGUF_KEYS under an architecture, with keys added, changed or (None) removed."""

    def read(arch="llama", changes=None, tensors=(), **general):
        keys = {f"{arch}.{key}": value for key, value in {**GGUF_KEYS, **(changes or {})}.items()}
        metadata = {"general.architecture": arch, **keys, **general}
        metadata = {key: value for key, value in metadata.items() if value is not None}
        rows = [(name, (1,), 0, 4) for name in tensors]
        with GGUFWriter(tmp_path / "x.gguf", metadata, rows) as writer:
            for name in tensors:
                writer.write(name, bytes(4))
        return config_from_gguf(GGUFFile(tmp_path / "x.gguf"))

    return read


def from_hf(**changes):
    return config_from_hf({**HF_KEYS, **changes}, "x/config.json")


# Reference files


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("bitnet-b1.58/model-i2_s", changed(BITNET)),
        ("llama-1.58/model-i2_s", changed(LLAMA)),
        ("bitnet-1bitllm/model-i2_s", changed(BITNET, **BITNET_OF_1BITLLM)),
        ("qwen2-plain/model-q4_0", changed(LLAMA, **QWEN2)),
    ],
)
def test_gguf_files(golden, file, expected):
    with GGUFFile(golden / f"{file}.gguf") as opened:
        config = config_from_gguf(opened)
        assert config.name == opened.metadata["general.name"]
        shapes = {name: info.shape for name, info in opened.tensors.items()}
    assert plain(config) == expected
    assert tensor_shapes(config) == shapes


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("bitnet-b1.58/hf-packed", changed(BITNET)),
        ("bitnet-b1.58/hf-master-bf16", changed(BITNET)),
        ("llama-1.58/hf-packed", changed(LLAMA, rope_kind="neox")),
    ],
)
def test_hugging_face_folders(golden, folder, expected):
    path = golden / folder / "config.json"
    assert plain(config_from_hf(json.loads(path.read_text()), str(path))) == expected


# GGUF


def test_defaults(from_gguf):
    config = from_gguf()
    assert (config.head_count_kv, config.head_dim, config.rope_dim) == (4, 24, 24)
    assert (config.rope_theta, config.name) == (10000.0, "")


@pytest.mark.parametrize(
    ("arch", "vocab_size", "stated", "activation"),
    [
        ("bitnet-b1.58", 128256, None, "relu2"),
        ("bitnet-25", 128256, None, "relu2"),
        ("bitnet-b1.58", 32002, None, "silu"),
        ("bitnet-b1.58", 32002, "relu2", "relu2"),
        ("bitnet-b1.58", 128256, "silu", "silu"),
        ("bitnet", 128256, None, "silu"),
        ("llama", 128256, None, "silu"),
        ("qwen2", 32002, None, "silu"),
    ],
)
def test_activation(from_gguf, arch, vocab_size, stated, activation):
    config = from_gguf(arch, {"vocab_size": vocab_size, "hidden_activation": stated})
    assert config.activation == activation
    assert config.architecture == arch.replace("-25", "-b1.58")
    assert config.sub_norms == arch.startswith("bitnet")
    assert config.rope_kind == ("norm" if arch == "llama" else "neox")
    assert config.qkv_bias == (arch == "qwen2")


def test_head_dimension_is_the_stated_one(from_gguf):
    lengths = {"attention.key_length": 64, "attention.value_length": 64}
    config = from_gguf(changes={**lengths, "attention.head_count_kv": 2, "embedding_length": 98})
    assert (config.head_dim, config.rope_dim) == (64, 64)
    shapes = tensor_shapes(config)
    assert shapes["blk.1.attn_q.weight"] == (256, 98)
    assert shapes["blk.1.attn_k.weight"] == shapes["blk.1.attn_v.weight"] == (128, 98)
    assert shapes["blk.1.attn_output.weight"] == (98, 256)


def test_tensors_decide_on_head_and_biases(from_gguf):
    config = from_gguf(tensors=["output.weight", "blk.0.attn_q.bias"])
    assert not config.tied_head
    assert config.qkv_bias
    shapes = tensor_shapes(config)
    assert shapes["output.weight"] == (100, 96)
    assert shapes["blk.1.attn_v.bias"] == (96,)
    assert "output.weight" not in tensor_shapes(from_gguf())


def test_sub_norms_have_the_width_of_what_they_normalize(from_gguf):
    shapes = tensor_shapes(from_gguf("bitnet-b1.58", {"attention.key_length": 32}))
    assert shapes["blk.0.attn_sub_norm.weight"] == (128,)
    assert shapes["blk.0.ffn_sub_norm.weight"] == (160,)


def test_the_vocabulary_decides_its_size(from_gguf):
    tokens = [str(index) for index in range(7)]
    assert from_gguf(**{"tokenizer.ggml.tokens": tokens}).vocab_size == 7


@pytest.mark.parametrize(
    "scaling",
    [{"type": "none"}, {"type": "linear"}, {"type": "linear", "factor": 1.0}, {"factor": 0.0}],
)
def test_no_rope_scaling(from_gguf, scaling):
    from_gguf(changes={f"rope.scaling.{key}": value for key, value in scaling.items()})


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("block_count", None, "llama.block_count is missing"),
        ("block_count", 2.0, r"block_count is 2\.0: it must be an integer"),
        ("block_count", True, "block_count is True: .*integer"),
        ("block_count", 1025, "block_count is 1025"),
        ("embedding_length", 0, "embedding_length is 0"),
        ("embedding_length", 97, r"head_count is 4: it must divide llama\.embedding_length 97"),
        ("embedding_length", 100, "head dimension 25 is odd"),
        ("context_length", -5, "context_length is -5"),
        ("vocab_size", 2**40, f"vocab_size is {2**40}"),
        ("attention.head_count", [4, 4], r"head_count is array\(\[4, 4\].*integer"),
        ("attention.head_count_kv", 3, "head_count 4 .*head_count_kv 3"),
        (
            "attention.value_length",
            12,
            r"value_length is 12: it must equal llama\.attention\.key_length, which is 24",
        ),
        ("attention.layer_norm_rms_epsilon", None, "epsilon is missing"),
        ("attention.layer_norm_rms_epsilon", 1, "epsilon is 1: .*floating-point"),
        ("attention.layer_norm_rms_epsilon", float("nan"), "epsilon is nan"),
        ("rope.freq_base", float("inf"), "freq_base is inf"),
        ("rope.freq_base", (gguf.F64, -1.0), r"freq_base is -1\.0"),
        ("rope.dimension_count", 26, "rope dimension 26 .*head dimension 24"),
        ("rope.dimension_count", 7, "rope dimension 7 is odd"),
        ("rope.scaling.type", "yarn", "scaling.type is 'yarn'"),
        ("rope.scaling.factor", 2.0, r"factor is 2\.0"),
        ("rope.scaling.factor", [1.0, 1.0], "factor is array"),
        ("rope.freq_base", 1e31, "freq_base is 9"),
        ("rope.scale_linear", 4.0, r"scale_linear is 4\.0"),
        ("hidden_activation", "gelu", "hidden_activation is 'gelu': only silu and relu2"),
    ],
)
def test_wrong_gguf_keys_are_named(from_gguf, key, value, fault):
    with pytest.raises(FormatError, match=rf"x\.gguf: .*{fault}"):
        from_gguf(changes={key: value})


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("general.architecture", None, "architecture is missing"),
        ("general.architecture", "gemma3", "architecture is 'gemma3': only bitnet-b1.58, "),
        ("general.architecture", 5, "architecture is 5: .*string"),
        ("tokenizer.ggml.tokens", [], r"tokens is \[\]"),
        ("tokenizer.ggml.tokens", [1, 2], "tokens is array"),
    ],
)
def test_wrong_general_keys_are_named(from_gguf, key, value, fault):
    with pytest.raises(FormatError, match=fault):
        from_gguf(**{key: value})


# Both ways


def config_for(family, **changes):
    values = vars(BITNET if family.sub_norms else LLAMA) | {"qkv_bias": family.qkv_bias, **changes}
    return ModelConfig(**values | {"architecture": family.name, "rope_kind": family.gguf_rope})


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
@pytest.mark.parametrize("head_dim", [64, 32])
def test_what_a_family_writes_it_reads(tmp_path, family, head_dim):
    config = config_for(family, head_dim=head_dim, rope_dim=head_dim, activation="relu2", name="x")
    names = [
        name for name in tensor_shapes(config) if name in ("output.weight", "blk.0.attn_q.bias")
    ]
    rows = [(name, (1,), 0, 4) for name in names]
    with GGUFWriter(tmp_path / "x.gguf", family.gguf_metadata(config), rows) as writer:
        for name in names:
            writer.write(name, bytes(4))
    with GGUFFile(tmp_path / "x.gguf") as file:
        assert plain(config_from_gguf(file)) == plain(config)
        assert config_from_gguf(file).name == "x"
    settings = json.loads(json.dumps(family.hf_settings(config)))
    expected = changed(config, rope_kind="neox")
    if family.hf_model_type is None:
        settings.pop("model_type")
    assert plain(config_from_hf(settings, "x/config.json")) == expected


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_names_of_tensors_have_one_counterpart(family):
    names = list(tensor_shapes(config_for(family, tied_head=False)))
    hf_names = [family.hf_name(name) for name in names]
    assert len(set(hf_names)) == len(names)
    assert [family.gguf_name(name) for name in hf_names] == names


# Hugging Face


def test_hugging_face_defaults():
    config = from_hf(head_dim=None, rope_scaling=None)
    assert (config.head_count_kv, config.head_dim, config.rope_theta) == (4, 24, 10000.0)
    assert not config.tied_head


@pytest.mark.parametrize(
    ("names", "architecture", "activation", "theta"),
    [
        ({"architectures": ["BitNetForCausalLM"]}, "bitnet-b1.58", "relu2", 500000.0),
        ({"architectures": None, "model_type": "bitnet"}, "bitnet-b1.58", "relu2", 500000.0),
        (
            {"architectures": ["BitnetForCausalLM"], "model_type": "llama"},
            "bitnet",
            "silu",
            10000.0,
        ),
        ({"architectures": None, "model_type": "llama"}, "llama", "silu", 10000.0),
        ({"architectures": ["Qwen2ForCausalLM"]}, "qwen2", "silu", 10000.0),
    ],
)
def test_hugging_face_architectures(names, architecture, activation, theta):
    config = from_hf(**names)
    assert (config.architecture, config.activation) == (architecture, activation)
    assert (config.rope_theta, config.rope_kind) == (theta, "neox")
    assert config.sub_norms == ("bitnet" in architecture)
    assert config.qkv_bias == (architecture == "qwen2")


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 5e5},
        {"rope_theta": 500000},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}},
        {"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 1.0}},
    ],
)
def test_hugging_face_rope_theta(rope):
    assert from_hf(**rope).rope_theta == 500000.0


@pytest.mark.parametrize(
    ("key", "value", "fault"),
    [
        ("hidden_size", None, "hidden_size is missing"),
        ("num_attention_heads", 97, "num_attention_heads is 97: it must divide hidden_size 96"),
        ("num_attention_heads", 5, "num_attention_heads is 5: .*where there is no head_dim"),
        ("hidden_size", "96", "hidden_size is '96': .*integer"),
        ("hidden_size", True, "hidden_size is True: .*integer"),
        ("num_hidden_layers", 2**31, f"num_hidden_layers is {2**31}"),
        ("num_hidden_layers", 2**30, f"block_count is {2**30}"),
        ("rms_norm_eps", "tiny", "rms_norm_eps is 'tiny'"),
        ("rms_norm_eps", 0, "rms_norm_eps is 0"),
        ("rms_norm_eps", 10**400, "rms_norm_eps is 1000"),
        ("architectures", ["GemmaForCausalLM"], "architectures is .'GemmaForCausalLM'.: only"),
        ("architectures", [], "model_type is missing"),
        ("hidden_act", "gelu", "hidden_act is 'gelu'"),
        ("attention_bias", True, "attention_bias is True: .*not supported"),
        ("mlp_bias", True, "mlp_bias is True"),
        ("use_sliding_window", True, "use_sliding_window is True"),
        ("tie_word_embeddings", 1, "tie_word_embeddings is 1: .*true or false"),
        ("rope_scaling", {"rope_type": "llama3", "factor": 8.0}, "rope_scaling .*llama3.*scaled"),
        ("rope_scaling", {"type": "linear", "factor": 2.0}, "rope_scaling .*2.0.*scaled"),
        ("rope_scaling", "linear", "rope_scaling is 'linear': it must be an object"),
        ("rope_parameters", {"partial_rotary_factor": 0.5}, "rope_parameters .*partial"),
        ("rope_parameters", {"rope_theta": "x"}, "rope_parameters: rope_theta is 'x'"),
    ],
)
def test_wrong_hugging_face_keys_are_named(key, value, fault):
    with pytest.raises(FormatError, match=rf"^x/config\.json: .*{fault}"):
        from_hf(**{key: value})

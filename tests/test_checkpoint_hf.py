import json
import shutil
import struct

import numpy as np
import pytest

from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.errors import FormatError
from bitnet_lut.formats import ggml, i2_s, ternary
from bitnet_lut.formats.safetensors import SafetensorsFile

QUERY = "blk.0.attn_q.weight"
HF_QUERY = "model.layers.0.self_attn.q_proj.weight"
HF_SCALE = "model.layers.0.self_attn.q_proj.weight_scale"
OUTER = {"model.norm.weight", "model.embed_tokens.weight", "lm_head.weight"}


def save(path, tensors):
    """Write safetensors of {name: (dtype, shape, bytes)}: the library has no bfloat16 for NumPy."""
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        offsets = [offset, offset + len(data)]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": offsets}
        offset = offsets[1]
    text = json.dumps(header).encode()
    body = b"".join(data for _, _, data in tensors.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def load(path):
    file = SafetensorsFile(path)
    return {n: (i.dtype, i.shape, file.raw(n).tobytes()) for n, i in file.tensors.items()}


def as_bf16(values):
    return ggml.quantize("bf16", np.float32(values).reshape(1, -1)).tobytes()


class Copy:
    """A golden folder whose config.json and tensors a test may change."""

    def __init__(self, source, folder):
        self.folder = folder
        shutil.copy(source / "config.json", folder)
        self.settings = json.loads((source / "config.json").read_text())
        self.tensors = load(source / "model.safetensors")

    def open(self):
        (self.folder / "config.json").write_text(json.dumps(self.settings))
        save(self.folder / "model.safetensors", self.tensors)
        return open_checkpoint(self.folder)


@pytest.fixture
def bitnet(golden, tmp_path):
    return Copy(golden / "bitnet-b1.58/hf-packed", tmp_path)


@pytest.fixture
def llama(golden, tmp_path):
    return Copy(golden / "llama-1.58/hf-packed", tmp_path)


def weights_of(matrix):
    return i2_s.unpack_rows(matrix.packed, matrix.cols)


def test_linear_class_tells_the_direction_of_the_scale(bitnet, llama):
    for copy, linear_class, exponent in (
        (bitnet, "autobitlinear", 1),
        (bitnet, "bitlinear", -1),
        (llama, "bitlinear", -1),
        (llama, None, -1),
        (llama, "autobitlinear", 1),
    ):
        copy.settings["quantization_config"].pop("linear_class", None)
        if linear_class is not None:
            copy.settings["quantization_config"]["linear_class"] = linear_class
        copy.tensors[HF_SCALE] = ("BF16", (1,), as_bf16([4]))
        assert copy.open().matrix(QUERY).scale == np.float32(4) ** exponent


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
@pytest.mark.parametrize("shape", [(1,), ()])
def test_scales_of_any_float_type(bitnet, dtype, shape):
    data = ggml.quantize(dtype.lower(), np.float32([[0.5]])).tobytes()
    bitnet.tensors[HF_SCALE] = (dtype, shape, data)
    assert bitnet.open().matrix(QUERY).scale == 0.5


@pytest.mark.parametrize("value", [0, -1, np.nan, np.inf])
def test_scales_that_cannot_be_are_refused(llama, value):
    llama.tensors[HF_SCALE] = ("BF16", (1,), as_bf16([value]))
    with pytest.raises(FormatError, match=r"attn_q.weight': weight scale"):
        llama.open().matrix(QUERY)


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_masters_are_quantized(bitnet, dtype):
    del bitnet.tensors[HF_SCALE]
    weights = np.random.default_rng(0).standard_normal((256, 256), np.float32)
    data = ggml.quantize(dtype.lower(), weights)
    bitnet.tensors[HF_QUERY] = (dtype, (256, 256), data.tobytes())
    expected, scale = ternary.absmean(ggml.dequantize(dtype.lower(), data, 256))
    matrix = bitnet.open().matrix(QUERY)
    np.testing.assert_array_equal(weights_of(matrix), expected)
    assert matrix.scale == scale


def test_scaled_weights_are_taken_apart(bitnet):
    del bitnet.tensors[HF_SCALE]
    weights = np.random.default_rng(0).integers(-1, 2, (256, 256), dtype=np.int8)
    bitnet.tensors[HF_QUERY] = ("BF16", (256, 256), as_bf16(weights * np.float32(0.3)))
    matrix = bitnet.open().matrix(QUERY)
    np.testing.assert_array_equal(weights_of(matrix), weights)
    assert matrix.scale == np.float32(0.30078125)


def test_plain_llama_stays_dense(llama):
    del llama.settings["quantization_config"]
    for name, (dtype, shape, _) in list(llama.tensors.items()):
        if dtype == "U8":
            rows, cols = shape
            del llama.tensors[f"{name}_scale"]
            llama.tensors[name] = ("BF16", (4 * rows, cols), as_bf16(np.ones((4 * rows, cols))))
    matrix = llama.open().matrix(QUERY)
    assert (matrix.type, matrix.rows, matrix.cols) == ("bf16", 512, 256)


def test_names_of_1bitllm(bitnet):
    renamed = {
        "self_attn.attn_sub_norm": "self_attn.inner_attn_ln",
        "mlp.ffn_sub_norm": "mlp.ffn_layernorm",
    }
    for old, new in renamed.items():
        bitnet.tensors = {n.replace(old, new): value for n, value in bitnet.tensors.items()}
    assert bitnet.open().vector("blk.1.ffn_sub_norm.weight").shape == (512,)


def test_a_copy_of_a_tied_head_and_computed_tensors_are_ignored(bitnet):
    bitnet.tensors["lm_head.weight"] = bitnet.tensors["model.embed_tokens.weight"]
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    bitnet.tensors[name] = ("F32", (32,), bytes(128))
    assert "output.weight" not in bitnet.open().nbytes


def test_shards_make_one_checkpoint(bitnet):
    whole = bitnet.open()
    expected = weights_of(whole.matrix(QUERY))
    (bitnet.folder / "model.safetensors").unlink()
    parts = {"first.safetensors": {}, "second.safetensors": {}}
    for name, value in bitnet.tensors.items():
        parts["first.safetensors" if name in OUTER else "second.safetensors"][name] = value
    for shard, tensors in parts.items():
        save(bitnet.folder / shard, tensors)
    weight_map = {name: shard for shard, tensors in parts.items() for name in tensors}
    index = bitnet.folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    joined = open_checkpoint(bitnet.folder)
    np.testing.assert_array_equal(weights_of(joined.matrix(QUERY)), expected)
    assert joined.nbytes == whole.nbytes


# Refusals


def refused(copy, message):
    with pytest.raises(FormatError, match=message) as error:
        copy.open().matrix(QUERY)
    assert str(error.value).startswith(str(copy.folder))


def test_missing_tensors_are_refused(bitnet):
    del bitnet.tensors[HF_QUERY]
    refused(bitnet, "tensor 'blk.0.attn_q.weight' is missing")


def test_missing_scales_are_refused(bitnet):
    del bitnet.tensors[HF_SCALE]
    refused(bitnet, "'blk.0.attn_q.weight': weight_scale is missing for packed weights")


def test_scales_beside_floats_are_refused(bitnet):
    bitnet.tensors[HF_QUERY] = ("BF16", (256, 256), as_bf16(np.ones((256, 256))))
    refused(bitnet, "'blk.0.attn_q.weight': weight_scale is not expected for BF16 weights")


def test_scales_per_row_are_refused(bitnet):
    bitnet.tensors[HF_SCALE] = ("BF16", (2,), as_bf16([1, 2]))
    refused(bitnet, r"weight_scale has shape \(2,\), not \(1,\)")


def test_wrong_shapes_are_refused(bitnet):
    bitnet.tensors[HF_QUERY] = ("U8", (64, 128), bytes(64 * 128))
    refused(bitnet, r"'blk.0.attn_q.weight' has shape \(256, 128\), not \(256, 256\)")


def test_unsupported_dtypes_are_refused(bitnet):
    bitnet.tensors[HF_QUERY] = ("I8", (256, 256), bytes(256 * 256))
    del bitnet.tensors[HF_SCALE]
    refused(bitnet, "'blk.0.attn_q.weight': dtype I8 is not supported")


def test_code_3_is_refused(bitnet):
    bitnet.tensors[HF_QUERY] = ("U8", (64, 256), b"\xff" * (64 * 256))
    refused(bitnet, "'blk.0.attn_q.weight': a weight has code 3")


def test_unknown_layer_tensors_are_refused(bitnet):
    name = "model.layers.0.self_attn.q_proj.rms_norm.weight"
    bitnet.tensors[name] = ("BF16", (256,), bytes(512))
    refused(bitnet, r"q_proj.rms_norm.weight' is not used by the graph of architecture")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"quant_method": "gptq"}, "only quant_method bitnet is supported"),
        ({"linear_class": "other"}, "linear_class 'other' is not supported"),
        ({"modules_to_not_convert": ["q_proj"]}, "modules_to_not_convert is supported for lm_head"),
        ({"modules_to_not_convert": 7}, "modules_to_not_convert is supported for lm_head"),
    ],
)
def test_other_quantizations_are_refused(bitnet, changed, message):
    bitnet.settings["quantization_config"] |= changed
    refused(bitnet, message)


def test_packed_weights_without_quantization_are_refused(llama):
    del llama.settings["quantization_config"]
    refused(llama, "packed weights, but config.json has no quantization_config")


def test_folders_without_config_are_refused(tmp_path):
    with pytest.raises(FormatError, match=r"neither a GGUF file nor a folder with config.json"):
        open_checkpoint(tmp_path)


def test_damaged_configs_are_refused(bitnet):
    bitnet.open()
    (bitnet.folder / "config.json").write_text('{"hidden_size": 1, "hidden_size": 2}')
    with pytest.raises(FormatError, match=r"config.json is not valid JSON: 'hidden_size' appears"):
        open_checkpoint(bitnet.folder)

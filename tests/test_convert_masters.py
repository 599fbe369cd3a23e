"""Real-valued weights: masters of ternary models, and models that are not ternary."""

from importlib.util import find_spec

import numpy as np
import pytest
from hf_folder import HFFolder
from model_files import QUERY, linears

from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.convert import TARGETS, convert
from bitnet_lut.convert.report import report
from bitnet_lut.errors import FormatError
from bitnet_lut.families import FAMILIES, is_linear, tensor_shapes
from bitnet_lut.formats import ternary

MASTERS = "bitnet-b1.58/hf-master-bf16"
hf_name = FAMILIES["bitnet-b1.58"].hf_name  # and those of linear layers in every family
TERNARY_TARGETS = [type for type in TARGETS if type != "f16"]


@pytest.fixture
def masters(golden, tmp_path):
    return HFFolder(golden / MASTERS, tmp_path / "masters")


@pytest.fixture
def llama(golden, tmp_path):
    """A llama whose float weights are ternary times a scale, as Falcon-E publishes them."""
    folder = HFFolder(golden / "llama-1.58/hf-packed", tmp_path / "llama")
    folder.drop_quantization()
    return folder


@pytest.mark.parametrize("type", TARGETS)
def test_masters_are_rounded_by_absmean(golden, tmp_path, masters, type):
    done = convert(golden / MASTERS, tmp_path / "out", type=type)
    assert [tensor.name for tensor in done.ternarized] == [
        name for name in tensor_shapes(open_checkpoint(golden / MASTERS).config) if is_linear(name)
    ]
    assert not done.warnings  # its config.json says it was trained so
    with open_checkpoint(tmp_path / "out") as checkpoint:
        found = linears(checkpoint)
    for told in done.ternarized:
        real = masters.tensors[hf_name(told.name)]
        weights, scale = ternary.absmean(real)
        np.testing.assert_array_equal(found[told.name][0], weights)
        if told.name not in {tensor.name for tensor in done.rounded}:
            assert found[told.name][1] == scale
        near = weights * scale
        assert told.norm_before == pytest.approx(np.linalg.norm(real.astype(float)), rel=1e-5)
        assert told.norm_after == pytest.approx(np.linalg.norm(near.astype(float)), rel=1e-5)
        error = np.linalg.norm(real - near) / np.linalg.norm(real.astype(float))
        assert told.relative_error == pytest.approx(error, rel=1e-5)


def test_the_report_has_the_figures_of_each_layer(golden, tmp_path):
    done = convert(golden / MASTERS, tmp_path / "out", type="tq2_0", head="q8_0")
    lines = list(report(done))
    start = lines.index("  layer  relative error  norm before  norm after")
    assert [line.split()[0] for line in lines[start + 1 :]] == ["0", "1", "2"]
    first = [tensor for tensor in done.ternarized if ".0." in tensor.name]
    before = sum(tensor.norm_before**2 for tensor in first) ** 0.5
    assert float(lines[start + 1].split()[2]) == pytest.approx(before, rel=1e-5)
    assert "scales: 21 rounded" in lines
    assert any(line.startswith("  token_embd.weight: bf16 -> q8_0, relative") for line in lines)
    assert done.ternary_sha256 in lines[1]


@pytest.mark.parametrize("type", TERNARY_TARGETS)
@pytest.mark.parametrize("dtype", ["F32", "BF16", "F16"])
def test_a_scaled_ternary_model_is_recognized(golden, tmp_path, llama, type, dtype):
    """Nothing in it says that it is ternary, but its weights are."""
    done = convert(llama.save(dtype), tmp_path / "out", type=type)
    assert not done.ternarized
    assert not done.warnings
    expected = convert(golden / "llama-1.58/hf-packed", tmp_path / "expected", type=type)
    assert done.ternary_sha256 == expected.ternary_sha256


@pytest.mark.parametrize("type", TERNARY_TARGETS)
def test_a_model_that_nothing_says_is_ternary_gets_a_warning(tmp_path, llama, type):
    rng = np.random.default_rng(0)
    for name, tensor in llama.tensors.items():
        if "_proj" in name:
            llama.tensors[name] = rng.standard_normal(tensor.shape, np.float32)
    done = convert(llama.save(), tmp_path / "out", type=type)
    assert len(done.ternarized) == 14
    (warning,) = done.warnings
    assert "probably not trained to be ternary, it does not say so" in warning
    assert "rounding 14 linear layers has a relative error of 0.51" in warning
    before = sum(tensor.norm_before**2 for tensor in done.ternarized) ** 0.5
    assert f"Frobenius norm was {before:.6g} and is" in warning


def test_signs_alone_are_never_taken(tmp_path, llama):
    """Weights of one magnitude plus noise: half of them are small, and become 0."""
    name = hf_name(QUERY)
    rng = np.random.default_rng(0)
    weights = rng.choice([-1.0, -0.1, 0.1, 1.0], llama.tensors[name].shape).astype(np.float32)
    llama.tensors[name] = weights
    convert(llama.save(), tmp_path / "out", type="hf")
    with open_checkpoint(tmp_path / "out") as checkpoint:
        found, scale = linears(checkpoint)[QUERY]
    np.testing.assert_array_equal(found, np.rint(weights))
    assert scale == pytest.approx(0.55, rel=0.01)


def test_far_outliers_are_plainly_not_ternary(tmp_path, masters):
    name = hf_name("blk.1.ffn_down.weight")
    masters.tensors[name] = masters.tensors[name] ** 3
    done = convert(masters.save(), tmp_path / "out")
    (warning,) = done.warnings
    assert "its weights are far from that" in warning
    assert "(blk.1.ffn_down.weight)" in warning


def test_real_values_stay_as_f16_where_nothing_says_they_are_ternary(tmp_path, llama):
    done = convert(llama.save(), tmp_path / "out", type="f16")
    assert done.ternary_sha256 is None
    with open_checkpoint(tmp_path / "out") as checkpoint:
        for name in filter(is_linear, tensor_shapes(checkpoint.config)):
            found = checkpoint.matrix(name)
            assert found.type == "f16"
            if "attn_q" in name or "attn_k" in name:
                continue  # permuted
            real = llama.tensors[hf_name(name)].astype(np.float16)
            np.testing.assert_array_equal(found.data.view(np.float16), real)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused(tmp_path, masters, value):
    masters.tensors[hf_name(QUERY)][3, 4] = value
    with pytest.raises(FormatError, match=rf"masters.*{QUERY}.*NaN or infinity"):
        convert(masters.save(), tmp_path / "out")


def test_heads_that_do_not_fit_are_refused(tmp_path, masters):
    masters.tensors["model.embed_tokens.weight"][3, 4] = 1e6
    with pytest.raises(
        FormatError, match=r"token_embd.weight': weights up to .* do not fit in f16"
    ):
        convert(masters.save(), tmp_path / "out", head="f16")
    assert convert(masters.save("BF16"), tmp_path / "out").ternary_sha256


# torch


@pytest.fixture
def torch():
    if not find_spec("torch"):
        pytest.skip("STATE DICTS ARE NOT TESTED: torch cannot be imported")
    return __import__("torch")


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "pytorch_model.bin", "old.bin"])
@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_state_dicts(golden, tmp_path, masters, torch, name, wrapper):
    state = {}
    for key, tensor in masters.tensors.items():
        state[f"_orig_mod.{key}"] = torch.from_numpy(tensor).to(torch.bfloat16)
    state["_orig_mod.lm_head.weight"] = state["_orig_mod.model.embed_tokens.weight"]
    saved = {wrapper: state, "step": 3} if wrapper else state
    path = masters.path / name
    torch.save(saved, path, _use_new_zipfile_serialization=name != "old.bin")
    (masters.path / "model.safetensors").unlink()
    source = masters.path if name == "pytorch_model.bin" else path
    done = convert(source, tmp_path / "out.gguf", type="iq2_bn")
    expected = convert(golden / MASTERS, tmp_path / "expected.gguf", type="iq2_bn")
    assert done.ternary_sha256 == expected.ternary_sha256
    assert done.ternarized == expected.ternarized


def test_packed_state_dicts(golden, tmp_path, torch):
    folder = HFFolder(golden / "bitnet-b1.58/hf-packed", tmp_path / "packed")
    state = {}
    for key, tensor in folder.tensors.items():
        state[key] = torch.from_numpy(np.array(tensor)).reshape(
            () if key.endswith("_scale") else tensor.shape
        )
    torch.save(state, folder.path / "model.pt")
    done = convert(folder.path / "model.pt", tmp_path / "out.gguf")
    expected = convert(golden / "bitnet-b1.58/model-i2_s.gguf", tmp_path / "expected.gguf")
    assert done.ternary_sha256 == expected.ternary_sha256
    assert not done.rounded


def test_state_dicts_that_are_none(masters, torch):
    path = masters.path / "model.pt"
    for content in (b"", b"PK\3\4 and no more", b"not a pickle"):
        path.write_bytes(content)
        with pytest.raises(FormatError, match=r"model.pt: not a torch state dict"):
            open_checkpoint(path)
    torch.save(torch.nn.Linear(2, 2), path)
    with pytest.raises(FormatError, match=r"model.pt: not a torch state dict"):
        open_checkpoint(path)
    torch.save([1, 2], path)
    with pytest.raises(FormatError, match="holds a list, not a state dict"):
        open_checkpoint(path)
    torch.save({"model.norm.weight": torch.ones(256, dtype=torch.float64)}, path)
    with pytest.raises(FormatError, match=r"model.pt: tensor 'token_embd.weight' is missing"):
        open_checkpoint(path)


def test_without_torch_the_error_says_so(masters, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    path = masters.path / "model.pt"
    path.write_bytes(b"PK")
    with pytest.raises(ImportError, match=r"model.pt: reading a torch state dict needs torch"):
        open_checkpoint(path)

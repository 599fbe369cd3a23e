"""How far two models are apart."""

import json
from dataclasses import replace

import numpy as np
import pytest
from command import refused
from model_files import QUERY, rewritten
from tiny_model import tiny_config, tiny_tensors

from bitnet_lut import Model
from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.checkpoint.ternary_hash import ternary_sha256
from bitnet_lut.cli import main
from bitnet_lut.convert import convert
from bitnet_lut.demo import MODEL
from bitnet_lut.diagnose import Source, Trace, compare, open_source, save_dump
from bitnet_lut.diagnose.compare_tensors import compare_tensors
from bitnet_lut.diagnose.comparison_report import report_comparison
from bitnet_lut.diagnose.diverge import trace_source
from bitnet_lut.diagnose.sources import Weights
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.tensors import DenseMatrix

IDS = [7, 50, 3, 3, 21, 40, 11]


def given(logits, ids=IDS, name="dump"):
    return Trace(name, {(-1, "logits"): np.asarray(logits, np.float32)}, tuple(ids))


@pytest.fixture(scope="module")
def pair():
    """Logits of two programs that differ."""
    rng = np.random.default_rng(1)
    a = rng.normal(0, 3, (len(IDS), 60)).astype(np.float32)
    return a, a + rng.normal(0, 0.5, a.shape).astype(np.float32)


def test_figures_are_those_of_torch(pair):
    torch = pytest.importorskip("torch")
    functional = torch.nn.functional
    found = compare(given(pair[0]), given(pair[1], name="other")).logits
    a, b = (torch.tensor(one, dtype=torch.float64) for one in pair)
    p, q = functional.log_softmax(a, -1), functional.log_softmax(b, -1)
    kl = functional.kl_div(q, p, log_target=True, reduction="none").sum(-1)
    assert found.kl == pytest.approx(float(kl.mean()), rel=1e-9)
    assert found.max_kl == pytest.approx(float(kl.max()), rel=1e-9)
    a, b = (one - one.mean(-1, keepdim=True) for one in (a, b))
    cosine = functional.cosine_similarity(a.reshape(1, -1), b.reshape(1, -1))
    assert found.cosine == pytest.approx(float(cosine), rel=1e-9)
    tops = [set(row.tolist()) for row in torch.topk(a, 5).indices]
    others = [set(row.tolist()) for row in torch.topk(b, 5).indices]
    shared = [len(one & other) / 5 for one, other in zip(tops, others, strict=True)]
    assert found.top_k == pytest.approx(np.mean(shared))
    assert found.top_1 == pytest.approx(float((a.argmax(-1) == b.argmax(-1)).double().mean()))
    assert [one.position for one in found.tokens] == kl.argsort(descending=True).tolist()[:8]
    assert found.a_bits_per_byte is found.a_p_end is None  # without a vocabulary


def test_bits_per_byte_and_ends_are_those_of_the_model():
    torch = pytest.importorskip("torch")
    text = "Once upon a time there was a little fox."
    with Model(MODEL, threads=1, kv="f32") as model:
        ids = model.tokenize(text)
        logits = torch.tensor(model.forward(ids), dtype=torch.float64)
        ends = sorted(model.tokenizer.eos_ids)
        found = compare(model, f"reference:{MODEL}", text=text)
    loss = torch.nn.functional.cross_entropy(logits[:-1], torch.tensor(ids[1:]), reduction="sum")
    nbytes = len(text.encode())
    assert found.logits.a_bits_per_byte == pytest.approx(float(loss) / np.log(2) / nbytes, rel=1e-9)
    p_end = float(logits.softmax(-1)[:, ends].sum(-1).mean())
    assert found.logits.a_p_end == pytest.approx(p_end, rel=1e-9)
    assert found.same
    assert found.logits.max_difference == found.logits.kl == 0
    assert found.logits.cosine == found.logits.top_1 == found.logits.top_k == 1
    assert found.logits.tokens == ()


@pytest.mark.parametrize("type", ["i2_s", "tq2_0", "iq2_bn"])
def test_a_conversion_keeps_the_ternary_values(golden, tmp_path, type):
    """Of a folder whose rows of q and k have another order than the GGUF file's."""
    folder = golden / "llama-1.58" / "hf-packed"
    convert(folder, tmp_path / "model.gguf", type=type)
    found = compare(folder, tmp_path / "model.gguf", ids=IDS)
    assert found.tensors is not None
    with open_checkpoint(golden / "llama-1.58" / "model-i2_s.gguf") as checkpoint:
        assert found.tensors.a_sha256 == ternary_sha256(checkpoint)
    assert found.tensors.a_sha256 == found.tensors.b_sha256
    assert {one.kind for one in found.tensors.differences} == ({"scale"} if "tq" in type else set())
    assert found.same
    assert found.logits.kl < 0.02


def test_formats_of_other_programs_hold_the_same(golden):
    folder = golden / "llama-1.58"
    found = compare(folder / "model-i2_s.gguf", folder / "model-tq1_0.gguf", ids=IDS)
    assert found.tensors is not None
    assert found.tensors.same
    assert all(one.rounded and one.kind == "scale" for one in found.tensors.differences)
    assert len(found.tensors.differences) == 14


@pytest.fixture(scope="module")
def changes(golden_file):
    """What is changed in one tensor of a file: the tensors, and what has to be found."""
    with GGUFFile(golden_file) as file:
        info = file.tensors[QUERY]
        data = file.data(QUERY, i2_s.nbytes(*info.shape))
        norm = file.data("output_norm.weight", 4 * file.tensors["output_norm.weight"].shape[0])
    codes, scale = i2_s.unpack(data, *info.shape)
    turned = codes.copy()
    turned[3, :10] = -turned[3, :10] + (turned[3, :10] == 0)
    values = norm.view(np.float32).copy()
    values[0] += 1
    return {
        "ternary": (QUERY, info.shape, info.type_id, i2_s.pack(turned, float(scale[0]))),
        "scale": (QUERY, info.shape, info.type_id, i2_s.pack(codes, 2 * float(scale[0]))),
        "values": ("output_norm.weight", values.shape, 0, values.view(np.uint8)),
    }


def test_a_matrix_that_is_not_ternary_is_named(golden_file):
    weights = open_source(str(golden_file)).weights()
    matrix = weights.tensors[QUERY]
    floats = i2_s.unpack_rows(matrix.packed, matrix.cols) * np.float32(1.5) * matrix.scale[0]
    dense = DenseMatrix("f32", matrix.rows, matrix.cols, floats.astype("f4").view(np.uint8))
    other = replace(weights, tensors={**weights.tensors, QUERY: dense})
    (one,) = compare_tensors(weights, other).differences
    assert (one.name, one.kind) == (QUERY, "kind")
    assert one.relative == pytest.approx(1 / 3, rel=1e-5)


@pytest.fixture(scope="module")
def golden_file(golden):
    return golden / "bitnet-b1.58" / "model-i2_s.gguf"


@pytest.mark.parametrize("kind", ["ternary", "scale", "values"])
def test_a_tensor_that_differs_is_named(golden_file, tmp_path, changes, kind):
    name, shape, type_id, data = changes[kind]
    data = data.reshape(-1)
    path = rewritten(golden_file, tmp_path / "other.gguf", changes={name: (shape, type_id, data)})
    found = compare(golden_file, path, ids=IDS)
    assert not found.same
    assert found.tensors is not None
    (one,) = found.tensors.differences
    assert (one.name, one.rounded) == (name, False)
    assert one.kind == kind
    if kind == "ternary":
        assert one.share == pytest.approx(10 / np.prod(shape))
        assert found.tensors.a_sha256 != found.tensors.b_sha256
    if kind == "scale":
        assert one.ratio == pytest.approx(2)
        assert found.tensors.a_sha256 == found.tensors.b_sha256
    shown = "\n".join(report_comparison(found))
    assert name in shown
    assert found.logits.max_difference > 0


def test_a_tensor_that_is_missing_or_of_another_shape_is_named():
    config = tiny_config(qkv_bias=False, sub_norms=False)
    a = Weights(config, tiny_tensors(config), "f32")
    fewer = {name: one for name, one in a.tensors.items() if name != QUERY}
    for b, kind in ((fewer, "not in B"), ({**fewer, QUERY: np.ones((2, 3), "f4")}, "shape")):
        found = compare_tensors(a, replace(a, tensors=b))
        assert [(one.name, one.kind) for one in found.differences] == [(QUERY, kind)]
        assert not found.same


def test_files_of_another_layout_are_read_with_it(golden):
    """As options of a source say; the default tells them apart from the right ones."""
    file = golden / "bitnet-b1.58" / "model-i2_s.gguf"
    found = compare(file, f"{file}:i2_s_layout=64x16", ids=IDS)
    assert found.tensors is not None
    assert {one.kind for one in found.tensors.differences} == {"ternary"}
    assert found.logits.top_1 < 0.9


def test_logits_that_are_not_finite_are_never_the_same(pair):
    sick = pair[1].copy()
    sick[3, 5] = np.nan
    found = compare(given(pair[0]), given(sick))
    assert not found.same
    assert found.logits.tokens[0].position == 3
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["logits"]["kl"] is None
    both = compare(given(sick), given(sick))
    assert not both.same


def test_what_cannot_be_compared_is_refused(pair, tmp_path, capsys):
    with pytest.raises(ValueError, match="holds no logits"):
        compare(Trace("x", {(0, "residual"): pair[0]}, tuple(IDS)), given(pair[0]))
    with pytest.raises(ValueError, match="not the same model and text"):
        compare(given(pair[0]), given(pair[0][:, :-1]))
    short = Trace("x", {(0, "residual"): pair[0], (-1, "logits"): pair[0][-1:]}, tuple(IDS))
    with pytest.raises(ValueError, match="x has logits of 1 tokens of 7"):
        compare(short, given(pair[0]))
    with pytest.raises(ValueError, match="k is 0"):
        compare(MODEL, MODEL, k=0)
    assert "no such file" in refused(capsys, "compare", MODEL, tmp_path / "none.gguf")


def test_the_command_has_exit_codes_and_json(tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("The little fox went home.\n")
    assert main(["compare", str(MODEL), f"reference:{MODEL}", "--text", str(text)]) == 0
    said = capsys.readouterr().out
    assert said.startswith("A and B give the same logits in every bit, from the same weights.")
    other = [f"reference:{MODEL}:activations=float", "--ids", "5,6,7", "--json"]
    assert main(["compare", str(MODEL), *other, "--tolerance", "1e-6"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["same"] is False
    assert found["tensors"]["differences"] == []
    assert found["tokens"] == 3
    save_dump(trace_source(MODEL, ids=[5, 6, 7]), tmp_path / "a.safetensors")
    assert main(["compare", str(MODEL), str(tmp_path / "a.safetensors")]) == 0


def test_a_text_is_cut_and_tokens_are_shown_safely(pair):
    class Names:
        eos_ids = frozenset([1])

        def piece(self, id):
            return b"\x1b[31m" if id == 3 else b"a"

    source = open_source(given(pair[0]))
    named = replace(source, tokenizer=Names, ids=None)
    assert isinstance(named, Source)
    found = compare(named, given(pair[1]), ids=IDS)
    assert found.logits.a_p_end is not None
    assert "\x1b" not in "\n".join(report_comparison(found))

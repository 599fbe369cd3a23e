"""The first op at which two programs part: between our tiers, other programs, dumps and faults."""

import json
from dataclasses import replace

import numpy as np
import pytest
from command import refused
from tiny_model import tiny_config, tiny_tensors

from bitnet_lut import Model, _native, reference
from bitnet_lut.cli import main
from bitnet_lut.demo import MODEL
from bitnet_lut.diagnose import OPS, Source, Trace, diverge, load_dump, open_source, save_dump
from bitnet_lut.diagnose.divergence_report import html_page, report_divergence
from bitnet_lut.diagnose.ops import inputs_of, key_of, place_of
from bitnet_lut.diagnose.running import float_linear
from bitnet_lut.diagnose.sources import Weights
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tensors import DenseMatrix, TernaryMatrix

IDS = [7, 50, 3, 3, 21, 40, 11]
TIERS = [name for name in _native.tier_names() if not _native.missing_features(name)]
LINEARS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def full_model():
    """A small model with every op there is."""
    config = tiny_config(head_dim=20, rope_dim=20)
    tensors = tiny_tensors(config)
    for block in range(config.block_count):
        for name in ("post_attention_norm", "post_ffw_norm"):
            tensors[f"blk.{block}.{name}.weight"] = np.full(72, 0.5, np.float32)
    return Weights(config, tensors, "f32")


GOOD = full_model()


def traced(weights=GOOD, *, exact=True, ids=IDS, config=None, tensors=None, change=None, **more):
    """What a program does that computes with these *config* and *tensors*, and changes results."""
    results = {}

    def probe(layer, op, array):
        changed = array if change is None else change((layer, op), array)
        results[layer, op] = changed
        return changed

    reference.forward(
        config or weights.config, {**weights.tensors, **(tensors or {})}, ids, probe=probe, **more
    )
    return Trace("other", results, tuple(ids), "neox" if exact else None)


def known(weights=GOOD, ids=IDS):
    """A source whose weights are known."""
    return Source("ours", lambda ids: traced(weights, ids=ids), "neox", weights=lambda: weights)


PLACES = [*traced().results]


def test_every_op_has_one_name():
    """The list of ops is what the engine shows, in its order."""
    inside = dict.fromkeys(op for layer, op in PLACES if layer >= 0)
    assert list(OPS) == ["embedding", *inside, "output_norm", "logits"]
    assert [place_of(key_of(place)) for place in PLACES] == PLACES
    with Model(MODEL, threads=1) as model:
        found = model.trace([5, 6, 7])
        logits = model.forward([5, 6, 7])
    assert {op for _, op in found} <= set(OPS)
    assert list(found) == [place for place in found if place_of(key_of(place)) == place]
    np.testing.assert_array_equal(found[-1, "logits"], logits)
    for place in PLACES:
        assert set(inputs_of(place, PLACES, GOOD.config.block_count)) <= set(PLACES)


@pytest.mark.parametrize("kernel", _native.kernel_names())
@pytest.mark.parametrize("isa", TIERS)
def test_tiers_and_kernels_are_the_reference(isa, kernel):
    found = diverge(f"{MODEL}:kernel={kernel},isa={isa},threads=2", f"reference:{MODEL}", tokens=3)
    assert found.same
    assert "agree in every bit" in found.summary
    assert {op.status for op in found.ops} == {"same"}


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("place", PLACES, ids=key_of)
def test_a_fault_in_any_op_is_found_there(place, exact):
    """One element of one token is wrong, by a hundredth of the largest."""

    def change(at, array):
        if at != place:
            return array
        array = array.copy()
        array[-1, 3] += np.float32(0.01 if exact else 0.3) * np.abs(array).max()
        return array

    found = diverge(known(), traced(change=change, exact=exact), ids=IDS)
    assert found.first is not None
    assert (found.first.layer, found.first.op) == place
    parted = [op.name for op in found.ops if op.status == "parts"]
    assert parted == [key_of(place)], found.summary
    assert "Every other op gives what it should" in " ".join(found.explanations)


@pytest.mark.parametrize("op", LINEARS)
def test_a_fault_in_a_late_layer_is_found_behind_codes_that_noise_turned_over(op):
    """Float noise turns codes over, which is no fault; a scale that is off by 1 % is."""
    noise = np.random.default_rng(0)
    ids = [int(i) for i in noise.integers(0, 53, 60)]

    def change(at, array):
        shaken = array * (1 + noise.normal(0, 3e-6, array.shape)).astype(np.float32)
        return shaken * np.float32(1.01) if at == (1, op) else shaken

    quiet = diverge(
        known(),
        traced(change=lambda at, array: change((0, ""), array), exact=False, ids=ids),
        ids=ids,
        tokens=60,
    )
    assert quiet.same, quiet.summary
    assert any(step.status == "follows" for step in quiet.ops)
    assert "rounds some activations to another int8 code" in quiet.summary
    found = diverge(known(), traced(change=change, exact=False, ids=ids), ids=ids, tokens=60)
    assert found.first is not None
    assert found.first.name == f"blk.1.{op}"


def without_weights(trace):
    return replace(trace, name="dump", exact=None)


def test_without_weights_ops_are_judged_by_how_their_inputs_differ():
    def change(at, array):
        return array * np.float32(3) if at == (1, "ffn_up") else array

    found = diverge(without_weights(traced()), without_weights(traced(change=change)))
    assert found.first is not None
    assert found.first.name == "blk.1.ffn_up"
    assert found.explanations[0].startswith("B is A times 3 in every element")
    assert found.explanations[1].startswith("Without weights it cannot be told")


# ---- mistakes ------------------------------------------------------------------------------------


def recoded(values):
    """The tensors with ternary weights decoded by other codes."""
    codes = np.array(values, np.int8)
    return {
        name: TernaryMatrix(
            one.rows,
            one.cols,
            i2_s.pack_rows(codes[i2_s.unpack_rows(one.packed, one.cols) + 1]),
            one.scale,
        )
        for name, one in GOOD.tensors.items()
        if isinstance(one, TernaryMatrix)
    }


def scaled(function):
    return {
        name: TernaryMatrix(one.rows, one.cols, one.packed, function(one.scale))
        for name, one in GOOD.tensors.items()
        if isinstance(one, TernaryMatrix)
    }


def changed(name, function):
    return {key: function(one) for key, one in GOOD.tensors.items() if key.endswith(name)}


def by_blocks(matrix, x):
    if isinstance(matrix, DenseMatrix):
        return reference.linear(matrix, x)
    rounded = x.copy()
    for start in range(0, x.shape[1], 32):
        part = np.ascontiguousarray(x[:, start : start + 32])
        codes, peaks = reference.quantize(part)
        rounded[:, start : start + 32] = codes * (peaks / np.float32(127))[:, None]
    return float_linear(matrix, rounded)


ONE = np.float32(1)
MISTAKES = {
    "codes": (
        {"tensors": recoded((0, 1, -1))}, "blk.0.attn_q",
        "decodes the ternary weights with 00=+0, 01=+1, 10=-1, where I2_S has 00=-1, 01=+0, 10=+1",
    ),
    "no quantization": (
        {"multiply": float_linear}, "blk.0.attn_q",
        "leaves out the quantization of activations to int8",
    ),
    "blocks": ({"multiply": by_blocks}, "blk.0.attn_q", "in blocks of 32 columns"),
    "inverse": ({"tensors": scaled(lambda s: ONE / s)}, "blk.0.attn_q", "inverse of the weight"),
    "no scale": ({"tensors": scaled(np.ones_like)}, "blk.0.attn_q", "leaves out the weight scale"),
    "half": (
        {"tensors": scaled(lambda s: s / 2)}, "blk.0.attn_q", "0.5 times what it should be",
    ),
    "bias": (
        {"tensors": changed("attn_k.bias", np.zeros_like)}, "blk.0.attn_k", "leaves out the bias",
    ),
    "norm": (
        {"tensors": changed("attn_norm.weight", lambda w: w + ONE)}, "blk.0.attn_norm",
        "adds 1 to the weights of the norm",
    ),
    "sub-norms": (
        {"config": {"sub_norms": False}}, "blk.0.attn_sub_norm", "leaves out the sub-norm",
    ),
    "base": (
        {"config": {"rope_theta": 5e5}}, "blk.0.attention", "rotates with the base 500000",
    ),
    "pairs": (
        {"config": {"rope_kind": "norm"}}, "blk.0.attention", "rotates pairs as RoPE 'norm' does",
    ),
    "activation": (
        {"config": {"activation": "silu"}}, "blk.0.ffn_activation", "has the activation silu",
    ),
    "embedding": (
        {"config": {"embedding_scale": 72**0.5}}, "embedding", "8.48528 times what it should be",
    ),
    "attention scale": (
        {"config": {"attention_scale": 1.0}}, "blk.0.attention",
        "leaves out the scale of attention",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_known_mistakes_are_named_and_proven(mistake):
    arguments, place, text = MISTAKES[mistake]
    arguments = dict(arguments)
    if "config" in arguments:
        arguments["config"] = replace(GOOD.config, **arguments["config"])
    found = diverge(known(), traced(**arguments, exact=False), ids=IDS)
    assert found.first is not None
    assert found.first.name == place
    assert text in found.explanations[0]
    assert found.explanations[0].startswith("B")
    turned = diverge(traced(**arguments, exact=False), known(), ids=IDS)
    assert turned.first is not None
    assert turned.first.name == place
    assert turned.explanations[0].startswith("A")


def test_the_story_of_activations_that_are_not_quantized_has_its_size_without_weights():
    found = diverge(without_weights(traced()), without_weights(traced(multiply=float_linear)))
    assert found.first is not None
    assert found.first.name == "blk.0.attn_q"
    assert found.first.cosine > 0.999
    assert "the size of activation quantization" in found.explanations[0]


def test_the_first_that_is_not_finite_is_named():
    def change(at, array):
        return array * np.float32(np.inf) if at == (1, "attn_v") else array

    with np.errstate(all="ignore"):
        sick = traced(change=change)
    found = diverge(known(), sick, ids=IDS)
    assert found.summary == "They part at blk.1.attn_v: one of the results is not finite."
    assert found.explanations[0].startswith("B has ")
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["first"]["relative"] is None


# ---- dumps ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_dumps_come_back(tmp_path, suffix):
    trace = traced()
    save_dump(trace, tmp_path / f"dump{suffix}")
    again = load_dump(tmp_path / f"dump{suffix}")
    assert again.ids == trace.ids
    assert list(again.results) == sorted(trace.results, key=PLACES.index)
    for place, array in trace.results.items():
        np.testing.assert_array_equal(again.results[place], array)


def test_a_dump_of_some_ops(tmp_path):
    """Ops that a dump lacks are noted; logits may be of the last token alone."""
    results = traced().results
    arrays = {key_of(place): array for place, array in results.items() if place[1] == "residual"}
    arrays["logits"] = results[-1, "logits"][None, -1:]
    arrays["kv_cache"] = np.zeros(3)
    np.savez(tmp_path / "some.npz", ids=IDS, **arrays)
    found = diverge(known(), tmp_path / "some.npz")
    assert found.same
    assert "Not in B: attention, attn_k" in " ".join(found.explanations)
    assert "B holds names that are no ops: 'kv_cache'." in found.explanations
    assert {op.status for op in found.ops if op.relative is None} == {"not in B"}
    arrays["blk.1.residual"] = arrays["blk.1.residual"] * 2
    np.savez(tmp_path / "some.npz", ids=IDS, **arrays)
    bad = diverge(known(), tmp_path / "some.npz")
    assert bad.first is not None
    assert bad.first.name == "blk.1.residual"


def test_names_of_llama_cpp_are_understood(tmp_path):
    names = {"embedding": "inp_embd", "output_norm": "result_norm", "logits": "result_output"}
    names |= {"attn_v": "Vcur", "attention": "kqv_out", "residual": "l_out", "ffn_up": "ffn_up"}
    arrays = {}
    for (layer, op), array in traced().results.items():
        if op in names:
            arrays[names[op] if layer < 0 else f"{names[op]}-{layer}"] = array[None, None]
    arrays["Qcur-0"] = np.ones((7, 120), np.float32)
    np.savez(tmp_path / "llama.npz", ids=IDS, **arrays)
    found = diverge(known(), tmp_path / "llama.npz")
    assert found.same, found.summary
    assert "B holds names that are no ops: 'Qcur-0'." in found.explanations
    assert {op.op for op in found.ops if op.relative is not None} == set(names)


BAD_ARRAYS = {
    "objects": ({"logits": np.array([{}], object)}, "'logits' holds Python objects"),
    "text": ({"logits": np.array(["a"])}, "logits is of type <U1: results are floats"),
    "axes": ({"logits": np.zeros((2, 3, 4))}, r"has shape \(2, 3, 4\), it must be \(tokens, width"),
    "empty": ({"logits": np.zeros((0, 4))}, r"has shape \(0, 4\)"),
    "names": ({"blk.0.q": np.zeros((2, 3))}, r"it holds no op: names are embedding, .*not blk.0.q"),
    "ids": ({"logits": np.zeros((2, 3)), "ids": np.zeros(5, int)}, r"ids are int64 \(5,\)"),
    "rows": (
        {"embedding": np.zeros((2, 3)), "blk.0.residual": np.zeros((3, 3))},
        "embedding has 2 rows, other ops have 3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_ARRAYS)
def test_damaged_dumps_are_refused(tmp_path, fault):
    arrays, text = BAD_ARRAYS[fault]
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=text):
        load_dump(tmp_path / "bad.npz")


def test_files_that_are_no_dumps_are_refused(tmp_path, capsys):
    path = tmp_path / "bad.npz"
    for data in (b"", b"PK\x03\x04 and no more", b"\x93NUMPY", b"garbage" * 99):
        path.write_bytes(data)
        assert "it is not a NumPy archive" in refused(capsys, "diverge", path, path)
    np.savez(path, logits=np.ones((4, 64)))
    whole = path.read_bytes()
    path.write_bytes(whole[:200] + bytes(50) + whole[250:])
    assert "'logits' is damaged" in refused(capsys, "diverge", path, path)
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    assert "it is one array" in refused(capsys, "diverge", path, path)
    path.unlink()
    assert "No such file" in refused(capsys, "diverge", path, path)
    (tmp_path / "bad.safetensors").write_bytes(b"x" * 20)
    assert "header" in refused(capsys, "diverge", tmp_path / "bad.safetensors", path)


def test_sources_that_do_not_go_together_are_refused(tmp_path):
    trace = without_weights(traced())
    with pytest.raises(ValueError, match="hold results for different ids"):
        diverge(trace, replace(trace, ids=(1, 2, 3, 4, 5, 6, 8)))
    with pytest.raises(ValueError, match="holds results for other ids"):
        diverge(trace, known(), ids=[1, 2, 3])
    short = {place: array[:3] for place, array in trace.results.items()}
    with pytest.raises(ValueError, match="has 7 tokens, dump has 3"):
        diverge(replace(trace, ids=None), replace(trace, results=short, ids=None))
    with pytest.raises(ValueError, match="these are not the same model"):
        diverge(trace, MODEL)
    with pytest.raises(ValueError, match="unknown option 'tier'; those of a model are: kernel"):
        open_source(f"{MODEL}:tier=avx2")
    with pytest.raises(ValueError, match="kv is 'q4'"):
        open_source(f"{MODEL}:kv=q4")
    with pytest.raises(TypeError, match="int is no source"):
        open_source(3)  # type: ignore[arg-type]


# ---- the command ---------------------------------------------------------------------------------


def test_the_command_has_exit_codes_and_json(tmp_path, capsys):
    dump = tmp_path / "a.npz"
    assert main(["diverge", str(MODEL), "--ids", "5,6,7", "--dump", str(dump)]) == 0
    assert "ops of 3 tokens" in capsys.readouterr().out
    assert main(["diverge", f"reference:{MODEL}", str(dump)]) == 0
    assert "agree in every bit" in capsys.readouterr().out
    arguments = ["diverge", f"reference:{MODEL}:activations=float", str(dump), "--json"]
    assert main(arguments) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["first"]["name"] == "blk.0.attn_q"
    assert found["same"] is False
    assert "leaves out the quantization of activations" in found["explanations"][0]
    assert main(["diverge", f"{MODEL}:kv=f16", str(MODEL), "--prompt", "Hello you", "--all"]) == 1
    assert "blk.0.attention" in capsys.readouterr().out
    assert "B is missing" in refused(capsys, "diverge", MODEL)
    assert "give A alone" in refused(capsys, "diverge", MODEL, MODEL, "--dump", dump)
    assert "a dump ends in" in refused(capsys, "diverge", MODEL, "--dump", tmp_path / "x.bin")


def test_pages_are_escaped_and_hold_every_op(tmp_path):
    def change(at, array):
        return array * np.float32(2) if at == (0, "attn_v") else array

    sick = replace(traced(change=change), name="<script>alert(1)</script>\x1b[31m")
    found = diverge(known(), sick, ids=IDS)
    page = html_page(found)
    assert "<script>" not in page
    assert page.count("<tr ") == len(found.ops) == len(PLACES)
    assert "\x1b" not in "\n".join(report_divergence(found))
    assert len(list(report_divergence(found, every=True))) > len(PLACES)


def test_plots(tmp_path):
    pytest.importorskip("matplotlib")
    from bitnet_lut.diagnose.divergence_report import draw_plot

    found = diverge(known(), traced(multiply=float_linear, exact=False), ids=IDS)
    draw_plot(found, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    draw_plot(found, tmp_path / "plot.svg")
    assert "<svg" in (tmp_path / "plot.svg").read_text()
    with pytest.raises(ValueError, match="xyz"):
        draw_plot(found, tmp_path / "plot.xyz")
    assert not (tmp_path / "plot.xyz").exists()

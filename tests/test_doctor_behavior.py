"""Checks of behavior: each finds the fault that is put into the demonstration model."""

from dataclasses import replace

import numpy as np
import pytest
from hf_folder import HFFolder

from bitnet_lut.convert import convert
from bitnet_lut.demo import MODEL
from bitnet_lut.diagnose import behavior_checks as checks
from bitnet_lut.diagnose import doctor
from bitnet_lut.diagnose.behavior import Behavior, TextScore, score_text
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.diagnose.texts import TEXTS
from bitnet_lut.formats import hf
from bitnet_lut.model import Model

NORM_OF = {
    "q_proj": "input_layernorm",
    "k_proj": "input_layernorm",
    "v_proj": "input_layernorm",
    "o_proj": "self_attn.attn_sub_norm",
    "gate_proj": "post_attention_layernorm",
    "up_proj": "post_attention_layernorm",
    "down_proj": "mlp.ffn_sub_norm",
}


def masters(tmp_path, change):
    """The demonstration model as real-valued weights, after ``change(tensors)``."""
    convert(MODEL, tmp_path / "packed", type="hf")
    folder = HFFolder(tmp_path / "packed", tmp_path / "masters")
    folder.settings["quantization_config"]["quantization_mode"] = "online"
    for name in [name for name, t in folder.tensors.items() if t.dtype == np.uint8]:
        packed, scale = folder.tensors[name], folder.tensors.pop(f"{name}_scale")
        folder.tensors[name] = hf.unpack(packed, 4 * len(packed)) * scale.astype(np.float32)
    folder.tensors = {name: tensor.copy() for name, tensor in folder.tensors.items()}
    change(folder.tensors)
    return folder.save()


def by_check(findings):
    return {finding.check: finding for finding in findings}


def test_bits_per_byte_are_those_of_the_logits():
    """Computed a second time, in float64 and from `Model.forward`."""
    subject = Subject(MODEL)
    text = TEXTS["simple"]
    score = score_text(subject.runner, subject.model, text, 512)
    with Model(MODEL, kv="f32") as model:
        ids = model.tokenize(text)
        logits = model.forward(ids).astype(np.float64)[:-1]
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    chosen = p[np.arange(len(ids) - 1), ids[1:]]
    assert score.tokens == len(ids) - 1
    assert score.bits_per_byte == pytest.approx(-np.log2(chosen).sum() / len(text.encode()))
    assert score.entropy == pytest.approx(-(p * np.log2(p)).sum(axis=1).mean())
    uniform = np.log2(model.config.vocab_size) * (len(ids) - 1) / len(text.encode())
    assert score.uniform == pytest.approx(uniform)


def test_a_text_of_another_kind_is_a_warning():
    subject = Subject(MODEL, text="Ein Text in einer anderen Sprache, von der es nichts weiß. " * 9)
    found = by_check(checks.check_prediction(subject))
    assert found["behavior: bits per byte"].status == "ok"
    assert found["behavior: your text"].status == "warning"


def broken(change):
    subject = Subject(MODEL)
    subject.tensors = {name: change(name, t) for name, t in subject.tensors.items()}
    return subject


def test_overflow_names_the_place():
    def change(name, tensor):
        return tensor * np.float32(1e38) if name == "blk.2.ffn_norm.weight" else tensor

    subject = broken(change)
    found = by_check(checks.check_prediction(subject))["behavior: bits per byte"]
    assert found.status == "fault"
    assert "layer 2" in found.measured
    for check in checks.CHECKS:
        list(check(subject))  # none of them fails


def test_a_model_that_knows_common_words_only_is_undertrained():
    subject = Subject(MODEL)
    score = TextScore(99, 2.2, 3.25, 5.0, 0.2)
    subject.behavior = Behavior({"simple": score}, (), 0.9, "a a a")
    found = by_check(checks.check_prediction(subject))["behavior: bits per byte"]
    assert (found.status, found.verdict) == ("fault", "undertrained")


def test_ends_and_repetitions_are_found():
    subject = Subject(MODEL)
    good = TextScore(99, 1.0, 3.25, 1.0, 0.6)
    subject.behavior = Behavior({"simple": good}, (0.67, 0.01), 0.97, "a a a")
    found = by_check(checks.check_writing(subject))
    assert found["behavior: P(EOS)"].status == "warning"
    assert found["behavior: writing"].status == "warning"
    del subject.sensible
    subject.behavior = Behavior({"simple": replace(good, bits_per_byte=4)}, (0.67,), 0.0, "")
    assert by_check(checks.check_writing(subject))["behavior: P(EOS)"].status == "fault"


def test_norms_that_grow_beyond_what_weights_add_are_found(monkeypatch):
    subject = Subject(MODEL)
    (found,) = checks.check_hidden_norms(subject)
    assert found.status == "ok"
    run = subject.runner.logits

    def ten_times_a_layer(variant, ids, probe=None):
        def grown(layer, op, array):
            probe(layer, op, array * 10.0 ** max(layer, 0))

        return run(variant, ids, probe=probe and grown)

    monkeypatch.setattr(subject.runner, "logits", ten_times_a_layer)
    (found,) = checks.check_hidden_norms(subject)
    assert (found.status, found.where) == ("warning", "layer 1")


def test_masters_that_survive_rounding_pass(tmp_path):
    def change(tensors):
        rng = np.random.default_rng(0)
        for name, tensor in tensors.items():
            if name.rpartition(".")[0].endswith("_proj"):
                noise = rng.uniform(-0.2, 0.2, tensor.shape) * np.abs(tensor).max()
                tensors[name] = (tensor + noise).astype(np.float32)

    path = masters(tmp_path, change)
    (found,) = checks.check_ablation(Subject(path))
    assert found.status == "ok"
    assert found.measured.startswith("nothing rounded: ")
    assert doctor(path).verdict == "ok"


def test_masters_that_were_never_ternary_are_found(tmp_path):
    """The norms take columns over, which changes nothing in full precision."""

    def change(tensors):
        rng = np.random.default_rng(0)
        factors = {}
        for name in [name for name in tensors if name.rpartition(".")[0].endswith("_proj")]:
            block, _, linear = name.removesuffix(".weight").rpartition(".")
            block = block.rpartition(".")[0]
            norm = f"{block}.{NORM_OF[linear]}.weight"
            if norm not in factors:
                factors[norm] = np.exp(rng.normal(0, 2, len(tensors[norm]))).astype(np.float32)
                tensors[norm] = tensors[norm] * factors[norm]
            tensors[name] = tensors[name] / factors[norm]

    path = masters(tmp_path, change)
    (found,) = checks.check_ablation(Subject(path))
    assert (found.status, found.verdict) == ("fault", "not-ternary")
    assert doctor(path).verdict == "not-ternary"


def test_weights_that_were_trained_without_rounded_activations_are_found(tmp_path):
    """A channel that no weight uses takes nearly all of the range of int8."""

    def change(tensors):
        for layer in range(6):
            block = f"model.layers.{layer}"
            for linear, norm in NORM_OF.items():
                part = "mlp" if linear in ("gate_proj", "up_proj", "down_proj") else "self_attn"
                tensors[f"{block}.{part}.{linear}.weight"][:, 7] = 0
                tensors[f"{block}.{norm}.weight"][7] = 300

    path = masters(tmp_path, change)
    (found,) = checks.check_ablation(Subject(path))
    assert (found.status, found.verdict) == ("fault", "quantization")
    assert doctor(path).verdict == "quantization"

"""Checks against a reference: each names what differs."""

from dataclasses import replace

import numpy as np
import pytest
from model_files import rewritten

from bitnet_lut.convert import convert
from bitnet_lut.demo import MODEL
from bitnet_lut.diagnose import doctor
from bitnet_lut.diagnose import reference_checks as checks
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.gguf import F32, STRING
from bitnet_lut.formats.tensors import TernaryMatrix


def faults(subject):
    """The verdicts of all faults that the checks find."""
    return [f.verdict for check in checks.CHECKS for f in check(subject) if f.status == "fault"]


def sick(change):
    subject = Subject(MODEL, reference=MODEL)
    subject.tensors = {name: change(name, t) for name, t in subject.tensors.items()}
    return subject


@pytest.mark.parametrize("type", ["hf", "tq1_0"])
def test_the_same_model_in_another_format_passes(tmp_path, type):
    convert(MODEL, tmp_path / "model", type=type)
    assert not faults(Subject(tmp_path / "model", reference=MODEL))
    diagnosis = doctor(tmp_path / "model", reference=MODEL)
    assert diagnosis.verdict == "ok"
    assert sum(f.check.startswith("reference: ") for f in diagnosis.findings) == 5


def test_files_whose_rope_orders_rows_differently_are_the_same_model(golden):
    folder, file = golden / "llama-1.58/hf-packed", golden / "llama-1.58/model-i2_s.gguf"
    assert not faults(Subject(file, reference=folder))


@pytest.mark.parametrize(
    ("key", "value", "verdict"),
    [
        ("bitnet-b1.58.rope.freq_base", (F32, 500000.0), "rope"),
        ("bitnet-b1.58.hidden_activation", (STRING, "silu"), "activation"),
        ("tokenizer.ggml.pre", (STRING, "default"), "tokenizer"),
    ],
)
def test_other_metadata_are_named(tmp_path, key, value, verdict):
    path = rewritten(MODEL, tmp_path / "sick.gguf", keys={key: value})
    assert faults(Subject(path, reference=MODEL)) == [verdict]
    assert doctor(path, reference=MODEL).verdict == verdict


def test_another_code_is_named():
    def change(name, tensor):
        if not isinstance(tensor, TernaryMatrix):
            return tensor
        weights = -i2_s.unpack_rows(tensor.packed, tensor.cols)
        return replace(tensor, packed=i2_s.pack_rows(weights))

    assert faults(sick(change)) == ["encoding"]


def test_other_scales_norms_and_embeddings_are_named():
    def change(name, tensor):
        if name == "blk.2.ffn_up.weight":
            return replace(tensor, scale=1 / tensor.scale)
        if name == "token_embd.weight":
            return replace(tensor, data=tensor.data[::-1].copy())
        return tensor + np.float32(1) if name == "output_norm.weight" else tensor

    assert faults(sick(change)) == ["scale", "norms", "embedding"]


def test_exchanged_layers_are_named():
    subject = Subject(MODEL, reference=MODEL)
    one, two = ({n: t for n, t in subject.tensors.items() if f".{i}." in n} for i in (1, 2))
    subject.tensors |= {name.replace("blk.1.", "blk.2."): tensor for name, tensor in one.items()}
    subject.tensors |= {name.replace("blk.2.", "blk.1."): tensor for name, tensor in two.items()}
    assert faults(subject)[0] == "layers"

"""Diagnosis by trial: the verdicts of sick and healthy models, and files that are mended."""

import os

import numpy as np
import pytest
from draft_model import Draft
from sick_models import HEALTHY, SICK, checkpoints, gguf, key, recode, rows

from bitnet_lut import reference
from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.checkpoint.ternary_hash import ternary_sha256
from bitnet_lut.cli import main
from bitnet_lut.demo import MODEL
from bitnet_lut.diagnose import doctor
from bitnet_lut.diagnose.asking import ask, gain
from bitnet_lut.diagnose.behavior import log_softmax
from bitnet_lut.diagnose.cures import cures
from bitnet_lut.diagnose.facts import FACTS, SUMS
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tensors import TernaryMatrix

# One of each kind. The whole set, which takes minutes, runs with BITNET_LUT_ALL_SICK=1.
SOME = (
    "layout 64x16",
    "norms w - 1",
    "pre-tokenizer default",
    "head not used",
    "untrained",
    "half trained",
    "overwritten",
    "mask token",
    "scales and layers",
)
ALL = bool(os.environ.get("BITNET_LUT_ALL_SICK"))


@pytest.mark.parametrize("patient", [p for p in SICK if p.name in SOME], ids=lambda p: p.name)
def test_sick_models_get_the_right_verdict(patient, tmp_path):
    assert doctor(patient.make(tmp_path), threads=1).verdict in patient.expected


@pytest.mark.skipif(not ALL, reason="takes minutes: set BITNET_LUT_ALL_SICK=1")
def test_nine_in_ten_of_all_sick_models_get_the_right_verdict(tmp_path):
    wrong = {}
    patients = [*SICK, *checkpoints()]
    assert len(patients) >= 40
    for number, patient in enumerate(patients):
        folder = tmp_path / str(number)
        folder.mkdir()
        verdict = doctor(patient.make(folder), threads=1).verdict
        if verdict not in patient.expected:
            wrong[patient.name] = verdict
    assert len(wrong) <= len(patients) / 10, wrong


@pytest.mark.parametrize(
    "patient", HEALTHY if ALL else [HEALTHY[0], HEALTHY[-1]], ids=lambda p: p.name
)
def test_healthy_models_are_not_called_sick(patient, tmp_path):
    diagnosis = doctor(patient.make(tmp_path), threads=1)
    assert diagnosis.verdict == "ok"
    assert len(diagnosis.trials) > 40
    assert diagnosis.trials[0].name == "as it is"


def test_names_of_patients_and_cures_are_unique():
    names = [patient.name for patient in (*SICK, *HEALTHY)]
    assert len(set(names)) == len(names)
    assert set(SOME) < set(names)
    names = [cure.name for cure in cures(Subject(MODEL, threads=1))]
    assert len(set(names)) == len(names)


def test_answers_are_those_of_the_logits():
    """Computed a second time, from the reference, sentence by sentence."""
    subject = Subject(MODEL, threads=1)
    groups = {"facts": FACTS[:5], "sums": SUMS[:3]}
    answers = ask(subject.runner, subject.model, groups)
    bits = nbytes = known = 0
    for beginning, end in (*FACTS[:5], *SUMS[:3]):
        start = len(subject.tokenizer.encode(beginning))
        ids = subject.tokenizer.encode(beginning + end)
        logits = reference.forward(subject.config, subject.tensors, ids)[0][start - 1 : -1]
        targets = ids[start:]
        bits -= log_softmax(logits)[np.arange(len(targets)), targets].sum() / np.log(2)
        known += bool((logits.argmax(axis=1) == targets).all())
        nbytes += len(end)
    assert answers.bits_per_byte == pytest.approx(bits / nbytes, rel=1e-4)
    assert (answers.known, answers.asked) == (known, 8)
    assert [len(found) for found in answers.bits.values()] == [5, 3]


def test_nonsense_is_no_gain():
    subject = Subject(MODEL, threads=1)
    groups = {"facts": FACTS[:20], "sums": SUMS[:8]}
    good = ask(subject.runner, subject.model, groups)
    huge = {"output_norm.weight": subject.vectors["output_norm.weight"] * np.float32(np.inf)}
    bad = ask(subject.runner, subject.model.changed(huge), groups)
    assert bad.bits_per_byte == np.inf
    assert gain(good, bad) == gain(good, good) == gain(bad, bad) == 0
    assert gain(bad, good) > 3.5


def test_codes_are_exchanged_in_rows_of_any_length():
    """The padding of rows that do not fill 128 columns stays 0."""
    subject = Subject(MODEL, threads=1)
    ternary = np.random.default_rng(0).integers(-1, 2, (4, 200), dtype=np.int8)
    matrix = TernaryMatrix(4, 200, i2_s.pack_rows(ternary), np.ones(1, np.float32))
    variant = subject.model.changed({"blk.0.attn_q.weight": matrix})
    cure = next(c for c in cures(subject) if c.name == "code 00=0 01=+1 10=-1")
    found = cure.change(variant).tensors["blk.0.attn_q.weight"]
    expected = np.array([0, 1, -1], np.int8)[ternary + 1]
    np.testing.assert_array_equal(found.packed, i2_s.pack_rows(expected))


def test_two_cures_are_applied_in_their_order():
    subject = Subject(MODEL, threads=1)
    table = {cure.name: cure for cure in cures(subject)}
    layout, codes = table["layout 1x4"], table["code 00=0 01=+1 10=-1"]
    for pair in (layout.then(codes), codes.then(layout)):
        found = pair.change(subject.model).tensors["blk.0.attn_q.weight"].packed
        expected = codes.change(layout.change(subject.model)).tensors["blk.0.attn_q.weight"].packed
        np.testing.assert_array_equal(found, expected)
    assert layout.then(codes).verdict == "layout"
    assert codes.then(layout).verdict == "encoding"


def mended(tmp_path, *faults):
    sick = gguf(*faults)(tmp_path)
    diagnosis = doctor(sick, write_fixed=tmp_path / "mended.gguf", threads=1)
    assert not diagnosis.healthy
    assert doctor(tmp_path / "mended.gguf", threads=1).verdict == "ok"
    return tmp_path / "mended.gguf"


def test_the_mended_file_is_the_good_one(tmp_path):
    """Two faults, in the metadata and in the weights: every tensor and key comes back."""
    base = "bitnet-b1.58.rope.freq_base"
    path = mended(tmp_path, rows("attn_k"), key(base, 500000.0))
    with open_checkpoint(MODEL) as good, open_checkpoint(path) as found:
        assert found.config == good.config
        assert ternary_sha256(found) == ternary_sha256(good)
        for name in ("output_norm.weight", "blk.3.ffn_sub_norm.weight"):
            np.testing.assert_array_equal(found.vector(name), good.vector(name))
        embeddings = [file.matrix("token_embd.weight") for file in (good, found)]
        np.testing.assert_array_equal(embeddings[0].data, embeddings[1].data)
        for name, value in good.metadata.items():
            assert np.array_equal(found.metadata[name], value), name


def test_mending_by_the_command(tmp_path, capsys):
    sick, out = gguf(recode(2, 0, 1))(tmp_path), tmp_path / "mended.gguf"
    assert main(["doctor", "-t1", str(sick), "--write-fixed", str(out)]) == 1
    assert capsys.readouterr().out.startswith(
        "model.gguf: its weights were decoded with another code than they were written with."
    )
    with open_checkpoint(MODEL) as good, open_checkpoint(out) as found:
        assert ternary_sha256(found) == ternary_sha256(good)
    assert main(["doctor", str(sick), "--write-fixed", str(sick)]) == 2
    assert "this is the source" in capsys.readouterr().err
    assert main(["doctor", str(sick), "--write-fixed", str(tmp_path)]) == 2


def test_where_nothing_can_be_mended_nothing_is_written(tmp_path):
    draft = Draft()
    draft.vectors["blk.0.ffn_norm.weight"][3] = np.nan
    out = tmp_path / "mended.gguf"
    diagnosis = doctor(draft.save(tmp_path / "model.gguf"), write_fixed=out, threads=1)
    assert diagnosis.verdict == "damaged"
    found = {finding.check: finding for finding in diagnosis.findings}
    assert found["trials: mended file"].status == "warning"
    assert not out.exists()

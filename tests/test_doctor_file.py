"""Checks of the container: each finds the fault that is put into a file."""

import hashlib

import pytest
from model_files import rewritten

from bitnet_lut.convert import convert
from bitnet_lut.convert.synth import SHAPES
from bitnet_lut.demo import MODEL
from bitnet_lut.diagnose import doctor, file_checks
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.formats.gguf import F32, STRING, U32


def found(subject, check):
    return {(f.status, f.verdict, f.measured) for f in check(subject)}


def test_a_whole_file_passes():
    for check in file_checks.CHECKS:
        assert {status for status, *_ in found(Subject(MODEL), check)} <= {"ok"}


@pytest.mark.parametrize(
    "file",
    ["truncated_data", "overlap", "offset_past_eof", "missing_tensor", "nan_scale", "wrong_magic"],
)
def test_damaged_files_are_called_damaged(golden, file):
    diagnosis = doctor(golden / f"malformed/{file}.gguf")
    assert diagnosis.verdict == "damaged"
    assert len([f for f in diagnosis.findings if f.verdict == "damaged"]) == 1


@pytest.mark.parametrize("edited", [False, True])
def test_a_published_file_is_known_by_size_and_hash(monkeypatch, edited):
    data = MODEL.read_bytes()
    digest = hashlib.sha256(data + b" " * edited).hexdigest()
    monkeypatch.setattr(file_checks, "_PUBLISHED", {len(data): ("owner/name", digest)})
    ((status, _, measured),) = found(Subject(MODEL), file_checks.check_published)
    assert (status, "byte for byte owner/name" in measured) == (
        ("warning", False) if edited else ("ok", True)
    )


def test_weights_that_changed_since_their_conversion_are_found(tmp_path):
    convert(MODEL, tmp_path / "model.gguf", type="i2_s")
    subject = Subject(tmp_path / "model.gguf")
    assert [f.status for f in file_checks.check_own_hash(subject)] == ["ok"]
    other = Subject(tmp_path / "model.gguf", i2_s_layout="sequential")
    ((status, verdict, _),) = found(other, file_checks.check_own_hash)
    assert (status, verdict) == ("fault", "damaged")


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"general.architecture": (STRING, "bitnet-25")}, "old name bitnet-25"),
        ({"bitnet-b1.58.vocab_size": (U32, 99)}, "vocab_size is 99"),
    ],
)
def test_quirks_are_warnings(tmp_path, keys, expected):
    if "general.architecture" in keys:
        with_old_keys = {
            key.replace("bitnet-b1.58", "bitnet-25"): value
            for key, value in Subject(MODEL).checkpoint.metadata.items()
            if key.startswith("bitnet-b1.58.")
        }
        types = Subject(MODEL).checkpoint.value_types
        keys = keys | {
            key: (types[key.replace("bitnet-25", "bitnet-b1.58")], value)
            for key, value in with_old_keys.items()
        }
    subject = Subject(rewritten(MODEL, tmp_path / "odd.gguf", keys=keys))
    quirks = list(file_checks.check_quirks(subject))
    assert {quirk.status for quirk in quirks} == {"warning"}
    assert any(expected in quirk.measured for quirk in quirks)
    assert all(quirk.meaning and quirk.fix for quirk in quirks)


def test_quirks_of_golden_files(golden):
    (quirk,) = file_checks.check_quirks(Subject(golden / "bitnet-b1.58/model-i2_s.gguf"))
    assert "hidden_activation is missing: relu2" in quirk.measured


def test_values_that_published_models_do_not_have_are_found(tmp_path, monkeypatch):
    """The demonstration model stands in for a published one."""
    subject = Subject(MODEL)
    monkeypatch.setattr(file_checks, "_published_twin", lambda config: subject.config)
    assert [f.status for f in file_checks.check_config(subject)] == ["ok"]
    keys = {"bitnet-b1.58.rope.freq_base": (F32, 500000.0)}
    wrong = Subject(rewritten(MODEL, tmp_path / "wrong.gguf", keys=keys))
    (finding,) = file_checks.check_config(wrong)
    assert (finding.verdict, finding.where) == ("rope", "rope_theta")
    assert finding.status in ("warning", "fault")


@pytest.mark.parametrize("shape", ["2b-4t", "large", "falcon3-7b"])
def test_published_models_are_known_by_their_sizes(shape):
    config = SHAPES[shape].config
    assert file_checks._published_twin(config) == config


def test_real_numbers_are_compared_as_files_hold_them():
    assert file_checks.same_value(1e-5, 9.999999747378752e-06)
    assert not file_checks.same_value(1e-5, 1e-6)

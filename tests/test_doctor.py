"""The examination as a whole: verdicts, the report and the exit code."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from model_files import TILES

from bitnet_lut import reference
from bitnet_lut.cli import main
from bitnet_lut.convert import convert
from bitnet_lut.convert.synth import synthesize
from bitnet_lut.demo import MODEL
from bitnet_lut.diagnose import Diagnosis, Finding, Trial, doctor
from bitnet_lut.diagnose.examination import decide
from bitnet_lut.diagnose.findings import ok
from bitnet_lut.diagnose.running import Runner, Variant
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.diagnose.telling import tell


def finding(status, verdict="unknown", certainty=0.5):
    return Finding("a: b", status, "", "", "", verdict=verdict, certainty=certainty)


def test_the_surest_fault_decides():
    good, warned = ok("a: b", "", ""), finding("warning", "rope", 0.9)
    assert decide([good])[0] == "ok"
    assert decide([warned])[0] == "ok"
    assert decide([warned])[1] < decide([good])[1]
    faults = [finding("fault", "rope", 0.4), finding("fault", "scale", 0.8), finding("fault")]
    assert decide([good, *faults]) == ("scale", 0.8)
    assert decide([finding("fault", "rope"), finding("fault", "scale")]) == ("rope", 0.5)


def test_the_demonstration_model_is_healthy(capsys):
    diagnosis = doctor(MODEL)
    assert (diagnosis.verdict, diagnosis.healthy) == ("ok", True)
    assert main(["doctor", str(MODEL)]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first == "model.gguf: nothing is wrong with it."


@pytest.mark.parametrize(
    "file",
    [
        "bitnet-b1.58/model-i2_s.gguf",
        "bitnet-b1.58/hf-packed",
        "bitnet-b1.58/hf-master-bf16",
        "bitnet-1bitllm/model-i2_s.gguf",
        "llama-1.58/model-i2_s.gguf",
        "llama-1.58/model-tq1_0.gguf",
        "llama-1.58/model-tq2_0.gguf",
        "llama-1.58/model-tl2-id39.gguf",
        "llama-1.58/hf-packed",
        "qwen2-plain/model-q4_0.gguf",
        "qwen2-plain/model-q8_0.gguf",
        "ik-bn/model-i2_s.gguf",
        "ik-bn/model-iq1_bn.gguf",
        "ik-bn/model-iq2_bn.gguf",
        "malformed/base.gguf",
    ],
)
def test_golden_models_are_untrained(golden, file):
    """Their weights are random, and nothing else is wrong with them."""
    tiles = TILES if "tl2" in file else None
    diagnosis = doctor(golden / file, tiles=tiles)
    assert diagnosis.verdict == "untrained"
    others = {f.check for f in diagnosis.findings if f.status == "fault"} - {
        "weights: training",
        "behavior: bits per byte",
    }
    lacking_bytes = "ik-bn" in file or "malformed" in file
    assert others == ({"tokenizer: round trip"} if lacking_bytes else set())


@pytest.mark.parametrize("type", ["i2_s", "tq2_0", "f16"])
def test_synthetic_models_are_untrained(tmp_path, type):
    synthesize(tmp_path / "model.gguf", "tiny", type=type)
    assert doctor(tmp_path / "model.gguf").verdict == "untrained"


@pytest.mark.parametrize("type", ["hf", "tq1_0", "tl5", "f16"])
def test_the_demonstration_model_is_healthy_in_every_format(tmp_path, type):
    convert(MODEL, tmp_path / "model", type=type)
    diagnosis = doctor(tmp_path / "model")
    assert (diagnosis.verdict, [f for f in diagnosis.findings if f.status == "fault"]) == ("ok", [])


@pytest.mark.parametrize(
    "file", ["embedding-qwen3/model-i2_s.gguf", "llama-1.58/model-tl2-id39.gguf"]
)
def test_what_is_not_supported_is_an_error_and_no_fault(golden, file, capsys):
    assert main(["doctor", str(golden / file)]) == 2
    assert "supported" in (text := capsys.readouterr().err) or "not known" in text


def test_a_folder_without_a_model_is_an_error(tmp_path, capsys):
    assert main(["doctor", str(tmp_path)]) == 2
    assert "neither a GGUF file nor a folder" in capsys.readouterr().err


def test_json_has_what_is_promised(golden, capsys):
    assert main(["doctor", "--json", str(golden / "malformed/overlap.gguf")]) == 1
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"verdict", "confidence", "findings", "trials"}
    assert found["verdict"] == "damaged"
    assert 0 < found["confidence"] <= 1
    assert found["trials"] == []
    fault = next(one for one in found["findings"] if one["status"] == "fault")
    assert set(fault) == {"check", "status", "where", "measured", "expected", "meaning", "fix"}
    assert "overlapping" in fault["measured"] or "damaged" in fault["measured"]


def test_the_report_fits_a_screen_and_begins_with_the_surest_fault():
    faults = tuple(finding("fault", "rope", certainty) for certainty in (0.2, 0.9, 0.4))
    faults = tuple(replace(fault, where=str(fault.certainty)) for fault in faults)
    trials = tuple(Trial(f"cure {i}", "rope", i / 7, "") for i in range(40))
    diagnosis = Diagnosis(
        "m.gguf", "rope", 0.9, "m.gguf: ...", (*faults, ok("a: c", "", "")), trials
    )
    lines = list(tell(diagnosis))
    assert lines[:2] == ["m.gguf: ...", "verdict: rope, confidence 90%"]
    assert [line for line in lines if line.startswith("FAULT")] == [
        f"FAULT  a: b, {certainty}" for certainty in (0.9, 0.4, 0.2)
    ]
    assert sum(line.count("\n") + 1 for line in lines) <= 24
    assert max(map(len, "\n".join(lines).splitlines())) <= 100
    assert lines[-1] == "\nfine: a (1)"


def test_an_infinite_number_is_null_in_json():
    trial = Trial("cure", "rope", math.inf)
    diagnosis = Diagnosis("", "ok", 1.0, "", (), (trial,))
    assert diagnosis.to_json()["trials"][0]["bits_per_byte"] is None


def test_errors_are_not_verdicts(tmp_path, capsys):
    assert main(["doctor", str(tmp_path / "absent.gguf")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_variants_run_on_the_engine_as_in_the_reference():
    subject = Subject(MODEL)
    ids = subject.tokenizer.encode("The capital of Italy is")
    norms = {"blk.0.attn_norm.weight": subject.tensors["blk.0.attn_norm.weight"] + 1}
    changed = subject.model.changed(norms, rope_theta=1e4)
    expected, _ = reference.forward(changed.config, changed.tensors, ids)
    np.testing.assert_array_equal(subject.runner.logits(changed, ids), expected)
    assert not np.array_equal(subject.runner.logits(subject.model, ids), expected)


def test_float_arithmetic_leaves_activations_as_they_are():
    subject = Subject(MODEL)
    ids = subject.tokenizer.encode("The capital of Italy is")
    int8, model = subject.model, subject.model
    exact = Variant(model.config, model.tensors, model.tokenizer, "float")
    difference = np.abs(Runner().logits(exact, ids) - subject.runner.logits(int8, ids)).max()
    assert 1e-4 < difference < 2
    assert subject.bits_per_byte(exact) == pytest.approx(subject.bits_per_byte(int8), rel=0.05)

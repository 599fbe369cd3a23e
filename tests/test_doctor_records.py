"""Checks of what a training run wrote about itself."""

import json
import shutil

import pytest
from model_files import rewritten

from bitnet_lut.convert import convert
from bitnet_lut.demo import MODEL
from bitnet_lut.diagnose import doctor
from bitnet_lut.diagnose import records_checks as checks
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.formats.gguf import STRING, U32


@pytest.fixture
def folder(golden, tmp_path):
    """A folder of masters with random weights."""
    shutil.copytree(golden / "bitnet-b1.58/hf-master-bf16", tmp_path / "run")
    return tmp_path / "run"


def edit(path, **changes):
    stated = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(stated | changes))


def only(source, check):
    (finding,) = check(Subject(source))
    return finding


def state(folder, step, *losses):
    history = [{"step": i, "loss": loss} for i, loss in enumerate(losses)]
    edit(folder / "trainer_state.json", global_step=step, log_history=history)


def test_weights_saved_before_the_first_step_are_untrained(folder):
    state(folder, 0)
    found = only(folder, checks.check_trainer_state)
    assert (found.status, found.verdict) == ("fault", "untrained")
    assert found.measured == "global_step 0"
    assert doctor(folder).verdict == "untrained"


@pytest.mark.parametrize(
    ("losses", "status", "verdict"),
    [
        ((6.5, 6.1), "fault", "undertrained"),
        ((6.5, float("nan")), "fault", "damaged"),
        ((6.5, 2.1), "ok", "ok"),
    ],
)
def test_losses_tell_how_far_a_training_came(folder, losses, status, verdict):
    state(folder, 100, *losses)
    found = only(folder, checks.check_trainer_state)
    assert (found.status, found.verdict) == (status, verdict)
    assert "global_step 100, 2 losses from 6.5" in found.measured


def test_records_of_a_model_that_works_are_warnings(tmp_path):
    convert(MODEL, tmp_path / "run", type="hf")
    state(tmp_path / "run", 0)
    assert only(tmp_path / "run", checks.check_trainer_state).status == "warning"
    assert doctor(tmp_path / "run").verdict == "ok"


@pytest.mark.parametrize("text", ["[", "[]", '{"global_step": []}', "[" * 10**5])
def test_records_that_make_no_sense_do_no_harm(folder, text):
    (folder / "trainer_state.json").write_text(text)
    assert {f.status for f in checks.check_trainer_state(Subject(folder))} <= {"ok"}


def test_masters_that_are_called_packed_are_found(folder):
    assert only(folder, checks.check_quantization).status == "ok"
    settings = {"quant_method": "bitnet", "linear_class": "autobitlinear"}
    edit(
        folder / "config.json",
        quantization_config=settings | {"quantization_mode": "offline"},
    )
    found = only(folder, checks.check_quantization)
    assert (found.status, found.verdict) == ("warning", "quantization")


@pytest.mark.parametrize(
    "changes", [{"mask_token_id": 5}, {"architectures": ["LLaDAModelLM"]}, {"model_type": "dream"}]
)
def test_diffusion_models_are_known_even_where_they_cannot_be_run(folder, changes):
    edit(folder / "config.json", **changes)
    found = only(folder, checks.check_diffusion)
    assert (found.status, found.verdict) == ("fault", "diffusion")
    assert doctor(folder).verdict == "diffusion"


def test_a_mask_token_alone_is_a_suspicion(tmp_path):
    tokens = list(Subject(MODEL).checkpoint.metadata["tokenizer.ggml.tokens"])
    tokens[tokens.index("<|end_of_text|>")] = "<|mask|>"
    keys = {"tokenizer.ggml.tokens": tokens}
    found = only(rewritten(MODEL, tmp_path / "m.gguf", keys=keys), checks.check_diffusion)
    assert (found.status, found.verdict) == ("warning", "diffusion")
    keys = {"tokenizer.ggml.mask_token_id": (U32, 1)}
    found = only(rewritten(MODEL, tmp_path / "m.gguf", keys=keys), checks.check_diffusion)
    assert (found.status, found.verdict) == ("fault", "diffusion")
    keys = {"general.architecture": (STRING, "llada")}
    assert doctor(rewritten(MODEL, tmp_path / "m.gguf", keys=keys)).verdict == "diffusion"


def test_the_newest_checkpoint_of_a_run_is_looked_at(folder, tmp_path):
    run = tmp_path / "training"
    for step in (9, 100, 20):
        shutil.copytree(folder, run / f"checkpoint-{step}")
        state(run / f"checkpoint-{step}", step, 6.5, 2.0)
    (run / "checkpoint-200").mkdir()  # still being written
    diagnosis = doctor(run)
    assert diagnosis.source.endswith("checkpoint-100")
    found = {finding.check: finding.measured for finding in diagnosis.findings}
    assert found["records: training run"] == "checkpoint-100, the newest of 3 checkpoints"
    assert found["records: trainer_state.json"].startswith("global_step 100")

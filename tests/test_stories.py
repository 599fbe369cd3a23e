"""Stories of ports that wrote garbage, and nobody knew why: doctor and diverge name the cause."""

from pathlib import Path

from hf_folder import HFFolder
from sick_models import gguf, hf_folder, only_weights_rounded, recode

from bitnet_lut import reference
from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.cli import main
from bitnet_lut.demo import MODEL
from bitnet_lut.diagnose import Trace, save_dump
from bitnet_lut.diagnose.running import float_linear


def said(capsys, *arguments: object) -> str:
    """What one command says, which ends with exit code 1."""
    assert main([str(argument) for argument in arguments]) == 1
    return " ".join(capsys.readouterr().out.split())


def test_weights_decoded_with_another_code(tmp_path: Path, capsys) -> None:
    """A port read 00 as 0, 01 as +1 and 10 as -1."""
    sick = gguf(recode(2, 0, 1))(tmp_path)
    words = said(capsys, "doctor", "-t1", sick)
    assert "verdict: encoding" in words
    assert "code 00=0 01=+1 10=-1: " in words
    words = said(capsys, "diverge", MODEL, sick)
    assert words.startswith("They part at blk.0.attn_q")
    assert "B decodes the ternary weights with 00=-1, 01=+1, 10=+0" in words


def test_activations_that_are_not_quantized(golden: Path, tmp_path: Path, capsys) -> None:
    """A conversion to floats made every program leave out the quantization of activations."""
    good = golden / "llama-1.58/hf-packed"
    folder = HFFolder(good, tmp_path / "floats")
    folder.drop_quantization()
    sick = folder.save()
    words = said(capsys, "doctor", "-t1", sick)
    assert "verdict: quantization" in words
    assert "every program that reads it leaves out the quantization of activations" in words
    words = said(capsys, "diverge", good, sick)
    assert "B leaves out the quantization of activations to int8" in words


def test_a_checkpoint_of_which_only_the_weights_were_rounded(tmp_path: Path, capsys) -> None:
    """Training rounded its weights, not its activations, and it does not survive int8."""
    sick = hf_folder(only_weights_rounded, floats=True)(tmp_path)
    words = said(capsys, "doctor", "-t1", sick)
    assert "verdict: quantization" in words
    assert "it was trained with rounded weights, but without rounded activations" in words
    ids, results = [0, 100, 200, 300], {}
    with open_checkpoint(sick) as checkpoint:

        def probe(layer: int, op: str, array: reference.Floats) -> None:
            results[layer, op] = array

        tensors = checkpoint.tensors()
        reference.forward(checkpoint.config, tensors, ids, probe=probe, multiply=float_linear)
    save_dump(Trace("training", results, tuple(ids)), tmp_path / "training.npz")
    words = said(capsys, "diverge", sick, tmp_path / "training.npz")
    assert "B leaves out the quantization of activations to int8" in words

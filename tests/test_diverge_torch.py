"""The first op at which our engine and transformers part."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import transformers  # noqa: E402
from torch_models import FAMILIES, new_model  # noqa: E402

from bitnet_lut.checkpoint import open_checkpoint  # noqa: E402
from bitnet_lut.diagnose import OPS, diverge, open_source  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")
IDS = [7, 50, 3, 3, 21, 40, 11]


@pytest.mark.parametrize("name", ["bitnet-b1.58", "llama-1.58"])
def test_transformers_agrees_at_every_op(golden, name):
    """Of golden models, whose sequence of 40 tokens keeps away from ties."""
    ids = np.load(golden / name / "reference.npz")["ids__40"].tolist()
    found = diverge(
        golden / name / "model-i2_s.gguf",
        f"transformers:{golden / name / 'hf-packed'}",
        ids=ids,
        tokens=40,
    )
    assert found.same, found.summary
    assert {op.status for op in found.ops} <= {"same", "noise"}
    assert len(found.ops) == 3 + 14 * (3 if name == "bitnet-b1.58" else 2)


def test_transformers_without_quantized_activations(golden, monkeypatch):
    from transformers.integrations.bitnet import BitLinear, unpack_weights

    def floats(self, x):
        ternary = unpack_weights(self.weight, dtype=self.dtype)
        return x @ ternary.T.to(x.dtype) / self.weight_scale

    monkeypatch.setattr(BitLinear, "forward", floats)
    folder = golden / "llama-1.58"
    found = diverge(folder / "model-i2_s.gguf", f"transformers:{folder / 'hf-packed'}", ids=IDS)
    assert found.first is not None
    assert found.first.name == "blk.0.attn_q"
    assert "leaves out the quantization of activations" in found.explanations[0]


def test_a_checkpoint_whose_masters_are_multiplied(golden, monkeypatch):
    """A folder of masters that is loaded as if it were an ordinary model."""
    folder = golden / "bitnet-b1.58" / "hf-master-bf16"
    config = transformers.AutoConfig.from_pretrained(folder)
    del config.quantization_config
    model = transformers.AutoModelForCausalLM.from_pretrained(
        folder, config=config, dtype="float32"
    )
    found = diverge(folder, model.eval(), ids=IDS)
    assert found.first is not None
    assert found.first.name == "blk.0.attn_q"
    assert "multiplies the masters" in found.explanations[0]


def test_readers_keep_the_order_of_heads(golden):
    """Queries and keys come in the order of Hugging Face from files of either order."""
    folder = golden / "llama-1.58"
    gguf = open_source(folder / "model-i2_s.gguf").trace(IDS)
    hf = open_source(folder / "hf-packed").trace(IDS)
    with open_checkpoint(folder / "model-i2_s.gguf") as checkpoint:
        assert checkpoint.config.rope_kind == "norm"
    np.testing.assert_array_equal(gguf.results[0, "attn_q"], hf.results[0, "attn_q"])


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_transformers_shows_its_ops(family):
    """With sub-norms or without, and with biases; the model is left as it was."""
    model = new_model(family).eval()
    source = open_source(model)
    found = source.trace(IDS)
    assert {op for _, op in found.results} == set(OPS) - {"attn_post_norm", "ffn_post_norm"}
    with torch.no_grad():
        logits = model(torch.tensor([IDS])).logits[0].numpy()
    np.testing.assert_array_equal(found.results[-1, "logits"], logits)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert diverge(model, model, ids=IDS).same

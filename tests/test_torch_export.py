import re

import numpy as np
import pytest

NEEDS = "NO TORCH: layers for training, export and fine-tuning are not tested"
torch = pytest.importorskip("torch", reason=NEEDS)
pytest.importorskip("transformers", reason=NEEDS)

import transformers  # noqa: E402
from model_files import linears, rewritten  # noqa: E402
from torch import nn  # noqa: E402
from torch_models import FAMILIES, bit_model, new_model  # noqa: E402

from bitnet_lut import finetune  # noqa: E402
from bitnet_lut.checkpoint import open_checkpoint  # noqa: E402
from bitnet_lut.convert.synth import synthesize  # noqa: E402
from bitnet_lut.errors import FormatError  # noqa: E402
from bitnet_lut.formats.gguf import GGUFFile  # noqa: E402
from bitnet_lut.model import Model  # noqa: E402
from bitnet_lut.torch import (  # noqa: E402
    CHECK_TEXT,
    BitLinear,
    ExportError,
    absmean,
    export,
    load,
    set_lambda,
)
from bitnet_lut.torch.check import compare  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")


@pytest.fixture(autouse=True)
def _eager():
    """Transformers compiles its quantizers, which takes seconds and reorders sums."""
    with torch.compiler.set_stance("force_eager"):
        yield


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A GGUF file of random weights with a vocabulary of 512 tokens."""
    path = tmp_path_factory.mktemp("tiny") / "tiny.gguf"
    synthesize(path, "tiny", head="f16")
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_export_computes_what_the_model_does(family, tiny, tmp_path):
    model = bit_model(family)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    model.model.norm.eval()
    done = export(model, tmp_path / "out.gguf", tokenizer=tiny)
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]
    assert done.comparison.step_difference < 1e-5
    assert done.comparison.tokens > 40
    assert not done.warnings
    assert model.training
    assert not model.model.norm.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    with Model(done.path) as ours:
        assert ours.config.name == "out"
        assert ours.generate("a", max_tokens=4, ignore_eos=True).ids


@pytest.mark.parametrize("family", FAMILIES)
def test_exported_weights_are_those_of_the_layers(family, tiny, tmp_path):
    model = bit_model(family)
    path = export(model, tmp_path / "out.gguf", tokenizer=tiny).path
    again = load(path)
    for name, layer in model.named_modules():
        if not isinstance(layer, BitLinear):
            continue
        values, scale = absmean(layer.weight)
        found_values, found_scale = absmean(again.get_submodule(name).weight)
        assert torch.equal(found_values, values), name
        torch.testing.assert_close(found_scale, scale, rtol=3e-7, atol=0)
    for name, parameter in again.named_parameters():
        if parameter.ndim == 1:
            assert torch.equal(parameter, model.get_parameter(name)), name
    torch.testing.assert_close(
        again.get_input_embeddings().weight,
        model.get_input_embeddings().weight,
        rtol=2**-11,
        atol=1e-7,
    )


def test_any_number_of_rows_is_exported_and_loaded(tiny, tmp_path):
    """Packed folders of transformers hold multiples of 4 only."""
    done = export(bit_model(intermediate_size=258), tmp_path / "out.gguf", tokenizer=tiny)
    assert done.comparison.step_difference < 1e-5
    assert compare(load(done.path), done.path, CHECK_TEXT).step_difference < 1e-5


def test_weights_stay_in_memory(tiny, tmp_path, monkeypatch):
    def refuse(*_):
        raise AssertionError("weights went through a file of safetensors")

    monkeypatch.setattr("bitnet_lut.formats.safetensors_writer.SafetensorsWriter.__init__", refuse)
    load(export(bit_model(), tmp_path / "out.gguf", tokenizer=tiny).path)


@pytest.mark.parametrize("head", ["q8_0", "q6_k", None])
def test_the_check_allows_for_a_rounded_head(head, tiny, tmp_path):
    model = bit_model("llama", hidden_size=256)
    done = export(model, tmp_path / "out.gguf", tokenizer=tiny, head=head)
    assert done.comparison.step_difference < 1e-5
    with GGUFFile(done.path) as file:
        expected = {"q8_0": 8, "q6_k": 14, None: 0}[head]
        assert file.tensors["output.weight"].type_id == expected


@pytest.mark.parametrize(
    "folder", ["bitnet-b1.58/hf-packed", "bitnet-b1.58/hf-master-bf16", "llama-1.58/hf-packed"]
)
def test_layers_of_transformers_are_exported(folder, golden, tmp_path):
    model = transformers.AutoModelForCausalLM.from_pretrained(golden / folder, dtype=torch.float32)
    path = export(model, tmp_path / "out.gguf", tokenizer=golden / folder).path
    reference = golden / folder.split("/")[0] / "model-i2_s.gguf"
    with open_checkpoint(path) as written, open_checkpoint(reference) as expected:
        found, wanted = linears(written), linears(expected)
    assert found.keys() == wanted.keys()
    for name, (weights, scale) in wanted.items():
        np.testing.assert_array_equal(found[name][0], weights)
        # bfloat16 in the packed folder and the file, float32 where masters are rounded.
        np.testing.assert_allclose(found[name][1], scale, rtol=2**-8 if "master" in folder else 0)


def test_a_bfloat16_model_is_exported(tiny, tmp_path):
    done = export(bit_model(dtype=torch.bfloat16), tmp_path / "out.gguf", tokenizer=tiny)
    assert done.comparison.step_difference < 1e-5


@pytest.mark.parametrize("as_dict", [False, True])
def test_a_state_dict_is_exported_with_its_config(as_dict, tiny, tmp_path):
    model = bit_model()
    config = model.config.to_dict() if as_dict else model.config
    state = model.state_dict()
    del state["lm_head.weight"]  # tied
    done = export(state, tmp_path / "state.gguf", tokenizer=tiny, config=config)
    whole = export(model, tmp_path / "model.gguf", tokenizer=tiny)
    assert done.comparison == whole.comparison
    with pytest.raises(ValueError, match="a state dict needs its config"):
        export(state, tmp_path / "none.gguf", tokenizer=tiny)


def test_a_tokenizer_of_transformers_is_exported(tiny, tmp_path, golden):
    folder = golden / "bitnet-b1.58" / "hf-packed"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = bit_model(vocab_size=640)
    path = export(model, tmp_path / "out.gguf", tokenizer=tokenizer).path
    text = "def f(x):\n    return x + 12345  # It's naïve"
    with Model(path) as ours:
        assert ours.tokenize(text) == tokenizer(text)["input_ids"]


def refuse(tmp_path, match, model, error=ValueError, **options):
    path = tmp_path / "out.gguf"
    path.write_text("as it was")
    with pytest.raises(error, match=match):
        export(model, path, **options)
    assert path.read_text() == "as it was"
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]


def test_an_unknown_type_of_head_is_refused(tiny, tmp_path):
    refuse(tmp_path, "head is 'q9': it must be one of f16", bit_model(), tokenizer=tiny, head="q9")


def test_what_is_not_ternary_is_refused(tiny, tmp_path):
    refuse(
        tmp_path, "q_proj is a Linear, which computes with real-valued", new_model(), tokenizer=tiny
    )
    model = bit_model()
    set_lambda(model, 0.5)
    refuse(tmp_path, r"q_proj rounds by lambda_ 0\.5", model, tokenizer=tiny)


def test_graphs_that_no_file_holds_are_refused(tiny, tmp_path):
    model = bit_model()
    layer = model.model.layers[0].self_attn.o_proj
    layer.bias = nn.Parameter(torch.zeros(128))
    match = r"^BitNetForCausalLM: tensor 'blk\.0\.attn_output\.bias' is not used by the graph"
    refuse(tmp_path, match, model, FormatError, tokenizer=tiny)
    refuse(tmp_path, "Sequential has no config", nn.Sequential(nn.Linear(4, 4)), tokenizer=tiny)
    model = bit_model("llama", hidden_size=36, num_attention_heads=2, head_dim=8)
    refuse(
        tmp_path,
        "^LlamaForCausalLM: .* a multiple of 128, not 576",
        model,
        FormatError,
        tokenizer=tiny,
    )
    config = transformers.GPT2Config(vocab_size=512, n_positions=64, n_embd=64, n_layer=1, n_head=1)
    match = r"config of GPT2LMHeadModel: architectures is \['GPT2LMHeadModel'\]"
    refuse(tmp_path, match, transformers.GPT2LMHeadModel(config), FormatError, tokenizer=tiny)


def test_vocabularies_that_do_not_suit_are_refused(tiny, tmp_path):
    match = "512 tokens, but the model has 500"
    refuse(tmp_path, match, bit_model(vocab_size=500), FormatError, tokenizer=tiny)
    empty = tmp_path.parent / f"{tmp_path.name}-empty"
    empty.mkdir()
    refuse(tmp_path, r"has no tokenizer\.json", bit_model(), tokenizer=empty)
    changes = {"tokenizer.ggml.add_bos_token": False}
    without_bos = rewritten(tiny, empty / "without_bos.gguf", keys=changes)
    options = {"tokenizer": without_bos, "check_text": ""}
    refuse(tmp_path, "the text to check with has no tokens", bit_model(), **options)


def changed_norm(model):
    model.model.layers[1].mlp.ffn_sub_norm.register_forward_hook(lambda *args: args[2] * 1.001)
    return r"the input of model\.layers\.1\.mlp\.down_proj differs by 0\.001"


def changed_activation(model):
    model.model.layers[0].mlp.act_fn = nn.SiLU()
    return r"the input of model\.layers\.0\.mlp\.down_proj differs"


def ternary_head(model):
    model.set_submodule("lm_head", BitLinear(128, 512))
    model.lm_head.weight = model.model.embed_tokens.weight
    return "logits differs"


def not_a_number(model):
    model.model.norm.register_forward_hook(lambda *args: args[2] * float("nan"))
    return "logits differs by nan"


@pytest.mark.parametrize("change", [changed_norm, changed_activation, ternary_head, not_a_number])
def test_a_file_that_computes_something_else_is_not_kept(change, tiny, tmp_path):
    model = bit_model()
    match = change(model)
    refuse(tmp_path, match, model, ExportError, tokenizer=tiny)


def test_a_loaded_model_begins_as_the_file(tiny, tmp_path):
    model = load(tiny)
    with open_checkpoint(tiny) as checkpoint:
        for name, (weights, scale) in linears(checkpoint).items():
            _, layer, part, _ = name.split(".")
            if part != "ffn_down":
                continue
            found = model.model.layers[int(layer)].mlp.down_proj.weight.detach()
            values, found_scale = absmean(found)
            np.testing.assert_array_equal(values.numpy(), weights)
            np.testing.assert_allclose(found_scale.numpy(), scale[0], rtol=3e-7)
            assert len(found.abs().unique()) > found.numel() / 2  # no two at one distance
    done = export(model, tmp_path / "again.gguf", tokenizer=tiny)
    with GGUFFile(tiny) as old, GGUFFile(done.path) as new:
        for key, value in old.metadata.items():
            if key.startswith("tokenizer.") and not key.endswith("scores"):
                np.testing.assert_array_equal(new.metadata[key], value, err_msg=key)


@pytest.mark.parametrize("family", ["bitnet-b1.58", "llama-1.58", "bitnet-1bitllm"])
def test_a_loaded_model_computes_what_the_file_does(family, golden):
    path = golden / family / "model-i2_s.gguf"
    assert compare(load(path), path, CHECK_TEXT).step_difference < 1e-5


@pytest.mark.parametrize("source", ["bitnet-b1.58/hf-master-bf16", "qwen2-plain/model-q8_0.gguf"])
def test_real_valued_weights_are_not_loaded(source, golden):
    with pytest.raises(ValueError, match=f"{source} holds real-valued weights: load it with"):
        load(golden / source)


def test_layers_of_zeros_are_loaded(tiny, tmp_path):
    model = load(tiny)
    nn.init.zeros_(model.model.layers[0].self_attn.v_proj.weight)
    path = export(model, tmp_path / "out.gguf", tokenizer=tiny).path
    assert not load(path).model.layers[0].self_attn.v_proj.weight.any()


def test_a_loaded_model_learns(tiny):
    model = load(tiny)
    ids = torch.arange(60)[None] * 7 % 500
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    losses = []
    for _ in range(8):
        loss = model(ids, labels=ids).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5


def test_fine_tuning_end_to_end(tiny, tmp_path, capsys):
    text = tmp_path / "text.txt"
    text.write_text("Ah, to teach a tree to reach the south beach. " * 40)
    output = tmp_path / "out.gguf"
    options = ["--model", str(tiny), "--steps", "6", "--batch", "2", "--length", "32"]
    finetune.main([str(text), "-o", str(output), *options])
    out = capsys.readouterr().out
    before, after = map(float, re.findall(r"(\d+\.\d+) (?:before|after)", out))
    assert after < before
    assert output.exists()


@pytest.mark.parametrize(
    ("text", "output", "match"),
    [("too short", "out.gguf", "tokens are too few"), ("a" * 999, "no/out.gguf", "no such folder")],
)
def test_fine_tuning_says_what_is_wrong(text, output, match, tiny, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(text)
    with pytest.raises(SystemExit, match=match):
        finetune.main([str(path), "-o", str(tmp_path / output), "--model", str(tiny)])
    with pytest.raises(SystemExit, match=r"none\.txt"):
        finetune.main([str(tmp_path / "none.txt"), "-o", str(tmp_path / "out.gguf")])

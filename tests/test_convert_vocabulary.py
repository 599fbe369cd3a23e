import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from golden_models import results

from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.convert import convert
from bitnet_lut.convert.vocabulary import from_folder, to_folder
from bitnet_lut.errors import FormatError
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.gguf_writer import GGUFWriter
from bitnet_lut.model import Model
from bitnet_lut.text.chat import folder_sources, gguf_sources
from bitnet_lut.text.tokenizer import Tokenizer

BYTE_LEVEL = ["llama-bpe", "qwen2", "falcon3"]
BITNET = "bitnet-b1.58/model-i2_s.gguf"


def metadata_of(path):
    with GGUFFile(path) as file:
        return file.metadata


@pytest.fixture(scope="module")
def vectors(golden):
    return json.loads((golden / "tokenizers/vectors.json").read_text())["sets"]


@pytest.fixture
def folder_of(golden, tmp_path):
    """A folder with a golden tokenizer.json, changed by a function: folder_of(name, change)."""

    def make(name, change=lambda state: None):
        folder = tmp_path / name
        folder.mkdir()
        state = json.loads((golden / f"tokenizers/{name}.tokenizer.json").read_text())
        change(state)
        (folder / "tokenizer.json").write_text(json.dumps(state))
        metadata = metadata_of(golden / f"tokenizers/{name}.gguf")
        ids = {key: metadata[f"tokenizer.ggml.{key}"] for key in ("bos_token_id", "eos_token_id")}
        (folder / "generation_config.json").write_text(json.dumps(ids))
        return folder

    return make


# From a folder


@pytest.mark.parametrize("name", [*BYTE_LEVEL, "spm"])
def test_tokens_and_ids_are_those_of_the_gguf_file(golden, folder_of, vectors, name):
    expected = metadata_of(golden / f"tokenizers/{name}.gguf")
    count = len(expected["tokenizer.ggml.tokens"])
    found, warnings = from_folder(folder_of(name), count)
    keys = ["model", "tokens", "token_type", "bos_token_id", "eos_token_id"]
    for key in [*keys, "unknown_token_id"] if name == "spm" else [*keys, "merges"]:
        value = found[f"tokenizer.ggml.{key}"]
        np.testing.assert_array_equal(value, expected[f"tokenizer.ggml.{key}"], err_msg=key)
    tokenizer = Tokenizer.from_gguf(found, name=name)
    hf = vectors[name]["hf"]["plain_special"]
    cpp = vectors[name]["llama.cpp"]["plain_special"]
    for text, ids_of_hf, ids_of_cpp in zip(vectors[name]["texts"], hf, cpp, strict=True):
        ids = tokenizer.encode(text, add_bos=False)
        assert ids == (ids_of_hf if ids_of_hf == ids_of_cpp else ids_of_cpp)
    told = {"qwen2": "NFC", "falcon3": "4 of 639 sample texts"}
    assert [told[name] in warning for warning in warnings] == [True] * (name in told)


def test_ids_without_a_token_are_padding(golden, folder_of):
    found, _ = from_folder(folder_of("llama-bpe"), 770)
    assert found["tokenizer.ggml.tokens"][763:] == [
        "<|reserved_special_token_3|>",
        *(f"[PAD{i}]" for i in range(764, 770)),
    ]
    assert found["tokenizer.ggml.token_type"][-7:].tolist() == [3] + 6 * [5]
    tokenizer = Tokenizer.from_gguf(found, name="padded")
    assert tokenizer.vocab_size == 770
    assert "[PAD769]" not in [tokenizer.token_text(i) for i in tokenizer.encode("[PAD769]")]


def test_more_tokens_than_embeddings_are_refused(folder_of):
    with pytest.raises(FormatError, match="764 tokens, but the model has 763"):
        from_folder(folder_of("llama-bpe"), 763)


def split(regex):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}


def test_pre_tokenizers_are_recognized_by_their_regexes(folder_of):
    def llama_of_1bit(state):
        state["pre_tokenizer"]["pretokenizers"][0] = split("[a-z]+")

    folder = folder_of("llama-bpe", llama_of_1bit)
    with pytest.raises(FormatError, match=r"\[a-z\].*not one of llama-bpe.*name the one to write"):
        from_folder(folder, 764)
    found, warnings = from_folder(folder, 764, "qwen2")
    assert found["tokenizer.ggml.pre"] == "qwen2"
    assert "sample texts get other ids" in warnings[0]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("llama-bpe", lambda s: s.update(normalizer={"type": "Lowercase"}), "normalizer"),
        ("llama-bpe", lambda s: s.update(pre_tokenizer={"type": "Whitespace"}), "'Whitespace'"),
        ("llama-bpe", lambda s: s.update(pre_tokenizer=None), "pre-tokenizer"),
    ],
)
def test_what_gguf_cannot_say_is_refused(folder_of, name, change, message):
    with pytest.raises(FormatError, match=message):
        from_folder(folder_of(name, change), 764)


def test_sentencepiece_has_no_pre_tokenizer(folder_of):
    with pytest.raises(ValueError, match="SentencePiece vocabulary has no pre-tokenizer"):
        from_folder(folder_of("spm"), 700, "llama-bpe")


def test_merges_as_older_files_write_them(folder_of):
    def join(state):
        state["model"]["merges"] = [" ".join(pair) for pair in state["model"]["merges"]]

    found, warnings = from_folder(folder_of("llama-bpe", join), 764)
    assert found["tokenizer.ggml.merges"][1] == "ĠĠ ĠĠ"
    assert not warnings


def chat_template(folder):
    return folder_sources(folder).get("default")


NAMED = {"tool_use": "{{ tools }}", "default": "{{ messages }}", "rag.v2": "x"}


def as_list(templates):
    return [{"name": name, "template": source} for name, source in templates.items()]


def test_chat_templates(folder_of):
    folder = folder_of("llama-bpe")
    assert "tokenizer.chat_template" not in from_folder(folder, 764)[0]
    for value, expected in (("b", {"default": "b"}), (as_list(NAMED), NAMED), (None, {})):
        (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": value}))
        found, _ = from_folder(folder, 764)
        assert gguf_sources(found, "x") == expected
        names = [name for name in expected if name != "default"]
        assert found.get("tokenizer.chat_templates", []) == names
    (folder / "chat_template.jinja").write_text("c")
    (folder / "additional_chat_templates").mkdir()
    (folder / "additional_chat_templates/tool_use.jinja").write_text("d")
    found, _ = from_folder(folder, 764)
    assert gguf_sources(found, "x") == {"default": "c", "tool_use": "d"}
    (folder / "tokenizer_config.json").write_text('{"chat_template": [5]}')
    with pytest.raises(FormatError, match=r"chat_template is \[5\], not a text or named ones"):
        from_folder(folder, 764)


def test_named_chat_templates_travel_both_ways(golden, tmp_path):
    """From a folder to a GGUF file and back, as transformers and the writer of gguf do."""
    gguf = pytest.importorskip("gguf")
    first = tmp_path / "first"
    shutil.copytree(golden / "bitnet-b1.58/hf-packed", first)
    settings = json.loads((first / "tokenizer_config.json").read_text())
    settings["chat_template"] = as_list(NAMED)
    (first / "tokenizer_config.json").write_text(json.dumps(settings))
    (first / "additional_chat_templates").mkdir()
    (first / "additional_chat_templates/short.jinja").write_text("y")
    (first / "chat_template.jinja").unlink(missing_ok=True)
    expected = {**NAMED, "short": "y"}
    convert(first, tmp_path / "model.gguf", head="f16")
    convert(tmp_path / "model.gguf", tmp_path / "again.gguf", type="tq2_0", head="f16")
    convert(tmp_path / "again.gguf", tmp_path / "folder", type="hf")
    convert(first, tmp_path / "copy", type="hf")
    for path in ("first", "model.gguf", "again.gguf", "folder", "copy"):
        assert dict(Model(tmp_path / path).chat_templates.sources) == expected, path
    fields = gguf.GGUFReader(tmp_path / "again.gguf").fields
    assert {*fields["tokenizer.chat_templates"].contents()} == {"tool_use", "rag.v2", "short"}
    for name in ("tool_use", "short"):
        assert fields[f"tokenizer.chat_template.{name}"].contents() == expected[name]
    convert(tmp_path / "again.gguf", tmp_path / "new", type="hf", chat_template="z")
    convert(first, tmp_path / "new-too", type="hf", chat_template="z")
    for path in ("new", "new-too"):
        replaced = {**expected, "default": "z"}
        assert dict(Model(tmp_path / path).chat_templates.sources) == replaced, path


def test_transformers_reads_named_chat_templates(golden, tmp_path):
    transformers = pytest.importorskip("transformers")
    metadata = dict(metadata_of(golden / "tokenizers/llama-bpe.gguf"))
    metadata |= {"tokenizer.chat_template.tool_use": "b", "tokenizer.chat_template": "a"}
    metadata["tokenizer.chat_template.../x"] = "c"  # is not written as a file
    to_folder(metadata, tmp_path, "x", context=64)
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert theirs.chat_template == {"tool_use": "b", "default": "a", "/x": "c"}
    assert {file.suffix for file in tmp_path.iterdir()} == {".json"}


def test_ends_that_only_the_folder_names(golden, folder_of):
    folder = folder_of("llama-bpe")
    settings = {"bos_token_id": 752, "eos_token_id": [753, 761]}
    (folder / "generation_config.json").write_text(json.dumps(settings))
    (folder / "tokenizer_config.json").write_text('{"pad_token": {"content": "<|eot_id|>"}}')
    found, _ = from_folder(folder, 764)
    assert found["tokenizer.ggml.eot_token_id"] == 761
    eot = found["tokenizer.ggml.tokens"].index("<|eot_id|>")
    assert found["tokenizer.ggml.padding_token_id"] == eot
    assert {753, 761} <= Tokenizer.from_gguf(found, name="x").eos_ids


# To a folder


@pytest.mark.parametrize("name", [*BYTE_LEVEL, "spm", "spm-noprefix"])
def test_a_folder_gives_the_ids_of_the_gguf_file(golden, tmp_path, vectors, name):
    metadata = metadata_of(golden / f"tokenizers/{name}.gguf")
    settings = to_folder(metadata, tmp_path, name, context=64)
    assert settings["bos_token_id"] == metadata["tokenizer.ggml.bos_token_id"]
    before = Tokenizer.from_gguf(metadata, name=name)
    after = Tokenizer.from_folder(tmp_path)
    for field in ("vocab_size", "bos_id", "eos_id", "eos_ids", "add_bos", "add_eos"):
        assert getattr(after, field) == getattr(before, field), field
    for text in vectors[name]["texts"]:
        ids = before.encode(text)
        assert after.encode(text) == ids, text
        assert after.decode(ids) == before.decode(ids)
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 64


def test_a_vocabulary_that_adds_eos(golden, tmp_path):
    metadata = dict(metadata_of(golden / "tokenizers/llama-bpe.gguf"))
    metadata["tokenizer.ggml.add_eos_token"] = True
    to_folder(metadata, tmp_path, "x", context=64)
    ids = Tokenizer.from_folder(tmp_path).encode("a")
    assert (ids[0], ids[-1], len(ids)) == (752, 753, 3)


def test_models_and_vocabularies_travel_together(golden, tmp_path):
    first = golden / "bitnet-b1.58/hf-packed"
    convert(first, tmp_path / "model.gguf", head="f16")
    convert(tmp_path / "model.gguf", tmp_path / "folder", type="hf")
    text = "It's 12345 (foo)\n\n\nI'M"
    models = [Model(path) for path in (first, tmp_path / "model.gguf", tmp_path / "folder")]
    assert models[0].tokenize(text) == models[1].tokenize(text) == models[2].tokenize(text)
    assert chat_template(first) == chat_template(tmp_path / "folder")
    assert models[1].tokenizer.pre == "llama-bpe"


def test_a_folder_keeps_its_vocabulary_files(golden, tmp_path):
    source = golden / "bitnet-b1.58/hf-packed"
    convert(source, tmp_path / "out", type="hf", chat_template="{{ x }}")
    for name in ("tokenizer.json", "special_tokens_map.json", "generation_config.json"):
        assert (tmp_path / "out" / name).read_bytes() == (source / name).read_bytes()
    assert chat_template(tmp_path / "out") == "{{ x }}"
    settings = json.loads((tmp_path / "out/config.json").read_text())
    assert (settings["bos_token_id"], settings["eos_token_id"]) == (624, 625)


def test_no_vocabulary_at_all(golden, tmp_path):
    shutil.copytree(golden / "bitnet-b1.58/hf-packed", tmp_path / "in")
    for file in (tmp_path / "in").glob("tokenizer*"):
        file.unlink()
    done = convert(tmp_path / "in", tmp_path / "out.gguf")
    assert "no vocabulary" in done.warnings[0]
    with open_checkpoint(tmp_path / "out.gguf") as checkpoint:
        assert checkpoint.config.vocab_size == 640
    done = convert(tmp_path / "out.gguf", tmp_path / "back", type="hf")
    assert done.warnings == ("there is no vocabulary to write",)


# Repairs


def copy_with(source, target, metadata):
    """Copy a GGUF file, its architecture renamed and other keys changed."""
    with GGUFFile(source) as file:
        old, new = file.metadata["general.architecture"], metadata["general.architecture"]
        kept = {key.replace(f"{old}.", f"{new}."): value for key, value in file.metadata.items()}
        kept.pop("tokenizer.ggml.pre")
        table = [(t.name, t.shape, t.type_id, t.span) for t in file.tensors.values()]
        with GGUFWriter(target, {**kept, **metadata}, table) as writer:
            for info in file.tensors.values():
                writer.write(info.name, file.data(info.name, info.span))
    return target


def test_repairs_of_a_file(golden, tmp_path):
    old = {"general.architecture": "bitnet-25", "split.count": 1, "general.alignment": 32}
    source = copy_with(golden / BITNET, tmp_path / "in.gguf", old)
    done = convert(source, tmp_path / "out.gguf")
    assert "tokenizer.ggml.pre is missing" in done.warnings[0]
    found = metadata_of(tmp_path / "out.gguf")
    assert found["general.architecture"] == "bitnet-25"
    assert not {"split.count", "general.alignment"} & found.keys()
    done = convert(
        source,
        tmp_path / "out.gguf",
        pre_tokenizer="llama-bpe",
        chat_template="{{ messages }}",
        activation="silu",
        architecture="bitnet-b1.58",
    )
    assert not done.warnings
    found = metadata_of(tmp_path / "out.gguf")
    assert found["general.architecture"] == "bitnet-b1.58"
    assert not any(key.startswith("bitnet-25.") for key in found)
    assert found["bitnet-b1.58.hidden_activation"] == "silu"
    assert found["bitnet-b1.58.block_count"] == 3
    assert found["tokenizer.ggml.pre"] == "llama-bpe"
    assert found["tokenizer.chat_template"] == "{{ messages }}"
    with open_checkpoint(tmp_path / "out.gguf") as checkpoint:
        assert checkpoint.config.activation == "silu"


@pytest.mark.parametrize(("source", "activation"), [(BITNET, "relu2"), ("bitnet-1bitllm", "silu")])
@pytest.mark.parametrize("architecture", ["bitnet", "bitnet-b1.58"])
def test_another_name_does_not_change_the_activation(
    golden, tmp_path, source, activation, architecture
):
    path = golden / source
    path = path if path.is_file() else path / "model-i2_s.gguf"
    convert(path, tmp_path / "out.gguf", architecture=architecture)
    with open_checkpoint(tmp_path / "out.gguf") as checkpoint:
        assert checkpoint.config.architecture == architecture
        assert checkpoint.config.activation == activation


def test_repairs_that_do_not_suit(golden, tmp_path):
    llama, spm = golden / "llama-1.58/model-i2_s.gguf", golden / "bitnet-1bitllm/model-i2_s.gguf"
    folder = golden / "bitnet-b1.58/hf-packed"
    for source, options, message in (
        (llama, {"architecture": "bitnet"}, "of architecture llama cannot be a bitnet"),
        (llama, {"architecture": "gpt2"}, "architecture is 'gpt2': it must be one of"),
        (spm, {"pre_tokenizer": "llama-bpe"}, "only byte-level BPE has a pre-tokenizer"),
        (llama, {"pre_tokenizer": "falcon3-bitnet.cpp"}, "pre_tokenizer is 'falcon3-bitnet.cpp'"),
        (llama, {"activation": "gelu"}, "activation is 'gelu': it must be one of silu, relu2"),
        (llama, {"type": "q8_0"}, "type is 'q8_0'"),
        (llama, {"head": "tq1_0"}, "head is 'tq1_0'"),
        (llama, {"head": "f16", "type": "hf"}, "head is for GGUF files"),
        (folder, {"type": "hf", "pre_tokenizer": "qwen2"}, "pre_tokenizer is for GGUF files"),
        (folder, {"type": "hf", "architecture": "bitnet"}, "architecture is for GGUF files"),
    ):
        with pytest.raises(ValueError, match=message):
            convert(source, tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


# transformers

TRANSFORMERS = """
import sys
import numpy, torch, transformers
folder, ids, logits, text = sys.argv[1:]
model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager")
with torch.no_grad():
    found = model.eval()(torch.tensor(numpy.load(ids))[None].long()).logits[0]
numpy.save(logits, found.numpy())
print(transformers.AutoTokenizer.from_pretrained(folder)(text).input_ids)
"""


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (BITNET, "transformers"),
        ("bitnet-b1.58/hf-packed", "transformers"),
        ("bitnet-b1.58/hf-master-bf16", "transformers_master"),
        ("llama-1.58/model-i2_s.gguf", "transformers"),
        ("llama-1.58/hf-packed", "transformers"),
        ("bitnet-1bitllm/model-i2_s.gguf", "bitnetcpp"),
    ],
)
def test_transformers_gives_the_same_logits(golden, tmp_path, source, expected):
    missing = [name for name in ("torch", "transformers", "accelerate") if not find_spec(name)]
    if missing:
        pytest.skip(f"NOT COMPARED WITH transformers: {', '.join(missing)} cannot be imported")
    folder = tmp_path / "folder"
    convert(golden / source, folder, type="hf")
    length = 7 if "master" in source else 40  # beyond, an activation lies near a rounding tie
    ids = results(source)[f"ids__{length}"]
    np.save(tmp_path / "ids.npy", ids)
    text = "It's 123 (foo)\n\nbar"
    done = subprocess.run(
        [sys.executable, "-c", TRANSFORMERS, folder, tmp_path / "ids.npy", tmp_path / "out", text],
        env={**os.environ, "TORCHDYNAMO_DISABLE": "1", "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    logits = np.load(Path(f"{tmp_path / 'out'}.npy"))
    ours = Model(folder, kv="f32")
    np.testing.assert_allclose(logits, ours.forward(ids.tolist()), rtol=0, atol=1e-4)
    np.testing.assert_allclose(
        logits, results(source)[f"logits_{expected}__{length}"], rtol=0, atol=1e-4
    )
    assert json.loads(done.stdout) == ours.tokenize(text)

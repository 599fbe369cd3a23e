"""Tokenizers against the ids of llama.cpp, bitnet.cpp, sentencepiece and tokenizers."""

import json
import shutil

import pytest
import tokenizers
from golden_data import GOLDEN

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.text.tokenizer import Tokenizer

PLAIN = {"add_bos": False, "add_eos": False}
# Which of our pre-tokenizers gives a program's ids in vectors.json, where it is not "auto".
PRE = {
    ("falcon3", "bitnet.cpp"): "falcon3-bitnet.cpp",
    ("llama-bpe-pre-missing", "llama.cpp"): "default",
    ("llama-bpe-pre-missing", "bitnet.cpp"): "default",
}


def vectors():
    """(set, program, column) of every list of ids in vectors.json."""
    sets = json.loads((GOLDEN / "tokenizers/vectors.json").read_text())["sets"]
    return [
        (name, program, column)
        for name, columns in sets.items()
        for program, ids in columns.items()
        if program != "texts" and "error" not in ids
        for column in ids
    ]


@pytest.fixture(scope="module")
def sets(golden):
    return json.loads((golden / "tokenizers/vectors.json").read_text())["sets"]


@pytest.fixture(scope="module")
def folders(golden, tmp_path_factory):
    """A folder for every *.tokenizer.json, with a config.json that names BOS and EOS."""
    root = tmp_path_factory.mktemp("folders")
    for file in (golden / "tokenizers").glob("*.tokenizer.json"):
        folder = root / file.name.removesuffix(".tokenizer.json")
        folder.mkdir()
        shutil.copyfile(file, folder / "tokenizer.json")
        fields = GGUFFile(file.parent / f"{folder.name}.gguf").metadata
        ids = {f"{x}_token_id": fields[f"tokenizer.ggml.{x}_token_id"] for x in ("bos", "eos")}
        (folder / "config.json").write_text(json.dumps(ids))
    return root


def from_gguf(fields, pre="auto"):
    return Tokenizer.from_gguf(fields, name="some.gguf", pre=pre)


@pytest.mark.parametrize(("name", "program", "column"), vectors())
def test_ids_of_the_reference_programs(golden, sets, folders, name, program, column):
    if program == "hf":
        ours = Tokenizer.from_folder(folders / name)
    else:
        fields = GGUFFile(golden / "tokenizers" / f"{name}.gguf").metadata
        ours = from_gguf(fields, pre=PRE.get((name, program), "auto"))
    ends, special = column.split("_")
    options = {"special": special == "special"} | (PLAIN if ends == "plain" else {})
    texts = sets[name]["texts"]
    assert [ours.encode(text, **options) for text in texts] == sets[name][program][column]
    assert len(texts) == 66


def test_a_missing_pre_tokenizer_is_that_of_llama_3(golden, sets):
    ours = from_gguf(GGUFFile(golden / "tokenizers/llama-bpe-pre-missing.gguf").metadata)
    assert ours.pre == "llama-bpe"
    texts, ids = sets["llama-bpe"]["texts"], sets["llama-bpe"]["llama.cpp"]["add_special"]
    assert [ours.encode(text) for text in texts] == ids


def test_texts_come_back(golden, sets):
    for name, columns in sets.items():
        ours = from_gguf(GGUFFile(golden / "tokenizers" / f"{name}.gguf").metadata)
        for text in columns["texts"]:
            assert ours.decode(ours.encode(text, special=False, **PLAIN)) == text


def test_texts_of_folders_are_decoded_as_by_tokenizers(sets, folders):
    for folder in folders.iterdir():
        theirs = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        ours = Tokenizer.from_folder(folder)
        for text in sets[folder.name]["texts"]:
            ids = ours.encode(text, special=False, **PLAIN)
            assert ours.decode(ids) == theirs.decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("model", ["bitnet-b1.58", "llama-1.58", "bitnet-1bitllm", "qwen2-plain"])
def test_prompts_of_the_models(golden, model):
    # tests/data has a folder of weights without config and vocabulary: all others have both.
    folders = [found for found in (golden / model).glob("hf-*") if (found / "config.json").exists()]
    files = [*(golden / model).glob("*.gguf"), *folders]
    assert files
    for file in files:
        ours = Tokenizer.from_folder(file) if file.is_dir() else from_gguf(GGUFFile(file).metadata)
        for reference in (golden / model).glob("reference*.json"):
            greedy = json.loads(reference.read_text())["greedy"]
            assert ours.encode(greedy["prompt"]) == greedy["prompt_ids"]


@pytest.mark.parametrize("file", ["model-i2_s.gguf", "hf-packed", "hf-master-bf16"])
def test_chat_of_bitnet(golden, file):
    path = golden / "bitnet-b1.58" / file
    ours = Tokenizer.from_folder(path) if path.is_dir() else from_gguf(GGUFFile(path).metadata)
    assert (ours.bos_id, ours.eos_id, ours.vocab_size) == (624, 625, 640)
    assert ours.eos_ids == {625, 631, 632}
    assert ours.add_bos
    assert not ours.add_eos
    chats = json.loads((golden / "bitnet-b1.58/chat.json").read_text())
    assert chats
    for chat in chats:
        assert ours.encode(chat["text"]) == chat["ids_with_bos"]
        assert ours.decode(chat["ids_with_bos"]) == "<|begin_of_text|>" + chat["text"]


@pytest.mark.parametrize("file", ["bos_out_of_range", "token_type_short", "merge_unknown_token"])
def test_malformed_files(golden, file):
    fields = GGUFFile(golden / "malformed" / f"{file}.gguf").metadata
    with pytest.raises(FormatError, match=r"tokenizer\.ggml\."):
        from_gguf(fields)

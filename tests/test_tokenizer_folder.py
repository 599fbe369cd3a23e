"""Tokenizers from Hugging Face folders."""

import json

import pytest
import tokenizers

from bitnet_lut.errors import FormatError
from bitnet_lut.text.tokenizer import Tokenizer


@pytest.fixture
def folder(tmp_path):
    """A folder with a small tokenizer.json and nothing else."""
    encoder = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    encoder.add_special_tokens(["<s>", "</s>"])
    encoder.add_tokens(["<tool>"])
    encoder.decoder = tokenizers.decoders.ByteLevel()
    encoder.save(str(tmp_path / "tokenizer.json"))
    return tmp_path


def change(folder, **changes):
    """Change keys of tokenizer.json."""
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def template(*tokens):
    single = [
        {"Sequence": {"id": "A", "type_id": 0}}
        if token == "A"
        else {"SpecialToken": {"id": token, "type_id": 0}}
        for token in tokens
    ]
    ids = {"<s>": 3, "</s>": 4}
    names = {t: {"id": t, "ids": [i], "tokens": [t]} for t, i in ids.items()}
    return {"type": "TemplateProcessing", "single": single, "pair": single, "special_tokens": names}


def write(folder, name, **fields):
    (folder / name).write_text(json.dumps(fields))


def test_a_folder_without_configs(folder):
    ours = Tokenizer.from_folder(folder)
    assert ours.encode("ab<s><tool>") == [2, 3, 5]
    assert ours.encode("ab<s><tool>", special=False) == [2, 5]
    assert (ours.bos_id, ours.eos_id, ours.eos_ids, ours.vocab_size) == (None, None, set(), 6)
    assert not ours.add_bos
    assert ours.decode([2, 3, 5], skip_special=True) == "ab<tool>"


def test_where_bos_and_eos_come_from(folder):
    write(folder, "config.json", bos_token_id=0, eos_token_id=[1, 4])
    assert Tokenizer.from_folder(folder).bos_id == 0
    write(folder, "generation_config.json", bos_token_id=None, eos_token_id=[2])
    ours = Tokenizer.from_folder(folder)
    assert (ours.bos_id, ours.eos_id, ours.eos_ids) == (0, 2, {1, 2, 4})
    write(folder, "special_tokens_map.json", bos_token={"content": "<s>", "lstrip": False})
    write(folder, "tokenizer_config.json", eos_token="</s>", bos_token=None)
    ours = Tokenizer.from_folder(folder)
    assert (ours.bos_id, ours.eos_id, ours.eos_ids) == (3, 4, {1, 2, 4})


def test_bos_and_eos_follow_the_post_processor_and_the_config(folder):
    write(folder, "config.json", bos_token_id=3, eos_token_id=4)
    change(folder, post_processor=template("<s>", "A"))
    assert Tokenizer.from_folder(folder).encode("ab") == [3, 2]
    change(folder, post_processor=template("<s>", "A", "</s>"))
    assert Tokenizer.from_folder(folder).encode("ab") == [3, 2, 4]
    change(folder, post_processor=template("A", "</s>"))
    assert Tokenizer.from_folder(folder).encode("ab") == [2, 4]
    write(folder, "tokenizer_config.json", add_bos_token=True, add_eos_token=False)
    assert Tokenizer.from_folder(folder).encode("ab") == [3, 2]


def test_prompts_are_not_cut_short(folder):
    change(
        folder,
        truncation={
            "direction": "Right",
            "max_length": 3,
            "strategy": "LongestFirst",
            "stride": 0,
        },
        padding={
            "strategy": {"Fixed": 100},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "a",
        },
    )
    assert Tokenizer.from_folder(folder).encode("ab" * 20) == [2] * 20


def test_unsupported_and_damaged_folders_are_refused(folder):
    def refused(match):
        with pytest.raises(FormatError, match=match):
            Tokenizer.from_folder(folder)

    original = (folder / "tokenizer.json").read_text()
    change(folder, decoder={"type": "WordPiece", "prefix": "##", "cleanup": True})
    refused(r"tokenizer\.json: the decoder .*WordPiece.* is not supported")
    change(folder, decoder=None)
    refused("the decoder .* is not supported")
    (folder / "tokenizer.json").write_text(original)
    change(folder, post_processor=template("<s>", "A"))
    refused(r"puts \[3\] around a text; supported are BOS, here None")
    (folder / "tokenizer.json").write_text(original)
    write(folder, "config.json", bos_token_id=6)
    refused(r"config\.json: bos_token_id is 6, there are 6 tokens")
    write(folder, "config.json", eos_token_id=["a"])
    refused(r"config\.json: eos_token_id is 'a'")
    write(folder, "config.json", eos_token="<end>")
    refused(r"config\.json: eos_token '<end>' is not a token")
    (folder / "config.json").write_text("[1]")
    refused(r"config\.json is not a JSON object")
    (folder / "config.json").write_text(r'{"eos_token": "\ud800"}')
    refused(r"config\.json is not valid JSON: .*surrogates not allowed")
    (folder / "config.json").write_text("{")
    refused(r"config\.json is not valid JSON")
    (folder / "config.json").write_bytes(b"\xff")
    refused(r"config\.json is not valid JSON")
    (folder / "tokenizer.json").write_text('{"model": 1}')
    refused(r"tokenizer\.json: ")
    (folder / "tokenizer.json").write_text(original)
    model = json.loads(original)["model"]
    for merge in (["ab", "ab"], ["a", "c"]):
        change(folder, model=model | {"merges": [merge]})
        refused(r"tokenizer\.json: ")
    (folder / "tokenizer.json").unlink()
    refused(r"tokenizer\.json is missing$")
    (folder / "tokenizer.model").touch()
    refused(r"tokenizer\.json is missing; transformers writes one")


def test_a_lying_id_takes_no_memory(folder):
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    change(folder, model=model | {"vocab": {"a": 0, "b": 1, "ab": 2**32 - 10}})
    with pytest.raises(FormatError, match=r"the id of .ab. is 4294967286, not below"):
        Tokenizer.from_folder(folder)


def test_gaps_between_ids_are_empty(folder):
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    change(folder, model=model | {"vocab": {"a": 0, "b": 1, "ab": 20}})
    ours = Tokenizer.from_folder(folder)
    assert ours.decode([0, 10, 20]) == "aab"
    assert ours.token_text(10) == ""

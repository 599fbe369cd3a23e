"""Checks of the tokenizer: each finds the fault that is put into the demonstration model."""

import json
import shutil

import pytest
from model_files import rewritten

from bitnet_lut.demo import MODEL
from bitnet_lut.diagnose import doctor
from bitnet_lut.diagnose import tokenizer_checks as checks
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.formats.gguf import BOOL, STRING


def sick(tmp_path, **keys):
    """The demonstration model with other keys ``tokenizer.KEY``."""
    changed = {f"tokenizer.{key.replace('__', '.')}": value for key, value in keys.items()}
    return Subject(rewritten(MODEL, tmp_path / "sick.gguf", keys=changed))


def only(subject, check):
    (finding,) = check(subject)
    return finding


@pytest.mark.parametrize("check", checks.CHECKS)
def test_the_demonstration_model_passes(check):
    assert {finding.status for finding in check(Subject(MODEL))} <= {"ok"}


def test_the_golden_vocabularies_were_made_for_their_pre_tokenizers(golden):
    for path in ("bitnet-b1.58", "llama-1.58"):
        subject = Subject(golden / path / "model-i2_s.gguf")
        assert only(subject, checks.check_pre_tokenizer).status == "ok"
        assert checks.reach(subject.tokenizer) == 1


def test_another_pre_tokenizer_is_found(tmp_path):
    subject = sick(tmp_path, ggml__pre=(STRING, "default"))
    found = only(subject, checks.check_pre_tokenizer)
    assert (found.status, found.verdict) == ("fault", "tokenizer")
    assert "--pre-tokenizer llama-bpe" in found.fix  # which cuts these words as qwen2 does
    assert doctor(tmp_path / "sick.gguf").verdict == "tokenizer"


def test_a_vocabulary_that_lacks_bytes_is_found(golden):
    found = only(Subject(golden / "ik-bn/model-i2_s.gguf"), checks.check_round_trip)
    assert (found.status, found.verdict) == ("fault", "tokenizer")
    assert "\"Hello, world! It's 3.14 o'cloc\" comes back as 'ello world" in found.measured


def test_a_text_that_starts_twice_is_found(golden, tmp_path):
    """A tokenizer.json that puts BOS before the text, and a config that asks for one more."""
    subject = Subject(MODEL)
    encode = subject.tokenizer.encode
    bos = subject.tokenizer.bos_id
    subject.tokenizer.encode = lambda text, **options: [bos, *encode(text, **options)]
    found = only(subject, checks.check_special_tokens)
    assert (found.status, found.verdict) == ("fault", "tokenizer")
    assert "twice" in found.meaning


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ messages[0]['content'] }}<|im_end|>", "another model: these are read as plain"),
        ("{{ messages[0]['content'] }}", "an old template"),
        ("{{ undefined_function() }}<|eot_id|>", "chats fail with this template"),
    ],
)
def test_templates_of_other_models_are_warnings(tmp_path, template, expected):
    subject = sick(tmp_path, chat_template=(STRING, template))
    found = only(subject, checks.check_template)
    assert found.status == "warning"
    assert expected in found.meaning


def test_a_template_that_writes_bos_is_used_once(tmp_path):
    template = "{{ bos_token }}{{ messages[0]['content'] }}<|eot_id|>"
    subject = sick(tmp_path, chat_template=(STRING, template), ggml__add_bos_token=(BOOL, True))
    found = only(subject, checks.check_template)
    assert found.status == "ok"
    assert "BOS 1 times" in found.measured


def test_a_tokenizer_of_another_model_is_found(golden, tmp_path):
    folder = tmp_path / "folder"
    shutil.copytree(golden / "bitnet-b1.58/hf-packed", folder)
    file = folder / "tokenizer.json"
    stated = json.loads(file.read_text())
    first = max(stated["model"]["vocab"].values()) + 1
    more = [
        {"id": first + i, "content": f"<more{i}>", "special": False, "single_word": False}
        | {"lstrip": False, "rstrip": False, "normalized": False}
        for i in range(300)
    ]
    known = {token["content"] for token in stated["added_tokens"]}
    assert not known & {token["content"] for token in more}
    stated["added_tokens"] += more
    file.write_text(json.dumps(stated))
    found = only(Subject(folder), checks.check_sizes)
    assert (found.status, found.verdict) == ("fault", "tokenizer")

"""A tokenizer.json of a stranger ends in ids or in a ValueError, and never ends the process."""

import json
import shutil
import subprocess
import sys

import pytest

from bitnet_lut.convert import convert
from bitnet_lut.errors import FormatError
from bitnet_lut.text.tokenizer import Tokenizer

VOCAB = {"<s>": 0, "a": 1, "b": 2, "ab": 3}
BPE = {"type": "BPE", "vocab": VOCAB, "merges": [["a", "b"]]}
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def split(regex):
    return {
        "type": "Split",
        "pattern": {"Regex": regex},
        "behavior": "Isolated",
        "invert": False,
    }


def replace(pattern, content):
    return {"type": "Replace", "pattern": pattern, "content": content}


def template(*, single):
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}}


@pytest.fixture
def folder(tmp_path):
    """Writes a tokenizer.json with some parts; returns its folder."""

    def write(model=BPE, **parts):
        state = {"version": "1.0", "added_tokens": [], "decoder": BYTES, "model": model, **parts}
        (tmp_path / "tokenizer.json").write_text(json.dumps(state))
        return tmp_path

    return write


def test_a_plain_one_is_read(folder):
    assert Tokenizer.from_folder(folder(pre_tokenizer=split("a+"))).encode("ab") == [1, 2]


@pytest.mark.parametrize(
    ("field", "value"),
    [("continuing_subword_prefix", "##"), ("end_of_word_suffix", "</w>")],
)
def test_subword_marks_are_refused_before_the_library_sees_them(folder, field, value):
    """In a process of its own: the library may end it."""
    path = folder({**BPE, field: value})
    script = "import sys; from bitnet_lut.text.tokenizer import Tokenizer as T; T.from_folder('.')"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=path, capture_output=True, text=True, timeout=60
    )
    last = done.stderr.splitlines()[-1]
    assert last == (
        f"bitnet_lut.errors.FormatError: tokenizer.json: {field} is '{value}': "
        "only an empty one is supported"
    )
    assert "panicked" not in done.stderr
    assert Tokenizer.from_folder(folder({**BPE, field: ""})).encode("ab") == [3]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"model": 7}, "model is 7, not an object"),
        ({"model": {**BPE, "vocab": {"a": 2**31}}}, "the id of 'a' is 2147483648, not below"),
        ({"model": {**BPE, "vocab": {"a": -1}}}, "the id of 'a' is -1"),
        ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "precompiled"),
        (
            {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFC"}] * 17}},
            "the normalizer has 18 steps, more than 16",
        ),
        ({"normalizer": replace({"String": "a"}, "aa")}, "by the longer 'aa'"),
        ({"normalizer": replace({"Regex": "a"}, "aa")}, "by the longer 'aa'"),
        ({"pre_tokenizer": split("a" * 2001)}, "the pre_tokenizer has a regex of 2001 characters"),
        ({"pre_tokenizer": split("(")}, "end pattern with unmatched parenthesis"),
        (
            {"post_processor": template(single=[{"SpecialToken": {"id": "x", "type_id": 0}}])},
            "no entry found",
        ),
    ],
)
def test_what_is_refused(folder, parts, message):
    path = folder(**parts)
    with pytest.raises(FormatError, match=message) as caught:
        Tokenizer.from_folder(path)
    assert str(path / "tokenizer.json") in str(caught.value)


@pytest.mark.parametrize(
    ("parts", "text", "message"),
    [
        ({"pre_tokenizer": split("(a+)+$")}, "a" * 40 + "b", "retry-limit-in-match over"),
        (
            {"model": {"type": "WordLevel", "vocab": VOCAB, "unk_token": "<unk>"}},
            "z",
            "Missing .UNK. token",
        ),
        ({"model": {"type": "Unigram", "vocab": [["a", 0.0]], "unk_id": None}}, "z", "unk_id"),
    ],
)
def test_texts_on_which_the_rules_fail(folder, parts, text, message):
    ours = Tokenizer.from_folder(folder(**parts))
    with pytest.raises(ValueError, match=f"the tokenizer cannot encode this text: .*{message}"):
        ours.encode(text)
    assert ours.encode("a")


def test_a_conversion_reads_no_hostile_vocabulary(golden, tmp_path):
    source = shutil.copytree(golden / "bitnet-b1.58/hf-packed", tmp_path / "m")
    file = source / "tokenizer.json"
    file.chmod(0o644)
    state = json.loads(file.read_text())
    state["model"]["end_of_word_suffix"] = "</w>"
    file.write_text(json.dumps(state))
    with pytest.raises(FormatError, match=r"tokenizer\.json: end_of_word_suffix is '</w>'"):
        convert(source, tmp_path / "out")
    assert not (tmp_path / "out").exists()

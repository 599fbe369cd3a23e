"""Tokenizers against the ids of llama.cpp, bitnet.cpp, sentencepiece and tokenizers itself."""

import json
import shutil
import threading

import numpy as np
import pytest
import tokenizers
from golden_data import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.tokenizer import Tokenizer

# A small vocabulary of each kind, so that most tests need no reference data.
PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
OTHERS = [byte for byte in range(256) if byte not in PRINTABLE]
CHARACTER = {byte: chr(byte) for byte in PRINTABLE}
CHARACTER |= {byte: chr(256 + i) for i, byte in enumerate(OTHERS)}
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


def byte_level(**changes):
    """Metadata of 256 bytes, four merges, BOS 260, EOS 261 and more."""
    merges = ["a b", "ab c", "\u00c3 \u00a9", "\u0120 a"]  # "é" is two bytes, "\u0120" is a space
    tokens = [CHARACTER[byte] for byte in range(256)] + [merge.replace(" ", "") for merge in merges]
    tokens += ["<s>", "</s>", "<|eot_id|>", "<tool>", "[PAD]", "z\u4e2d"]
    return metadata(
        {
            "model": "gpt2",
            "pre": "qwen2",
            "tokens": tokens,
            "token_type": np.array(
                [NORMAL] * 260 + [CONTROL, CONTROL, NORMAL, USER_DEFINED, UNUSED, NORMAL], np.int32
            ),
            "merges": merges,
            "bos_token_id": 260,
            "eos_token_id": 261,
        },
        changes,
    )


def sentencepiece(**changes):
    """Metadata of 3 special tokens, 256 bytes and some text, best first."""
    words = [
        "\u2581a",
        "ab",
        "abc",
        "\u2581\u2581",
        "\u2581abc",
        "aa",
        "cab",
        "\u2581",
        *"abc\u00e9",
    ]
    return metadata(
        {
            "model": "llama",
            "tokens": ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *words],
            "token_type": np.array(
                [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(words), np.int32
            ),
            "scores": np.array([0] * 259 + [-float(i) for i in range(len(words))], np.float32),
            "bos_token_id": 1,
            "eos_token_id": 2,
            "unknown_token_id": 0,
        },
        changes,
    )


def metadata(fields, changes):
    """With *changes* made; a change to None deletes."""
    fields |= changes
    return {f"tokenizer.ggml.{k}": v for k, v in fields.items() if v is not None}


def tokenizer(fields, **options):
    return Tokenizer.from_gguf(fields, name="some.gguf", **options)


BYTE_LEVEL = tokenizer(byte_level())
SENTENCEPIECE = tokenizer(sentencepiece())
NO_PREFIX = tokenizer(sentencepiece(add_space_prefix=False))


# Reference data.

PLAIN = {"add_bos": False, "add_eos": False}
# What tokenizer of ours a program's ids in vectors.json belong to, where it is not "auto".
PRE = {
    ("falcon3", "bitnet.cpp"): "falcon3-bitnet.cpp",
    ("llama-bpe-pre-missing", "llama.cpp"): "default",
    ("llama-bpe-pre-missing", "bitnet.cpp"): "default",
}


def vectors():
    """(set, program, column) of every list of ids in vectors.json."""
    if GOLDEN is None:
        return []
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


@pytest.mark.parametrize(("name", "program", "column"), vectors())
def test_ids_of_the_reference_programs(golden, sets, folders, name, program, column):
    if program == "hf":
        ours = Tokenizer.from_folder(folders / name)
    else:
        fields = GGUFFile(golden / "tokenizers" / f"{name}.gguf").metadata
        ours = tokenizer(fields, pre=PRE.get((name, program), "auto"))
    ends, special = column.split("_")
    options = {"special": special == "special"} | (PLAIN if ends == "plain" else {})
    texts = sets[name]["texts"]
    assert [ours.encode(text, **options) for text in texts] == sets[name][program][column]
    assert len(texts) == 66


def test_a_missing_pre_tokenizer_is_that_of_llama_3(golden, sets):
    ours = tokenizer(GGUFFile(golden / "tokenizers/llama-bpe-pre-missing.gguf").metadata)
    assert ours.pre == "llama-bpe"
    texts, ids = sets["llama-bpe"]["texts"], sets["llama-bpe"]["llama.cpp"]["add_special"]
    assert [ours.encode(text) for text in texts] == ids


def test_texts_come_back(golden, sets):
    for name, columns in sets.items():
        ours = tokenizer(GGUFFile(golden / "tokenizers" / f"{name}.gguf").metadata)
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
    files = [*(golden / model).glob("*.gguf"), *(golden / model).glob("hf-*")]
    assert files
    for file in files:
        ours = Tokenizer.from_folder(file) if file.is_dir() else tokenizer(GGUFFile(file).metadata)
        for reference in (golden / model).glob("reference*.json"):
            greedy = json.loads(reference.read_text())["greedy"]
            assert ours.encode(greedy["prompt"]) == greedy["prompt_ids"]


@pytest.mark.parametrize("file", ["model-i2_s.gguf", "hf-packed", "hf-master-bf16"])
def test_chat_of_bitnet(golden, file):
    path = golden / "bitnet-b1.58" / file
    ours = Tokenizer.from_folder(path) if path.is_dir() else tokenizer(GGUFFile(path).metadata)
    assert (ours.bos_id, ours.eos_id, ours.vocab_size) == (624, 625, 640)
    assert ours.eos_ids == {625, 631, 632}
    assert ours.add_bos
    assert not ours.add_eos
    chats = json.loads((golden / "bitnet-b1.58/chat.json").read_text())
    assert chats
    for chat in chats:
        assert ours.encode(chat["text"]) == chat["ids_with_bos"]
        assert ours.decode(chat["ids_with_bos"]) == "<|begin_of_text|>" + chat["text"]


# Encoding.


@pytest.mark.parametrize("ours", [BYTE_LEVEL, SENTENCEPIECE])
def test_bos_and_eos(ours):
    bos, eos, body = ours.bos_id, ours.eos_id, ours.encode("abc", **PLAIN)
    assert ours.encode("abc", add_bos=True, add_eos=True) == [bos, *body, eos]
    assert ours.encode("abc", add_bos=False, add_eos=True) == [*body, eos]
    assert ours.encode("abc") == ([bos] if ours.add_bos else []) + body


def test_who_adds_bos_when_the_file_does_not_say():
    llama = byte_level(pre="llama-bpe")
    assert tokenizer(llama).add_bos
    assert not tokenizer(llama | {"tokenizer.ggml.add_bos_token": False}).add_bos
    assert not BYTE_LEVEL.add_bos
    assert SENTENCEPIECE.add_bos
    assert not tokenizer(sentencepiece(bos_token_id=None)).add_bos
    with pytest.raises(ValueError, match="no BOS"):
        tokenizer(sentencepiece(bos_token_id=None)).encode("a", add_bos=True)
    assert tokenizer(byte_level(add_eos_token=True)).encode("a") == [97, 261]


def test_missing_pre_tokenizers_are_chosen_by_bos():
    assert tokenizer(byte_level(pre=None)).pre == "default"
    tokens = [t.replace("<s>", "<|begin_of_text|>") for t in byte_level()["tokenizer.ggml.tokens"]]
    assert tokenizer(byte_level(pre=None, tokens=tokens)).pre == "llama-bpe"
    assert tokenizer(byte_level(pre=None, tokens=tokens), pre="default").pre == "default"
    assert tokenizer(byte_level(pre="unheard of"), pre="qwen2").pre == "qwen2"


@pytest.mark.parametrize("ours", [BYTE_LEVEL, SENTENCEPIECE, NO_PREFIX])
def test_control_tokens_can_be_taken_literally(ours):
    text = "a<s>b</s>c"
    ids = ours.encode(text, special=False, **PLAIN)
    assert not {ours.bos_id, ours.eos_id} & set(ids)
    assert ours.decode(ids) == text
    ids = ours.encode(text, special=True, **PLAIN)
    assert [i for i in ids if i in (ours.bos_id, ours.eos_id)] == [ours.bos_id, ours.eos_id]


def test_user_defined_tokens_are_never_literal():
    assert BYTE_LEVEL.encode("a<tool>b", special=False) == [97, 263, 98]


def test_ends_typed_as_normal_are_promoted():
    assert BYTE_LEVEL.eos_ids == {261, 262}
    assert BYTE_LEVEL.encode("a<|eot_id|>") == [97, 262]
    assert BYTE_LEVEL.decode([97, 262], skip_special=True) == "a"
    assert tokenizer(byte_level(eot_token_id=5)).eos_ids == {261, 262, 5}


def test_without_types_all_tokens_are_normal():
    ours = tokenizer(byte_level(token_type=None))
    assert len(ours.encode("<tool>")) == 6
    assert ours.encode("<|eot_id|>") == [262]


def test_lone_surrogates_are_refused():
    with pytest.raises(ValueError, match="lone surrogate at 1"):
        BYTE_LEVEL.encode("a\ud800")


def test_threads_do_not_mix_their_options():
    wrong = []

    def work(special, expected):
        wrong.extend(
            ids
            for _ in range(300)
            if (ids := BYTE_LEVEL.encode("<s>", special=special)) != expected
        )

    literal = [ord(c) for c in "<s>"]
    threads = [threading.Thread(target=work, args=(True, [260])) for _ in range(2)]
    threads += [threading.Thread(target=work, args=(False, literal)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def merge_by_score(text, pieces):
    """SentencePiece by its definition: always the best merge of neighbours, leftmost of equals."""
    symbols = list(text)
    while True:
        merges = [
            (-pieces[left + right], i)
            for i, (left, right) in enumerate(zip(symbols, symbols[1:], strict=False))
            if left + right in pieces
        ]
        if not merges:
            return symbols
        i = min(merges)[1]
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


@given(st.text("abc ", max_size=30), st.permutations(range(8)))
def test_sentencepiece_merges_by_score(text, order):
    # The order decides which merges win; single characters are never merged into.
    scores = [0.0] * 259 + [-float(i) for i in order] + [-100.0] * 4
    fields = sentencepiece(scores=np.array(scores, np.float32), add_space_prefix=False)
    tokens = fields["tokenizer.ggml.tokens"]
    pieces = dict(zip(tokens[259:], scores[259:], strict=True))
    expected = merge_by_score(text.replace(" ", "\u2581"), pieces)
    assert [tokens[i] for i in tokenizer(fields).encode(text, **PLAIN)] == expected


@settings(max_examples=300)
@given(text=st.text(st.sampled_from("aeinrst (_)=\n"), max_size=60))
def test_sentencepiece_merges_by_score_in_a_trained_vocabulary(golden, text):
    fields = GGUFFile(golden / "tokenizers/spm-noprefix.gguf").metadata
    tokens, scores = fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.scores"]
    pieces = dict(zip(tokens[259:], scores[259:].tolist(), strict=True))
    expected = merge_by_score(text.replace(" ", "\u2581"), pieces)
    ids = tokenizer(fields).encode(text, **PLAIN)
    assert [tokens[i] for i in ids] == [s if s in pieces else f"<0x{ord(s):02X}>" for s in expected]


# Decoding.


def bytes_of(fields):
    """What every id stands for, for the vocabularies above."""
    codes = {character: byte for byte, character in CHARACTER.items()}
    byte_level = fields["tokenizer.ggml.model"] == "gpt2"
    pieces = []
    for text, kind in zip(
        fields["tokenizer.ggml.tokens"], fields["tokenizer.ggml.token_type"], strict=True
    ):
        if kind == BYTE:
            pieces.append(bytes([int(text[1:-1], 16)]))
        elif byte_level and all(c in codes for c in text) and not text.startswith("<"):
            pieces.append(bytes(codes[c] for c in text))
        else:
            pieces.append(text.replace("\u2581", " ").encode())
    return pieces


DECODERS = [
    (BYTE_LEVEL, bytes_of(byte_level())),
    (SENTENCEPIECE, bytes_of(sentencepiece())),
    (NO_PREFIX, bytes_of(sentencepiece())),
]


@pytest.mark.parametrize(("ours", "pieces"), DECODERS)
def test_pieces(ours, pieces):
    assert [ours.piece(i) for i in range(ours.vocab_size)] == pieces
    for bad in (-1, ours.vocab_size):
        with pytest.raises(ValueError, match=f"id {bad} is outside"):
            ours.decode([0, bad])


def test_token_text_is_the_vocabulary_s():
    assert BYTE_LEVEL.token_text(258) == "\u00c3\u00a9"
    assert BYTE_LEVEL.decode([258]) == "\u00e9"
    assert SENTENCEPIECE.token_text(259) == "\u2581a"
    with pytest.raises(ValueError, match="id 266"):
        BYTE_LEVEL.token_text(266)


@pytest.mark.parametrize(("ours", "pieces"), DECODERS)
@given(data=st.data())
def test_streamed_text_is_the_text(ours, pieces, data):
    ids = data.draw(st.lists(st.integers(0, ours.vocab_size - 1), max_size=40))
    stream = ours.stream(start=False)
    streamed = "".join([stream.push(i) for i in ids]) + stream.flush()
    assert streamed == b"".join(pieces[i] for i in ids).decode("utf-8", "replace")
    assert streamed == ours.decode(ids, start=False)


@pytest.mark.parametrize("ours", [BYTE_LEVEL, SENTENCEPIECE, NO_PREFIX])
@given(text=st.text())
def test_streams_wait_for_whole_characters(ours, text):
    stream = ours.stream()
    streamed = [stream.push(i) for i in ours.encode(text, special=False, **PLAIN)]
    assert "".join(streamed) == text
    assert stream.flush() == ""
    assert all("\ufffd" not in s for s in streamed) or "\ufffd" in text


def test_incomplete_characters_show_at_the_end():
    stream = BYTE_LEVEL.stream()
    assert [stream.push(byte) for byte in "a\U0001f600".encode()[:4]] == ["a", "", "", ""]
    assert stream.flush() == "\ufffd"
    assert BYTE_LEVEL.decode([0xF0, 0x9F, 0x98, 97]) == "\ufffda"


def test_special_tokens_can_be_left_out():
    ids = BYTE_LEVEL.encode("<s>a<tool>b</s>")
    assert BYTE_LEVEL.decode(ids) == "<s>a<tool>b</s>"
    assert BYTE_LEVEL.decode(ids, skip_special=True) == "a<tool>b"


def test_the_space_before_a_text():
    ids = SENTENCEPIECE.encode(" abc")
    assert SENTENCEPIECE.decode(ids) == "<s> abc"
    assert SENTENCEPIECE.decode(ids, skip_special=True) == " abc"
    # What is generated goes on after a text, so its first space is one.
    assert SENTENCEPIECE.decode(SENTENCEPIECE.encode("abc", **PLAIN), start=False) == " abc"
    assert NO_PREFIX.decode(NO_PREFIX.encode(" abc", **PLAIN)) == " abc"


# Damaged and unsupported vocabularies.

UNSIGNED = np.array([1] * 266, np.uint32)


@pytest.mark.parametrize(
    ("fields", "error"),
    [
        (byte_level(model=None), "tokenizer.ggml.model is missing"),
        (byte_level(model=3), "model is 3, which is no str"),
        (byte_level(model="bert"), "model is 'bert'"),
        (byte_level(tokens=None), "tokens is missing"),
        (byte_level(tokens=[], token_type=None), "tokens is empty"),
        (byte_level(tokens=UNSIGNED), "tokens is .*which is no list"),
        (byte_level(token_type=UNSIGNED[:-1]), "token_type has 265 entries for 266 tokens"),
        (byte_level(token_type=["a"] * 266), "token_type is .* which is no ndarray"),
        (byte_level(token_type=UNSIGNED.astype(np.float32)), "token_type holds float32"),
        (byte_level(merges=None), "merges is missing"),
        (byte_level(merges=["a b", "ab x"]), "merges 1 is 'ab x', but 'abx' is no token"),
        (byte_level(merges=["a b", "ab"]), "merges 1 is 'ab', but '' is no token"),
        (byte_level(merges=["no a"]), "merges 0 is 'no a', but 'no' is no token"),
        (byte_level(bos_token_id=266), "bos_token_id is 266, but there are 266 tokens"),
        (byte_level(eos_token_id=-1), "eos_token_id is -1"),
        (byte_level(eot_token_id=2**32 - 1), "eot_token_id is 4294967295"),
        (byte_level(bos_token_id=True), "bos_token_id is True, which is no int"),
        (byte_level(add_bos_token=1), "add_bos_token is 1, which is no bool"),
        (byte_level(add_bos_token=True, bos_token_id=None), "bos_token_id is missing"),
        (byte_level(add_eos_token=True, eos_token_id=None), "eos_token_id is missing"),
        (byte_level(pre="smaug"), "pre is 'smaug', .*default"),
        (sentencepiece(scores=None), "scores is missing"),
        (sentencepiece(scores=np.zeros(3, np.float32)), "scores has 3 entries for 271 tokens"),
        (sentencepiece(scores=np.zeros(271, np.int8)), "scores holds int8"),
        (sentencepiece(scores=np.full(271, np.nan, np.float32)), "scores of token 0 is NaN"),
        (sentencepiece(unknown_token_id=271), "unknown_token_id is 271"),
        (sentencepiece(add_space_prefix="no"), "add_space_prefix is 'no'"),
    ],
)
def test_damaged_vocabularies_are_refused(fields, error):
    with pytest.raises(FormatError, match=f"^some.gguf: tokenizer.ggml.*{error}"):
        tokenizer(fields)


def test_very_long_pieces_are_refused():
    fields = sentencepiece()
    fields["tokenizer.ggml.tokens"][-1] = "a" * 10_000_000
    with pytest.raises(FormatError, match="token 270 has 10000000 characters, 512 are supported"):
        tokenizer(fields)


def test_pre_must_make_sense():
    with pytest.raises(ValueError, match="pre is 'smaug': it must be auto or one of llama-bpe, "):
        tokenizer(byte_level(), pre="smaug")
    with pytest.raises(ValueError, match="some.gguf has a SentencePiece vocabulary"):
        tokenizer(sentencepiece(), pre="default")


@pytest.mark.parametrize("file", ["bos_out_of_range", "token_type_short", "merge_unknown_token"])
def test_malformed_files(golden, file):
    fields = GGUFFile(golden / "malformed" / f"{file}.gguf").metadata
    with pytest.raises(FormatError, match=r"tokenizer\.ggml\."):
        tokenizer(fields)


# Folders.


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
    refused(r"config\.json: eos_token '<end>' is no token")
    (folder / "config.json").write_text("[1]")
    refused(r"config\.json: holds \[1\], not an object")
    (folder / "config.json").write_text("{")
    refused(r"config\.json: not JSON")
    (folder / "config.json").write_bytes(b"\xff")
    refused(r"config\.json: not JSON")
    (folder / "tokenizer.json").write_text('{"model": 1}')
    refused(r"tokenizer\.json: ")
    (folder / "tokenizer.json").unlink()
    refused(r"tokenizer\.json is missing$")
    (folder / "tokenizer.model").touch()
    refused(r"tokenizer\.json is missing; transformers writes one")


def test_a_lying_id_takes_no_memory(folder):
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    change(folder, model=model | {"vocab": {"a": 0, "b": 1, "ab": 2**32 - 10}})
    with pytest.raises(FormatError, match="the largest token id is 42949672"):
        Tokenizer.from_folder(folder)


def test_gaps_between_ids_are_empty(folder):
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    change(folder, model=model | {"vocab": {"a": 0, "b": 1, "ab": 20}})
    ours = Tokenizer.from_folder(folder)
    assert ours.decode([0, 10, 20]) == "aab"
    assert ours.token_text(10) == ""

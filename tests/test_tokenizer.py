"""Tokenizers from GGUF metadata, on small vocabularies."""

import itertools
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitnet_lut.errors import FormatError
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.text.tokenizer import Tokenizer

PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
OTHERS = [byte for byte in range(256) if byte not in PRINTABLE]
CHARACTER = {byte: chr(byte) for byte in PRINTABLE}
CHARACTER |= {byte: chr(256 + i) for i, byte in enumerate(OTHERS)}
PLAIN = {"add_bos": False, "add_eos": False}
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
    words = "_a ab abc __ _abc aa aaa ba aba _ a b c \u00e9".replace("_", "\u2581").split()
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


def test_characters_that_no_token_spells():
    no_ends = {"bos_token_id": None, "eos_token_id": None, "token_type": None}
    fields = byte_level(tokens=["a", "b"], merges=[], **no_ends)
    assert tokenizer(fields).encode("axb") == [0, 1]
    fields = sentencepiece(
        tokens=["<unk>", "a", "\u2581"], scores=np.zeros(3, np.float32), **no_ends
    )
    assert tokenizer(fields).encode("axyza") == [2, 1, 0, 1]


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
    """SentencePiece by its definition: always the best merge of neighbors, leftmost of equals."""
    symbols = list(text)
    while True:
        merges = [
            (-pieces[left + right], i)
            for i, (left, right) in enumerate(itertools.pairwise(symbols))
            if left + right in pieces
        ]
        if not merges:
            return symbols
        i = min(merges)[1]
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]


@given(st.text("abc ", max_size=30), st.permutations(range(10)))
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
        (byte_level(model=None), "model is missing"),
        (byte_level(model=3), "model is 3, which is no str"),
        (byte_level(model="bert"), "model is 'bert'"),
        (byte_level(tokens=None), "tokens is missing"),
        (byte_level(tokens=[], token_type=None), "tokens is empty"),
        (byte_level(tokens=UNSIGNED), "tokens is .*which is no list"),
        (byte_level(token_type=UNSIGNED[:-1]), "token_type has 265 entries for 266 tokens"),
        (byte_level(token_type=["a"] * 266), "token_type is .* which is no ndarray"),
        (byte_level(token_type=UNSIGNED.astype(np.float32)), "token_type holds float32"),
        (byte_level(merges=None), "merges is missing"),
        (byte_level(merges=["a b", "ab x"]), "merges 1 is 'ab x', but 'abx' is not a token"),
        (byte_level(merges=["<|eot_id|> <|eot_id|>"]), "merges 0 is .* is not a token"),
        (byte_level(merges=["a b", "ab"]), "merges 1 is 'ab', but '' is not a token"),
        (byte_level(merges=["no a"]), "merges 0 is 'no a', but 'no' is not a token"),
        (byte_level(bos_token_id=266), "bos_token_id is 266, but there are 266 tokens"),
        (byte_level(eos_token_id=-1), "eos_token_id is -1"),
        (byte_level(eot_token_id=2**32 - 1), "eot_token_id is 4294967295"),
        (byte_level(bos_token_id=True), "bos_token_id is True, which is no int"),
        (byte_level(add_bos_token=1), "add_bos_token is 1, which is no bool"),
        (byte_level(add_bos_token=True, bos_token_id=None), "bos_token_id is missing"),
        (byte_level(add_eos_token=True, eos_token_id=None), "eos_token_id is missing"),
        (byte_level(pre="smaug"), "pre is 'smaug', .*default"),
        (sentencepiece(scores=None), "scores is missing"),
        (sentencepiece(scores=np.zeros(3, np.float32)), "scores has 3 entries for 273 tokens"),
        (sentencepiece(scores=np.zeros(273, np.int8)), "scores holds int8"),
        (sentencepiece(scores=np.full(273, np.nan, np.float32)), "scores of token 0 is NaN"),
        (sentencepiece(unknown_token_id=273), "unknown_token_id is 273"),
        (sentencepiece(add_space_prefix="no"), "add_space_prefix is 'no'"),
    ],
)
def test_damaged_vocabularies_are_refused(fields, error):
    with pytest.raises(FormatError, match=rf"^some\.gguf: tokenizer\.ggml\.{error}"):
        tokenizer(fields)


def test_very_long_pieces_are_refused():
    fields = sentencepiece()
    fields["tokenizer.ggml.tokens"][-1] = "a" * 10_000_000
    with pytest.raises(FormatError, match="token 272 has 10000000 characters, 512 are supported"):
        tokenizer(fields)


def test_pre_must_make_sense():
    with pytest.raises(
        ValueError, match="pre_tokenizer is 'smaug': it must be auto or one of llama-bpe, "
    ):
        tokenizer(byte_level(), pre="smaug")
    with pytest.raises(ValueError, match=r"some\.gguf has a SentencePiece vocabulary"):
        tokenizer(sentencepiece(), pre="default")

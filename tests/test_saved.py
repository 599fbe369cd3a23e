"""Files of saved states: what is written is read, and nothing else is."""

import hashlib
import json
import os
import stat
import struct

import numpy as np
import pytest

from bitnet_lut import Conversation, Model, Sampling
from bitnet_lut.demo import MODEL
from bitnet_lut.errors import FormatError
from bitnet_lut.runtime.saved import read_state, write_state

HEADER = {"ids": [1, 2, 3], "text": "é"}
DATA = np.arange(5000, dtype=np.uint32).view(np.uint8)


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "state"
    write_state(file, HEADER, DATA)
    return file


def test_a_state_comes_back(path):
    header, data = read_state(path)
    assert header == HEADER
    assert data.dtype == np.uint8
    assert (data == DATA).all()


def test_the_layout_is_as_documented(path):
    raw = path.read_bytes()
    letters, version, header_bytes, data_bytes = struct.unpack("<8sIIQ", raw[:24])
    assert (letters, version, data_bytes) == (b"BLUTSAVE", 1, DATA.nbytes)
    assert json.loads(raw[24 : 24 + header_bytes]) == HEADER
    assert raw[24 + header_bytes : -32] == DATA.tobytes()
    assert raw[-32:] == hashlib.blake2b(raw[:-32], digest_size=32).digest()


def test_only_the_owner_may_read_it(path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    write_state(path, HEADER, DATA)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_keeps_leading_to_the_file(tmp_path, path):
    link = tmp_path / "link"
    link.symlink_to(path)
    write_state(link, {"new": 1}, DATA[:0])
    assert link.is_symlink()
    assert read_state(path)[0] == {"new": 1}


def test_a_failure_leaves_the_old_file(path, monkeypatch):
    def fail(descriptor):
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="no space"):
        write_state(path, {}, DATA)
    assert read_state(path)[0] == HEADER
    assert [file.name for file in path.parent.iterdir()] == ["state"]


def test_every_changed_byte_is_noticed(path):
    raw = path.read_bytes()
    for at in [*range(80), len(raw) // 2, len(raw) - 1]:
        path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(FormatError, match=r"state: "):
            read_state(path)


@pytest.mark.parametrize("size", [0, 7, 8, 20, 24, 60, 1000, -1])
def test_truncated_files(path, size):
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(FormatError, match=r"truncated|not a saved"):
        read_state(path)


def test_longer_files(path):
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(FormatError, match="truncated or damaged"):
        read_state(path)


def test_a_lying_size_takes_no_memory(path):
    path.write_bytes(struct.pack("<8sIIQ", b"BLUTSAVE", 1, 0, 2**60))
    with pytest.raises(FormatError, match="truncated or damaged"):
        read_state(path)


def test_other_versions(path):
    path.write_bytes(struct.pack("<8sIIQ", b"BLUTSAVE", 2, 0, 0))
    with pytest.raises(FormatError, match="version 2 of the format; 1 is supported"):
        read_state(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names")
def test_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FormatError, match="not a regular file"):
        read_state(tmp_path / "pipe")
    with pytest.raises((FormatError, OSError)):
        read_state(tmp_path)


# Sessions and conversations.

WARM = Sampling(temperature=0.9, top_k=50, seed=7)


@pytest.fixture(scope="module")
def model():
    return Model(MODEL, context=256)


@pytest.mark.parametrize("kv", ["f16", "f32", "q8"])
def test_a_session_goes_on_with_the_same_bits(tmp_path, kv):
    model = Model(MODEL, context=256, kv=kv)
    session = model.session()
    session.step(model.tokenize("Once upon a time there was a"))
    session.step([7, 8, 9])
    session.rewind(session.position - 2)
    session.save(tmp_path / "state")
    loaded = model.load_session(tmp_path / "state", context=200)
    assert (loaded.position, loaded.ids) == (session.position, session.ids)
    assert loaded.context == 200
    assert session.ids == (*model.tokenize("Once upon a time there was a"), 7)
    assert (loaded.step([5, 6]) == session.step([5, 6])).all()
    # Nor does it depend on threads, kernel and tier.
    other = Model(MODEL, context=256, kv=kv, threads=1, isa="scalar", kernel="i2_s")
    again = other.load_session(tmp_path / "state")
    loaded.rewind(again.position)
    assert (again.step([5, 6]) == loaded.step([5, 6])).all()


def test_ids_of_a_session_follow_all_it_does(model):
    session = model.session()
    assert session.ids == ()
    session.trace([1, 2], lambda *_: None)
    batch = model.session_batch(2)
    batch.step([3, 4])
    assert [one.ids for one in batch.sessions] == [(3,), (4,)]
    fork = session.fork()
    fork.step([5])
    with pytest.raises(ValueError, match="vocabulary"):
        session.step([1, 10**6])
    assert (session.ids, fork.ids) == ((1, 2), (1, 2, 5))
    assert len(session.ids) == session.position


def test_an_empty_session(model, tmp_path):
    model.session().save(tmp_path / "state")
    assert model.load_session(tmp_path / "state").position == 0


@pytest.mark.parametrize("sampling", [Sampling(), WARM], ids=["greedy", "sampled"])
def test_a_conversation_goes_on_as_if_it_had_not_ended(model, tmp_path, sampling):
    pytest.importorskip("jinja2")
    options = {"max_tokens": 20, "sampling": sampling}
    chat = model.conversation(system="Be brief.", **options)
    chat.say("Tell a story").text  # noqa: B018
    answer = chat.say("Another")
    next(answer)
    chat.save(tmp_path / "chat")
    loaded = Conversation.load(model, tmp_path / "chat", **options)
    assert loaded.turns == chat.turns
    assert loaded.turns[-1].finish_reason == "interrupted"
    assert (loaded.system, loaded.messages) == (chat.system, chat.messages)
    one, other = chat.say("And Spain?"), loaded.say("And Spain?")
    assert one.text == other.text
    assert other.result.timings.reused_tokens == one.result.timings.reused_tokens > 20
    assert loaded.regenerate(0).text == chat.regenerate(0).text


def test_files_of_other_models_and_kinds_are_refused(model, tmp_path, golden):
    model.session().save(tmp_path / "state")
    with pytest.raises(FormatError, match="opened with kv='f32'"):
        Model(MODEL, context=256, kv="f32").load_session(tmp_path / "state")
    with pytest.raises(FormatError, match="saved with another model"):
        Model(golden / "bitnet-b1.58/model-i2_s.gguf").load_session(tmp_path / "state")
    with pytest.raises(FormatError, match="holds a 'session', not a conversation"):
        Conversation.load(model, tmp_path / "state")


def test_a_file_in_another_format_is_the_same_model(golden, tmp_path):
    one = Model(golden / "bitnet-b1.58/model-i2_s.gguf")
    session = one.session()
    session.step([1, 2, 3])
    session.save(tmp_path / "state")
    other = Model(golden / "bitnet-b1.58/hf-packed")
    assert (other.load_session(tmp_path / "state").step([4]) == session.step([4])).all()


def test_a_context_that_is_too_short(model, tmp_path):
    session = model.session()
    session.step(list(range(100)))
    session.save(tmp_path / "state")
    with pytest.raises(ValueError, match="holds 100 tokens, the context has room for 50"):
        model.load_session(tmp_path / "state", context=50)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"ids": [1, 10**6]}, "the ids are"),
        ({"ids": [1, True]}, "the ids are"),
        ({"ids": "x"}, "the ids are"),
        ({"ids": [1, 2]}, "bytes of cache for 2 tokens"),
        ({"model": 1}, "another model"),
        ({"kind": []}, "its cache holds"),
        ({"system": 1}, "system and turns are 1"),
        ({"turns": {}}, "system and turns are"),
        ({"turns": [1]}, "a turn is 1"),
        ({"turns": [{"user": 1}]}, "a turn says 1"),
        ({"turns": [{"user": "", "answer": "", "finish_reason": []}]}, "ended by"),
        ({"turns": [{"user": "", "answer": "", "finish_reason": "eos", "prompt": [-1]}]}, "ids"),
        (
            {"turns": [{"user": "", "answer": "", "finish_reason": "eos", "prompt": [], "ids": 1}]},
            "ids",
        ),
    ],
)
def test_forged_headers_are_refused(model, tmp_path, change, match):
    chat = model.conversation()
    chat.save(tmp_path / "chat")
    header, data = read_state(tmp_path / "chat")
    write_state(tmp_path / "chat", header | change, data)
    with pytest.raises(FormatError, match=match):
        Conversation.load(model, tmp_path / "chat")

import tracemalloc
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitnet_lut import Model
from bitnet_lut.checkpoint import open_checkpoint
from bitnet_lut.convert.synth import HEADS, SHAPES, TYPES, synthesize
from bitnet_lut.families import is_linear, tensor_shapes
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.tensors import TernaryMatrix
from bitnet_lut.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("synth") / "tiny.gguf"
    synthesize(path, "tiny")
    return path


@pytest.fixture(scope="module")
def tokenizer(tiny: Path) -> Tokenizer:
    with GGUFFile(tiny) as file:
        return Tokenizer.from_gguf(file.metadata, name="tiny")


def ternary(path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    matrices = {}
    with open_checkpoint(path) as checkpoint:
        for name in filter(is_linear, tensor_shapes(checkpoint.config)):
            matrix = checkpoint.matrix(name)
            assert isinstance(matrix, TernaryMatrix)
            matrices[name] = i2_s.unpack_rows(matrix.packed, matrix.cols), matrix.scale
    return matrices


def test_a_seed_gives_the_same_bytes(tiny, tmp_path):
    synthesize(tmp_path / "again.gguf", "tiny")
    synthesize(tmp_path / "other.gguf", "tiny", seed=1)
    assert (tmp_path / "again.gguf").read_bytes() == tiny.read_bytes()
    assert (tmp_path / "other.gguf").read_bytes() != tiny.read_bytes()


@pytest.mark.parametrize("head", HEADS)
def test_it_runs_and_its_logits_are_sane(tmp_path, head):
    synthesize(tmp_path / "model.gguf", "tiny", head=head)
    with Model(tmp_path / "model.gguf") as model:
        logits = model.forward(model.tokenize("The capital of France is"))
        assert 2 < logits.std() < 4
        assert len(model.generate("The capital", max_tokens=8, ignore_eos=True).ids) == 8


def test_a_quarter_of_the_weights_is_negative_and_a_quarter_positive(tiny):
    for weights, scale in ternary(tiny).values():
        rows, cols = weights.shape
        assert scale == [np.float32(np.sqrt(2 / cols))]
        deviation = np.sqrt(3 / 16 / (rows * cols))
        assert abs(np.mean(weights == 1) - 0.25) < 5 * deviation
        assert abs(np.mean(weights == -1) - 0.25) < 5 * deviation


@pytest.mark.parametrize("type", ["tq1_0", "tq2_0", "f16"])
def test_weights_do_not_depend_on_their_type(tiny, tmp_path, type):
    synthesize(tmp_path / "model.gguf", "tiny", type=type, head="q8_0")
    expected = ternary(tiny)
    for name, (weights, scale) in ternary(tmp_path / "model.gguf").items():
        assert np.array_equal(weights, expected[name][0])
        assert scale == expected[name][1].astype(np.float16)


@pytest.mark.parametrize("type", ["q8_0", "q4_0"])
def test_types_that_are_not_ternary_load(tmp_path, type):
    synthesize(tmp_path / "model.gguf", "tiny", type=type)
    with Model(tmp_path / "model.gguf") as model:
        assert np.isfinite(model.forward([1, 2, 3])).all()


def test_the_gguf_package_agrees(tiny, tmp_path):
    synthesize(tmp_path / "model.gguf", "tiny", type="tq2_0", head="q4_0")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    assert reader.get_field("tokenizer.ggml.pre").contents() == "llama-bpe"
    tensor = next(t for t in reader.tensors if t.name == "blk.1.ffn_down.weight")
    weights, scale = ternary(tiny)[tensor.name]
    expected = weights * scale.astype(np.float16).astype(np.float32)
    assert np.array_equal(gguf.dequantize(tensor.data, tensor.tensor_type), expected)


@pytest.mark.parametrize("name", SHAPES)
def test_vocabulary_is_full_and_its_special_tokens_are_in_place(tmp_path, name):
    shape = SHAPES[name]
    small = {"embedding_length": 32, "feed_forward_length": 32, "block_count": 1, "rope_dim": 8}
    heads = {"head_count": 4, "head_count_kv": 2, "head_dim": 8}
    config = replace(shape.config, **small, **heads)
    synthesize(tmp_path / "model.gguf", replace(shape, config=config), head="q4_0")
    with GGUFFile(tmp_path / "model.gguf") as file:
        tokens = file.metadata["tokenizer.ggml.tokens"]
        tokenizer = Tokenizer.from_gguf(file.metadata, name=name)
    assert len(tokens) == len(set(tokens)) == shape.config.vocab_size
    assert all(tokens[id] == text for id, text in shape.special.items())
    assert all(tokenizer.is_special(id) for id in shape.special)
    assert (tokenizer.bos_id, tokenizer.eos_id) == (shape.bos_id, shape.eos_id)
    assert len(tokenizer.encode("The nearest station is there", add_bos=False)) <= 20


def test_special_tokens_of_2b_4t():
    special = SHAPES["2b-4t"].special
    assert special[128000] == "<|begin_of_text|>"
    assert special[128001] == "<|end_of_text|>"
    assert special[128009] == "<|eot_id|>"
    assert special[128255] == "<|reserved_special_token_250|>"


@given(text=st.text())
def test_any_text_survives(tokenizer, text):
    ids = tokenizer.encode(text, special=False)
    assert tokenizer.decode(ids, skip_special=True) == text


def test_every_word_is_reached(tokenizer):
    for id in range(256, 502):
        assert tokenizer.encode(tokenizer.piece(id).decode(), add_bos=False) == [id]


def test_memory_stays_small_and_progress_is_told(tmp_path):
    calls = []
    tracemalloc.start()
    path = tmp_path / "large.gguf"
    synthesize(path, "large", progress=lambda done, total: calls.append((done, total)))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    size = path.stat().st_size
    path.unlink()
    assert peak < 100e6 < size
    assert calls == sorted(calls)
    assert calls[-1][0] == calls[-1][1] == calls[0][1]


@pytest.mark.parametrize(
    ("shape", "choices", "message"),
    [
        ("huge", {}, "shape is 'huge'.*2b-4t"),
        ("tiny", {"type": "q2_k"}, "type is 'q2_k'.*i2_s"),
        ("tiny", {"head": "i2_s"}, "head is 'i2_s'.*q6_k"),
        ("3b", {}, "token_embd.*q6_k.*256.*3200"),
        ("3b", {"type": "tq2_0", "head": "f16"}, "attn_q.*tq2_0.*256.*3200"),
    ],
)
def test_wrong_choices_are_refused(tmp_path, shape, choices, message):
    with pytest.raises(ValueError, match=message):
        synthesize(tmp_path / "model.gguf", shape, **choices)
    assert not list(tmp_path.iterdir())


def test_every_type_has_an_id_and_a_file_type(tmp_path):
    for type, file_type in TYPES.items():
        synthesize(tmp_path / "model.gguf", "tiny", type=type)
        with GGUFFile(tmp_path / "model.gguf") as file:
            assert file.metadata["general.file_type"] == file_type

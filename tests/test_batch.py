"""Sequences that step together: each gets what it would get alone, bit for bit."""

import numpy as np
import pytest
from alone import Alone
from compare import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_models import odd_model

from bitnet_lut import Model, Sampling, _native, reference
from bitnet_lut._native import CACHE_KINDS, Cache, Pool, Weights, Workspace
from bitnet_lut.demo import MODEL
from bitnet_lut.formats.tensors import DenseMatrix
from bitnet_lut.runtime.packing import INPUT_GROUPS, pack_tensors

ODD = odd_model()
VOCAB = ODD.config.vocab_size


def weights(isa: str, kernel: str = "i2_s") -> Weights:
    chosen = dict.fromkeys(INPUT_GROUPS, kernel)
    tensors = pack_tensors(ODD.tensors, chosen, isa=isa, threads=1)
    return Weights(ODD.config, tensors, isa=isa)


def random_ids(rng: np.random.Generator, n: int) -> NDArray[np.int32]:
    return rng.integers(0, VOCAB, n, dtype=np.int32)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 5, 8, 17])
def test_single_tokens_of_several_sequences(
    kernel: str, isa: str, threads: int, count: int
) -> None:
    shared, pool = weights(isa, kernel), Pool(threads)
    rng = np.random.default_rng(count)
    texts = [random_ids(rng, 1 + 2 * i % 7) for i in range(count)]
    caches = [Cache(shared, int(context)) for context in rng.integers(20, 60, count)]
    workspace = Workspace(shared, pool, context=60)
    workspace.step(list(zip(caches, texts, strict=True)))
    logits = np.zeros((count, VOCAB), np.float32)
    for _ in range(3):
        ids = random_ids(rng, count).reshape(-1, 1)
        workspace.step(list(zip(caches, ids, strict=True)), np.arange(count), logits)
        for i, row in enumerate(logits):
            texts[i] = np.append(texts[i], ids[i])
            alone = np.zeros((1, VOCAB), np.float32)
            Alone(shared, pool, 40).step(texts[i], alone)
            assert_same_bits(row[None], alone)
    assert [cache.position for cache in caches] == [len(text) for text in texts]


class Sequence:
    """A cache, and what its logits and hidden states must be at every position."""

    def __init__(self, shared: Weights, kind: str, ids: NDArray[np.int32]) -> None:
        self.cache, self.ids = Cache(shared, len(ids), kind=kind), ids
        self.logits, self.hidden = reference.forward(ODD.config, ODD.tensors, ids, kv=kind)

    def chunk(self, rng: np.random.Generator) -> tuple[Cache, NDArray[np.int32], slice]:
        """The next 1 to 40 tokens, or one, or none at the end; and where they stand."""
        start, most = self.cache.position, len(self.ids) - self.cache.position
        n = min(most, int(rng.choice([0, 1, 1, rng.integers(1, 41)])))
        return self.cache, self.ids[start : start + n], slice(start, start + n)


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 3, 16, 128])
def test_random_mixtures(isa: str, threads: int, batch: int) -> None:
    """Chunks of several sequences in one step give each the logits of the reference."""
    shared = weights(isa)
    rng = np.random.default_rng(batch)
    lengths = rng.integers(1, 60, 6)
    sequences = [
        Sequence(shared, CACHE_KINDS[i % 3], random_ids(rng, int(n))) for i, n in enumerate(lengths)
    ]
    workspace = Workspace(shared, Pool(threads), context=60, batch=batch)
    while any(sequence.cache.position < len(sequence.ids) for sequence in sequences):
        rng.shuffle(sequences)
        chosen = sequences[: rng.integers(1, 7)]
        caches, ids, where = zip(*(sequence.chunk(rng) for sequence in chosen), strict=True)
        n = sum(map(len, ids))
        rows = np.flatnonzero(rng.random(n) < rng.random())
        logits = np.zeros((len(rows), VOCAB), np.float32)
        hidden = np.zeros((ODD.config.block_count + 1, n, ODD.config.embedding_length), np.float32)
        chunks = list(zip(caches, ids, strict=True))
        assert workspace.step(chunks, rows, logits, hidden).all()
        pairs = list(zip(chosen, where, strict=True))
        expected = np.concatenate([sequence.logits[at] for sequence, at in pairs])
        assert_same_bits(logits, expected[rows])
        assert_same_bits(hidden, np.concatenate([s.hidden[:, at] for s, at in pairs], axis=1))
        assert [cache.position for cache in caches] == [at.stop for at in where]


def test_every_kernel_takes_mixtures(kernel: str, isa: str) -> None:
    shared, rng = weights(isa, kernel), np.random.default_rng(3)
    sequences = [Sequence(shared, "f16", random_ids(rng, n)) for n in (45, 1, 17)]
    workspace = Workspace(shared, Pool(2), context=45)
    chunks = [(sequence.cache, sequence.ids) for sequence in sequences]
    logits = np.zeros((63, VOCAB), np.float32)
    workspace.step(chunks, np.arange(63), logits)
    assert_same_bits(logits, np.concatenate([sequence.logits for sequence in sequences]))


BEST = next(name for name in _native.tier_names() if not _native.missing_features(name))


def test_what_cannot_step_together_is_refused() -> None:
    shared, pool = weights(BEST), Pool(1)
    workspace = Workspace(shared, pool, context=30)
    a, b = (Cache(shared, 3) for _ in range(2))
    one, three = np.zeros(1, np.int32), np.zeros(3, np.int32)
    for chunks, text in (
        ([(a, one), (a, one)], "a cache is given twice"),
        ([(a, one), (Cache(weights(BEST), 3), one)], "a cache is of other weights"),
        ([(a, one), (Cache(shared, 31), one)], "a context of 31, this workspace steps at most 30"),
        ([(a, one), (b, np.array([0, VOCAB], np.int32))], f"token 2 is {VOCAB}, the vocabulary"),
        ([(a, one), (b, np.zeros(4, np.int32))], "4 tokens at position 0 do not fit .* of 3"),
    ):
        with pytest.raises(ValueError, match=text):
            workspace.step(chunks)
    workspace.step([(a, three)])
    with pytest.raises(ValueError, match="1 tokens at position 3 do not fit the context of 3"):
        workspace.step([(b, one), (a, one)])
    assert (a.position, b.position) == (3, 0)
    assert workspace.step([]).tolist() == []
    assert workspace.step([(a, one[:0]), (b, one)]).tolist() == [True, True]
    assert (a.position, b.position) == (3, 1)


@pytest.mark.parametrize("batch", [2, 64])
def test_only_what_is_finite_moves_on(batch: int) -> None:
    tensors = dict(ODD.tensors)
    embedding = tensors["token_embd.weight"]
    data = embedding.data.copy()
    data.view(np.float16)[7] = np.nan
    tensors["token_embd.weight"] = DenseMatrix("f16", embedding.rows, embedding.cols, data)
    shared = Weights(ODD.config, tensors, isa=BEST)
    workspace = Workspace(shared, Pool(2), context=10, batch=batch)
    caches = [Cache(shared, 10) for _ in range(3)]
    ids = [np.array(text, np.int32) for text in ([1, 2, 3], [4, 7, 5, 6], [8])]
    chunks, last = list(zip(caches, ids, strict=True)), np.array([2, 6, 7])
    logits = np.zeros((3, VOCAB), np.float32)
    assert workspace.step(chunks, last, logits).tolist() == [True, False, True]
    assert [cache.position for cache in caches] == [3, 0, 1]
    for text, row in ((ids[0], logits[:1]), (ids[2], logits[2:])):
        assert_same_bits(row, reference.forward(ODD.config, ODD.tensors, text, kv="f16")[0][-1:])
    fault = _native.first_fault(workspace, *chunks[1])
    assert fault == "nan first appeared in embedding, token 1 of its batch, element 0"
    assert caches[1].position == 0
    assert _native.first_fault(workspace, caches[2], ids[0]) == ""
    assert caches[2].position == 1


@pytest.fixture(scope="module")
def demo() -> Model:
    return Model(MODEL, threads=1)


PROMPTS = ["The capital of France is", "2 + 2 =", "Once upon a time", "The capital of Peru is", "A"]


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=6),
    st.integers(0, 30),
    st.sampled_from([(), ("a",), ("the", "is")]),
    st.booleans(),
    st.sampled_from([None, Sampling(temperature=0.8, seed=3), Sampling(repetition_penalty=1.3)]),
)
def test_texts_are_those_of_each_prompt_alone(demo, prompts, tokens, stop, ignore_eos, sampling):
    options = {
        "max_tokens": tokens,
        "stop": stop,
        "ignore_eos": ignore_eos,
        "sampling": sampling,
        "speculate": False,
    }
    together = demo.generate(prompts, **options)
    for prompt, found in zip(prompts, together, strict=True):
        expected = demo.generate(prompt, **options)
        assert (found.text, found.ids, found.finish_reason) == (
            expected.text,
            expected.ids,
            expected.finish_reason,
        )


def test_more_prompts_than_fit_a_batch(demo: Model) -> None:
    found = demo.generate([[5, index] for index in range(134)], max_tokens=3)
    assert len(found) == 134
    assert found[133].ids == demo.generate([5, 133], max_tokens=3).ids


def test_session_batch(demo: Model) -> None:
    batch = demo.session_batch(3, context=9)
    logits = batch.step([5, 6, 7])
    assert_same_bits(logits[1], demo.session().step([6]))
    batch.sessions[0].rewind(0)
    assert [session.position for session in batch.sessions] == [0, 1, 1]
    for count in (0, 129):
        with pytest.raises(ValueError, match=f"{count} sequences: 1 to 128 can step together"):
            demo.session_batch(count)

"""Sequences that step together: each gets what it would get alone, bit for bit."""

import numpy as np
import pytest
from compare import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import odd_model

from bitnet_lut import Model, NumericsError, Sampling, _native
from bitnet_lut._native import Pool, Session, Weights, step_together
from bitnet_lut.demo import MODEL
from bitnet_lut.runtime.packing import INPUT_GROUPS, pack_tensors

ODD = odd_model()
VOCAB = ODD.config.vocab_size


def weights(isa: str, kernel: str = "i2_s") -> Weights:
    chosen = dict.fromkeys(INPUT_GROUPS, kernel)
    tensors = pack_tensors(ODD.tensors, chosen, isa=isa, threads=1)
    return Weights(ODD.config, tensors, isa=isa)


def started(shared: Weights, pool: Pool, prompt: list[int], context: int = 40) -> Session:
    session = Session(shared, pool, context)
    session.step(np.array(prompt, np.int32))
    return session


def alone(shared: Weights, pool: Pool, ids: list[int]) -> np.ndarray:
    logits = np.zeros((1, VOCAB), np.float32)
    Session(shared, pool, 40).step(np.array(ids, np.int32), logits)
    return logits


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 5, 8, 17])
def test_each_result_is_that_of_running_alone(
    kernel: str, isa: str, threads: int, count: int
) -> None:
    shared, pool = weights(isa, kernel), Pool(threads)
    rng = np.random.default_rng(count)
    texts = [rng.integers(0, VOCAB, 1 + 2 * i % 7).tolist() for i in range(count)]
    contexts = rng.integers(20, 60, count)
    sessions = [
        started(shared, pool, text, int(context))
        for text, context in zip(texts, contexts, strict=True)
    ]
    logits = np.zeros((count, VOCAB), np.float32)
    for _ in range(3):
        ids = rng.integers(0, VOCAB, count, dtype=np.int32)
        step_together(sessions, ids, logits)
        for text, id, row in zip(texts, ids, logits, strict=True):
            text.append(int(id))
            assert_same_bits(row[None], alone(shared, pool, text))
    assert [session.position for session in sessions] == [len(text) for text in texts]


BEST = next(name for name in _native.tier_names() if not _native.missing_features(name))


def test_what_cannot_step_together_is_refused() -> None:
    shared, pool = weights(BEST), Pool(1)
    a, b = (started(shared, pool, [1, 2], 3) for _ in range(2))
    other = started(weights(BEST), pool, [1])
    two, logits = np.zeros(2, np.int32), np.zeros((2, VOCAB), np.float32)
    for sessions, ids, text in (
        ([a, a], two, "they must be different ones, 1 to 64"),
        ([a, other], two, "must be of one model"),
        ([a, b], two[:1], "2 sessions, 1 ids and 2 rows of logits do not fit together"),
        ([a, b], np.array([0, VOCAB], np.int32), f"token 0 is {VOCAB}, the vocabulary has"),
    ):
        with pytest.raises(ValueError, match=text):
            step_together(sessions, ids, logits)
    step_together([a], two[:1], logits[:1])
    with pytest.raises(ValueError, match="1 tokens at position 3 do not fit the context of 3"):
        step_together([b, a], two, logits)
    assert (a.position, b.position) == (3, 2)


def test_what_is_not_finite_is_named() -> None:
    tensors = dict(ODD.tensors)
    embedding = tensors["token_embd.weight"]
    embedding.data.view(np.float16)[7] = np.nan
    shared, pool = Weights(ODD.config, tensors, isa=BEST), Pool(1)
    sessions = [started(shared, pool, [1]) for _ in range(3)]
    logits = np.zeros((3, VOCAB), np.float32)
    with pytest.raises(NumericsError, match=r"in those of index \[1\]: step each alone"):
        step_together(sessions, np.array([1, 7, 2], np.int32), logits)
    assert [session.position for session in sessions] == [1, 1, 1]
    embedding.data.view(np.float16)[7] = 0


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

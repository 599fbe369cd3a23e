"""Sampling against plain definitions of each step."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitnet_lut.runtime.sampling import Sampler, Sampling

# Few distinct values, so that equal logits are common.
logit_lists = st.lists(st.integers(-8, 8).map(lambda n: n / 2), min_size=1, max_size=40)


def probabilities(logits, history, sampling):
    """The distribution a Sampler should draw from: a dict from id to probability."""
    penalty = sampling.repetition_penalty
    logits = {
        i: float(np.float32(x / penalty if x > 0 else x * penalty)) if i in history else x
        for i, x in enumerate(logits)
    }
    ranked = sorted(logits, key=lambda i: (-logits[i], i))
    if sampling.top_k:
        ranked = ranked[: sampling.top_k]
    ranked = ranked[: nucleus_size([logits[i] for i in ranked], sampling.top_p)]
    least = math.log(sampling.min_p) if sampling.min_p else -math.inf
    ranked = [i for i in ranked if logits[i] - logits[ranked[0]] >= least]
    weights = [math.exp((logits[i] - logits[ranked[0]]) / sampling.temperature) for i in ranked]
    return {i: w / sum(weights) for i, w in zip(ranked, weights, strict=True)}


def nucleus_size(ranked_logits, top_p):
    if top_p == 1:
        return len(ranked_logits)
    weights = [math.exp(x - ranked_logits[0]) for x in ranked_logits]
    wanted, reached = top_p * sum(weights), 0.0
    for size, weight in enumerate(weights, 1):
        reached += weight
        if reached >= wanted:
            return size
    return len(ranked_logits)


def draws(logits, history, sampling, count):
    sampler = Sampler(sampling)
    logits = np.array(logits, np.float32)
    return [sampler(logits, history) for _ in range(count)]


@given(logit_lists)
def test_greedy_takes_the_first_of_the_largest(logits):
    assert draws(logits, [], Sampling(), 1) == [logits.index(max(logits))]


def test_greedy_ignores_the_steps_that_shape_a_distribution():
    sampling = Sampling(temperature=0, top_k=3, top_p=0.1, min_p=0.5, seed=1)
    assert draws([0.0, 3.0, 1.0], [], sampling, 3) == [1, 1, 1]


def test_repetition_penalty_applies_to_greedy():
    sampling = Sampling(repetition_penalty=2)
    assert draws([3.0, 2.0, 0.0], [0, 0], sampling, 1) == [1]
    # Negative logits move down, not up.
    assert draws([-1.0, -1.5], [0], sampling, 1) == [1]


@settings(deadline=None)
@given(
    logits=logit_lists,
    history=st.sets(st.integers(0, 39)),
    top_k=st.integers(0, 45),
    top_p=st.sampled_from([1.0, 0.999, 0.93, 0.61, 0.37, 1e-9]),
    min_p=st.sampled_from([0.0, 1e-4, 0.07, 0.5, 1.0]),
    temperature=st.sampled_from([0.3, 1.0, 2.5]),
    penalty=st.sampled_from([1.0, 1.25, 0.5]),
)
def test_only_tokens_of_the_definition_are_drawn(
    logits, history, top_k, top_p, min_p, temperature, penalty
):
    history = {i for i in history if i < len(logits)}
    sampling = Sampling(temperature, top_k, top_p, min_p, penalty, seed=5)
    expected = probabilities(logits, history, sampling)
    assert set(draws(logits, list(history), sampling, 20)) <= set(expected)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=1, seed=11),
        Sampling(temperature=0.5, seed=12),
        Sampling(temperature=2, top_k=6, seed=13),
        Sampling(temperature=1, top_p=0.8, seed=14),
        Sampling(temperature=1.5, min_p=0.1, seed=15),
        Sampling(
            temperature=0.7, top_k=40, top_p=0.95, min_p=0.05, repetition_penalty=1.3, seed=16
        ),
    ],
)
def test_frequencies_follow_the_definition(sampling):
    count = 20_000
    logits = np.random.default_rng(3).normal(size=50).astype(np.float32) * 2
    history = [0, 1, 2, 3, 1, 2]
    expected = probabilities([float(x) for x in logits], set(history), sampling)
    seen = Counter(draws(logits, history, sampling, count))
    assert set(seen) <= set(expected)
    # Pearson's chi-square over tokens expected at least five times; 6 deviations above its mean.
    common = {i: p for i, p in expected.items() if p * count >= 5}
    chi_square = sum((seen[i] - p * count) ** 2 / (p * count) for i, p in common.items())
    assert chi_square < len(common) + 6 * math.sqrt(2 * len(common))


def test_a_nucleus_wider_than_the_first_sort_is_exact():
    vocab = 30_000
    logits = np.random.default_rng(4).normal(size=vocab).astype(np.float32) * 0.1
    sampling = Sampling(temperature=1, top_p=0.9, seed=17)
    expected = probabilities([float(x) for x in logits], set(), sampling)
    assert len(expected) > 20_000
    drawn = set(draws(logits, [], sampling, 100))
    assert drawn <= set(expected)
    assert len(drawn) > 90


@pytest.mark.parametrize("count", [1, 7, 63, 64, 200, 400, 1500])
def test_top_k_of_a_large_vocabulary(count):
    logits = np.random.default_rng(count).integers(0, 300, 20_000).astype(np.float32)
    expected = probabilities(logits.tolist(), set(), Sampling(temperature=1e9, top_k=count))
    drawn = set(draws(logits, [], Sampling(temperature=1e9, top_k=count, seed=22), 4 * count))
    assert drawn <= set(expected)
    assert len(drawn) > 0.9 * count


@pytest.mark.parametrize("top_k", [1, 2, 3])
def test_equal_logits_at_the_cut_are_kept_by_id(top_k):
    sampling = Sampling(temperature=1, top_k=top_k, seed=18)
    assert set(draws([1.0, 2.0, 1.0, 1.0, 2.0], [], sampling, 200)) == set([1, 4, 0][:top_k])


def test_forbidden_tokens_are_never_drawn():
    logits = [-math.inf, 0.0, -math.inf, 0.0, -math.inf]
    for sampling in (
        Sampling(temperature=1, seed=19),
        Sampling(temperature=1, top_k=4, top_p=0.99, min_p=0.01, seed=20),
        Sampling(temperature=1e-300, repetition_penalty=1.5, seed=21),
    ):
        assert set(draws(logits, [0, 2], sampling, 100)) == {1, 3}


def test_a_seed_repeats_and_seeds_differ():
    logits = np.random.default_rng(6).normal(size=1000).astype(np.float32)
    first = draws(logits, [], Sampling(temperature=1, seed=1), 50)
    assert first == draws(logits, [], Sampling(temperature=1, seed=1), 50)
    assert first != draws(logits, [], Sampling(temperature=1, seed=2), 50)
    assert draws(logits, [], Sampling(temperature=1), 50) != draws(
        logits, [], Sampling(temperature=1), 50
    )


def test_the_stream_of_a_seed_is_fixed():
    sampling = Sampling(temperature=1, seed=42)
    assert draws(np.zeros(1000), [], sampling, 5) == [773, 438, 858, 697, 94]


def test_logits_are_not_changed():
    logits = np.array([1.0, 2.0, 3.0], np.float32)
    logits.flags.writeable = False
    sampling = Sampling(
        temperature=1, top_k=2, top_p=0.9, min_p=0.1, repetition_penalty=1.5, seed=1
    )
    Sampler(sampling)(logits, [2])
    assert logits.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1, top_p=0.9)])
def test_nan_and_infinity_are_refused(bad, sampling):
    with pytest.raises(ValueError, match="largest logit is"):
        draws([0.0, bad, 1.0], [], sampling, 1)


def test_nothing_to_choose_from_is_refused():
    with pytest.raises(ValueError, match="largest logit is -inf"):
        draws([-math.inf] * 3, [], Sampling(), 1)


@pytest.mark.parametrize("shape", [(0,), (2, 3), ()])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="shape"):
        Sampler(Sampling())(np.zeros(shape, np.float32), [])


@pytest.mark.parametrize("bad", [-1, 3])
def test_history_outside_the_vocabulary_is_refused(bad):
    with pytest.raises(ValueError, match=f"id {bad}"):
        draws([0.0, 1.0, 2.0], [1, bad], Sampling(repetition_penalty=1.1), 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_k", -1),
        ("top_k", 1.5),
        ("top_k", math.nan),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("min_p", -0.1),
        ("min_p", 1.1),
        ("min_p", math.nan),
        ("repetition_penalty", 0.0),
        ("repetition_penalty", -1.0),
        ("repetition_penalty", math.nan),
        ("repetition_penalty", math.inf),
        ("seed", -1),
        ("seed", 0.5),
    ],
)
def test_values_out_of_range_are_refused(field, value):
    with pytest.raises(ValueError, match=f"{field} is {value}"):
        Sampling(**{field: value})

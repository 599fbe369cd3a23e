"""Penalties, bias and the newer filters, against their definitions written out in plain Python."""

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitnet_lut import Sampling
from bitnet_lut.runtime.filters import typical, within_sigmas
from bitnet_lut.runtime.sampling import Sampler

logit_lists = st.lists(st.integers(-12, 12).map(lambda n: n / 2), min_size=2, max_size=30)


def shaped(logits: list[float], history: list[int], prompt: int, sampling: Sampling) -> list[float]:
    """Logits after bias and penalties, each by its definition, in float32 after each step."""
    window = sampling.penalty_window or len(history)
    first = len(history) - window
    seen = {id for place, id in enumerate(history) if place >= first}
    times = Counter(id for place, id in enumerate(history) if place >= max(first, prompt))
    found = []
    for id, value in enumerate(logits):
        x = float(np.float32(value + sampling.logit_bias.get(id, 0.0)))
        if id in seen:
            penalty = sampling.repetition_penalty
            x = float(np.float32(x / penalty if x > 0 else x * penalty))
        if id in times:
            off = sampling.presence_penalty + sampling.frequency_penalty * times[id]
            x = float(np.float32(x - off))
        found.append(x)
    return found


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_bias_and_penalties_by_their_definitions(data: Any) -> None:
    logits = data.draw(logit_lists)
    ids = st.integers(0, len(logits) - 1)
    history = data.draw(st.lists(ids, max_size=20))
    prompt = data.draw(st.integers(0, len(history)))
    sampling = Sampling(
        repetition_penalty=data.draw(st.sampled_from([1.0, 1.25, 0.5])),
        presence_penalty=data.draw(st.sampled_from([0.0, 0.75, -1.5])),
        frequency_penalty=data.draw(st.sampled_from([0.0, 0.5, -0.25])),
        penalty_window=data.draw(st.integers(0, 25)),
        logit_bias=data.draw(st.dictionaries(ids, st.sampled_from([1.5, -2.0, 100.0]))),
    )
    row = np.array(logits, np.float32)
    expected = shaped(logits, history, prompt, sampling)
    changes = Sampler(sampling).drawing(row, history, prompt=prompt).changes
    assert (changes.applied(row) if changes else row).tolist() == expected
    assert Sampler(sampling)(row, history, prompt=prompt) == expected.index(max(expected))
    assert row.tolist() == logits


def test_a_bias_forbids_and_forces() -> None:
    row = np.array([0.0, 5.0, 1.0], np.float32)
    assert Sampler(Sampling(logit_bias={1: -math.inf}))(row, []) == 2
    assert Sampler(Sampling(logit_bias={0: 100}))(row, []) == 0
    assert Sampler(Sampling())(row, [], forbidden={1, 2}) == 0
    with pytest.raises(ValueError, match="the largest logit is -inf: there is nothing to choose"):
        Sampler(Sampling())(row, [], forbidden=range(3))
    with pytest.raises(ValueError, match="logit_bias holds id 3, the vocabulary has 3"):
        Sampler(Sampling(logit_bias={3: 1}))(row, [])


def test_presence_and_frequency_leave_the_prompt_alone() -> None:
    row = np.array([1.0, 0.5, 0.0], np.float32)
    for penalty in ("presence_penalty", "frequency_penalty"):
        sampler = Sampler(Sampling(**{penalty: 2.0}))
        assert sampler(row, [0, 0, 0], prompt=3) == 0
        assert sampler(row, [0, 0, 0], prompt=2) == 1


@settings(deadline=None, max_examples=200)
@given(logit_lists, st.sampled_from([0.3, 1.0, 2.5, 1e9]))
def test_top_n_sigma_by_its_definition(logits: list[float], sigmas: float) -> None:
    mean = sum(logits) / len(logits)
    deviation = math.sqrt(sum((x - mean) ** 2 for x in logits) / len(logits))
    least = max(logits) - sigmas * deviation
    row = np.array([*logits, -math.inf], np.float32)  # a forbidden token does not count
    kept = within_sigmas(row, np.arange(len(row)), sigmas).tolist()
    sure = [id for id, x in enumerate(logits) if x > least + 1e-9]
    perhaps = [id for id, x in enumerate(logits) if x >= least - 1e-9]
    assert set(sure) <= set(kept) <= set(perhaps)
    assert kept == sorted(kept)
    sampler = Sampler(Sampling(temperature=1, top_n_sigma=sigmas, seed=1))
    assert {sampler(row, []) for _ in range(50)} <= set(perhaps)


@settings(deadline=None, max_examples=200)
@given(logit_lists, st.sampled_from([1e-6, 0.2, 0.5, 0.9, 0.999]))
def test_typical_by_its_definition(logits: list[float], mass: float) -> None:
    """Meister et al. 2022: the smallest set nearest to the entropy that holds the mass."""
    total = sum(math.exp(x) for x in logits)
    probabilities = [math.exp(x) / total for x in logits]
    entropy = -sum(p * math.log(p) for p in probabilities)
    # Rounding must not decide between equals: distances are compared to twelve digits.
    distance = [round(abs(-math.log(p) - entropy), 12) for p in probabilities]
    row = np.array([*logits, -math.inf], np.float32)
    kept = typical(row, np.arange(len(row)), mass).tolist()
    assert kept == sorted(kept)
    held = sum(probabilities[id] for id in kept)
    assert held >= mass - 1e-9
    worst = max(distance[id] for id in kept)
    closer = sum(p for p, d in zip(probabilities, distance, strict=True) if d < worst)
    assert closer < mass + 1e-9
    assert all(id in kept for id, d in enumerate(distance) if d < worst)


def test_frequencies_follow_the_definitions_together() -> None:
    count = 20_000
    logits = (np.random.default_rng(3).normal(size=50) * 2).astype(np.float32)
    history, prompt = [0, 1, 2, 3, 1, 2], 2
    sampling = Sampling(
        temperature=0.8,
        presence_penalty=0.5,
        frequency_penalty=0.3,
        top_n_sigma=2.0,
        typical_p=0.9,
        logit_bias={7: 1.0},
        seed=5,
    )
    row = np.array(shaped(logits.tolist(), history, prompt, sampling), np.float32)
    left = typical(row, within_sigmas(row, np.arange(50), 2.0), 0.9)
    weights = {int(id): math.exp(float(row[id]) / 0.8) for id in left}
    expected = {id: weight / sum(weights.values()) for id, weight in weights.items()}
    sampler = Sampler(sampling)
    seen = Counter(sampler(logits, history, prompt=prompt) for _ in range(count))
    assert set(seen) <= set(expected)
    common = {id: p for id, p in expected.items() if p * count >= 5}
    chi_square = sum((seen[id] - p * count) ** 2 / (p * count) for id, p in common.items())
    assert chi_square < len(common) + 6 * math.sqrt(2 * len(common))


def test_greedy() -> None:
    assert Sampling.greedy() == Sampling()
    assert Sampling.greedy().temperature == 0
    assert hash(Sampling(logit_bias={1: 2})) is not None


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"temperature": "hot"}, TypeError, "temperature is 'hot': it must be a number"),
        ({"top_p": True}, TypeError, "top_p is True"),
        ({"min_p": None}, TypeError, "min_p is None"),
        ({"presence_penalty": math.inf}, ValueError, "presence_penalty is inf: it must be finite"),
        ({"frequency_penalty": math.nan}, ValueError, "frequency_penalty is nan"),
        ({"penalty_window": -1}, ValueError, "penalty_window is -1"),
        ({"penalty_window": 1.5}, ValueError, "penalty_window is 1.5"),
        ({"typical_p": 0}, ValueError, "typical_p is 0: it must be above 0 and at most 1"),
        ({"typical_p": 1.1}, ValueError, "typical_p is 1.1"),
        ({"top_n_sigma": -1}, ValueError, "top_n_sigma is -1"),
        ({"logit_bias": [1]}, TypeError, r"logit_bias is \[1\]: it must be a mapping"),
        ({"logit_bias": {"a": 1}}, TypeError, "logit_bias has the key 'a'"),
        ({"logit_bias": {True: 1}}, TypeError, "logit_bias has the key True"),
        ({"logit_bias": {1: "a"}}, TypeError, "logit_bias of token 1 is 'a'"),
        ({"logit_bias": {-1: 1}}, ValueError, "logit_bias of token -1 is 1"),
        ({"logit_bias": {1: math.inf}}, ValueError, "logit_bias of token 1 is inf"),
        ({"logit_bias": {1: math.nan}}, ValueError, "logit_bias of token 1 is nan"),
    ],
)
def test_values_out_of_range_are_refused(options: Any, error: Any, text: str) -> None:
    with pytest.raises(error, match=text):
        Sampling(**options)

"""Choosing a token: one row of logits of 128,256 ids, beside the same in NumPy."""

from array import array

import numpy as np
import pytest

from bitnet_lut import Sampling
from bitnet_lut.runtime.drawer import drawer
from bitnet_lut.runtime.logprobs import Scoring
from bitnet_lut.runtime.sampling import Sampler

VOCAB = 128_256
SETTINGS = {
    "temperature": {},
    "top_p": {"top_p": 0.95},
    "top_k": {"top_k": 40},
    "min_p": {"min_p": 0.05},
    "typical_p": {"typical_p": 0.95},
    "all": {"top_k": 40, "top_p": 0.95, "min_p": 0.05, "repetition_penalty": 1.1},
    "penalties": {"presence_penalty": 0.5, "frequency_penalty": 0.1, "logit_bias": {7: 2.0}},
}


@pytest.fixture(scope="module")
def logits():
    """A row as language models have them: some tokens far above a wide heap of others."""
    random = np.random.default_rng(0)
    row = (random.standard_normal(VOCAB) * 2).astype(np.float32)
    row[random.integers(0, VOCAB, 40)] += random.uniform(8, 18, 40).astype(np.float32)
    return row


@pytest.mark.parametrize("by", ["c", "numpy"])
@pytest.mark.parametrize("name", SETTINGS)
def bench_draw(benchmark, logits, name, by):
    # A step that keeps everything makes NumPy do the others.
    rare = {"top_n_sigma": 1e9} if by == "numpy" else {}
    sampler = Sampler(Sampling(temperature=0.8, seed=1, **SETTINGS[name], **rare))
    benchmark(sampler, logits, array("q", range(500)))


def bench_flat(benchmark):
    """Top-p of a row that has no likely tokens."""
    flat = np.random.default_rng(0).standard_normal(VOCAB).astype(np.float32)
    benchmark(Sampler(Sampling(temperature=0.8, top_p=0.95, seed=1)), flat, ())


def bench_allowed(benchmark, logits):
    """Greedy choice of what a grammar allows."""
    allowed = np.random.default_rng(1).random(VOCAB) < 0.5
    benchmark(Sampler(Sampling()), logits, (), allowed=allowed)


def bench_scores(benchmark, logits):
    scoring = Scoring(logits, 5)
    benchmark(lambda: scoring.token(7, *drawer().score([scoring])))

"""The whole model: prompts and generation in tokens/s on the 2B-4T shape."""

import numpy as np
import pytest

from bitnet_lut import Model
from bitnet_lut.cpu import default_threads


@pytest.fixture(scope="module", params=sorted({1, default_threads()}))
def model(request, model_file):
    with Model(model_file, threads=request.param) as model:
        yield model


def _ids(model, count):
    return np.random.default_rng(0).integers(0, model.config.vocab_size, count).tolist()


@pytest.mark.parametrize("tokens", [128])
def bench_prompt(benchmark, model, tokens):
    ids = _ids(model, tokens)
    session = model.session()

    def prompt():
        session.rewind(0)
        return session.step(ids)

    logits = benchmark.pedantic(prompt, rounds=5, warmup_rounds=1)
    assert np.isfinite(logits).all()
    _report(benchmark, model, tokens)


def bench_generate(benchmark, model, tokens=64):
    ids = _ids(model, tokens)
    session = model.session()

    def generate():
        session.rewind(0)
        for token in ids:
            session.step([token])

    benchmark.pedantic(generate, rounds=5, warmup_rounds=1)
    assert session.position == tokens
    _report(benchmark, model, tokens)


def _report(benchmark, model, tokens):
    if not benchmark.disabled:
        benchmark.extra_info["tokens/s"] = round(tokens / benchmark.stats.stats.median, 1)
        benchmark.extra_info["threads"] = model.info.threads
        benchmark.extra_info["isa"] = model.info.isa

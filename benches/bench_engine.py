"""The whole model: prompts, generation, batches and opening a file, on the 2B-4T shape."""

from statistics import median
from time import perf_counter

import numpy as np
import pytest

from bitnet_lut import Model
from bitnet_lut.convert import convert
from bitnet_lut.runtime.cpu import default_threads
from bitnet_lut.runtime.speculation import Speculation


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


def bench_batch(benchmark, model, sequences=8, steps=8):
    """Sequences that step together, next to one alone in every round."""
    ids = _ids(model, steps)
    alone, batch = model.session(), model.session_batch(sequences)
    seconds = []

    def step_alone():
        start = perf_counter()
        for token in ids:
            alone.step([token])
        seconds.append(perf_counter() - start)

    def step_together():
        for token in ids:
            batch.step([token] * sequences)

    benchmark.pedantic(step_together, setup=step_alone, rounds=5, warmup_rounds=1)
    _report(benchmark, model, sequences * steps)
    if not benchmark.disabled:
        ratio = sequences * median(seconds[1:]) / benchmark.stats.stats.median
        benchmark.extra_info["tokens/s to one alone"] = round(ratio, 2)


def bench_open(benchmark, model_file, tmp_path):
    """From opening a file that needs no packing to the first token, the file being in memory."""
    path = tmp_path / "native.gguf"
    convert(model_file, path, type="tl5")

    def open_and_generate():
        with Model(path) as model:
            return model.generate("The capital of France is", max_tokens=1, ignore_eos=True)

    result = benchmark.pedantic(open_and_generate, rounds=5, warmup_rounds=1)
    assert result.timings.generated_tokens == 1


@pytest.mark.parametrize("text", ["copied", "edited", "new"])
def bench_speculation(benchmark, model, text, tokens=96):
    """Generation with guesses, next to the same without in every round.

    A model of random weights does not repeat its prompt. So the guesser has seen the greedy text,
    as if it stood in the prompt: whole, or with every 16th token replaced, or not at all.
    """
    ids = _ids(model, 8)
    said = _generate(model, ids, tokens, None).ids
    seen = {"copied": said, "edited": _edited(said), "new": ()}[text]
    plain, found = [], []

    def without():
        plain.append(_generate(model, ids, tokens, None))

    def speculate():
        found.append(_generate(model, ids, tokens, Speculation([*ids, *seen, *ids])))

    benchmark.pedantic(speculate, setup=without, rounds=5, warmup_rounds=1)
    assert {result.ids for result in plain + found} == {said}
    _report(benchmark, model, tokens)
    seconds = [median(r.timings.generation_seconds for r in rs) for rs in (plain, found)]
    timings = found[-1].timings
    benchmark.extra_info["ratio to plain"] = round(seconds[0] / seconds[1], 3)
    benchmark.extra_info["accepted"] = f"{timings.accepted_tokens} of {timings.drafted_tokens}"


def _edited(ids):
    return [id if place % 16 else abs(id - 1) for place, id in enumerate(ids, 8)]


def _generate(model, ids, tokens, speculation):
    stream = model.stream(ids, max_tokens=tokens, ignore_eos=True, speculate=False)
    stream._run.decoder._speculation = speculation  # without its own judgement of what pays
    for _ in stream:
        pass
    return stream.result


def _report(benchmark, model, tokens):
    if not benchmark.disabled:
        benchmark.extra_info["tokens/s"] = round(tokens / benchmark.stats.stats.median, 1)
        benchmark.extra_info["threads"] = model.info.threads
        benchmark.extra_info["isa"] = model.info.isa

"""Texts that share a few pages: they wait, give pages back, go on, and stay what they are alone."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitnet_lut import Generation, Model, Sampling
from bitnet_lut._native import PAGE, Pages
from bitnet_lut.demo import MODEL
from bitnet_lut.runtime.prefixes import Prefixes
from bitnet_lut.runtime.scheduler import Run, Scheduler


@pytest.fixture(scope="module")
def demo() -> Model:
    return Model(MODEL, threads=1, context=256)


def said(found: Generation) -> Any:
    one = (found.text, found.ids, found.finish_reason, found.logprobs, found.prompt_logprobs)
    return one, [said(choice) for choice in found.choices[1:]]


def drain(runs: list[Run]) -> None:
    for run in runs:
        for one in (run, *run.siblings):
            while one.take() is not None:
                pass


def has_ended(run: Run) -> bool:
    return all(one.ended for one in (run, *run.siblings))


class Shared:
    """A scheduler whose texts share a few pages."""

    def __init__(self, demo: Model, most: int, prefixes: Prefixes | None = None) -> None:
        self.model, self.preempted = demo, 0
        self.pages = Pages(demo._engine.weights, most=most)
        self.scheduler = Scheduler(
            demo._engine, prefixes=prefixes, pages=self.pages, on_preempt=self.count
        )

    def count(self) -> None:
        self.preempted += 1

    def add(self, ids: list[int], n: int = 1, **options: Any) -> Run:
        (first, context), *others = [
            self.model._decoder(ids, choice, n=n, **options) for choice in range(n)
        ]
        return self.scheduler.add(first, context, siblings=[one for one, _ in others])


def draw_text(demo: Model, data: Any, seed: int) -> tuple[list[int], dict[str, Any]]:
    rng = np.random.default_rng(seed)
    start = [int(i) for i in np.arange(70) % 40 + 5]  # what texts have in common
    common, own = int(rng.choice([0, 20, 64, 70])), int(rng.integers(1, 90))
    ids = [*start[:common], *rng.integers(0, demo.config.vocab_size, own).tolist()]
    options: dict[str, Any] = {
        "max_tokens": int(rng.integers(0, 90)),
        "sampling": Sampling(temperature=[0, 0.9][seed % 2], seed=seed, repetition_penalty=1.2),
        "logprobs": [None, 2][seed % 3 == 0],
        "ignore_eos": seed % 4 > 0,
        "n": [1, 3][seed % 5 == 0],
    }
    if seed % 7 == 0:
        options["prompt_logprobs"] = 1
    if seed % 6 == 1:
        options |= {"response_format": "json", "ignore_eos": False}
    return ids, options


@settings(max_examples=20, deadline=None)
@given(st.data())
def test_any_mixture_on_few_pages_is_each_text_alone(demo: Model, data: Any) -> None:
    """Sampled, with scores, with grammars, with siblings and prefixes; some are canceled."""
    pytest.importorskip("llguidance", reason="NO LLGUIDANCE: texts follow no grammar")
    seeds = data.draw(st.lists(st.integers(0, 99), min_size=2, max_size=6))
    prefixes = Prefixes(10**9) if data.draw(st.booleans()) else None
    shared = Shared(demo, data.draw(st.integers(4, 8)), prefixes)
    texts = [draw_text(demo, data, seed) for seed in seeds]
    dropped = data.draw(st.sets(st.integers(0, len(seeds) - 1), max_size=2))
    runs = []
    for ids, options in texts:
        runs.append(shared.add(ids, **options))
        for _ in range(data.draw(st.integers(0, 3))):
            shared.scheduler.step()
            drain(runs)
    for place in dropped:
        for one in (runs[place], *runs[place].siblings):
            one.cancel()
    steps = 0
    while not all(map(has_ended, runs)):
        shared.scheduler.step()
        drain(runs)
        steps += 1
        assert steps < 5000
    for place, (run, (ids, options)) in enumerate(zip(runs, texts, strict=True)):
        if place not in dropped:
            assert said(run.result) == said(demo.generate(ids, **options))
    if prefixes is not None:
        while prefixes.drop_oldest():
            pass
    assert shared.pages.used == 0


def test_the_youngest_gives_way_and_the_oldest_goes_on(demo: Model) -> None:
    """Two texts that fit only one after the other, started together."""
    shared = Shared(demo, 4)
    sampling = Sampling(temperature=1, seed=3)
    options: dict[str, Any] = {"max_tokens": 150, "ignore_eos": True, "sampling": sampling}
    runs = [shared.add([7, number], **options) for number in (1, 2)]
    ends: list[int] = []
    while len(ends) < 2:
        shared.scheduler.step()
        drain(runs)
        ends += [place for place, run in enumerate(runs) if run.ended and place not in ends]
    assert (ends, shared.preempted) == ([0, 1], 1)
    for number, run in enumerate(runs, 1):
        assert said(run.result) == said(demo.generate([7, number], **options))
        assert run.result.timings.prompt_seconds > 0


def test_a_text_waits_while_its_prompt_does_not_fit(demo: Model) -> None:
    """It is not started only to give its pages back at once."""
    shared = Shared(demo, 4)
    first = shared.add([5] * 100, max_tokens=20, ignore_eos=True)
    second = shared.add([6] * 150, max_tokens=20, ignore_eos=True)
    while not first.ended:
        shared.scheduler.step()
        drain([first])
        assert second.cache is None or first.ended
    while not second.ended:
        shared.scheduler.step()
        drain([second])
    assert shared.preempted == 0


def test_siblings_whose_prompt_had_to_go_run_it_again(demo: Model) -> None:
    """Six texts of one prompt on three pages."""
    shared = Shared(demo, 3)
    sampling = Sampling(temperature=0.7, seed=1)
    options: dict[str, Any] = {"max_tokens": 60, "ignore_eos": True, "n": 6, "sampling": sampling}
    ids = list(range(3, 100))
    run = shared.add(ids, **options)
    while not has_ended(run):
        shared.scheduler.step()
        drain([run])
    assert said(run.result) == said(demo.generate(ids, **options))
    assert shared.preempted > 0
    assert shared.pages.used == 0


def test_a_text_that_needs_more_than_all_pages_is_refused(demo: Model) -> None:
    shared = Shared(demo, 2)
    with pytest.raises(ValueError, match=rf"up to 129 tokens.* is enough for {2 * PAGE}: ask for"):
        shared.add([5] * 29, max_tokens=100)
    run = shared.add([5] * 28, max_tokens=100, ignore_eos=True)
    while not run.ended:
        shared.scheduler.step()
        drain([run])
    assert len(run.result.ids) == 100


def test_canceled_texts_hold_no_pages(demo: Model) -> None:
    """Whether they generate, are in their prompt, wait, or wait to go on from another's prompt."""
    shared = Shared(demo, 100)
    many = shared.add([5] * 100, max_tokens=50, n=200)
    other = shared.add([6] * 250, max_tokens=5)
    for _ in range(4):
        shared.scheduler.step()
        drain([many, other])
    assert shared.pages.used > 0
    for one in (many, *many.siblings, other):
        one.cancel()
    assert shared.pages.used == 0


def test_pages_for_at_least_one(demo: Model) -> None:
    with pytest.raises(
        ValueError, match=r"0\.0 MB for caches is less than one page of 64 positions"
    ):
        demo._engine.pages(10)
    page = demo._engine.cache_bytes(PAGE)
    assert demo._engine.pages(3 * page - 1).most == 2

"""Texts that go on from what other texts have computed."""

from typing import Any

import numpy as np
import pytest
from compare import assert_same_bits
from test_scheduler import Watched, queue, said

from bitnet_lut import Model, Sampling
from bitnet_lut._native import Cache, page_bytes
from bitnet_lut.demo import MODEL
from bitnet_lut.runtime import scheduler as scheduler_module
from bitnet_lut.runtime.decoder import Decoder
from bitnet_lut.runtime.prefixes import Prefixes
from bitnet_lut.runtime.sampling import Sampler
from bitnet_lut.runtime.scheduler import Scheduler
from bitnet_lut.runtime.stopping import StopRules

FIRST = [5 * i % 997 + 3 for i in range(60)]


@pytest.fixture(scope="module")
def demo() -> Model:
    return Model(MODEL, threads=1)


def cache_of(model: Model, ids: list[int], *, context: int | None = None) -> Cache:
    session = model.session(context=context or len(ids))
    session.step(ids)
    return session._cache


def test_a_text_goes_on_from_another_with_the_same_bits(demo: Model) -> None:
    """Sampled, with scores: the same whether its beginning was computed or copied."""
    prefixes = Prefixes(10**9)
    scheduler = Scheduler(demo._engine, prefixes=prefixes)
    first = queue(scheduler, demo, FIRST, 20)
    scheduler.finish()
    whole = [*FIRST, *first.result.ids]
    prompts = [[*whole[:75], 7], [*whole, 9, 10], whole[:40], [8, *whole]]
    reused = [75, len(whole) - 1, 39, 0]  # the last token of a text is never run
    for prompt, expected in zip(prompts, reused, strict=True):
        sampling = Sampling(temperature=0.9, seed=len(prompt))
        decoder = Decoder(
            demo.tokenizer,
            prompt,
            sampler=Sampler(sampling),
            stop=StopRules(12, 400),
            logprobs=3,
        )
        run = scheduler.add(decoder, len(prompt) + 12)
        scheduler.finish()
        alone = demo.generate(prompt, max_tokens=12, sampling=sampling, logprobs=3, ignore_eos=True)
        assert said(run.result) == said(alone)
        assert run.result.logprobs == alone.logprobs
        assert run.result.timings.reused_tokens == expected


def test_a_prompt_whose_tokens_are_scored_runs_as_a_whole(demo: Model) -> None:
    scheduler = Scheduler(demo._engine, prefixes=Prefixes(10**9))
    for _ in range(2):
        decoder = Decoder(
            demo.tokenizer,
            FIRST,
            sampler=Sampler(Sampling()),
            stop=StopRules(1, 400),
            prompt_logprobs=0,
        )
        run = scheduler.add(decoder, len(FIRST) + 1)
        scheduler.finish()
        assert run.result.timings.reused_tokens == 0
        assert run.result.prompt_logprobs is not None
        assert len(run.result.prompt_logprobs) == len(FIRST)


def test_owners_do_not_share(demo: Model) -> None:
    prefixes = Prefixes(10**9)
    prefixes.keep("one", FIRST, cache_of(demo, FIRST))
    found = prefixes.find("one", [*FIRST, 1])
    assert found is not None
    assert found.length == len(FIRST)
    assert prefixes.find("other", [*FIRST, 1]) is None


def test_the_longest_is_found_and_few_tokens_are_not_worth_it(demo: Model) -> None:
    prefixes = Prefixes(10**9)
    other = [*FIRST[:30], *range(30)]
    for ids in (FIRST, other):
        prefixes.keep("", ids, cache_of(demo, ids))
    for ids, expected in ((other, 59), (FIRST, 59), ([*FIRST[:31], 2], 31), ([*other[:33], 2], 33)):
        found = prefixes.find("", ids)
        assert found is not None
        assert found.length == expected
    assert prefixes.find("", FIRST[:16]) is None
    assert prefixes.find("", [1, *FIRST]) is None
    prefixes.keep("", FIRST[:15], cache_of(demo, FIRST[:15]))
    assert len(prefixes) == 2


def test_a_longer_text_replaces_its_beginning(demo: Model) -> None:
    prefixes = Prefixes(10**9)
    for length in (20, 60, 40):
        prefixes.keep("", FIRST[:length], cache_of(demo, FIRST[:length], context=100))
    assert len(prefixes) == 1
    assert prefixes.nbytes == page_bytes(demo._engine.weights)  # not of the 100 it had room for


def test_the_text_used_longest_ago_goes_first(demo: Model) -> None:
    texts = [[i, *FIRST] for i in range(4)]
    page = page_bytes(demo._engine.weights)
    prefixes = Prefixes(3 * page)
    for ids in texts[:3]:
        prefixes.keep("", ids, cache_of(demo, ids))
    assert prefixes.find("", texts[0]) is not None
    prefixes.keep("", texts[3], cache_of(demo, texts[3]))
    assert [prefixes.find("", ids) is not None for ids in texts] == [True, False, True, True]
    assert prefixes.nbytes == 3 * page


def test_texts_that_begin_in_the_same_way_share_pages(demo: Model) -> None:
    """Each page counts once, and goes when the last text that holds it goes."""
    page = page_bytes(demo._engine.weights)
    first = cache_of(demo, [*FIRST, *FIRST], context=300)  # two pages
    prefixes = Prefixes(10**9)
    prefixes.keep("", [*FIRST, *FIRST], first)
    assert first.pages.used == 2
    for end in (1, 2):
        found = prefixes.find("", [*FIRST, *FIRST[:10], end, 5])
        assert found is not None
        assert found.length == 70
        fork = found.cache.fork(context=300, position=70)
        demo._engine.step([(fork, np.array([end] * 60, np.int32))])
        prefixes.keep("", [*FIRST, *FIRST[:10], *[end] * 60], fork)
        del fork, found
    assert len(prefixes) == 3
    assert first.pages.used == 2 + 2 * 2  # the second and the third page are their own
    assert prefixes.nbytes == 6 * page
    while prefixes.drop_oldest():
        assert prefixes.nbytes >= len(prefixes) * page
    assert (prefixes.nbytes, first.pages.used) == (0, 2)


def test_prefixes_make_room_for_texts(demo: Model) -> None:
    """Where memory ends, a text that runs is worth more than one that may come again."""
    engine: Any = Watched(demo)
    prefixes = Prefixes(10**9)
    prefixes.keep("", FIRST, cache_of(demo, FIRST))
    scheduler = Scheduler(engine, prefixes=prefixes)
    engine.room = 0
    run = queue(scheduler, demo, [5], 1)
    scheduler.step()
    with pytest.raises(MemoryError):
        run.take()
    assert len(prefixes) == 0


def test_a_fork_has_its_own_room_and_place(demo: Model) -> None:
    cache = cache_of(demo, FIRST, context=64)
    fork = cache.fork(context=200, position=40)
    assert (fork.context, fork.position) == (200, 40)
    logits = np.empty((1, demo.config.vocab_size), np.float32)
    demo._engine.step([(fork, np.array(FIRST[40:], np.int32))], np.array([19]), logits)
    assert_same_bits(logits[0], demo.session().step(FIRST))
    for context, position in ((64, 61), (64, -1), (20, 40)):
        with pytest.raises(ValueError, match=r"cannot fork at|do not fit a cache of 20"):
            cache.fork(context=context, position=position)


def test_prompts_leave_time_for_texts_that_generate(
    demo: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step takes about the seconds of its budget, where a token takes one of a thousand."""
    engine: Any = Watched(demo)
    clock = [0.0]
    step = engine.step

    def timed(chunks: Any, rows: Any, logits: Any) -> Any:
        clock[0] += sum(len(ids) for _, ids in chunks) / 1000
        return step(chunks, rows, logits)

    engine.step = timed
    monkeypatch.setattr(scheduler_module.time, "perf_counter", lambda: clock[0])
    scheduler = Scheduler(engine, budget=0.05)
    queue(scheduler, demo, [5] * 100, 40)
    scheduler.finish()
    assert engine.steps[0] == [100]  # nobody waits
    engine.steps.clear()
    first = queue(scheduler, demo, [5], 40)
    scheduler.step()
    while first.take() is not None:
        pass
    queue(scheduler, demo, [7] * 120, 2)
    scheduler.finish()
    assert engine.steps[:5] == [[1], [1, 49], [1, 49], [1, 22], [1, 1]]

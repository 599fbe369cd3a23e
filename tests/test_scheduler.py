"""The scheduler: texts come and go, and each stays what it is alone."""

import gc
import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from compare import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st

from bitnet_lut import Generation, Model, NumericsError, Sampling, _native
from bitnet_lut.demo import MODEL
from bitnet_lut.runtime import engine as engine_module
from bitnet_lut.runtime.decoder import Decoder
from bitnet_lut.runtime.sampling import Drawing, Sampler
from bitnet_lut.runtime.scheduler import Run, Scheduler
from bitnet_lut.runtime.stopping import StopRules

STORY = "Once upon a time there was a young mouse named Leo."


@pytest.fixture(scope="module")
def demo() -> Model:
    return Model(MODEL, threads=1)


class Weak(_native.Cache):
    """A cache of which one can tell that it is gone."""


class Watched:
    """An engine that notes the sizes of its steps, and what the caches of a text take."""

    def __init__(self, model: Model) -> None:
        self._engine, self.config = model._engine, model.config
        self.weights, self.cache_bytes = model._engine.weights, model._engine.cache_bytes
        self.draw, self.score = model._engine.draw, model._engine.score
        self.steps: list[list[int]] = []
        self.caches: list[weakref.ref[Weak]] = []
        self.room = 10**9  # caches that fit at once
        self.batch = 128  # tokens of a step, on every tier
        self.poison = -1

    def cache(self, context: int, *, promised: int = 0) -> Any:
        if sum(cache() is not None for cache in self.caches) >= self.room:
            raise MemoryError("no room for another")
        self._engine.refuse_cache(context, promised=promised)
        cache = Weak(self._engine.weights, context)
        self.caches.append(weakref.ref(cache))
        return cache

    def step(self, chunks: Any, rows: Any, logits: Any) -> Any:
        self.steps.append([len(ids) for _, ids in chunks])
        finite = self._engine.step(chunks, rows, logits)
        for at, (cache, ids) in enumerate(chunks):
            if self.poison in ids:
                cache.rewind(cache.position - len(ids))
                finite[at] = False
        return finite

    def fault(self, cache: Any, ids: Any, rows: int) -> NumericsError:
        return NumericsError(f"not finite after {self.poison}")


def queue(
    scheduler: Scheduler,
    model: Model,
    ids: Sequence[int],
    max_tokens: int,
    *,
    sampling: Sampling | None = None,
    stop: tuple[str, ...] = (),
) -> Run:
    decoder = Decoder(
        model.tokenizer,
        ids,
        sampler=Sampler(sampling or Sampling()),
        stop=StopRules(max_tokens, 512 - len(ids), stop),
    )
    return scheduler.add(decoder, len(ids) + max_tokens)


def said(found: Generation) -> tuple[str, tuple[int, ...], str]:
    return found.text, found.ids, found.finish_reason


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_any_mixture_is_each_text_alone(demo: Model, data: Any) -> None:
    """Prompts of a token and of several chunks, sampled and greedy, joining at any time."""
    count = data.draw(st.integers(1, 7))
    seeds = data.draw(st.lists(st.integers(0, 99), min_size=count, max_size=count))
    texts = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        ids = rng.integers(0, demo.config.vocab_size, rng.choice([1, 7, 130, 300])).tolist()
        sampling = Sampling(temperature=[0, 0.8][seed % 2], seed=seed, repetition_penalty=1.1)
        texts.append((ids, int(rng.integers(0, 25)), sampling, ((), ("e", "th"))[seed % 3 == 0]))
    scheduler = Scheduler(demo._engine, most=data.draw(st.integers(1, 4)))
    runs = []
    for ids, tokens, sampling, stop in texts:
        runs.append(queue(scheduler, demo, ids, tokens, sampling=sampling, stop=stop))
        for _ in range(data.draw(st.integers(0, 3))):
            scheduler.step()
            for run in runs:
                while run.take() is not None:
                    pass
    scheduler.finish()
    for run, (ids, tokens, sampling, stop) in zip(runs, texts, strict=True):
        alone = demo.generate(
            ids, max_tokens=tokens, sampling=sampling, stop=stop, ignore_eos=True, speculate=False
        )
        assert said(run.result) == said(alone)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_draws_are_the_same_alone_and_together(demo: Model, threads: int) -> None:
    """Those made in C together, and those of Python beside them."""
    settings: list[dict[str, Any]] = [
        {},
        {"temperature": 0.9},
        {"temperature": 0.9, "top_p": 0.9},
        {"temperature": 0.9, "typical_p": 0.9},
        {"temperature": 1.2, "top_k": 20, "repetition_penalty": 1.2, "logit_bias": {7: 2.0}},
        {"presence_penalty": 0.5},
        {"temperature": 0.7, "min_p": 0.05, "order": "transformers"},
    ]
    model = Model(MODEL, threads=threads)
    scheduler = Scheduler(model._engine)
    samplings = [Sampling(**options, seed=seed) for seed, options in enumerate(settings * 2)]
    runs = [queue(scheduler, model, [5, 6], 12, sampling=sampling) for sampling in samplings]
    scheduler.finish()
    for run, sampling in zip(runs, samplings, strict=True):
        alone = demo.generate([5, 6], max_tokens=12, sampling=sampling, ignore_eos=True)
        assert run.result.ids == alone.ids


def test_a_place_is_filled_as_soon_as_a_text_ends(demo: Model) -> None:
    engine: Any = Watched(demo)
    scheduler = Scheduler(engine, most=2)
    lengths = [30, 3, 3, 3, 3, 3, 3, 3]
    runs = [queue(scheduler, demo, [5, index], n) for index, n in enumerate(lengths)]
    scheduler.finish()
    assert [len(run.result.ids) for run in runs] == lengths
    # The longest takes 30 steps, and all others run beside it: 7 times 3 in the other place.
    assert len(engine.steps) == 30
    assert max(map(len, engine.steps)) == 2


def test_prompts_run_in_pieces_beside_texts_that_generate(demo: Model) -> None:
    engine: Any = Watched(demo)
    scheduler = Scheduler(engine)
    first = queue(scheduler, demo, [5], 40)
    scheduler.step()
    while first.take() is not None:
        pass
    second = queue(scheduler, demo, [7] * 300, 2)
    third = queue(scheduler, demo, [8] * 20, 2)
    scheduler.finish()
    assert engine.steps[:5] == [[1], [1, 127], [1, 127], [1, 46, 20], [1, 1, 1]]
    for run, ids in ((first, [5]), (second, [7] * 300), (third, [8] * 20)):
        tokens = len(run.result.ids)
        assert run.result.ids == demo.generate(ids, max_tokens=tokens, ignore_eos=True).ids


def test_many_texts_that_generate_leave_some_room_for_prompts(demo: Model) -> None:
    engine: Any = Watched(demo)
    scheduler = Scheduler(engine)
    for _ in range(127):
        queue(scheduler, demo, [5], 5)
    queue(scheduler, demo, [5] * 50, 1)
    scheduler.finish()
    assert engine.steps[0] == [*[1] * 127, 1]
    assert engine.steps[1] == [*[1] * 127, 32]


def test_without_memory_a_text_waits_for_others_to_end(demo: Model) -> None:
    engine: Any = Watched(demo)
    engine.room = 2
    scheduler = Scheduler(engine)
    runs = [queue(scheduler, demo, [5, index], 4) for index in range(5)]
    scheduler.finish()
    assert max(map(len, engine.steps)) == 2
    for index, run in enumerate(runs):
        assert run.result.ids == demo.generate([5, index], max_tokens=4, ignore_eos=True).ids


def test_a_text_that_never_fits_fails_alone(demo: Model) -> None:
    engine: Any = Watched(demo)
    scheduler = Scheduler(engine)
    first = queue(scheduler, demo, [5], 3)
    scheduler.step()
    engine.room = 0
    second = queue(scheduler, demo, [6], 3)
    third = queue(scheduler, demo, [7], 3)
    for _ in range(9):
        while first.take() is not None:
            pass
        scheduler.step()
    assert first.result.finish_reason == "length"
    for run in (second, third):
        with pytest.raises(MemoryError, match="no room for another"):
            run.take()
        assert run.ended
        assert run.take() is None


def test_caches_of_what_is_planned_count_before_they_are_filled(
    demo: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine: Any = demo._engine
    needed = engine.cache_bytes(400)
    engine.cache(400)
    demo.generate([5], max_tokens=1)  # the workspace is there
    asked = []

    def refuse(nbytes: int, what: str, advice: str) -> None:
        asked.append(nbytes)
        if nbytes > 2.5 * needed:
            raise MemoryError

    monkeypatch.setattr(engine_module, "refuse_beyond", refuse)
    scheduler = Scheduler(engine)
    for _ in range(4):
        queue(scheduler, demo, [5], 399)
    scheduler.step()
    assert asked == [needed, 2 * needed, 3 * needed]
    assert len(scheduler._running) == 2


def test_what_a_model_cannot_compute_ends_that_text_only(demo: Model) -> None:
    engine: Any = Watched(demo)
    engine.poison = 99
    scheduler = Scheduler(engine)
    bad = queue(scheduler, demo, [5, 99], 3)
    good = queue(scheduler, demo, [5, 6], 3)
    for _ in range(4):
        scheduler.step()
        while good.take() is not None:
            pass
    with pytest.raises(NumericsError, match="not finite after 99"):
        bad.take()
    assert good.result.ids == demo.generate([5, 6], max_tokens=3, ignore_eos=True).ids
    assert bad.result.ids == ()


class Picky(Sampler):
    """Finds nothing to choose from after two tokens."""

    def drawing(self, logits: np.ndarray, history: Sequence[int], **options: Any) -> Drawing:
        if len(history) > 3:
            logits = np.full_like(logits, -np.inf)
        return super().drawing(logits, history, **options)


def test_a_choice_that_cannot_be_made_ends_that_text_only(demo: Model) -> None:
    scheduler = Scheduler(demo._engine)
    bad = queue(scheduler, demo, [5, 6], 9)
    bad.decoder._sampler = Picky(Sampling())
    good = queue(scheduler, demo, [5, 6], 9)
    with pytest.raises(ValueError, match="nothing to choose from"):
        scheduler.finish()
    assert bad.ended
    scheduler.finish()
    plain = demo.generate([5, 6], max_tokens=9, ignore_eos=True)
    assert (bad.result.ids, good.result.ids) == (plain.ids[:2], plain.ids)


def test_memory_is_freed_as_texts_end_or_are_dropped(demo: Model) -> None:
    """At once, and not when Python happens to collect garbage."""
    gc.collect()
    gc.disable()
    try:
        engine: Any = Watched(demo)
        scheduler = Scheduler(engine)
        runs = [queue(scheduler, demo, [5, index], n) for index, n in enumerate((1, 5, 5))]
        scheduler.step()
        for run in runs:
            while run.take() is not None:
                pass
        alive = [cache() is not None for cache in engine.caches]
        assert alive == [False, True, True]
        runs[1].cancel()
        assert [cache() is not None for cache in engine.caches] == [False, False, True]
        assert runs[1].result.finish_reason == "interrupted"
        del scheduler, runs, run
        assert [cache() is not None for cache in engine.caches] == [False, False, False]
    finally:
        gc.enable()


@pytest.mark.parametrize("how", ["drop", "close", "end"])
def test_a_stream_frees_its_memory(demo: Model, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(engine_module, "Cache", Weak)
    gc.collect()
    gc.disable()
    try:
        stream = demo.stream(STORY, max_tokens=20, ignore_eos=True)
        text = next(stream)
        cache = weakref.ref(stream._run.cache)
        assert cache() is not None
        if how == "drop":
            del stream
        elif how == "close":
            stream.close()
            assert list(stream) == []
            assert (stream.result.text, stream.result.finish_reason) == (text, "interrupted")
        else:
            text += "".join(stream)
            assert text == stream.result.text
        assert cache() is None
    finally:
        gc.enable()


def test_a_stream_goes_on_after_ctrl_c(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = demo.generate(STORY, max_tokens=9, ignore_eos=True)
    stream = demo.stream(STORY, max_tokens=9, ignore_eos=True)
    text = next(stream)

    def interrupted(*args: Any, **options: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stream._scheduler._engine, "step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(stream)
    assert stream.result.finish_reason == "interrupted"
    assert text + "".join(stream) == plain.text


def test_texts_in_several_threads_take_turns(demo: Model) -> None:
    prompts = ["The capital of France is", STORY, "2 + 2 =", "a"]
    expected = [said(demo.generate(prompt, max_tokens=30)) for prompt in prompts]
    found: dict[int, list[Any]] = {}

    def work(index: int) -> None:
        found[index] = [said(demo.generate(prompts[index], max_tokens=30)) for _ in range(5)]
        found[index] += [*map(said, demo.generate(prompts, max_tokens=30))]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(4):
        assert found[index] == [*[expected[index]] * 5, *expected]


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_a_child_process_does_not_wait_for_a_thread_of_its_parent(demo: Model) -> None:
    expected = demo.generate("a", max_tokens=3).ids
    with demo._engine._lock:  # as if another thread stepped
        child = os.fork()
        if child == 0:
            status = 1
            try:
                status = int(demo.generate("a", max_tokens=3).ids != expected)
            finally:
                os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_workspace_grows_for_a_longer_session(demo: Model) -> None:
    with Model(MODEL, threads=1, context=8) as model:
        ids = [5, 6, 7, 8, 9, 10, 11, 12, 13]
        short = model.session()
        assert_same_bits(short.step(ids[:8]), demo.session().step(ids[:8]))
        assert_same_bits(model.session(context=20).step(ids), demo.session().step(ids))
        with pytest.raises(ValueError, match="1 tokens at position 8 do not fit the context of 8"):
            short.step([1])


def test_an_error_names_the_prompt_of_a_list(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    watched = Watched(demo)
    watched.poison = 99
    monkeypatch.setattr(demo, "_engine", watched)
    with pytest.raises(NumericsError, match=r"^prompt 2: not finite after 99$"):
        demo.generate([[5], [6], [7, 99], [8]], max_tokens=3, n=2)
    with pytest.raises(NumericsError, match=r"^not finite after 99$"):
        demo.generate([7, 99], max_tokens=3)
    watched.room = 0
    with pytest.raises(MemoryError, match=r"^prompt 0: no room for another$"):
        demo.generate([[5], [6]], max_tokens=3)


def test_a_stream_belongs_to_one_thread_at_a_time(
    demo: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = demo.stream(STORY, max_tokens=5)
    expected = "".join(demo.stream(STORY, max_tokens=5))
    refused: list[str] = []
    step = demo._engine.step

    def other() -> None:
        with pytest.raises(RuntimeError, match="this stream is in use by another thread") as raised:
            next(stream)
        refused.append(str(raised.value))

    def interfered(*args: Any, **options: Any) -> Any:
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return step(*args, **options)

    monkeypatch.setattr(demo._engine, "step", interfered)
    assert "".join(stream) == expected
    assert refused

"""Texts of asyncio tasks: each is the one that the model gives alone."""

import asyncio
import gc
import os
import threading
import time

import pytest

from bitnet_lut import AsyncModel, Model, NumericsError, Sampling
from bitnet_lut.demo import MODEL

WARM = Sampling(temperature=0.9, top_k=50, seed=7)
PROMPTS = ["Hello", "Once upon a time", "The capital of France is", "One, two, one, two, one,"]
MESSAGES = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def model():
    return Model(MODEL, context=512)


@pytest.fixture
def steps(model, monkeypatch):
    """How many sequences each step runs."""
    counted = []
    step = type(model._engine).step

    def count(self, chunks, *rest, **named):
        counted.append(len(chunks))
        return step(self, chunks, *rest, **named)

    monkeypatch.setattr(type(model._engine), "step", count)
    return counted


def same(one, other):
    return (one.text, one.ids, one.finish_reason) == (other.text, other.ids, other.finish_reason)


def idle(model):
    """Wait until no thread works for the model."""
    for _ in range(500):
        if model._worker._thread is None:
            return True
        time.sleep(0.01)
    return False


@pytest.mark.parametrize("sampling", [Sampling(), WARM], ids=["greedy", "sampled"])
def test_texts_run_together_and_are_those_alone(model, steps, sampling):
    options = {"max_tokens": 40, "sampling": sampling}
    expected = [model.generate(prompt, **options) for prompt in PROMPTS]
    steps.clear()

    async def run():
        ours = AsyncModel(model)
        return ours, await asyncio.gather(*(ours.generate(p, **options) for p in PROMPTS))

    ours, texts = asyncio.run(run())
    assert all(map(same, texts, expected))
    assert max(steps) > 1
    assert idle(ours)


def test_streams_and_chats(model):
    pytest.importorskip("jinja2")

    async def run():
        ours = AsyncModel(model)
        stream = ours.stream("Once upon a time", max_tokens=30)
        pieces = [piece async for piece in stream]
        chat = await ours.chat(MESSAGES, max_tokens=30)
        chat_stream = ours.chat_stream(MESSAGES, max_tokens=30)
        said = [piece async for piece in chat_stream]
        return pieces, stream.result, chat, said

    pieces, result, chat, said = asyncio.run(run())
    assert "".join(pieces) == result.text
    assert "" not in pieces
    assert same(result, model.generate("Once upon a time", max_tokens=30))
    assert same(chat, model.chat(MESSAGES, max_tokens=30))
    assert "".join(said) == chat.text


def test_a_canceled_task_frees_its_text_and_no_other(model):
    async def run():
        ours = AsyncModel(model)
        endless = {"max_tokens": 10**6, "ignore_eos": True, "sampling": WARM}
        tasks = [asyncio.create_task(ours.generate(prompt, **endless)) for prompt in PROMPTS]
        other = asyncio.create_task(ours.generate("Hello", max_tokens=40))
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        return ours, ended, await other

    ours, ended, other = asyncio.run(run())
    assert all(isinstance(e, asyncio.CancelledError) or e.finish_reason == "context" for e in ended)
    assert same(other, model.generate("Hello", max_tokens=40))
    assert idle(ours)


@pytest.mark.parametrize("how", ["aclose", "with", "forgotten"])
def test_a_stream_that_is_left_ends(model, how):
    async def run():
        ours = AsyncModel(model)
        stream = ours.stream("Once upon a time", max_tokens=10**6, ignore_eos=True)
        first = await anext(stream)
        if how == "aclose":
            await stream.aclose()
        elif how == "with":
            async with stream:
                pass
        else:
            del stream
            gc.collect()
            return ours, first, None
        assert [piece async for piece in stream] == []
        return ours, first, stream.result

    ours, first, result = asyncio.run(run())
    assert idle(ours)
    if result is not None:
        assert result.text.startswith(first)
        assert result.finish_reason in ("interrupted", "context")


def test_errors_reach_the_one_who_waits(model, monkeypatch):
    async def run():
        ours = AsyncModel(model)
        with pytest.raises(ValueError, match="max_tokens"):
            await ours.generate("Hello", max_tokens=-1)
        with pytest.raises(ValueError, match="not started"):
            _ = ours.stream("Hello").result

        def fail(*_, **__):
            raise NumericsError("no number")

        with monkeypatch.context() as patch:
            patch.setattr(type(model._engine), "step", fail)
            failed = await asyncio.gather(
                *(ours.generate(prompt) for prompt in PROMPTS), return_exceptions=True
            )
        assert [str(error) for error in failed] == ["no number"] * 4
        return await ours.generate("Hello", max_tokens=20)

    assert same(asyncio.run(run()), model.generate("Hello", max_tokens=20))


def test_the_event_loop_goes_on_while_a_text_is_written(model):
    async def run():
        ours = AsyncModel(model)
        task = asyncio.create_task(ours.generate("Hello", max_tokens=400, ignore_eos=True))
        ticks = 0
        while not task.done():
            await asyncio.sleep(0)
            ticks += 1
        return ticks, await task

    ticks, out = asyncio.run(run())
    assert len(out.ids) == 400
    assert ticks > 10


def test_several_loops_may_share_a_model(model):
    ours = AsyncModel(model)
    expected = model.generate("Hello", max_tokens=40)
    wrong = []

    def work():
        for _ in range(5):
            out = asyncio.run(ours.generate("Hello", max_tokens=40))
            wrong.extend([] if same(out, expected) else [out])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert idle(ours)


def test_a_model_is_opened_beside_the_loop():
    async def run():
        model = await AsyncModel.open(MODEL, context=64)
        return model.model.context, await model.generate("Hello", max_tokens=3)

    context, out = asyncio.run(run())
    assert context == 64
    assert len(out.ids) == 3


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_of_a_fork_goes_on_while_the_parent_writes(model):
    expected = model.generate("Hello", max_tokens=20)
    ours = AsyncModel(model)

    def child():
        async def write():
            return await asyncio.wait_for(ours.generate("Hello", max_tokens=20), 30)

        return same(asyncio.run(write()), expected)

    async def run():
        stream = ours.stream("Once upon a time", max_tokens=400, ignore_eos=True)
        await anext(stream)
        assert ours._worker._thread.is_alive()
        children = []
        for held in (False, True):
            if held:
                ours._worker._lock.acquire()  # as the thread may at any time
            children.append(os.fork())
            if children[-1] == 0:
                asyncio.events._set_running_loop(None)
                try:
                    os._exit(0 if child() else 1)
                finally:
                    os._exit(2)
            if held:
                ours._worker._lock.release()
        codes = [os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]) for one in children]
        return codes, await stream.finish()

    codes, result = asyncio.run(run())
    assert codes == [0, 0]
    assert len(result.ids) == 400

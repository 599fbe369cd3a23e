"""Sessions and batches of them."""

import os
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from compare import assert_same_bits

from bitnet_lut import Model, NumericsError
from bitnet_lut.demo import MODEL


@pytest.fixture(scope="module")
def demo() -> Model:
    return Model(MODEL, threads=1)


def test_logits_of_the_last_token_or_of_all(demo: Model) -> None:
    ids = list(range(5, 205))  # more than run at once
    each = demo.forward(ids)
    last = demo.session().step(ids)
    assert (last.shape, last.dtype) == ((demo.config.vocab_size,), np.float32)
    assert_same_bits(last, each[-1])
    assert_same_bits(demo.session().step(ids, logits="all"), each)
    assert_same_bits(demo.session().step(ids[:1], logits="all"), each[:1])


def test_a_session_in_two_threads_is_refused(demo: Model) -> None:
    """Also while the second would only have waited for the workspace."""
    session, other = demo.session(), demo.session()
    session.step([5])
    batch = demo.session_batch(2)
    errors: list[BaseException] = []

    def second() -> None:
        for use in (
            lambda: session.step([6]),
            lambda: session.rewind(0),
            lambda: session.fork(),
            lambda: session.trace([6], lambda *_: None),
        ):
            try:
                use()
            except RuntimeError as error:
                errors.append(error)

    def probe(layer: int, op: str, array: Any) -> None:
        if op == "logits" or not errors:
            thread = threading.Thread(target=second)
            thread.start()
            thread.join()

    session.trace([7], probe)
    assert len(errors) >= 4
    assert all("in use by another thread" in str(error) for error in errors)
    assert session.position == 2
    with batch.sessions[1]._held, pytest.raises(RuntimeError, match="in use by another thread"):
        batch.step([5, 6])
    assert [one.position for one in batch.sessions] == [0, 0]
    other.step([5, 7])
    assert_same_bits(session.step([8]), other.step([8]))


def test_threads_that_step_one_session_leave_it_whole(demo: Model) -> None:
    """However threads collide, every step runs as a whole or is refused."""
    session = demo.session(context=64)
    done: list[int] = []

    def work(id: int) -> None:
        for _ in range(40):
            try:
                session.step([id])
                done.append(id)
            except RuntimeError:
                pass
            except ValueError as error:
                assert "do not fit the context of 64" in str(error)  # noqa: PT017

    threads = [threading.Thread(target=work, args=(id,)) for id in (5, 6, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.position == len(done) <= 64


def test_a_batch_that_fails_moves_no_session(demo: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = demo.session_batch(3)
    batch.step([5, 6, 7])
    engine = demo._engine
    step = engine.step

    def poisoned(chunks: Any, rows: Any, logits: Any) -> Any:
        finite = step(chunks, rows, logits)
        cache, ids = chunks[1]
        cache.rewind(cache.position - len(ids))
        finite[1] = False
        return finite

    monkeypatch.setattr(engine, "step", poisoned)
    monkeypatch.setattr(engine, "fault", lambda cache, ids, rows: NumericsError("not finite here"))
    with pytest.raises(NumericsError, match="session 1: not finite here"):
        batch.step([8, 9, 10])
    assert [session.position for session in batch.sessions] == [1, 1, 1]


def test_fork_goes_on_alone(demo: Model) -> None:
    session = demo.session()
    session.step([5, 6])
    other = session.fork()
    expected = demo.session().step([5, 6, 7])
    session.step([9])
    assert_same_bits(other.step([7]), expected)
    assert (session.position, other.position) == (3, 3)


def test_a_closed_model_says_so() -> None:
    model = Model(MODEL, threads=1)
    session, stream = model.session(), model.stream("a")
    session.step([5])
    assert "closed" not in repr(model)
    model.close()
    assert repr(model).endswith("context 512, closed>")
    for use in (
        lambda: session.step([5]),
        lambda: next(stream),
        lambda: model.session(),
        lambda: model.generate("a"),
        lambda: model.generate(["a"]),
        lambda: model.stream("a"),
        lambda: model.forward([5]),
    ):
        with pytest.raises(ValueError, match="this model was closed: open it again to use it"):
            use()


def test_what_things_look_like(demo: Model) -> None:
    info = demo.info
    assert repr(demo) == (
        "<Model 'bitnet_lut demonstration model' (bitnet-b1.58): 3.94 million parameters, "
        f"{info.kernel} on {info.isa}, 1 threads, context 512>"
    )
    session = demo.session(context=100)
    session.step([5, 6])
    size = f"{info.kv_bytes * 64 / 512 / 1e6:,.1f} MB"  # of one page
    assert repr(session) == (
        f"<Session of bitnet_lut demonstration model: position 2 of 100, f16 cache of {size}>"
    )
    assert repr(demo.session_batch(2)).startswith("<SessionBatch of 2: <Session of bitnet_lut")
    assert repr(demo.tokenizer).startswith(f"<Tokenizer: {demo.tokenizer.vocab_size:,} ids, ")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_is_told_what_a_thread_of_the_parent_was_using(demo: Model) -> None:
    """A step in the middle of which the process is forked ends in the parent only."""
    busy, done = threading.Event(), threading.Event()

    def wait(layer: int, op: str, array: Any) -> None:
        busy.set()
        done.wait(30)

    def told(use: Callable[[], object]) -> bool:
        with pytest.raises(RuntimeError, match="another thread when this process was forked: make"):
            use()
        return True

    session = demo.session()
    thread = threading.Thread(target=lambda: session._engine.step([session_chunk], probe=wait))
    session_chunk = (session._cache, np.array([5], np.int32))
    with session._held:
        thread.start()
        assert busy.wait(30)
        child = os.fork()
        if child == 0:
            try:
                fine = told(lambda: session.step([5])) and told(lambda: session._cache.rewind(0))
                fine = fine and len(demo.generate("Hello", max_tokens=3).ids) == 3
                os._exit(0 if fine else 1)
            finally:
                os._exit(2)
        done.set()
        thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    session.rewind(0)
    assert session.step([5]).shape == (demo.config.vocab_size,)

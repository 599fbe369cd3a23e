"""A sequence and its cache; and sequences that step together."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native
from bitnet_lut.runtime.batch import Lane
from bitnet_lut.runtime.steps import BATCH

if TYPE_CHECKING:
    from bitnet_lut.model import Model

__all__ = ["Probe", "Session", "SessionBatch", "int32_ids", "step_lanes"]

# Called with the layer (-1 outside the layers), the op's name and its result (n, width).
Probe = Callable[[int, str, NDArray[np.float32]], None]


class Session:
    """One sequence: its position and its cache of keys and values. Use it from one thread."""

    def __init__(self, model: "Model", cache: _native.Cache) -> None:
        """`Model.session` makes one."""
        self._model, self._cache, self._lock = model, cache, threading.Lock()

    @property
    def position(self) -> int:
        """How many tokens it has seen."""
        return self._cache.position

    @property
    def context(self) -> int:
        """How many tokens it has room for."""
        return self._cache.context

    def step(self, ids: Sequence[int], *, every: bool = False) -> NDArray[np.float32]:
        """Run *ids* (n); return the logits (vocab,) after the last, or with every=True (n, vocab).

        A long sequence runs in pieces, between which Ctrl-C is seen; results do not depend on that.
        Raises ValueError for no ids, an id outside the vocabulary, or a full context (nothing has
        been run then), and NumericsError if the result is not finite.
        """
        tokens = self._checked(ids)
        rows = np.arange(0 if every else len(tokens) - 1, len(tokens))
        logits = np.empty((len(rows), self._model.config.vocab_size), np.float32)
        with self._alone():
            start = self.position
            try:
                for at in range(0, len(tokens), BATCH):
                    piece = tokens[at : at + BATCH]
                    a, b = np.searchsorted(rows, (at, at + BATCH))
                    self._model._steps.run([(self._cache, piece)], rows[a:b] - at, logits[a:b])
            except BaseException:
                self._cache.rewind(start)
                raise
        return logits if every else logits.reshape(-1)

    def trace(self, ids: Sequence[int], probe: Probe) -> NDArray[np.float32]:
        """Run *ids* (n) as `step` does and show *probe* the result of every op.

        probe: called as ``probe(layer, op, array)`` in the order of the computation, layer -1
        outside the layers, array float32 (tokens, width), of at most 128 tokens at a time.
        """
        tokens = self._checked(ids)
        logits = np.empty((1, self._model.config.vocab_size), np.float32)
        last = np.array([len(tokens) - 1])
        with self._alone():
            self._model._steps.run([(self._cache, tokens)], last, logits, probe=probe)
        return logits.reshape(-1)

    def rewind(self, position: int) -> None:
        """Forget everything from *position* on; ValueError if it was not reached yet."""
        self._cache.rewind(position)

    def fork(self) -> "Session":
        """A second session that goes on from here on its own."""
        return Session(self._model, self._cache.fork())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Refuse a second thread meanwhile, which would else wait and then run its ids after."""
        if not self._lock.acquire(blocking=False):
            raise RuntimeError(
                "this session is in use by another thread: give every thread a session of its own"
            )
        try:
            yield
        finally:
            self._lock.release()

    def _checked(self, ids: Sequence[int]) -> NDArray[np.int32]:
        self._model._open()
        tokens = int32_ids(ids)
        if not len(tokens):
            raise ValueError("no ids to run")
        if len(tokens) > self.context - self.position:
            raise ValueError(
                f"{len(tokens)} tokens at position {self.position} do not fit the context of "
                f"{self.context}"
            )
        return tokens


class SessionBatch:
    """Sequences of one model that step together: the weights are read once for all of them.

    sessions: each can also be used alone, to run its prompt, to rewind, to fork.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        """`Model.session_batch` makes one."""
        self.sessions = tuple(sessions)

    def step(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Run one id on each session; return the logits (n, vocab), those of each running alone.

        Raises ValueError for an id outside the vocabulary or a full context (nothing has been run
        then), and NumericsError if a result is not finite.
        """
        return _step_together(self.sessions, ids)


def _step_together(sessions: Sequence[Session], ids: Sequence[int]) -> NDArray[np.float32]:
    model = sessions[0]._model
    model._open()
    logits = np.empty((len(sessions), model.config.vocab_size), np.float32)
    tokens = int32_ids(ids).reshape(-1, 1)
    caches = [session._cache for session in sessions]
    with ExitStack() as stack:
        for session in sessions:
            stack.enter_context(session._alone())
        model._steps.run(list(zip(caches, tokens, strict=True)), np.arange(len(caches)), logits)
    return logits


def step_lanes(lanes: Sequence[Lane[Session]], ids: Sequence[int]) -> NDArray[np.float32]:
    """Run one id on each lane's session; return the logits (n, vocab)."""
    return _step_together([lane.session for lane in lanes], ids)


def int32_ids(ids: Sequence[int]) -> NDArray[np.int32]:
    """Ids as the engine takes them; ValueError for one that is not a whole number of 32 bits."""
    array = np.asarray(ids)
    if array.ndim != 1 or (array.size and array.dtype.kind not in "iu"):
        raise ValueError(f"ids must be a sequence of whole numbers, not {array.dtype}{array.shape}")
    if array.size and not -(2**31) <= int(array.min()) <= int(array.max()) < 2**31:
        raise ValueError(f"ids from {array.min()} to {array.max()} are outside any vocabulary")
    return np.ascontiguousarray(array, dtype=np.int32)

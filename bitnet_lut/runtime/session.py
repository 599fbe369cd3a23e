"""A sequence and its cache; and sequences that step together."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native
from bitnet_lut.runtime.batch import Lane

if TYPE_CHECKING:
    from bitnet_lut.model import Model

__all__ = ["BATCH", "Probe", "Session", "SessionBatch", "int32_ids", "step_lanes"]

# Called with the layer (-1 outside the layers), the op's name and its result (n, width).
Probe = Callable[[int, str, NDArray[np.float32]], None]

# Tokens computed at once. More gain nothing: so many decode weights, and wait for threads, rarely.
BATCH = 128


class Session:
    """One sequence: its position and its cache of keys and values. Use it from one thread."""

    def __init__(self, model: "Model", engine: _native.Session) -> None:
        """`Model.session` makes one."""
        self._model, self._engine = model, engine

    @property
    def position(self) -> int:
        """How many tokens it has seen."""
        return self._engine.position

    @property
    def context(self) -> int:
        """How many tokens it has room for."""
        return self._engine.context

    def step(self, ids: Sequence[int], *, every: bool = False) -> NDArray[np.float32]:
        """Run *ids* (n); return the logits (vocab,) after the last, or with every=True (n, vocab).

        A long sequence runs in pieces, between which Ctrl-C is seen; results do not depend on that.
        Raises ValueError for no ids, an id outside the vocabulary, or a full context (nothing has
        been run then), and NumericsError if the result is not finite.
        """
        tokens = self._checked(ids)
        logits = np.empty((len(tokens) if every else 1, self._model.config.vocab_size), np.float32)
        start = self.position
        try:
            for at in range(0, len(tokens), BATCH):
                piece = tokens[at : at + BATCH]
                last = at + BATCH >= len(tokens)
                wanted = logits[at : at + BATCH] if every else logits if last else None
                self._engine.step(piece, wanted)
        except BaseException:
            self._engine.rewind(start)
            raise
        return logits if every else logits.reshape(-1)

    def trace(self, ids: Sequence[int], probe: Probe) -> NDArray[np.float32]:
        """Run *ids* (n) as `step` does and show *probe* the result of every op.

        probe: called as ``probe(layer, op, array)`` in the order of the computation, layer -1
        outside the layers, array float32 (tokens, width), of at most 128 tokens at a time.
        """
        tokens = self._checked(ids)
        logits = np.empty((1, self._model.config.vocab_size), np.float32)
        self._engine.step(tokens, logits, probe=probe)
        return logits.reshape(-1)

    def rewind(self, position: int) -> None:
        """Forget everything from *position* on; ValueError if it was not reached yet."""
        self._engine.rewind(position)

    def fork(self) -> "Session":
        """A second session that goes on from here on its own."""
        return Session(self._model, self._engine.fork())

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
    _native.step_together([session._engine for session in sessions], int32_ids(ids), logits)
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

"""A sequence and its cache; and sequences that step together."""

import os
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bitnet_lut._native import Cache
from bitnet_lut.errors import NumericsError
from bitnet_lut.runtime.arguments import int32_ids, whole_number
from bitnet_lut.runtime.engine import Engine, Probe
from bitnet_lut.runtime.saved import save_cache
from bitnet_lut.runtime.use_lock import UseLock

__all__ = ["Session", "SessionBatch"]


class Session:
    """One sequence: its position and its cache of keys and values.

    One thread at a time may use it; others are refused with RuntimeError. Steps of several sessions
    of one model take turns.
    """

    def __init__(self, engine: Engine, cache: Cache) -> None:
        """`Model.session` makes one."""
        self._engine, self._cache = engine, cache
        self._held = UseLock("session", ": give every thread a session of its own")
        self._ids: list[int] = []

    def __repr__(self) -> str:
        """Where it is, and what its cache takes."""
        cache = self._cache
        name = self._engine.config.name or self._engine.config.architecture
        return (
            f"<Session of {name}: position {cache.position} of {cache.context}, "
            f"{cache.kind} cache of {cache.nbytes / 1e6:,.1f} MB>"
        )

    @property
    def position(self) -> int:
        """How many tokens it has seen."""
        return self._cache.position

    @property
    def context(self) -> int:
        """How many tokens it has room for."""
        return self._cache.context

    @property
    def ids(self) -> tuple[int, ...]:
        """The tokens it has seen."""
        return tuple(self._ids)

    def step(
        self, ids: Sequence[int], *, logits: Literal["last", "all"] = "last"
    ) -> NDArray[np.float32]:
        """Run *ids* (n); return float32 logits, (vocab,) after the last or (n, vocab) after each.

        logits: "last" or "all".
        A long sequence runs in pieces, between which Ctrl-C is seen; results do not depend on that.
        Raises TypeError or ValueError for no ids, ids that are not whole numbers, and ids outside
        the vocabulary, and ValueError for a full context (nothing has been run then), NumericsError
        if the result is not finite, and RuntimeError if another thread uses this session.
        """
        if logits not in ("last", "all"):
            raise ValueError(f"logits is {logits!r}, it must be 'last' or 'all'")
        tokens = int32_ids(ids)
        each = logits == "all"
        with self._held:
            self._check_room(tokens)
            rows = len(tokens) if each else 1
            found = np.empty((rows, self._engine.config.vocab_size), np.float32)
            start, batch = self.position, self._engine.batch
            try:
                for at in range(0, len(tokens), batch):
                    piece = tokens[at : at + batch]
                    if each:
                        self._run(piece, found[at : at + batch])
                    else:
                        self._run(piece, found if at + batch >= len(tokens) else found[:0])
            except BaseException:
                self._cache.rewind(start)
                raise
            self._ids += tokens.tolist()
        return found if each else found.reshape(-1)

    def trace(self, ids: Sequence[int], probe: Probe) -> NDArray[np.float32]:
        """Run *ids* (n) as `step` does and show *probe* the result of every op.

        probe: called as ``probe(layer, op, array)`` in the order of the computation, layer -1
        outside the layers, array float32 (tokens, width), of at most as many tokens at a time
        as are computed at once: 128, or 512 on the tier amx.
        Returns the float32 logits (vocab,) after the last id. Raises what `step` raises.
        """
        tokens = int32_ids(ids)
        with self._held:
            self._check_room(tokens)
            logits = np.empty((1, self._engine.config.vocab_size), np.float32)
            self._run(tokens, logits, probe=probe)
            self._ids += tokens.tolist()
        return logits.reshape(-1)

    def rewind(self, position: int) -> None:
        """Forget everything from *position* on.

        Raises TypeError if it is not a whole number, ValueError if it was not reached yet.
        """
        with self._held:
            position = whole_number("position", position, 0)
            if position > self.position:
                raise ValueError(f"cannot rewind to {position}, the session is at {self.position}")
            self._cache.rewind(position)
            del self._ids[position:]

    def fork(self) -> "Session":
        """A second session that goes on from here on its own."""
        with self._held:
            other = Session(self._engine, self._cache.fork())
            other._ids = list(self._ids)
            return other

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the cache and the ids it holds to a file that only its owner can read.

        `Model.load_session` goes on from there. The file is replaced when the new one is complete.
        Raises OSError, and RuntimeError if another thread uses this session.
        """
        with self._held:
            save_cache(path, self._engine, self._cache, self._ids, {"content": "session"})

    def _run(
        self,
        tokens: NDArray[np.int32],
        logits: NDArray[np.float32],
        hidden: NDArray[np.float32] | None = None,
        *,
        probe: Probe | None = None,
    ) -> None:
        """Run *tokens*; fills *logits* (m, vocab) of the last m, and *hidden* of all."""
        rows = np.arange(len(tokens) - len(logits), len(tokens), dtype=np.int64)
        chunk = (self._cache, tokens)
        if not self._engine.step([chunk], rows, logits, hidden, probe=probe).all():
            raise self._engine.fault(*chunk, len(logits))

    def _check_room(self, tokens: NDArray[np.int32]) -> None:
        if not len(tokens):
            raise ValueError("no ids to run")
        if len(tokens) > self.context - self.position:
            raise ValueError(
                f"{len(tokens)} tokens at position {self.position} do not fit the context of "
                f"{self.context}"
            )


class SessionBatch:
    """Sequences of one model that step together: the weights are read once for all of them.

    sessions: each can also be used alone, to run its prompt, to rewind, to fork.
    """

    def __init__(self, sessions: Sequence[Session]) -> None:
        """`Model.session_batch` makes one."""
        self.sessions = tuple(sessions)

    def __repr__(self) -> str:
        """How many there are."""
        return f"<SessionBatch of {len(self.sessions)}: {self.sessions[0]!r}, ...>"

    def step(self, ids: Sequence[int]) -> NDArray[np.float32]:
        """Run one id on each session; return float32 logits (n, vocab), as if each ran alone.

        Raises TypeError or ValueError for ids that are not whole numbers, not one for each session,
        or outside the vocabulary, and for a full context, and NumericsError if a result is not
        finite. No session has moved then.
        """
        tokens = int32_ids(ids)
        engine = self.sessions[0]._engine
        if len(tokens) != len(self.sessions):
            raise ValueError(f"{len(tokens)} ids for {len(self.sessions)} sessions")
        logits = np.empty((len(tokens), engine.config.vocab_size), np.float32)
        chunks = [(session._cache, tokens[at : at + 1]) for at, session in enumerate(self.sessions)]
        with ExitStack() as held:
            for session in self.sessions:
                held.enter_context(session._held)
            finite = engine.step(chunks, np.arange(len(tokens)), logits)
            if not finite.all():
                for (cache, _), moved in zip(chunks, finite, strict=True):
                    cache.rewind(cache.position - int(moved))
                bad = int(np.flatnonzero(~finite)[0])
                raise NumericsError(f"session {bad}: {engine.fault(*chunks[bad], 1)}")
            for session, id in zip(self.sessions, tokens.tolist(), strict=True):
                session._ids.append(id)
        return logits

"""Steps of one model: its sequences take turns on one workspace."""

import threading
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native
from bitnet_lut.errors import NumericsError

__all__ = ["BATCH", "Chunk", "Steps"]

# Tokens computed at once. More gain nothing: so many decode weights, and wait for threads, rarely.
BATCH = 128

Chunk = tuple[_native.Cache, NDArray[np.int32]]


class Steps:
    """The workspace that all sequences of a model share, as long as the longest of them."""

    def __init__(
        self, weights: _native.Weights, pool: _native.Pool, *, context: int, batch: int = BATCH
    ) -> None:
        """*context*: of the sequences that are expected; a longer one enlarges the workspace."""
        self._lock = threading.Lock()
        self._workspace = _native.Workspace(weights, pool, context=context, batch=batch)

    def run(
        self,
        chunks: Sequence[Chunk],
        rows: NDArray[np.int64],
        logits: NDArray[np.float32],
        hidden: NDArray[np.float32] | None = None,
        *,
        probe: Callable[[int, str, NDArray[np.float32]], None] | None = None,
    ) -> None:
        """Do what `_native.Workspace.step` does, once other threads are done.

        Raises NumericsError if the result of a sequence is not finite; no sequence has then moved.
        """
        with self._lock:
            workspace = self._workspace_of(max(cache.context for cache, _ in chunks))
            before = [cache.position for cache, _ in chunks]
            finite = workspace.step(chunks, rows, logits, hidden, probe=probe)
            if finite.all():
                return
            for (cache, _), position in zip(chunks, before, strict=True):
                cache.rewind(position)
            index = int(np.argmin(finite))
            where = f" of sequence {index}" if len(chunks) > 1 else ""
            fault = _first_fault(workspace, chunks, rows, index)
            raise NumericsError(
                f"the forward pass{where} at position {before[index]} is not finite: {fault}"
            )

    def _workspace_of(self, context: int) -> _native.Workspace:
        old = self._workspace
        if context > old.context:
            self._workspace = _native.Workspace(
                old.weights, old.pool, context=context, batch=old.batch
            )
        return self._workspace


def _first_fault(
    workspace: _native.Workspace, chunks: Sequence[Chunk], rows: NDArray[np.int64], index: int
) -> str:
    start = sum(len(ids) for _, ids in chunks[:index])
    cache, ids = chunks[index]
    own = rows[(rows >= start) & (rows < start + len(ids))] - start
    return _native.first_fault(workspace, cache, ids, own)

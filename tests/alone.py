"""One sequence with a workspace of its own, which shows what it gets when nothing else runs."""

import numpy as np
from numpy.typing import NDArray

from bitnet_lut._native import Cache, Pool, Weights, Workspace, first_fault
from bitnet_lut.errors import NumericsError


class Alone:
    """A cache, and steps of it alone."""

    def __init__(
        self,
        weights: Weights,
        pool: Pool,
        context: int,
        *,
        kind: str = "f16",
        batch: int = 64,
        cache: Cache | None = None,
    ) -> None:
        self.cache = Cache(weights, context, kind=kind) if cache is None else cache
        self.workspace = Workspace(weights, pool, context=context, batch=batch)
        self.weights, self.pool, self.context = weights, pool, context

    @property
    def position(self) -> int:
        return self.cache.position

    def step(
        self,
        ids: NDArray[np.int32],
        logits: NDArray[np.float32] | None = None,
        hidden: NDArray[np.float32] | None = None,
        *,
        probe: object = None,
    ) -> None:
        """Run *ids* (n,); logits (m, vocab) gets those of the last m."""
        rows = np.arange(len(ids) - (0 if logits is None else len(logits)), len(ids))
        chunk = (self.cache, ids)
        if not self.workspace.step([chunk], rows, logits, hidden, probe=probe).all():
            fault = first_fault(self.workspace, *chunk, rows)
            raise NumericsError(f"position {self.position} is not finite: {fault}")

    def rewind(self, position: int) -> None:
        self.cache.rewind(position)

    def fork(self) -> "Alone":
        """Continue from here apart."""
        again = {"kind": self.cache.kind, "batch": self.workspace.batch}
        return Alone(self.weights, self.pool, self.context, cache=self.cache.fork(), **again)

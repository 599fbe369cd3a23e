"""Several sequences at once: each step reads the weights once for all of them."""

from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.runtime.generate import Generation, Steps, TextStream

__all__ = ["Lane", "generate_together"]


S = TypeVar("S", bound=Steps)


class Lane(Generic[S]):
    """A session whose next step may have been computed already, together with others."""

    def __init__(self, session: S) -> None:
        """*session*: what steps when nothing was computed ahead."""
        self.session = session
        self._ready: NDArray[np.float32] | None = None

    @property
    def position(self) -> int:
        """How many tokens it has seen."""
        return self.session.position

    def step(self, ids: Sequence[int], *, every: bool = False) -> NDArray[np.float32]:
        """Return the logits computed ahead, or run *ids*; see `Steps`."""
        if self._ready is None:
            return self.session.step(ids, every=every)
        logits, self._ready = self._ready, None
        return logits[None] if every else logits

    def rewind(self, position: int) -> None:
        """Forget everything from *position* on."""
        self.session.rewind(position)

    def give(self, logits: NDArray[np.float32]) -> None:
        """Take the logits (vocab,) of the step that comes next."""
        self._ready = logits


def generate_together(
    streams: Sequence[TextStream],
    lanes: Sequence[Lane[S]],
    step_together: Callable[[Sequence[Lane[S]], Sequence[int]], NDArray[np.float32]],
) -> list[Generation]:
    """Run streams to their ends, a token of each at a time.

    lanes: the session of each stream. step_together: runs one id on each of some lanes and returns
    their logits (n, vocab).
    """
    running = [index for index, stream in enumerate(streams) if stream.advance()]
    while running:
        ready = [index for index in running if streams[index].wants_step]
        if ready:
            chosen = [lanes[index] for index in ready]
            logits = step_together(chosen, [streams[index].last_id for index in ready])
            for lane, row in zip(chosen, logits, strict=True):
                lane.give(row)
        running = [index for index in running if streams[index].advance()]
    return [stream.result for stream in streams]

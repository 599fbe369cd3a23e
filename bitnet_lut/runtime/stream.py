"""Text piece by piece, while it is generated."""

from collections.abc import Iterator

from bitnet_lut.runtime.generation import Generation
from bitnet_lut.runtime.scheduler import Run, Scheduler
from bitnet_lut.runtime.use_lock import UseLock

__all__ = ["TextStream"]


class TextStream:
    """Iterates over the pieces of a text while it is generated; ``result`` sums up what came.

    One thread at a time may use it. The prompt runs when the first piece is asked for. A stream
    that is dropped or closed midway frees its memory at once.
    """

    def __init__(self, scheduler: Scheduler, run: Run) -> None:
        """`Model.stream` makes one."""
        self._scheduler, self._run, self._lock = scheduler, run, UseLock("stream", "")

    def __iter__(self) -> Iterator[str]:
        """Return itself."""
        return self

    def __next__(self) -> str:
        """Return the next piece of text, never an empty one.

        Raises StopIteration at the end of the text, NumericsError if the model's result is not
        finite, MemoryError if there is no room for the text, ValueError if the model was closed or
        its logits leave nothing to choose, and RuntimeError if another thread uses this stream.
        """
        with self._lock:
            while True:
                piece = self._run.take()
                if piece:
                    return piece
                if self._run.ended:
                    raise StopIteration
                if piece is None:
                    self._scheduler.step()

    def close(self) -> None:
        """End it; what has come so far stays in ``result``."""
        self._run.cancel()

    @property
    def result(self) -> Generation:
        """Everything generated so far, with its timings."""
        return self._run.result

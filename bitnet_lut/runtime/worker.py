"""A thread that steps texts for others, which need not wait for it."""

import threading
from collections.abc import Callable

from bitnet_lut.runtime.decoder import Decoder
from bitnet_lut.runtime.engine import Engine
from bitnet_lut.runtime.scheduler import Run, Scheduler

__all__ = ["Worker"]

# Told every piece of a text, perhaps empty, then the error if there was one, and None at the end.
Listener = Callable[[str | Exception | None], None]


class Worker:
    """Runs the texts of any number of threads on one scheduler, all of them together.

    The thread exists only while there are texts to run.
    """

    def __init__(self, engine: Engine) -> None:
        """Start nothing yet."""
        self._engine = engine
        self._lock = threading.Lock()
        self._new: list[tuple[Run, Listener]] = []
        self._canceled: set[Run] = set()
        self._scheduler = Scheduler(engine)
        self._thread: threading.Thread | None = None

    def start(self, decoder: Decoder, context: int, listener: Listener) -> Run:
        """Run a text whose cache will hold at most *context* positions.

        listener: called by the worker's thread; it must return soon. What it raises cancels the
            text.
        """
        with self._lock:
            run = self._scheduler.add(decoder, context)
            self._new.append((run, listener))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="bitnet_lut worker")
                self._thread.start()
            return run

    def cancel(self, run: Run) -> None:
        """End a text after the step that may be running now; its listener is told nothing more."""
        with self._lock:
            if self._thread is not None:
                self._canceled.add(run)

    def _work(self) -> None:
        listeners: dict[Run, Listener] = {}
        while True:
            with self._lock:
                listeners.update(self._new)
                self._new.clear()
                for run in self._canceled:
                    run.cancel()
                    listeners.pop(run, None)
                self._canceled.clear()
                if not listeners:
                    self._scheduler = Scheduler(self._engine)
                    self._thread = None
                    return
            try:
                self._scheduler.step()
            except Exception as error:
                for run, listener in listeners.items():
                    run.cancel()
                    _tell(run, listener, error)
                    _tell(run, listener, None)
                listeners.clear()
            for run in [run for run, listener in listeners.items() if _deliver(run, listener)]:
                del listeners[run]


def _deliver(run: Run, listener: Listener) -> bool:
    """Tell *listener* what has come; whether that was the end."""
    try:
        while (piece := run.take()) is not None:
            _tell(run, listener, piece)
    except Exception as error:
        _tell(run, listener, error)
    if run.ended:
        _tell(run, listener, None)
    return run.ended


def _tell(run: Run, listener: Listener, what: str | Exception | None) -> None:
    try:
        listener(what)
    except Exception:
        run.cancel()

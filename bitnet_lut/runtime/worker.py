"""A thread that steps texts for others, which need not wait for it."""

import os
import threading
from collections.abc import Callable, Sequence
from functools import partial

from bitnet_lut._native import Pages
from bitnet_lut.runtime.decoder import Decoder
from bitnet_lut.runtime.engine import Engine
from bitnet_lut.runtime.prefixes import Prefixes
from bitnet_lut.runtime.scheduler import Run, Scheduler

__all__ = ["Worker"]

# Told every piece of a text, perhaps empty, then the error if there was one, and None at the end.
Listener = Callable[[str | Exception | None], None]


class Worker:
    """Runs the texts of any number of threads on one scheduler, all of them together.

    The thread exists only while there are texts to run. After os.fork the child begins with none.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        prefixes: Prefixes | None = None,
        budget: float | None = None,
        pages: Pages | None = None,
        on_preempt: Callable[[], None] = lambda: None,
    ) -> None:
        """Start nothing yet; the arguments are those of `Scheduler`."""
        self._new_scheduler = partial(
            Scheduler,
            engine,
            prefixes=prefixes,
            budget=budget,
            pages=pages,
            on_preempt=on_preempt,
        )
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._new: list[tuple[Run, Listener]] = []
        self._canceled: set[Run] = set()
        self._scheduler = self._new_scheduler()
        self._thread: threading.Thread | None = None

    def _begin_after_fork(self) -> None:
        """Forget the texts of the parent: in its child there is no thread that could end them."""
        if self._process != os.getpid():
            self._begin()

    def start(
        self,
        decoder: Decoder,
        context: int,
        listener: Listener,
        *,
        siblings: Sequence[tuple[Decoder, Listener]] = (),
        owner: str = "",
    ) -> Run:
        """Run a text whose cache will hold at most *context* positions.

        listener: called by the worker's thread; it must return soon. What it raises cancels the
            text.
        siblings: more texts of the same prompt, each with its listener. owner: see `Prefixes`.
        Raises what `Scheduler.add` raises.
        """
        self._begin_after_fork()
        with self._lock:
            others = [sibling for sibling, _ in siblings]
            run = self._scheduler.add(decoder, context, siblings=others, owner=owner)
            listeners = [listener, *(other for _, other in siblings)]
            self._new.extend(zip([run, *run.siblings], listeners, strict=True))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="bitnet_lut worker")
                self._thread.start()
            return run

    def cancel(self, run: Run) -> None:
        """End a text after the step that may be running now; its listener is told nothing more."""
        self._begin_after_fork()
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
                    self._scheduler = self._new_scheduler()
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

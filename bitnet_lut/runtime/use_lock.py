"""What one thread at a time may use."""

import os
import threading
from types import TracebackType

__all__ = ["UseLock"]


class UseLock:
    """A lock that does not wait: as a context manager it refuses a second thread, in words."""

    def __init__(self, what: str, advice: str) -> None:
        """For *what*, as "session"; *advice* says what to do where another thread uses it."""
        self._what, self._advice = what, advice
        self._lock, self._process = threading.Lock(), os.getpid()

    def __enter__(self) -> None:
        """Raise RuntimeError if it is in use, or was when this process was forked."""
        process = os.getpid()
        if self._lock.acquire(blocking=False):
            self._process = process
        elif self._process == process:
            raise RuntimeError(f"this {self._what} is in use by another thread{self._advice}")
        else:
            raise RuntimeError(
                f"this {self._what} was in the middle of a step of another thread when this "
                "process was forked: make a new one here"
            )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Let others use it."""
        self._lock.release()

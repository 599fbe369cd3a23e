"""Kernels from outside: their functions, for `_native.Cell`, and the exceptions these raised.

`bitnet_lut.kernels.register` adds to it.
"""

import threading
from collections.abc import Mapping
from typing import Any

__all__ = ["Failures", "failures", "functions"]

# By the kernel's name, what the argument `functions` of `_native.Cell` takes.
functions: dict[str, Mapping[str, Any]] = {}


class Failures:
    """Exceptions of Python functions that C called; C cannot pass them on.

    The caller of C reads `count` before the call and calls `raise_since` after it. The first of
    several exceptions is kept until it is raised.
    """

    def __init__(self) -> None:
        """Start without failures."""
        self.count = 0
        self._error: BaseException | None = None
        self._raised = True
        self._lock = threading.Lock()

    def add(self, error: BaseException) -> None:
        """Remember *error*."""
        with self._lock:
            self.count += 1
            if self._raised:
                self._error, self._raised = error, False

    def raise_since(self, count: int) -> None:
        """Raise the exception that was added after there were *count* of them, if any.

        What is no Exception, and not made to end a program, is raised as a RuntimeError.
        """
        with self._lock:
            if self.count == count or self._error is None:
                return
            self._raised = True
            error = self._error
        if not isinstance(error, Exception | KeyboardInterrupt | SystemExit):
            raise RuntimeError(f"a kernel from outside raised {error!r}") from error
        raise error


failures = Failures()

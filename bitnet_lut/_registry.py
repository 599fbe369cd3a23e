"""Kernels from outside: their functions, for `_native.Cell`, and what these raised.

`bitnet_lut.kernels.register` fills it.
"""

import threading
from collections.abc import Mapping
from typing import Any

__all__ = ["Failures", "failures", "functions"]

# By the kernel's name, what the argument `functions` of `_native.Cell` takes.
functions: dict[str, Mapping[str, Any]] = {}


class Failures:
    """Exceptions of Python functions that C called, and which C cannot hand on.

    Whoever calls C remembers `count` before and calls `raise_since` after. Of several exceptions
    the first is kept until somebody raises it.
    """

    def __init__(self) -> None:
        """Nothing has failed."""
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
        """Raise what failed since there were *count* failures, if anything did."""
        with self._lock:
            if self.count == count or self._error is None:
                return
            self._raised = True
            error = self._error
        raise error


failures = Failures()

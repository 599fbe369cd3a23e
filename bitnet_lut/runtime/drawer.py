"""The drawer of each thread: what draws tokens and scores them in C."""

import threading

from bitnet_lut._native import Drawer
from bitnet_lut.runtime.cpu import choose_isa

__all__ = ["drawer"]

_LOCAL = threading.local()


def drawer() -> Drawer:
    """The drawer of this thread, on the best tier; all tiers draw and score the same."""
    found: Drawer | None = getattr(_LOCAL, "drawer", None)
    if found is None:
        found = _LOCAL.drawer = Drawer(isa=choose_isa())
    return found

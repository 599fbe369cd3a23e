"""Memory on huge pages, where the system gives them."""

import mmap
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

__all__ = ["allocate", "available"]

_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")  # as "always [madvise] never"


def available() -> bool:
    """Whether the system gives them to programs that ask."""
    try:
        return hasattr(mmap, "MADV_HUGEPAGE") and "[never]" not in _SETTING.read_text()
    except OSError:
        return False


def allocate(nbytes: int) -> NDArray[np.uint8]:
    """Zeros of uint8 (nbytes,), at least one, at the start of a page; freed with the array."""
    if hasattr(mmap, "MADV_HUGEPAGE"):  # has no effect on shared memory, the default of mmap
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
    else:
        memory = mmap.mmap(-1, nbytes)
    return np.frombuffer(memory, np.uint8)

"""Memory on huge pages, where the system gives them."""

import mmap

import numpy as np
from numpy.typing import NDArray

__all__ = ["allocate"]


def allocate(nbytes: int) -> NDArray[np.uint8]:
    """Zeros of uint8 (nbytes,), at least one, at the start of a page; freed with the array."""
    if hasattr(mmap, "MADV_HUGEPAGE"):  # has no effect on shared memory, the default of mmap
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
    else:
        memory = mmap.mmap(-1, nbytes)
    return np.frombuffer(memory, np.uint8)

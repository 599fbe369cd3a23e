"""What `bitnet-lut kernels --load` runs in tests: a right kernel, and one wrong in its last row."""

import numpy as np
from outside_kernels import PYTHON, gemm

from bitnet_lut import kernels


def wrong(packed, q, rows, cols):
    found = gemm(packed, q, rows, cols)
    found[:, rows - 1] += np.arange(len(q)) == 4
    return found


kernels.register("right", **PYTHON, sums=kernels.Sums(128))
kernels.register("wrong", **{**PYTHON, "gemm": wrong})

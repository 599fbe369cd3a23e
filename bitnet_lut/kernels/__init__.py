"""The bench for researchers: every ternary kernel on plain arrays, and kernels of your own.

>>> import numpy as np
>>> from bitnet_lut import kernels
>>> kernel = kernels.get("i2_s")
>>> packed = kernel.pack(np.array([[1, 0, -1], [1, 1, 0]], np.int8))
>>> kernel.gemv(packed, np.array([5, 6, 7], np.int8)).tolist()
[-2, 11]
"""

from bitnet_lut.kernels.bounds import Block, Sums
from bitnet_lut.kernels.kernel import Kernel, Packed, PackedWeights, Prepared, get, names
from bitnet_lut.kernels.outside import register, unregister

__all__ = [
    "Block",
    "Kernel",
    "Packed",
    "PackedWeights",
    "Prepared",
    "Sums",
    "get",
    "names",
    "register",
    "unregister",
]

"""One kernel on one tier, from unpacked weights to dot products."""

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native
from bitnet_lut.formats import i2_s


def ternary_dot(
    name: str, isa: str, ternary: NDArray[np.int8], q: NDArray[np.int8], **rows: int
) -> NDArray[np.int32]:
    """What a kernel makes of int8 weights (M, K) and activations (n, K): int32 (n, M)."""
    kernel = _native.Cell(name, isa=isa)
    packed = kernel.pack(i2_s.pack_rows(ternary), ternary.shape[1])
    return kernel.gemm(packed, kernel.prepare(q), *ternary.shape, **rows)

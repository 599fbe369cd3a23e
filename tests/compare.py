"""Equality of arrays, bit for bit."""

import numpy as np
from numpy.typing import NDArray


def assert_same_bits(found: NDArray, expected: NDArray, what: str = "") -> None:
    """Floats must agree in every bit, signs of zeros included; NaN equals any NaN."""
    assert found.dtype == expected.dtype, what
    assert found.shape == expected.shape, what
    nan = np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(found), nan, err_msg=what)
    bits = np.dtype(f"u{found.dtype.itemsize}")
    same = (found.view(bits) == expected.view(bits)) | nan
    if not same.all():
        first = np.argwhere(~same)[0]
        at = tuple(first)
        raise AssertionError(
            f"{what} {np.count_nonzero(~same)} of {same.size} differ, first at {first}: "
            f"{found[at]!r}, expected {expected[at]!r}"
        )

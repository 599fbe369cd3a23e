import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from bitnet_lut.errors import FormatError
from bitnet_lut.formats import ternary


@given(
    weights=arrays.arrays(np.int8, (7, 5), elements=st.integers(-1, 1)),
    scale=st.floats(2**-10, 2**10, width=32),
)
def test_from_scaled_takes_products_apart(weights, scale):
    values, found = ternary.from_scaled(weights * np.float32(scale))
    np.testing.assert_array_equal(values, weights)
    assert found == (scale if weights.any() else 0)


def test_from_scaled_leaves_real_values():
    rng = np.random.default_rng(0)
    assert ternary.from_scaled(rng.standard_normal((3, 500), np.float32)) is None
    mixed = np.ones((1000, 500), np.float32)
    mixed[-1, -1] = 0.9
    assert ternary.from_scaled(mixed) is None


def test_absmean_rounds_half_to_even_over_the_whole_tensor():
    weights = np.float32([[1, -1, 0.5, -0.5], [1.5, -1.5, 2, 0]])  # mean 1
    values, scale = ternary.absmean(weights)
    assert scale == 1
    np.testing.assert_array_equal(values, [[1, -1, 0, 0], [1, -1, 1, 0]])
    values, scale = ternary.absmean(np.zeros((2, 2), np.float32))
    assert scale == np.float32(1e-5)
    assert not values.any()


def test_weights_that_are_not_finite_are_refused():
    for value in (np.nan, np.inf):
        weights = np.ones((2, 2), np.float32)
        weights[1, 1] = value
        for quantize in (ternary.absmean, ternary.from_scaled):
            with pytest.raises(FormatError, match="NaN or infinity"):
                quantize(weights)

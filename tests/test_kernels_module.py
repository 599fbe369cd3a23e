"""The public face of the kernels, on plain arrays."""

import doctest

import numpy as np
import pytest

from bitnet_lut import _native, kernels, reference
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tensors import TernaryMatrix
from bitnet_lut.kernels.bounds import sums_of


@pytest.fixture
def rng():
    return np.random.default_rng(4)


def test_names_and_get():
    assert kernels.names()[: len(_native.kernel_names())] == _native.kernel_names()
    assert kernels.get("i2_s").isa in _native.tier_names()
    assert kernels.get("i2_s", "scalar").isa == "scalar"
    with pytest.raises(ValueError, match="kernel 'nope' is not one of i2_s"):
        kernels.get("nope")
    with pytest.raises(ValueError, match="isa asks for 'nope'"):
        kernels.get("i2_s", "nope")


def test_the_example_of_the_module():
    failed, tried = doctest.testmod(kernels)
    assert (failed, tried) == (0, 5)


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (70, 131), (130, 640)])
def test_products_are_exact(kernel, isa, rng, rows, cols):
    k = kernels.get(kernel, isa)
    weights = rng.integers(-1, 2, (rows, cols), dtype=np.int8)
    q = rng.integers(-128, 128, (5, cols), dtype=np.int8)
    expected = reference.ternary_dot(weights, q)
    packed = k.pack(weights)
    np.testing.assert_array_equal(k.unpack(packed), weights)
    np.testing.assert_array_equal(k.gemm(packed, q), expected)
    np.testing.assert_array_equal(k.gemm(packed, k.prepare(q)), expected)
    np.testing.assert_array_equal(k.gemm(packed, q[::2]), expected[::2])
    found = k.gemv(packed, q[1])
    assert found.dtype == np.int32
    assert found.shape == (rows,)
    np.testing.assert_array_equal(found, expected[1])


def test_rows_and_out(kernel, isa, rng):
    k = kernels.get(kernel, isa)
    rows = 2 * k.panel + 1
    weights = rng.integers(-1, 2, (rows, 40), dtype=np.int8)
    q = rng.integers(-128, 128, (2, 40), dtype=np.int8)
    out = np.full((2, rows), 7, np.int32)
    k.gemm(k.pack(weights), q, lo=k.panel, hi=2 * k.panel, out=out)
    expected = np.full((2, rows), 7)
    expected[:, k.panel : 2 * k.panel] = reference.ternary_dot(weights, q)[:, k.panel : 2 * k.panel]
    np.testing.assert_array_equal(out, expected)


def test_packed_matrices_of_a_model_are_taken_too(isa, rng):
    weights = rng.integers(-1, 2, (6, 200), dtype=np.int8)
    matrix = TernaryMatrix(6, 200, i2_s.pack_rows(weights), np.ones(1, np.float32))
    k = kernels.get("i2_s", isa)
    q = rng.integers(-128, 128, 200, dtype=np.int8)
    np.testing.assert_array_equal(k.gemv(matrix, q), reference.ternary_dot(weights, q[None])[0])
    np.testing.assert_array_equal(k.unpack(matrix), weights)


def test_sizes(kernel):
    k = kernels.get(kernel)
    assert 1.5 < k.bits_per_weight() < 4
    packed = k.pack(np.zeros((2560, 2560), np.int8))
    assert packed.bits_per_weight == k.bits_per_weight()
    assert packed.packed.nbytes == k.packed_bytes(2560, 2560)


def test_time_runs_around_the_ring(kernel, isa, rng):
    k = kernels.get(kernel, isa)
    packed = k.pack(rng.integers(-1, 2, (9, 50), dtype=np.int8)).packed
    ring = np.tile(packed, (3, 1))
    prepared = k.prepare(rng.integers(-128, 128, (2, 50), dtype=np.int8))
    assert k.time(ring, prepared, 9, first=2, count=5) > 0
    assert k.time(ring, prepared, 9, worker=1, workers=3) > 0
    with pytest.raises(ValueError, match="worker 3 is not one of 3"):
        k.time(ring, prepared, 9, worker=3, workers=3)
    with pytest.raises(ValueError, match="bytes of a packed matrix is"):
        k.time(ring[:, :-1].copy(), prepared, 9)
    with pytest.raises(ValueError, match="nothing to time: 0 matrices of 9 x 50"):
        k.time(ring[:0], prepared, 9)


def test_what_does_not_fit_is_refused(isa):
    k = kernels.get("i2_s", isa)
    packed = k.pack(np.zeros((3, 9), np.int8))
    q = np.zeros((2, 9), np.int8)
    with pytest.raises(ValueError, match=r"weights have shape \(9,\)"):
        k.pack(np.zeros(9, np.int8))
    with pytest.raises(ValueError, match=r"must be -1, 0 or \+1"):
        k.pack(np.full((1, 9), 2, np.int8))
    with pytest.raises(ValueError, match="gemv takes one token, not 2: use gemm"):
        k.gemv(packed, q)
    with pytest.raises(ValueError, match="q has 8 activations, the matrix 9 columns"):
        k.gemm(packed, np.zeros((1, 8), np.int8))
    with pytest.raises(ValueError, match=r"q is int16\(2, 9\)"):
        k.gemm(packed, q.astype(np.int16))
    with pytest.raises(ValueError, match="is packed for other, not for i2_s"):
        k.gemm(kernels.Packed("other", 3, 9, packed.packed), q)
    with pytest.raises(ValueError, match="is prepared for i2_s on other"):
        k.gemm(packed, kernels.Prepared("i2_s", "other", 9, k.prepare(q).data))


def test_sums():
    assert kernels.Sums(column=384).largest_cols == (2**31 - 1) // 384
    assert kernels.Sums(128, (kernels.Block(16, 768, 42),)).largest_cols == (2**31 - 1) // 128
    assert kernels.Sums(128, (kernels.Block(16, 768, 43),)).largest_cols == 0
    assert kernels.Sums(1, (kernels.Block(8, 127, 1), kernels.Block(8, 128, 1))).largest_cols == 0
    with pytest.raises(ValueError, match="step and steps must be at least 1"):
        kernels.Sums(128, (kernels.Block(16, 1, 0),))
    with pytest.raises(ValueError, match="must be at least 1"):
        kernels.Sums(column=0)


def test_every_kernel_says_how_large_its_sums_get(kernel, isa):
    k = kernels.get(kernel, isa)
    assert k.sums == sums_of(kernel, isa if k.own else "scalar")
    assert k.sums is not None, "bitnet_lut/kernels/bounds.py does not know it"
    assert k.sums.largest_cols >= _native.MAX_COLS

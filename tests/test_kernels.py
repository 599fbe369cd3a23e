"""Every function of every tier against reference.py, exactly."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from compare import assert_same_bits
from numpy.typing import NDArray
from ternary_dot import ternary_dot
from tiny_model import dense_product

from bitnet_lut import _native, reference
from bitnet_lut.formats import ggml, i2_s
from bitnet_lut.formats.tensors import DenseMatrix

f32 = np.float32
DENSE_COLS = {
    "f32": (0, 1, 15, 16, 17, 255, 256, 257, 300),
    "f16": (1, 15, 16, 17, 255, 256, 257, 300),
    "bf16": (1, 15, 16, 17, 255, 256, 257, 300),
    "q8_0": (32, 64, 224, 256, 288),
    "q4_0": (32, 64, 224, 256, 288),
    "q6_k": (256, 512, 16384, 16640, 768),  # scalar: scales of 64 blocks are converted at once
}
# Byte offset of the float16 scale in a block of a type, and bytes of the block.
SCALES = {"q8_0": (0, 34), "q4_0": (0, 18), "q6_k": (208, 210)}


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20)


def random_ternary(rng: np.random.Generator, rows: int, cols: int) -> NDArray[np.int8]:
    return rng.integers(-1, 2, (rows, cols), dtype=np.int8)


def random_q(rng: np.random.Generator, n: int, cols: int) -> NDArray[np.int8]:
    return rng.integers(-128, 128, (n, cols), dtype=np.int8)


def random_dense(rng: np.random.Generator, type: str, rows: int, cols: int) -> DenseMatrix:
    """Bytes that hold every code of a type, with scales that keep the weights near one."""
    if type not in SCALES:
        weights = rng.normal(size=(rows, cols)).astype(f32)
        return DenseMatrix(type, rows, cols, ggml.quantize(type, weights))
    offset, block_bytes = SCALES[type]
    data = rng.integers(0, 256, (rows, ggml.row_bytes(type, cols)), dtype=np.uint8)
    scales = (rng.normal(size=data.size // block_bytes) / 100).astype(np.float16)
    blocks = data.reshape(-1, block_bytes)
    blocks[:, offset : offset + 2] = scales.view(np.uint8).reshape(-1, 2)
    return DenseMatrix(type, rows, cols, data)


def check(name: str, isa: str, ternary: NDArray[np.int8], q: NDArray[np.int8]) -> None:
    found = ternary_dot(name, isa, ternary, q)
    expected = reference.ternary_dot(ternary, q)
    np.testing.assert_array_equal(found, expected, err_msg=f"{ternary.shape} x {q.shape}")


def test_self_test(isa: str) -> None:
    assert _native.self_test_fault(isa) == ""


@pytest.mark.parametrize(
    "cols", [0, 1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 255, 256, 257, 383, 384, 385, 513]
)
def test_columns(kernel: str, isa: str, rng: np.random.Generator, cols: int) -> None:
    for n in (1, 6):
        check(kernel, isa, random_ternary(rng, 7, cols), random_q(rng, n, cols))


def test_rows_and_tokens(kernel: str, isa: str, rng: np.random.Generator) -> None:
    ternary, q = random_ternary(rng, 9, 161), random_q(rng, 9, 161)
    whole = reference.ternary_dot(ternary, q)
    for rows in range(10):
        for n in range(10):
            found = ternary_dot(kernel, isa, ternary[:rows], q[:n])
            np.testing.assert_array_equal(found, whole[:n, :rows], err_msg=f"{rows} x {n}")


@pytest.mark.parametrize("shape", [(640, 2560), (37, 6912), (64, 14336), (2240, 600)])
@pytest.mark.parametrize("n", [1, 2, 5, 17, 70])
def test_layers_of_models(
    kernel: str, isa: str, rng: np.random.Generator, shape: tuple[int, int], n: int
) -> None:
    if n > 5 and isa == "scalar":
        shape = (shape[0], shape[1] // 8)
    check(kernel, isa, random_ternary(rng, *shape), random_q(rng, n, shape[1]))


@pytest.mark.parametrize("cols", [128, 6912, 14336, 1 << 17])
def test_saturated(kernel: str, isa: str, rng: np.random.Generator, cols: int) -> None:
    """Sums as large as they get: int16 wraps at any of these."""
    alternating = np.where(np.arange(cols) % 2, 127, -128)
    q = np.stack([np.full(cols, 127), np.full(cols, -128), alternating, -1 - alternating])
    ternary = np.concatenate(
        [
            np.ones((2, cols)),
            -np.ones((2, cols)),
            np.where(np.arange(cols) % 2, 1, -1)[None],
            random_ternary(rng, 1, cols),
        ]
    )
    check(kernel, isa, ternary.astype(np.int8), q.astype(np.int8))
    for token in q.astype(np.int8):
        check(kernel, isa, ternary.astype(np.int8), token[None])


def test_row_ranges(kernel: str, isa: str, rng: np.random.Generator) -> None:
    panel = _native.Cell(kernel, isa=isa).panel
    rows = 5 * panel + (panel + 1) // 2
    ternary = random_ternary(rng, rows, 300)
    ends = [*range(0, rows, panel), rows]
    for n in (1, 3):
        q = random_q(rng, n, 300)
        whole = reference.ternary_dot(ternary, q)
        for i, lo in enumerate(ends[:-1]):
            for hi in ends[i:]:
                expected = np.zeros_like(whole)
                expected[:, lo:hi] = whole[:, lo:hi]
                found = ternary_dot(kernel, isa, ternary, q, lo=lo, hi=hi)
                np.testing.assert_array_equal(found, expected, err_msg=f"[{lo}, {hi})")


def test_every_group_of_weights(kernel: str, isa: str, rng: np.random.Generator) -> None:
    """Six weights in every combination, at every place of a group: all byte codes of any layout."""
    digits = np.arange(3**6)[:, None] // 3 ** np.arange(6) % 3 - 1
    for shift in range(6):
        ternary = np.tile(np.roll(digits, shift, axis=1), 5).astype(np.int8)
        for n in (1, 2):
            check(kernel, isa, ternary, random_q(rng, n, 30))


def test_pack_and_unpack(kernel: str, rng: np.random.Generator) -> None:
    layout = _native.Cell(kernel, isa="scalar")
    for rows, cols in ((0, 5), (1, 1), (63, 127), (64, 128), (65, 129), (257, 642), (450, 333)):
        canonical = i2_s.pack_rows(random_ternary(rng, rows, cols))
        packed = layout.pack(canonical, cols)
        assert packed.nbytes == layout.packed_bytes(rows, cols)
        np.testing.assert_array_equal(layout.unpack(packed, rows, cols), canonical)


def test_i2_s_never_reads_beyond_its_rows(isa: str, rng: np.random.Generator) -> None:
    """Code 3, which no file should hold, counts as +2 and touches no other row."""
    kernel = _native.Cell("i2_s", isa=isa)
    packed = i2_s.pack_rows(random_ternary(rng, 3, 200))
    q = random_q(rng, 2, 200)
    before = kernel.gemm(packed.reshape(-1), kernel.prepare(q), 3, 200)
    packed[1] = 0xFF
    after = kernel.gemm(packed.reshape(-1), kernel.prepare(q), 3, 200)
    np.testing.assert_array_equal(after[:, [0, 2]], before[:, [0, 2]])
    np.testing.assert_array_equal(after[:, 1], 2 * q.sum(axis=1, dtype=np.int32))


@pytest.mark.parametrize("name", [name for name in _native.kernel_names() if name != "i2_s"])
def test_code_3_is_refused_by_other_kernels(name: str) -> None:
    with pytest.raises(ValueError, match=f"code 3 is not a ternary weight: {name} cannot hold it"):
        _native.Cell(name, isa="scalar").pack(np.full((1, 32), 0xFF, np.uint8), 100)


def test_matmul_golden(golden: Path, kernel: str, isa: str) -> None:
    cases = np.load(golden / "matmul.npz")
    names = sorted({key.split("__")[0] for key in cases.files})
    assert len(names) == len(json.loads((golden / "matmul.json").read_text()))
    assert len(names) >= 8  # tests/data leaves five out
    for name in names:
        case = {
            key.split("__")[1]: cases[key] for key in cases.files if key.startswith(f"{name}__")
        }
        q, act_max = _native.quantize(case["x"], isa=isa)
        np.testing.assert_array_equal(q, case["q"], err_msg=name)
        assert_same_bits(act_max, case["act_max"], name)
        found = ternary_dot(kernel, isa, case["W"], q)
        np.testing.assert_array_equal(found, case["dot"], err_msg=name)
        factors = [_native.rescale(case["weight_scale"], m) for m in act_max]
        y = found.astype(f32) * np.array(factors, f32)[:, None]
        np.testing.assert_allclose(y, case["y"], rtol=3e-7, atol=0, err_msg=name)


def test_rescale(rng: np.random.Generator) -> None:
    scale, act_max = rng.uniform(1e-5, 1e5, (2, 1000)).astype(f32)
    found = np.array([_native.rescale(s, m) for s, m in zip(scale, act_max, strict=True)], f32)
    assert_same_bits(found, reference.rescale(scale, act_max))


def activation_rows(rng: np.random.Generator, cols: int) -> Iterator[NDArray[np.float32]]:
    normal = rng.normal(size=cols).astype(f32)
    yield normal
    yield from (normal * f32(scale) for scale in (0, -0.0, 1e-30, 1e-40, 1e-5, 1e30, 3e37))
    yield np.where(rng.random(cols) < 0.5, f32(3), f32(-3))
    yield (rng.integers(-254, 255, cols) / 2).astype(f32)  # ties, as the largest is near 127
    yield np.maximum(normal, 0)


@pytest.mark.parametrize("cols", [0, 1, 7, 8, 9, 15, 16, 17, 31, 33, 2560])
def test_quantize(isa: str, rng: np.random.Generator, cols: int) -> None:
    x = np.stack(list(activation_rows(rng, cols)))
    q, act_max = _native.quantize(x, isa=isa)
    expected_q, expected_max = reference.quantize(x)
    np.testing.assert_array_equal(q, expected_q)
    if cols:
        assert_same_bits(act_max, expected_max)
        assert act_max.min() >= reference.ACT_MIN


@pytest.mark.parametrize("cols", [1, 8, 15, 16, 17, 40])
def test_quantize_reports_what_is_not_finite(isa: str, rng: np.random.Generator, cols: int) -> None:
    for at in range(cols):
        for bad, expected in (
            (np.nan, np.nan),
            (-np.nan, np.nan),
            (np.inf, np.inf),
            (-np.inf, np.inf),
        ):
            x = rng.normal(size=(2, cols)).astype(f32)
            x[0, at] = bad
            q, act_max = _native.quantize(x, isa=isa)
            np.testing.assert_array_equal(act_max[0], expected)
            assert not q[0].any()
            assert np.isfinite(act_max[1])
    x = np.full((1, cols), np.inf, f32)
    x[0, -1] = np.nan
    assert np.isnan(_native.quantize(x, isa=isa)[1][0])


@pytest.mark.parametrize("type", DENSE_COLS)
def test_dense_columns(isa: str, rng: np.random.Generator, type: str) -> None:
    for cols in DENSE_COLS[type]:
        matrix = random_dense(rng, type, 9, cols)
        weights = reference.dense_weights(matrix)
        assert_same_bits(
            _native.dense_rows(type, matrix.data, cols, isa=isa), weights, f"{type} {cols}"
        )
        for n in (1, 2, 5):
            x = rng.normal(size=(n, cols)).astype(f32)
            found = dense_product(matrix, x, isa=isa)
            assert_same_bits(found, reference.linear(matrix, x), f"{type} {cols} columns, {n}")


@pytest.mark.parametrize("type", DENSE_COLS)
def test_dense_rows_and_tokens(isa: str, rng: np.random.Generator, type: str) -> None:
    cols = DENSE_COLS[type][-1]
    for rows in (0, 1, 3, 4, 5, 8, 32, 33, 70):
        matrix = random_dense(rng, type, rows, cols)
        for n in (0, 1, 2, 31, 32, 33, 65):
            x = rng.normal(size=(n, cols)).astype(f32)
            found = dense_product(matrix, x, isa=isa)
            assert_same_bits(found, reference.linear(matrix, x), f"{type} {rows} rows, {n}")


def harsh_activations(rng: np.random.Generator, cols: int) -> NDArray[np.float32]:
    """Rows (n, cols) of zeros, subnormal, huge and mixed numbers, and groups that just round up."""
    normal = rng.normal(size=cols)
    below_a_power = np.nextafter(f32(2), f32(0)) * np.where(rng.random(cols) < 0.5, 1, -1)
    scales = 2.0 ** rng.integers(-140, 90, cols)
    outliers = np.where(rng.random(cols) < 0.01, normal * 1e5, normal)
    smallest = np.full(cols, 1e-45)
    ends = [normal * factor for factor in (0, -0.0, 1e-40, 1e-30, 1e30)]
    rows = [normal, below_a_power, -np.abs(below_a_power), normal * scales, outliers, smallest]
    return np.array([*rows, *ends]).astype(f32)


@pytest.mark.parametrize("type", SCALES)
def test_fixed_point_of_harsh_activations(isa: str, rng: np.random.Generator, type: str) -> None:
    matrix = random_dense(rng, type, 5, 512)
    matrix.data[0] = 0x80 if type == "q8_0" else 0  # the largest codes, all of one sign
    offset, block_bytes = SCALES[type]
    one = np.array([1], np.float16).view(np.uint8)
    matrix.data[0].reshape(-1, block_bytes)[:, offset : offset + 2] = one
    if type == "q6_k":
        matrix.data[0].reshape(-1, block_bytes)[:, 192:208] = 0x80
    x = harsh_activations(rng, 512)
    found = dense_product(matrix, x, isa=isa)
    assert_same_bits(found, reference.linear(matrix, x))
    assert not found[np.all(x == 0, axis=1)].any()
    weights = reference.dense_weights(matrix).astype(np.float64)
    exact = x.astype(np.float64) @ weights.T
    largest = np.abs(x.reshape(-1, 32, 16)).max(axis=2).astype(np.float64)
    error = np.abs(weights).reshape(5, 32, 16).sum(axis=2) @ largest.T * 2.0**-20
    rounding = np.abs(weights) @ np.abs(x.T.astype(np.float64)) * 2.0**-21 + 1e-30
    assert np.all(np.abs(found - exact) <= (error + rounding).T)


@pytest.mark.parametrize("type", SCALES)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_fixed_point_does_not_hide_what_is_not_finite(
    isa: str, rng: np.random.Generator, type: str, bad: float
) -> None:
    matrix = random_dense(rng, type, 3, 256)
    for at in range(0, 256, 15):
        x = rng.normal(size=(2, 256)).astype(f32)
        x[0, at] = bad
        found = dense_product(matrix, x, isa=isa)
        assert not np.isfinite(found[0]).any()
        assert np.isfinite(found[1]).all()


@pytest.mark.parametrize("type", SCALES)
@pytest.mark.parametrize("outlier", [1, 1000])
def test_fixed_point_is_as_right_as_floats(
    isa: str, rng: np.random.Generator, type: str, outlier: float
) -> None:
    """Within 3e-6 of the largest result: logits may differ by 1e-5 of it."""
    weights = rng.normal(size=(2000, 2560)).astype(f32)
    matrix = DenseMatrix(type, 2000, 2560, ggml.quantize(type, weights))
    x = rng.normal(size=(2, 2560)).astype(f32)
    x[:, [3, 700, 2559]] *= outlier
    exact = x.astype(np.float64) @ reference.dense_weights(matrix).T.astype(np.float64)
    found = dense_product(matrix, x, isa=isa)
    assert np.abs(found - exact).max() < 3e-6 * np.abs(exact).max()


@pytest.mark.parametrize("type", ["f16", "bf16"])
def test_every_value_of_16_bits(isa: str, type: str) -> None:
    data = np.arange(1 << 16, dtype=np.uint16).view(np.uint8).reshape(16, -1)
    found = _native.dense_rows(type, data, 4096, isa=isa)
    assert_same_bits(found, ggml.dequantize(type, data, 4096))


def test_to_f16(isa: str, rng: np.random.Generator) -> None:
    halves = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(f32)
    halves = halves[np.isfinite(halves)]
    middles = (halves[:-1] + halves[1:]) / 2  # ties: exact in float32
    with np.errstate(all="ignore"):
        near = [np.nextafter(middles, f32(limit)) for limit in (-np.inf, np.inf)]
    special = [0.0, -0.0, 65504, 65519.996, 65520, 65536, 3e38, np.inf, -np.inf, np.nan, 1e-45]
    anything = rng.integers(0, 1 << 32, 1 << 18, dtype=np.uint32).view(f32)
    x = np.concatenate([halves, middles, *near, np.array(special, f32), anything])
    x = np.resize(x, x.size // 16 * 16)
    found = _native.to_f16(x, isa=isa).view(np.float16)
    assert_same_bits(found, reference.to_half(x))


def test_exp_to_2_ulp() -> None:
    """The polynomial against float64; the tiers' exp is compared through silu and softmax."""
    x = np.linspace(-87, 88, 2_000_001).astype(f32)
    exact = np.exp(x.astype(np.float64))
    ulp = np.spacing(exact.astype(f32)).astype(np.float64)
    assert np.max(np.abs(reference.exp(x) - exact) / ulp) < 2
    ends = reference.exp(np.array([-np.inf, -1e30, 1e30, np.inf, np.nan], f32))
    assert_same_bits(ends, reference.exp(np.array([-87, -87, 88, 88, np.nan], f32)))


def test_sincos_is_rounded_correctly() -> None:
    angle = np.linspace(0, 140_000, 1_000_001).astype(f32)
    sine, cosine = reference.sincos(angle)
    np.testing.assert_allclose(sine, np.sin(angle.astype(np.float64)), rtol=6.1e-8, atol=1e-11)
    np.testing.assert_allclose(cosine, np.cos(angle.astype(np.float64)), rtol=6.1e-8, atol=1e-11)


@pytest.mark.parametrize("activation", ["silu", "relu2"])
def test_gate(isa: str, rng: np.random.Generator, activation: str) -> None:
    special = [0.0, -0.0, np.nan, np.inf, -np.inf, 1e-40, 88, -88, 200, -200, 1e19]
    for x in (
        np.linspace(-90, 90, 200_003).astype(f32),
        np.array(special, f32),
        *(rng.normal(size=n).astype(f32) for n in (0, 1, 15, 16, 17)),
    ):
        for up in (np.ones_like(x), rng.normal(size=x.size).astype(f32)):
            with np.errstate(all="ignore"):
                expected = reference.gate(activation, x, up)
            assert_same_bits(_native.gate(activation, x, up, isa=isa), expected, activation)


@pytest.mark.parametrize("n", [1, 2, 15, 16, 17, 31, 255, 2560])
def test_rms_norm(isa: str, rng: np.random.Generator, n: int) -> None:
    for scale in (0, 1e-20, 1, 1e10):
        x, weight = (rng.normal(size=(2, n)) * [[scale], [1]]).astype(f32)
        expected = reference.rms_norm(x, weight, 1e-5)
        assert_same_bits(_native.rms_norm(x, weight, 1e-5, isa=isa), expected)


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("head_dim", "rope_dim"), [(2, 2), (20, 12), (64, 64), (96, 2), (128, 0)])
def test_rope(
    isa: str, rng: np.random.Generator, interleaved: bool, head_dim: int, rope_dim: int
) -> None:
    x = rng.normal(size=head_dim).astype(f32)
    sine, cosine = reference.sincos(rng.uniform(0, 4000, rope_dim // 2).astype(f32))
    found = _native.rope(x, cosine, sine, interleaved=interleaved, isa=isa)
    assert_same_bits(found, reference.rope(x, cosine, sine, interleaved=interleaved))


@pytest.mark.parametrize("kind", _native.CACHE_KINDS)
@pytest.mark.parametrize("head_dim", [16, 48, 64, 80, 128, 144])
@pytest.mark.parametrize("heads", [1, 2, 3, 4])
def test_attention(
    isa: str, rng: np.random.Generator, kind: str, head_dim: int, heads: int
) -> None:
    attend = reference.attention_q8 if kind == "q8" else reference.attention
    scale = f32(1) / np.sqrt(f32(head_dim))
    for length in (1, 2, 3, 4, 5, 15, 16, 17, 130):
        for spread in (0, 1, 20):
            q = rng.normal(0, spread, (heads, head_dim)).astype(f32)
            keys, values = rng.normal(size=(2, length, head_dim)).astype(f32)
            found = _native.attention(q, keys, values, scale, kind=kind, isa=isa)
            if kind == "f16":
                keys, values = (reference.to_half(array).astype(f32) for array in (keys, values))
            expected = attend(q, keys, values, scale)
            assert_same_bits(found, expected, f"length {length}, spread {spread}")


def test_attention_shows_each_weight(isa: str) -> None:
    """Two positions of which only the less likely has a value: its weight is laid bare."""
    q, values = np.zeros((1, 16), f32), np.zeros((2, 16), f32)
    q[0, 0], values[1] = 1, 2.0**100
    for score in np.linspace(-90, 0, 3001).astype(f32):
        keys = np.zeros((2, 16), f32)
        keys[1, 0] = score
        found = _native.attention(q, keys, values, 1.0, isa=isa)
        assert_same_bits(found, reference.attention(q, keys, values, f32(1)), f"score {score}")


def test_attention_in_8_bits_is_near_that_of_floats(rng: np.random.Generator) -> None:
    """Also where a value is a thousand times as large as others, and most weights are small."""
    keys, values = rng.normal(size=(2, 300, 128)).astype(f32)
    values *= 10 ** rng.uniform(-2, 1, (300, 1)).astype(f32)
    for spread in (0.1, 1, 4):
        q = rng.normal(0, spread, (4, 128)).astype(f32)
        exact = reference.attention(q, keys, values, f32(128**-0.5))
        found = reference.attention_q8(q, keys, values, f32(128**-0.5))
        error = np.linalg.norm(found - exact, axis=1) / np.linalg.norm(exact, axis=1)
        assert (error < 0.03).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_attention_in_8_bits_is_not_finite_where_a_row_is_not(
    isa: str, rng: np.random.Generator, bad: float
) -> None:
    for length, at in ((1, 0), (70, 0), (70, 69)):
        for which in range(2):
            rows = rng.normal(size=(2, length, 16)).astype(f32)
            rows[which, at, 3] = bad
            q = rng.normal(size=(1, 16)).astype(f32)
            found = _native.attention(q, *rows, 1.0, kind="q8", isa=isa)
            assert not np.isfinite(found).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_attention_does_not_hide_what_is_not_finite(
    isa: str, rng: np.random.Generator, bad: float
) -> None:
    for length in (1, 4, 6):
        for at in range(length):
            keys, values = rng.normal(size=(2, length, 16)).astype(f32)
            values[at, 3] = bad
            q = rng.normal(size=(1, 16)).astype(f32)
            found = _native.attention(q, keys, values, 1.0, isa=isa)[0]
            assert not np.isfinite(found[3])
            assert np.isfinite(np.delete(found, 3)).all()
            keys[at] = np.nan
            q = np.ones((1, 16), f32)
            assert np.isnan(_native.attention(q, keys, values, 1.0, isa=isa)).all()

"""Kernels alone: kernel x tier x shape x tokens; G multiply-adds/s and GB/s in extra_info."""

import numpy as np
import pytest

from bitnet_lut import _kernels
from bitnet_lut.formats import ggml, i2_s

TIERS = [isa for isa in _kernels.tier_names() if not _kernels.missing_features(isa)]
SHAPES = [(640, 2560), (2560, 2560), (6912, 2560), (2560, 6912)]  # of the 2B-4T model


def _report(benchmark, rows, cols, tokens, weight_bytes):
    if benchmark.disabled:
        return
    seconds = benchmark.stats.stats.median
    benchmark.extra_info["G multiply-adds/s"] = round(rows * cols * tokens / seconds / 1e9, 1)
    benchmark.extra_info["GB/s of weights"] = round(weight_bytes / seconds / 1e9, 1)


@pytest.mark.parametrize("tokens", [1, 4, 128])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("isa", TIERS)
@pytest.mark.parametrize("name", _kernels.kernel_names())
def bench_gemm(benchmark, name, isa, shape, tokens):
    rows, cols = shape
    rng = np.random.default_rng(0)
    weights = rng.integers(-1, 2, (rows, cols), np.int8)
    q = rng.integers(-127, 128, (tokens, cols), np.int8)
    kernel = _kernels.Kernel(name, isa=isa)
    packed, prepared = kernel.pack(i2_s.pack_rows(weights), cols), kernel.prepare(q)
    out = np.zeros((tokens, rows), np.int32)
    dot = benchmark(kernel.gemm, packed, prepared, rows, cols, out=out)
    assert np.array_equal(dot[0, :8], weights[:8].astype(np.int32) @ q[0].astype(np.int32))
    _report(benchmark, rows, cols, tokens, packed.nbytes)


@pytest.mark.parametrize("tokens", [1, 32])
@pytest.mark.parametrize("type", ["f16", "bf16", "q8_0", "q6_k", "q4_0"])
@pytest.mark.parametrize("isa", TIERS)
def bench_head(benchmark, isa, type, tokens):
    rows, cols = 4096, 2560
    rng = np.random.default_rng(0)
    weights = ggml.quantize(type, rng.standard_normal((rows, cols), np.float32)).reshape(rows, -1)
    x = rng.standard_normal((tokens, cols), np.float32)
    out = benchmark(_kernels.dense_gemm, type, weights, x, isa=isa)
    expected = _kernels.dense_rows(type, weights[:1], cols, isa=isa)[0].astype(np.float64) @ x[0]
    assert out[0, 0] == pytest.approx(expected, abs=1e-3)
    _report(benchmark, rows, cols, tokens, weights.nbytes)

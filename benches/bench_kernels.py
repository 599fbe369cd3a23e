"""Kernels alone: kernel x tier x shape x tokens, beside the roofs of the machine in extra_info.

Each round is a fixed number of products, so that seconds can be compared between commits.
"""

import numpy as np
import pytest

from bitnet_lut import _native, kernels
from bitnet_lut.bench.kernels import Roofs, cached_shape, figure_of, matrix_shapes
from bitnet_lut.bench.timing import ring, ring_bytes
from bitnet_lut.formats import ggml

TIERS = [isa for isa in _native.tier_names() if not _native.missing_features(isa)]
# The tiers that have functions of their own for a kernel.
CELLS = [(name, isa) for name in kernels.names() for isa in TIERS if kernels.get(name, isa).own]
TOKENS = [1, 4, 128]
SHAPES = matrix_shapes("2b-4t")
ROUND = {"scalar": 2**28}  # multiply-adds, at least
ROUND_OF_VECTORS = 2**31
ROUNDS = 7
SMALL = (70, 300)  # without timing


@pytest.fixture(scope="session")
def roofs(pytestconfig):
    """The roofs of one thread."""
    return None if pytestconfig.getoption("benchmark_disable") else Roofs(1, ring_bytes())


def _bench(benchmark, roofs, cell, shape, tokens, *, cached):
    kernel = kernels.get(*cell)
    rows, cols = SMALL if benchmark.disabled else shape
    rng = np.random.default_rng(0)
    weights = rng.integers(-1, 2, (rows, cols), np.int8)
    q = rng.integers(-127, 128, (tokens, cols), np.int8)
    packed, prepared = kernel.pack(weights), kernel.prepare(q)
    dot = kernel.gemm(packed, prepared)
    assert np.array_equal(dot[0, :8], weights[:8].astype(np.int32) @ q[0].astype(np.int32))
    matrices = ring(packed, 0 if cached or benchmark.disabled else ring_bytes())
    count = (
        1
        if benchmark.disabled
        else -(-ROUND.get(kernel.isa, ROUND_OF_VECTORS) // (rows * cols * tokens))
    )
    first = 0

    def multiply():
        nonlocal first
        kernel.time(matrices, prepared, rows, first=first, count=count)
        first = (first + count) % len(matrices)

    benchmark.pedantic(multiply, rounds=ROUNDS, warmup_rounds=1)
    if benchmark.disabled:
        return
    seconds = benchmark.stats.stats.median / count
    figure = roofs.above(figure_of(kernel, packed, tokens, 1, cached, seconds))
    _report(benchmark, figure.gmac_s, figure.gb_s)
    benchmark.extra_info["share of roof"] = round(figure.share, 3)
    benchmark.extra_info["GB/s of the roof"] = round(figure.read_gb_s, 1)
    benchmark.extra_info["G multiply-adds/s of the roof"] = round(figure.integer_gmac_s, 1)


def _report(benchmark, gmac_s, gb_s):
    benchmark.extra_info["G multiply-adds/s"] = round(gmac_s, 1)
    benchmark.extra_info["GB/s of weights"] = round(gb_s, 2)


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def bench_gemm(benchmark, roofs, cell, shape, tokens):
    """Weights that stream from memory, like those of a model."""
    _bench(benchmark, roofs, cell, shape, tokens, cached=False)


@pytest.mark.parametrize("tokens", TOKENS)
@pytest.mark.parametrize("cell", CELLS, ids="-".join)
def bench_gemm_in_cache(benchmark, roofs, cell, tokens):
    _bench(benchmark, roofs, cell, cached_shape(1), tokens, cached=True)


@pytest.mark.parametrize("tokens", [1, 32])
@pytest.mark.parametrize("type", ["f16", "bf16", "q8_0", "q6_k", "q4_0"])
@pytest.mark.parametrize("isa", TIERS)
def bench_head(benchmark, isa, type, tokens):
    rows, cols = 64 if benchmark.disabled else 4096, 2560
    rng = np.random.default_rng(0)
    weights = ggml.quantize(type, rng.standard_normal((rows, cols), np.float32)).reshape(rows, -1)
    x = rng.standard_normal((tokens, cols), np.float32)
    packed = _native.pack_dense(type, weights, cols)
    out = benchmark(_native.dense_gemm, type, packed, x, rows, isa=isa)
    expected = _native.dense_rows(type, weights[:1], cols, isa=isa)[0].astype(np.float64) @ x[0]
    assert out[0, 0] == pytest.approx(expected, abs=1e-3)
    if not benchmark.disabled:
        seconds = benchmark.stats.stats.median
        _report(benchmark, rows * cols * tokens / seconds / 1e9, packed.nbytes / seconds / 1e9)

"""The memory of caches and workspaces: what is counted is allocated; wrong sizes are refused."""

import gc
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tiny_model import tiny_config, tiny_tensors

from bitnet_lut import _native
from bitnet_lut._native import (
    CACHE_KINDS,
    PAGE,
    Cache,
    Pages,
    Pool,
    Weights,
    Workspace,
    cache_bytes,
    page_bytes,
    workspace_bytes,
)

CONFIG = tiny_config()
TENSORS = tiny_tensors(CONFIG)
IDS = np.arange(2, dtype=np.int32)
BEST = next(name for name in _native.tier_names() if not _native.missing_features(name))


@pytest.fixture(scope="module")
def weights() -> Weights:
    return Weights(CONFIG, TENSORS, isa=BEST)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(2)


def test_bytes_of_a_cache(weights: Weights) -> None:
    """Keys and values of each layer, head and position, head_dim 20 padded to 32."""
    for context, kind, size in ((1, "f16", 2), (64, "f16", 2), (64, "f32", 4), (4096, "f16", 2)):
        per_position = 2 * CONFIG.block_count * CONFIG.head_count_kv * 32 * size
        assert cache_bytes(weights, context, kind=kind) == context * per_position
        assert page_bytes(weights, kind=kind) == PAGE * per_position
        cache = Cache(weights, context, kind=kind)
        assert cache.nbytes == 0
        cache.reserve(min(context, 70))
        assert cache.nbytes == (1 if context <= 64 else 2) * PAGE * per_position


def virtual_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc/self/statm")
def test_what_was_counted_is_allocated(weights: Weights) -> None:
    pool = Pool(1)
    gc.collect()  # nothing else is freed meanwhile
    heads = {"head_count": 256, "head_count_kv": 256, "head_dim": 2, "rope_dim": 2}
    config = tiny_config(embedding_length=1, feed_forward_length=1, block_count=18, **heads)
    wide = Weights(config, tiny_tensors(config), isa=BEST)

    def one_page() -> Cache:
        cache = Cache(wide, 2**31 - 1, kind="f32")
        cache.reserve(PAGE)
        return cache

    small, huge = os.sysconf("SC_PAGE_SIZE"), 2 << 20
    for total, align, make in (
        (page_bytes(wide, kind="f32"), huge, one_page),
        (
            workspace_bytes(weights, context=200_000, batch=10_000),
            small,
            lambda: Workspace(weights, pool, context=200_000, batch=10_000),
        ),
    ):
        assert total > 32 << 20  # large enough for a mapping of its own
        before = virtual_bytes()
        made = make()
        assert made.nbytes == total
        assert abs(virtual_bytes() - before - total) <= align + 3 * small
        del made
        assert virtual_bytes() == before


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc/self/statm")
def test_many_sequences_cost_their_caches_and_one_workspace(weights: Weights) -> None:
    count, context = 64, 40_000
    total = count * page_bytes(weights) + workspace_bytes(weights, context=context)
    pool = Pool(1)
    gc.collect()
    before = virtual_bytes()
    workspace = Workspace(weights, pool, context=context)
    caches = [Cache(weights, context) for _ in range(count)]
    workspace.step([(cache, IDS) for cache in caches])
    assert [cache.position for cache in caches] == [2] * count
    # Some of it comes from memory that other tests have freed; 64 workspaces would be 380 MB more.
    assert virtual_bytes() - before - total < 1 << 24


@pytest.mark.parametrize("context", [0, -1, 1 << 31, 1 << 58, 1 << 62])
def test_contexts_that_cannot_be(weights: Weights, pool: Pool, context: int) -> None:
    """Sizes in bytes of the largest would wrap around 64 bits."""
    with pytest.raises(ValueError, match=rf"context {context} must be in 1\.\."):
        Cache(weights, context)
    batch = weights.batch
    with pytest.raises(ValueError, match=rf"context {context}, batch {batch} .* must be in 1\.\."):
        Workspace(weights, pool, context=context)
    with pytest.raises(ValueError, match="batch 0"):
        Workspace(weights, pool, context=64, batch=0)
    with pytest.raises(ValueError, match=r"batch 65537 .* 1\.\.65536"):
        Workspace(weights, pool, context=64, batch=65537)


def test_a_workspace_counts_as_many_threads_as_a_pool_can_have(weights: Weights) -> None:
    most = workspace_bytes(weights, context=2**31 - 1, threads=256)
    assert workspace_bytes(weights, context=2**31 - 1, threads=2**31 - 1) == most > 0


def test_a_cache_whose_bytes_do_not_fit_64_bits() -> None:
    heads = {"head_count": 1 << 20, "head_count_kv": 1 << 20, "head_dim": 2, "rope_dim": 2}
    sizes = {"embedding_length": 1, "feed_forward_length": 1, "sub_norms": False}
    one = tiny_tensors(tiny_config(**heads, **sizes, block_count=1, qkv_bias=False), linear="f16")
    blocks = {name: tensor for name, tensor in one.items() if name.startswith("blk.0.")}
    for block in range(1, 64):
        one |= {name.replace("0", str(block), 1): tensor for name, tensor in blocks.items()}
    config = tiny_config(**heads, **sizes, block_count=64, qkv_bias=False)
    weights = Weights(config, one, isa=BEST)
    assert cache_bytes(weights, 1, kind="f32") == 1 << 33
    assert page_bytes(weights, kind="f32") == 1 << 39
    for make in (cache_bytes, Cache):
        with pytest.raises(MemoryError, match="2147483647 positions of 8,589,934,592 bytes"):
            make(weights, 2**31 - 1, kind="f32")


def test_kinds_of_caches(weights: Weights) -> None:
    assert CACHE_KINDS == ("f16", "f32", "q8")
    with pytest.raises(ValueError, match="kind 'q9' of cache is not one of f16, f32, q8"):
        Cache(weights, 8, kind="q9")


def test_a_cache_of_8_bits(weights: Weights) -> None:
    """A byte for each element of a row and a float32 scale; files have whole groups of 16 rows."""
    heads = 2 * CONFIG.block_count * CONFIG.head_count_kv
    assert page_bytes(weights, kind="q8") == PAGE * heads * (32 + 4)
    assert cache_bytes(weights, 1, kind="q8") == cache_bytes(weights, 16, kind="q8")
    assert cache_bytes(weights, 17, kind="q8") == 32 * heads * (32 + 4)
    wide = {"head_count": 1, "head_count_kv": 1, "head_dim": 1026, "rope_dim": 2}
    config = tiny_config(embedding_length=1, feed_forward_length=1, **wide)
    with pytest.raises(ValueError, match="1026 elements, a cache of kind 'q8' keeps at most 1024"):
        Cache(Weights(config, tiny_tensors(config), isa=BEST), 8, kind="q8")


def test_a_supply_of_pages_that_ends(weights: Weights, pool: Pool) -> None:
    """A step that finds no page moves nothing, and runs when another cache has given one back."""
    pages = Pages(weights, most=3)
    first, second = (Cache(weights, 1000, pages=pages) for _ in range(2))
    workspace = Workspace(weights, pool, context=1000)
    ids = np.zeros(128, np.int32)
    workspace.step([(first, ids)])
    assert pages.used == 2
    with pytest.raises(MemoryError, match="all 3 pages of 64 positions are in use"):
        workspace.step([(second, ids)])
    assert (second.position, pages.used) == (0, 2)
    workspace.step([(second, ids[:64])])
    with pytest.raises(MemoryError, match="all 3 pages"):
        workspace.step([(second, ids[:1])])
    first.rewind(64)
    assert pages.used == 2
    workspace.step([(second, ids[:1])])
    del second
    assert pages.used == 1


def test_pages_of_something_else(weights: Weights) -> None:
    for other in (Pages(Weights(CONFIG, TENSORS, isa=BEST)), Pages(weights, kind="f32")):
        with pytest.raises(ValueError, match="pages are of other weights or of another kind"):
            Cache(weights, 8, pages=other)
    with pytest.raises(ValueError, match="most 0 must be at least one page"):
        Pages(weights, most=0)
    with pytest.raises(ValueError, match="kind 'q9' of cache"):
        Pages(weights, kind="q9")


LIMITED = """
import resource, sys
sys.path.append(".")
from test_cache_memory import BEST, Cache, Weights, tiny_config, tiny_tensors

heads = {"head_count": 256, "head_count_kv": 256, "head_dim": 2, "rope_dim": 2}
config = tiny_config(embedding_length=1, feed_forward_length=1, block_count=18, **heads)
cache = Cache(Weights(config, tiny_tensors(config), isa=BEST), 10**6, kind="f32")
cache.reserve(64)
resource.setrlimit(resource.RLIMIT_AS, (1 << 20, -1))
try:
    cache.reserve(65)
except MemoryError as error:
    print(error, cache.pages.used, cache.nbytes)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not keep this limit")
def test_more_memory_than_there_is() -> None:
    page = 64 * 4 * 16 * 2 * 256 * 18
    done = subprocess.run(
        [sys.executable, "-c", LIMITED], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    assert done.stdout == (f"no memory for a page of 64 positions, {page:,} bytes 1 {page}\n"), (
        done.stderr
    )

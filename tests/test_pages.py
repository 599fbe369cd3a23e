"""Caches that share pages against caches that share nothing."""

from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from tiny_model import tiny_config, tiny_tensors

from bitnet_lut import _native
from bitnet_lut._native import CACHE_KINDS, PAGE, Cache, Pages, Pool, Weights, Workspace

BEST = next(name for name in _native.tier_names() if not _native.missing_features(name))
CONFIG = tiny_config(block_count=1)
WEIGHTS = Weights(CONFIG, tiny_tensors(CONFIG), isa=BEST)
CONTEXT = 4 * PAGE
WORKSPACE = Workspace(WEIGHTS, Pool(1), context=CONTEXT)


def run(cache: Cache, ids: list[int]) -> Any:
    """The logits after the last of *ids*."""
    logits = np.empty((1, CONFIG.vocab_size), np.float32)
    chunk = (cache, np.array(ids, np.int32))
    assert WORKSPACE.step([chunk], np.array([len(ids) - 1]), logits).all()
    return logits


class SharedCaches(RuleBasedStateMachine):
    """Caches of one limited supply fork, go on, go back, are filled and go.

    Beside each stands the list of the ids that it should hold.
    """

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[tuple[Cache, list[int]]] = []
        self.seed = 0

    @initialize(kind=st.sampled_from(CACHE_KINDS), most=st.integers(4, 20))
    def begin(self, kind: str, most: int) -> None:
        self.kind, self.pages = kind, Pages(WEIGHTS, kind=kind, most=most)
        self.new()

    @precondition(lambda self: len(self.texts) < 6)
    @rule()
    def new(self) -> None:
        self.texts.append((Cache(WEIGHTS, CONTEXT, kind=self.kind, pages=self.pages), []))

    @rule(which=st.integers(0, 5), n=st.integers(1, 9) | st.integers(1, 2 * PAGE + 3))
    def go_on(self, which: int, n: int) -> None:
        cache, ids = self.texts[which % len(self.texts)]
        n = min(n, CONTEXT - cache.position)
        if n == 0:
            return
        self.seed += 1
        new = np.random.default_rng(self.seed).integers(0, CONFIG.vocab_size, n).tolist()
        free = self.pages.most - self.pages.used
        before = self.pages.used
        try:
            run(cache, new)
        except MemoryError:
            assert free < -(-n // PAGE) + 1  # one more for the copy of a page that is shared
            assert self.pages.used - before <= 1
            return
        ids += new

    @precondition(lambda self: len(self.texts) < 6)
    @rule(which=st.integers(0, 5), part=st.floats(0, 1))
    def fork(self, which: int, part: float) -> None:
        cache, ids = self.texts[which % len(self.texts)]
        used, start = self.pages.used, int(part * len(ids))
        self.texts.append((cache.fork(position=start), ids[:start]))
        assert self.pages.used == used

    @precondition(lambda self: len(self.texts) < 6)
    @rule(which=st.integers(0, 5), n=st.integers(1, PAGE), part=st.floats(0, 1))
    def branch(self, which: int, n: int, part: float) -> None:
        """Two texts go on from the same page, each in its own way."""
        self.go_on(which, n)
        self.fork(which, part)
        self.go_on(which, 1)
        self.go_on(len(self.texts) - 1, 1)

    @rule(which=st.integers(0, 5), part=st.floats(0, 1))
    def go_back(self, which: int, part: float) -> None:
        cache, ids = self.texts[which % len(self.texts)]
        del ids[int(part * len(ids)) :]
        cache.rewind(len(ids))

    @rule(which=st.integers(0, 5), other=st.integers(0, 5))
    def fill(self, which: int, other: int) -> None:
        target, ids = self.texts[which % len(self.texts)]
        source, held = self.texts[other % len(self.texts)]
        data = source.read()
        held = list(held)
        try:
            target.fill(data, len(held))
        except MemoryError:
            held = []
        ids[:] = held
        assert target.position == len(ids)

    @precondition(lambda self: len(self.texts) > 1)
    @rule(which=st.integers(0, 5))
    def free(self, which: int) -> None:
        del self.texts[which % len(self.texts)]

    @invariant()
    def texts_are_what_they_are_alone(self) -> None:
        if not hasattr(self, "pages"):
            return
        for cache, ids in self.texts:
            plain = Cache(WEIGHTS, CONTEXT, kind=self.kind)
            if ids:
                run(plain, ids)
            assert (cache.read() == plain.read()).all()
        held = {page for cache, _ in self.texts for page in cache.held_pages}
        assert len(held) == self.pages.used <= self.pages.most
        for cache, ids in self.texts:
            assert (cache.position, len(cache.held_pages)) == (len(ids), -(-len(ids) // PAGE))


TestSharedCaches = SharedCaches.TestCase
TestSharedCaches.settings = settings(
    max_examples=100,
    stateful_step_count=30,
    deadline=None,
)


def test_who_goes_on_first_copies_the_page() -> None:
    """The other one then has it for itself; pages that are full are never copied."""
    first = Cache(WEIGHTS, CONTEXT)
    run(first, [1] * (PAGE + 3))
    second = first.fork()
    assert first.held_pages == second.held_pages
    run(second, [2])
    assert first.held_pages[0] == second.held_pages[0]
    assert first.held_pages[1] != second.held_pages[1]
    before = first.held_pages
    run(first, [3])
    assert first.held_pages == before
    assert first.pages.used == 3


def test_a_reserved_page_is_used_by_the_step() -> None:
    cache = Cache(WEIGHTS, CONTEXT)
    cache.reserve(PAGE + 1)
    before = cache.held_pages
    assert len(before) == 2
    run(cache, [1] * (PAGE + 1))
    assert cache.held_pages == before
    with pytest.raises(ValueError, match="256 tokens at position 65 do not fit the context of 256"):
        cache.reserve(CONTEXT)
    with pytest.raises(ValueError, match="-1 tokens"):
        cache.reserve(-1)

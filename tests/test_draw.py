"""Drawing and scoring tokens in C, on every tier, against the same arithmetic in NumPy."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from bitnet_lut import Sampling
from bitnet_lut._native import Changes, Drawer, Pool, missing_features, tier_names
from bitnet_lut.reference import exp
from bitnet_lut.runtime.cpu import choose_isa
from bitnet_lut.runtime.logprobs import Scoring
from bitnet_lut.runtime.sampling import Drawing, Sampler

f32 = np.float32
BINS, BLOCK, LANES = 1024, 1024, 16
ALL = {"top_k": 0, "typical_p": 1.0, "top_p": 1.0, "log_min_p": -math.inf}  # are kept
DRAWERS = {isa: Drawer(isa=isa) for isa in tier_names() if not missing_features(isa)}


def draw(drawer: Drawer, logits, **how) -> int:
    return drawer.draw([Drawing(logits, **how)])[0]


def weigh(logits: NDArray[np.float32], peak: np.float32, scale: np.float32):
    with np.errstate(over="ignore"):
        x = (logits - peak) * scale
    return np.where(x < -87, f32(0), exp(x))


def sum_blocks(weights: NDArray[np.float32]) -> float:
    total = 0.0
    for at in range(0, weights.size, BLOCK):
        total += sum_lanes(weights[at : at + BLOCK])
    return total


def sum_lanes(weights: NDArray[np.float32]) -> float:
    padded = np.zeros(-(-weights.size // LANES) * LANES)
    padded[: weights.size] = weights
    lanes = np.zeros(LANES)
    for row in padded.reshape(-1, LANES):
        lanes += row
    while lanes.size > 1:
        lanes = lanes[: lanes.size // 2] + lanes[lanes.size // 2 :]
    return float(lanes[0])


def nucleus(logits, ids, peak, top_p):
    """Of *ids*, those that top_p keeps."""
    weights = weigh(logits[ids], peak, f32(1))
    return ids[reached(logits[ids], peak, ids, weights, top_p * sum_blocks(weights))]


def typical(logits, ids, peak, typical_p):
    """Of *ids*, those that typical_p keeps."""
    weights = weigh(logits[ids], peak, f32(1))
    total = sum_blocks(weights)
    with np.errstate(over="ignore", invalid="ignore"):
        below = logits[ids] - peak
        products = np.where(weights > 0, weights.astype(float) * below.astype(float), 0)
        keys = -np.abs(below - f32(sum_blocks(products) / total))
    return ids[reached(keys, f32(0), ids, weights, typical_p * total)]


def reached(keys, highest, ids, weights, wanted: float):
    """The fewest of a ranking by *keys* whose weights reach what is wanted, as a mask."""
    with np.errstate(over="ignore"):
        below = (highest - keys) * f32(32)
    passed, at = pass_bins(below, ids, weights, 0.0, wanted)
    if at == BINS:
        return np.ones(ids.size, bool)
    members = np.flatnonzero(np.minimum(below, BINS - 1).astype(int) == at)
    with np.errstate(over="ignore"):
        parts = (below[members] - f32(at)) * f32(BINS)
    numbers = np.minimum(parts, BINS - 1).astype(int)
    highest_part = numbers.max()
    first = numbers < highest_part  # the last one is taken if no other is
    passed, part = pass_bins(
        parts[first], ids[members][first], weights[members][first], passed, wanted
    )
    ranked = members[numbers == min(part, highest_part)]
    for last in ranked[np.lexsort((ids[ranked], -keys[ranked]))]:
        passed += float(weights[last])
        if passed >= wanted:
            break
    return (keys > keys[last]) | ((keys == keys[last]) & (ids <= ids[last]))


def pass_bins(below, ids, weights, passed: float, wanted: float) -> tuple[float, int]:
    """The bin in which the weights reach what is wanted, BINS if none, and their sum before it."""
    bins = np.minimum(below, BINS - 1).astype(int)
    lanes = [
        np.bincount(bins[ids % 4 == i], weights[ids % 4 == i].astype(float), BINS) for i in range(4)
    ]
    for at, mass in enumerate((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])):
        if passed + mass >= wanted:
            return passed, at
        passed += mass
    return passed, BINS


def twin(logits, *, top_k, typical_p, top_p, log_min_p, temperature, uniform) -> int:
    """What sampling.h says."""
    ids = np.arange(logits.size)
    peak = logits.max()
    if temperature == 0:
        return int(logits.argmax())
    if 0 < top_k < logits.size:
        ids = np.sort(np.lexsort((ids, -logits))[:top_k])
    if typical_p < 1:
        ids = typical(logits, ids, peak, typical_p)
        peak = logits[ids].max()
    if top_p < 1:
        ids = nucleus(logits, ids, peak, top_p)
    with np.errstate(over="ignore"):
        ids = ids[logits[ids] >= f32(float(peak) + log_min_p)]
    weights = weigh(logits[ids], peak, f32(1 / min(max(temperature, 1.2e-38), 8e37)))
    blocks = [weights[at : at + BLOCK] for at in range(0, weights.size, BLOCK)]
    sums = [sum_lanes(block) for block in blocks]
    total = passed = 0.0
    for each in sums:
        total += each
    wanted = uniform * total
    last = 0
    for number, (block, mass) in enumerate(zip(blocks, sums, strict=True)):
        if passed + mass > wanted:
            cumulative = np.cumsum(np.concatenate([[passed], block.astype(float)]))[1:]
            above = np.flatnonzero(cumulative > wanted)
            if above.size:
                return int(ids[number * BLOCK + above[0]])
            last = number * BLOCK + int(np.flatnonzero(block > 0)[-1])
        passed += mass
    return int(ids[last])


def twin_of(drawing: Drawing) -> int:
    logits, *how, changes = drawing
    if changes:
        logits = changes.applied(logits)
    return twin(logits, **dict(zip(Drawing._fields[1:-1], how, strict=True)))


def check(logits: NDArray[np.float32], **how: float) -> None:
    expected = twin(logits, **how)
    found = {isa: draw(drawer, logits, **how) for isa, drawer in DRAWERS.items()}
    assert found == dict.fromkeys(DRAWERS, expected)


LOGITS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 5.5, -math.inf, 87.0, -87.0, 3.0e38, -3.0e38, 1e-40]),
    st.floats(-50, 50, width=32),
)
HOW = st.fixed_dictionaries(
    {
        "top_k": st.one_of(st.just(0), st.integers(1, 300)),
        "typical_p": st.one_of(st.just(1.0), st.floats(1e-6, 1)),
        "top_p": st.one_of(st.just(1.0), st.floats(1e-6, 1)),
        "log_min_p": st.one_of(st.just(-math.inf), st.floats(-60, 0)),
        "temperature": st.sampled_from([0.0, 1.0, 0.7, 1e-3, 1e-300, 50.0, 1e300]),
        "uniform": st.one_of(st.just(0.0), st.floats(0, 1, exclude_max=True), st.just(1 - 2**-53)),
    }
)


def check_scores(logits: NDArray[np.float32], top: int) -> None:
    peak = logits.max()
    total = sum_blocks(weigh(logits, peak, f32(1)))
    ids = np.lexsort((np.arange(logits.size), -logits))[:top].tolist()
    for isa, drawer in DRAWERS.items():
        (found,) = drawer.score([(logits, top)])
        assert (*found[:2], found[2].tolist()) == (float(peak), total, ids), isa
    with np.errstate(over="ignore", under="ignore"):
        exact = math.fsum(np.exp(logits.astype(float) - float(peak)))
    assert math.log(total) == pytest.approx(math.log(exact), abs=1e-6)


@settings(max_examples=400, deadline=None)
@given(st.lists(LOGITS, min_size=1, max_size=300), HOW)
def test_awkward_logits(values, how):
    logits = np.array(values, f32)
    if np.isfinite(logits.max()):
        check(logits, **how)
        check_scores(logits, min(how["top_k"], logits.size))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 9000), st.sampled_from([0.01, 1.0, 3.0, 12.0]), HOW)
def test_vocabularies(seed, size, spread, how):
    random = np.random.default_rng(seed)
    logits = (random.standard_normal(size) * spread).astype(f32)
    if seed % 3 == 0:
        logits = np.round(logits)  # many equal ones
    check(logits, **how)


SETTINGS = [
    {"temperature": 0.0},
    {},
    {"top_k": 1},
    {"top_k": 40},
    {"top_p": 0.95},
    {"top_p": 1 - 1e-12},
    {"typical_p": 0.2},
    {"typical_p": 0.95},
    {"typical_p": 1 - 1e-12},
    {"typical_p": 0.5, "log_min_p": math.log(0.5)},
    {"log_min_p": math.log(0.05)},
    {"log_min_p": 0.0},
    {"top_k": 700, "top_p": 0.5, "log_min_p": -20.0},
    {"top_k": 700, "typical_p": 0.9, "top_p": 0.5, "log_min_p": -20.0},
]


@pytest.mark.parametrize("size", [1, 15, 16, 17, 63, 64, 65, 1000, 1023, 1024, 1025, 128_256])
def test_sizes(size):
    """Around vectors, parts and blocks: a heap, subnormal and equal logits, one finite one."""
    random = np.random.default_rng(size)
    heap = (random.standard_normal(size) * 2).astype(f32)
    heap[random.integers(0, size, 1 + size // 1000)] += f32(12)
    rows = [heap, heap * f32(1e-42), np.full(size, -3.0e38, f32), np.full(size, -math.inf, f32)]
    rows[3][random.integers(size)] = 2.0
    for row in rows if size < 100_000 else rows[:1]:
        for setting in SETTINGS:
            how = {**ALL, "temperature": 0.8, **setting}
            check(row, **how, uniform=random.random())
        for top in {0, 1, min(20, size), size}:
            check_scores(row, top)


@pytest.mark.parametrize(
    "sampling",
    [
        {},
        {"top_k": 40},
        {"top_p": 0.9},
        {"min_p": 0.1},
        {"typical_p": 0.6},
        {"top_k": 500, "top_p": 0.95, "min_p": 0.02},
        {"top_k": 30, "typical_p": 0.8, "top_p": 0.9, "min_p": 0.3},
    ],
)
def test_frequencies_are_the_probabilities(sampling):
    """Those of float64, within five standard deviations."""
    random = np.random.default_rng(3)
    logits = (random.standard_normal(50) * 2).astype(f32)
    sampler = Sampler(Sampling(temperature=0.8, seed=1, **sampling))
    counts = np.bincount([sampler(logits, ()) for _ in range(20_000)], minlength=50) / 20_000
    ids = sampler._candidates(logits)  # by NumPy
    expected = np.zeros(50)
    expected[ids] = np.exp(logits[ids].astype(float) / 0.8)
    expected /= expected.sum()
    deviation = np.sqrt(expected * (1 - expected) / 20_000)
    assert np.all(np.abs(counts - expected) <= 5 * deviation + 1e-12)


def changes(vocab: int, **how) -> Changes:
    no_ids, no_numbers = np.empty(0, np.int64), np.empty(0)
    off = {"history": no_ids, "prompt": 0, "repetition": 1, "presence": 0, "frequency": 0}
    return Changes(
        vocab, **{"bias": (no_ids, no_numbers), "others": (no_ids, no_numbers)} | off | how
    )


def random_changes(random: np.random.Generator, vocab: int) -> Changes | None:
    """Some of them, none, or all."""
    how = {
        "bias": (random.integers(0, vocab, 3), random.standard_normal(3).astype(f32).astype(float)),
        "others": (random.integers(0, vocab, 9), np.repeat([-0.7, -math.inf], [4, 5])),
        "history": random.integers(0, vocab, 60),
        "prompt": 20,
        "allowed": random.random(vocab) < 0.6,
    }
    chosen = {name: how[name] for name in how if random.random() < 0.5}
    if "history" not in chosen:
        chosen.pop("prompt", None)
    numbers = {"repetition": 1.3, "presence": 0.5, "frequency": -0.25}
    return changes(vocab, **chosen, **numbers) if random.random() < 0.8 else None


def test_changes_by_their_definition():
    random = np.random.default_rng(8)
    row = (random.standard_normal(50) * 3).astype(f32)
    history = random.integers(0, 50, 40)
    allowed = random.random(50) < 0.7
    bias = np.array([3, 4]), np.array([1.5, -math.inf])
    others = np.array([3, 9, 9]), np.array([-0.7, -0.1, -math.inf])
    penalties = {"repetition": 1.1, "presence": 0.3, "frequency": 0.2}
    found = changes(
        50, bias=bias, history=history, prompt=15, others=others, allowed=allowed, **penalties
    ).applied(row)
    expected = row.copy()
    expected[bias[0]] += bias[1].astype(f32)
    seen = np.unique(history)
    expected[seen] = np.where(expected[seen] > 0, expected[seen] / 1.1, expected[seen] * 1.1)
    generated, times = np.unique(history[15:], return_counts=True)
    expected[generated] -= 0.3 + 0.2 * times
    expected[3] -= 0.7
    expected[9] = -math.inf
    expected[~allowed] = -math.inf
    assert found.tolist() == expected.tolist()


def test_changes_that_do_not_fit_are_refused():
    ids, numbers = np.array([2, 5]), np.zeros(2)
    for name, what in {"bias": "logit_bias", "others": "history"}.items():
        with pytest.raises(ValueError, match=f"{what} holds id 5, the vocabulary has 5"):
            changes(5, **{name: (ids, numbers)})
        with pytest.raises(ValueError, match=f"how many numbers {what} has is 1, expected 2"):
            changes(6, **{name: (ids, numbers[:1])})
        with pytest.raises(TypeError, match="must be arrays, not None"):
            changes(6, **{name: (ids, None)})
    with pytest.raises(ValueError, match="history holds id -1"):
        changes(5, history=np.array([0, -1]))
    with pytest.raises(ValueError, match="3 ids of the history are a prompt, it has 2"):
        changes(9, history=ids, prompt=3)
    with pytest.raises(ValueError, match="length of allowed is 4, expected 5"):
        changes(5, allowed=np.ones(4, bool))
    with pytest.raises(ValueError, match="the vocabulary has 0 ids"):
        changes(0)
    row = np.zeros(5, f32)
    with pytest.raises(ValueError, match="length of a row is 5, expected 6"):
        changes(6).applied(row)
    with pytest.raises(ValueError, match="vocabulary of changes is 6, expected 5"):
        DRAWERS["scalar"].draw([Drawing(row, 0, 1.0, 1.0, -1.0, 1.0, 0.5, changes(6))])


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_rows_that_threads_share(threads):
    random = np.random.default_rng(threads)
    drawer = Drawer(isa=choose_isa(), pool=Pool(threads))
    for count in [0, 1, 2, 5, 40]:
        rows = []
        for _ in range(count):
            logits = (random.standard_normal(700) * 3).astype(f32)
            shares = random.uniform(0.5, 1, 2).tolist()
            how = (int(random.integers(0, 50)), *shares, -math.inf, 0.9)
            rows.append(Drawing(logits, *how, random.random(), random_changes(random, 700)))
        if count > 2:
            rows[1].logits[:] = math.nan
        expected = [-1 if np.isnan(one[0]).any() else twin_of(one) for one in rows]
        before = [one.logits.tobytes() for one in rows]
        assert drawer.draw(rows) == expected
        assert [one.logits.tobytes() for one in rows] == before
    scorings = [(one.logits, number % 4) for number, one in enumerate(rows)]
    found = drawer.score(scorings)
    assert [one is None for one in found] == [number == 1 for number in range(40)]
    for scoring, together in zip(scorings, found, strict=True):
        (alone,) = DRAWERS["scalar"].score([scoring])
        assert str(together) == str(alone)
    assert drawer.score([]) == []
    with pytest.raises(ValueError, match="length of a row is 5, expected 700"):
        drawer.score([*scorings, (np.zeros(5, f32), 1)])
    rows.append(rows[0]._replace(logits=np.zeros(5, f32), changes=None))
    with pytest.raises(ValueError, match="length of a row is 5, expected 700"):
        drawer.draw(rows)


@pytest.mark.parametrize("isa", DRAWERS)
@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf])
@pytest.mark.parametrize("at", [0, 17, 68])
def test_there_is_nothing_to_choose_from(isa, bad, at):
    how = ALL | {"temperature": 1.0, "uniform": 0.5}
    row = np.zeros(69, f32)
    row[3] = -math.inf
    assert draw(DRAWERS[isa], row, **how) >= 0
    row[at] = bad
    assert draw(DRAWERS[isa], row, **how) == -1
    assert draw(DRAWERS[isa], np.full(69, -math.inf, f32), **how) == -1
    (score,) = DRAWERS[isa].score([(row, 3)])
    with pytest.raises(ValueError, match="there is nothing to score"):
        Scoring(row, 3).token(0, score)


@pytest.mark.parametrize(
    "wrong",
    [
        {"top_k": -1},
        {"top_p": 0.0},
        {"typical_p": 1.5},
        {"top_p": math.nan},
        {"log_min_p": 0.1},
        {"temperature": -1.0},
        {"temperature": math.nan},
        {"uniform": 1.0},
    ],
)
def test_what_is_out_of_range_is_refused(wrong):
    how = ALL | {"log_min_p": -1.0, "temperature": 1.0, "uniform": 0.5}
    drawer = DRAWERS["scalar"]
    with pytest.raises(ValueError, match="must be in their ranges"):
        draw(drawer, np.zeros(5, f32), **how | wrong)
    with pytest.raises(ValueError, match="there are 0 logits"):
        draw(drawer, np.zeros(0, f32), **how)
    with pytest.raises(ValueError, match="top is 6, there are 5 logits"):
        drawer.score([(np.zeros(5, f32), 6)])

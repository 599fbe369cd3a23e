"""Weights, Cache, Workspace and Pool: positions, errors, threads, and use after fork()."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from alone import Alone
from compare import assert_same_bits
from numpy.typing import NDArray
from tiny_model import dense_matrix, tiny_config, tiny_tensors

import bitnet_lut
from bitnet_lut import _native, reference
from bitnet_lut._native import (
    CACHE_KINDS,
    Pool,
    Weights,
    Workspace,
)
from bitnet_lut.errors import NumericsError
from bitnet_lut.formats.tensors import DenseMatrix, TernaryMatrix
from bitnet_lut.runtime.packing import pack_matrix

CONFIG = tiny_config()
TENSORS = tiny_tensors(CONFIG)
IDS = np.random.default_rng(5).integers(0, CONFIG.vocab_size, 48, dtype=np.int32)
BEST = next(name for name in _native.tier_names() if not _native.missing_features(name))


@pytest.fixture(scope="module")
def weights() -> Weights:
    return Weights(CONFIG, TENSORS, isa=BEST)


@pytest.fixture(scope="module")
def pool() -> Pool:
    return Pool(2)


@pytest.fixture
def session(weights: Weights, pool: Pool) -> Alone:
    return Alone(weights, pool, len(IDS))


@pytest.fixture(scope="module")
def expected() -> NDArray[np.float32]:
    """Logits of every position of IDS."""
    return reference.forward(CONFIG, TENSORS, IDS, kv="f16")[0]


def step(session: Alone, ids: NDArray[np.int32]) -> NDArray[np.float32]:
    """Logits of every one of *ids*."""
    logits = np.zeros((len(ids), session.weights.config.vocab_size), np.float32)
    session.step(ids, logits)
    return logits


def test_steps_continue_where_the_last_ended(session: Alone, expected: NDArray) -> None:
    assert session.position == 0
    assert session.context == len(IDS)
    for start, end in ((0, 5), (5, 6), (6, 6), (6, 48)):
        assert_same_bits(step(session, IDS[start:end]), expected[start:end])
        assert session.position == end


def test_hidden_states_of_several_batches(weights: Weights, pool: Pool) -> None:
    _, expected = reference.forward(CONFIG, TENSORS, IDS)
    session = Alone(weights, pool, len(IDS), kind="f32", batch=5)
    for start, end in ((0, 17), (17, 48)):
        hidden = np.zeros((CONFIG.block_count + 1, end - start, CONFIG.embedding_length), "f4")
        session.step(IDS[start:end], hidden=hidden)
        assert_same_bits(hidden, expected[:, start:end])


@pytest.mark.parametrize("kind", CACHE_KINDS)
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim"),
    # the last ones: more heads, and more heads that share keys, than are done together
    [(4, 2, 32), (7, 1, 24), (3, 3, 48), (70, 35, 16), (36, 2, 16)],
)
@pytest.mark.parametrize("threads", [1, 2, 3, 8])
def test_far_positions(threads: int, heads: int, kv_heads: int, head_dim: int, kind: str) -> None:
    """Single tokens whose positions are shared out give the bits of a block, of one thread."""
    config = tiny_config(
        head_count=heads, head_count_kv=kv_heads, head_dim=head_dim, rope_dim=head_dim
    )
    weights = Weights(config, tiny_tensors(config), isa=BEST)
    ids = np.random.default_rng(6).integers(0, config.vocab_size, 290, dtype=np.int32)
    whole = step(Alone(weights, Pool(1), len(ids), kind=kind), ids)
    session = Alone(weights, Pool(threads), len(ids), kind=kind)
    step(session, ids[:125])
    for at in (*range(125, 132), 255, 256, 257, 289):
        step(session, ids[session.position : at])
        assert_same_bits(step(session, ids[at : at + 1]), whole[at : at + 1], f"position {at}")


def test_rewind(session: Alone, expected: NDArray) -> None:
    step(session, IDS)
    for position in (40, 7, 7, 0):
        session.rewind(position)
        assert session.position == position
        step(session, IDS[::-1][position:].copy())
        session.rewind(position)
        assert_same_bits(step(session, IDS[position:]), expected[position:])
    for position in (-1, 49):
        with pytest.raises(ValueError, match=f"cannot rewind to {position}, the cache is at 48"):
            session.rewind(position)


@pytest.mark.parametrize("kind", CACHE_KINDS)
def test_fork_leaves_both_independent(weights: Weights, pool: Pool, kind: str) -> None:
    session = Alone(weights, pool, len(IDS), kind=kind, batch=7)
    expected, _ = reference.forward(CONFIG, TENSORS, IDS, kv=kind)
    step(session, IDS[:20])
    other = session.fork()
    assert (other.position, other.context) == (20, session.context)
    step(other, IDS[::-1][20:].copy())
    assert session.position == 20
    assert_same_bits(step(session, IDS[20:]), expected[20:])
    other.rewind(20)
    assert_same_bits(step(other, IDS[20:]), expected[20:])


def test_full_context(session: Alone, expected: NDArray) -> None:
    step(session, IDS[:46])
    with pytest.raises(ValueError, match="3 tokens at position 46 do not fit the context of 48"):
        step(session, IDS[:3])
    assert_same_bits(step(session, IDS[46:]), expected[46:])


@pytest.mark.parametrize("bad", [-1, 53, 2**31 - 1, -(2**31)])
def test_ids_outside_the_vocabulary(session: Alone, expected: NDArray, bad: int) -> None:
    with pytest.raises(ValueError, match=f"token 2 is {bad}, the vocabulary has 53 ids"):
        step(session, np.array([1, 2, bad], np.int32))
    assert session.position == 0
    assert_same_bits(step(session, IDS), expected)


def poison(name: str, value: float) -> dict:
    """The tensors with the last element of the one called *name* replaced."""
    tensor = TENSORS[name]
    if isinstance(tensor, TernaryMatrix):
        scale = tensor.scale.copy()
        scale[-1] = value
        changed = TernaryMatrix(tensor.rows, tensor.cols, tensor.packed, scale)
    elif isinstance(tensor, DenseMatrix):
        data = tensor.data.copy()
        data.view(np.float16)[-1, -1] = value
        changed = DenseMatrix(tensor.type, tensor.rows, tensor.cols, data)
    else:
        changed = tensor.copy()
        changed[-1] = value
    return TENSORS | {name: changed}


# The kernel or the dense type of each matrix that shares an input with another.
MIXTURES = [
    {"attn_q": "tl5", "attn_k": "i2_s", "attn_v": "f16", "ffn_gate": "tl2", "ffn_up": "tl1"},
    {"attn_q": "f32", "attn_k": "tl1", "attn_v": "bf16", "ffn_gate": "i2_s", "ffn_up": "f16"},
    {"attn_q": "i2_s", "attn_k": "i2_s", "attn_v": "tl5", "ffn_gate": "f16", "ffn_up": "tl5"},
]


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("mixture", MIXTURES)
def test_matrices_of_different_types_share_an_input(
    isa: str, mixture: dict[str, str], threads: int
) -> None:
    """Sizes of several panels, so that kernels with other panels leave other rows to a thread."""
    config = tiny_config(embedding_length=192, feed_forward_length=331, head_count=12, head_dim=16)
    tensors = tiny_tensors(config)
    packed = dict(tensors)
    rng = np.random.default_rng(4)
    for block in range(config.block_count):
        for linear, kind in mixture.items():
            name = f"blk.{block}.{linear}.weight"
            matrix = tensors[name]
            if kind in _native.kernel_names():
                packed[name] = pack_matrix(matrix, _native.Cell(kind, isa=isa))
            else:
                dense = dense_matrix(rng, kind, matrix.rows, matrix.cols)
                tensors[name] = packed[name] = dense
    expected, _ = reference.forward(config, tensors, IDS[:20], kv="f16")
    session = Alone(Weights(config, packed, isa=isa), Pool(threads), 20)
    for start, end in ((0, 9), (9, 10), (10, 12), (12, 20)):
        assert_same_bits(step(session, IDS[start:end]), expected[start:end])


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("token_embd.weight", "embedding"),
        ("blk.0.attn_norm.weight", "layer 0, attn_norm"),
        ("blk.0.attn_q.weight", "layer 0, attn_q"),
        ("blk.1.attn_k.bias", "layer 1, attn_k"),
        ("blk.1.attn_v.weight", "layer 1, attn_v"),
        ("blk.1.attn_sub_norm.weight", "layer 1, attn_sub_norm"),
        ("blk.1.attn_output.weight", "layer 1, attn_output"),
        ("blk.0.ffn_norm.weight", "layer 0, ffn_norm"),
        ("blk.1.ffn_gate.weight", "layer 1, ffn_gate"),
        ("blk.0.ffn_up.weight", "layer 0, ffn_up"),
        ("blk.1.ffn_sub_norm.weight", "layer 1, ffn_sub_norm"),
        ("blk.0.ffn_down.weight", "layer 0, ffn_down"),
        ("output_norm.weight", "output_norm"),
        ("output.weight", "logits"),
    ],
)
def test_what_is_not_finite_is_traced_to_its_op(
    pool: Pool, isa: str, name: str, where: str, value: float
) -> None:
    config = tiny_config(activation="silu")  # relu2 is rightly zero at minus infinity
    session = Alone(Weights(config, poison(name, value), isa=isa), pool, 32, batch=4)
    ids = np.arange(53, 47, -1, dtype=np.int32) - 1  # the first has the poisoned embedding
    message = rf"position 0 is not finite: (nan|-?inf) first appeared in {where}, token \d of its"
    with pytest.raises(NumericsError, match=message):
        step(session, ids)
    assert session.position == 0


def test_a_session_recovers_from_what_was_not_finite(pool: Pool, isa: str) -> None:
    tensors = poison("token_embd.weight", np.nan)
    session = Alone(Weights(CONFIG, tensors, isa=isa), pool, len(IDS))
    ids = np.minimum(IDS, 51)
    expected, _ = reference.forward(CONFIG, TENSORS, ids, kv="f16")
    step(session, ids[:9])
    message = r"position 9 is not finite: nan .* token 3 of its batch"
    with pytest.raises(NumericsError, match=message):
        step(session, np.array([1, 2, 3, 52, 4, 5], np.int32))
    assert session.position == 9
    assert_same_bits(step(session, ids[9:]), expected[9:])


def test_what_a_probe_raises_is_raised(session: Alone, expected: NDArray) -> None:
    def probe(layer: int, op: str, array: NDArray) -> None:
        if op == "attn_k":
            raise KeyError(layer)

    with pytest.raises(KeyError, match="0"):
        session.step(IDS, probe=probe)
    assert session.position == 0
    assert_same_bits(step(session, IDS), expected)


def test_a_probe_that_steps_on_its_own_pool_is_refused(session: Alone, expected: NDArray) -> None:
    """It would wait for itself for ever."""
    other = Alone(session.weights, session.pool, 8)

    def probe(layer: int, op: str, array: NDArray) -> None:
        other.step(IDS[:1])

    with pytest.raises(RuntimeError, match="a probe cannot run a step on the pool that runs it"):
        session.step(IDS[:1], probe=probe)
    assert (session.position, other.position) == (0, 0)
    assert_same_bits(step(other, IDS[:8]), expected[:8])
    apart = Alone(session.weights, Pool(1), 8)
    session.step(IDS[:1], probe=lambda layer, op, array: layer < 0 and apart.step(IDS[:1]))
    assert (session.position, apart.position) == (1, 1)


def test_ids_of_a_chunk_are_read_once(session: Alone, expected: NDArray) -> None:
    """Otherwise the engine would read beyond the shorter ids of the second time."""

    class Chunk:
        """It has fewer ids each time."""

        left = 4

        def __iter__(self):
            yield from (session.cache, IDS[: self.left])
            self.left = 1

    logits = np.zeros((4, CONFIG.vocab_size), np.float32)
    session.workspace.step([Chunk()], np.arange(4), logits)
    assert session.position == 4
    assert_same_bits(logits, expected[:4])


def test_a_second_thread_is_refused(session: Alone, expected: NDArray) -> None:
    inside, leave = threading.Event(), threading.Event()

    def probe(layer: int, op: str, array: NDArray) -> None:
        inside.set()
        leave.wait()

    first = threading.Thread(target=lambda: session.step(IDS[:1], probe=probe))
    first.start()
    inside.wait()
    with pytest.raises(RuntimeError, match="in use by another thread: wait for that"):
        step(session, IDS)
    other = Workspace(session.weights, session.pool, context=session.context)
    for use in (
        lambda: other.step([(session.cache, IDS[:1])]),
        lambda: session.rewind(0),
        session.cache.fork,
    ):
        with pytest.raises(RuntimeError, match="in use by another thread: give every thread a seq"):
            use()
    leave.set()
    first.join()
    assert session.position == 1
    assert_same_bits(step(session, IDS[1:]), expected[1:])


@pytest.mark.parametrize("threads", [1, 3])
def test_many_python_threads_on_one_weights_and_pool(
    weights: Weights, expected: NDArray, threads: int
) -> None:
    pool, results = Pool(threads), {}

    def run(seat: int) -> None:
        session = Alone(weights, pool, len(IDS))
        parts = np.array_split(np.arange(len(IDS)), seat + 1)
        results[seat] = np.concatenate([step(session, IDS[part]) for part in parts])

    team = [threading.Thread(target=run, args=(seat,)) for seat in range(8)]
    for thread in team:
        thread.start()
    for thread in team:
        thread.join()
    assert len(results) == 8
    for seat, logits in results.items():
        assert_same_bits(logits, expected, f"thread {seat}")


def test_sessions_share_a_pool_with_sessions_of_other_weights(pool: Pool) -> None:
    other_config = tiny_config(embedding_length=40, head_count=2, sub_norms=False, qkv_bias=False)
    models = [(CONFIG, TENSORS), (other_config, tiny_tensors(other_config, seed=1))]
    sessions = [Alone(Weights(*model, isa=BEST), pool, len(IDS)) for model in models]
    expected = [reference.forward(*model, IDS, kv="f16")[0] for model in models]
    for start in range(0, len(IDS), 12):
        for session, logits in zip(sessions, expected, strict=True):
            end = start + 12
            assert_same_bits(step(session, IDS[start:end]), logits[start:end])


def test_pool_keeps_what_a_session_needs_alive() -> None:
    session = Alone(Weights(CONFIG, tiny_tensors(CONFIG), isa=BEST), Pool(2), 64)
    assert session.pool.threads == 2
    assert np.isfinite(step(session, IDS)).all()


_FORKED = """
import os, sys, threading, warnings
import numpy as np
from alone import Alone
from bitnet_lut._native import Pool, Weights
from tiny_model import tiny_config, tiny_tensors

warnings.simplefilter("ignore")  # Python 3.12 warns of fork() in a process with threads
sys.setswitchinterval(1e-6)
config, ids = tiny_config(), np.arange(20, dtype=np.int32)
weights, pool = Weights(config, tiny_tensors(config), isa=sys.argv[1]), Pool(4)

def run(session):
    logits = np.zeros((len(ids), config.vocab_size), np.float32)
    session.step(ids, logits)
    return logits.tobytes()

def in_child():
    \"\"\"A session from before, then several threads at once, then a pool of its own.\"\"\"
    right = [run(used) == expected]
    gate = threading.Barrier(4)
    def thread():
        session = Alone(weights, pool, 64)
        gate.wait()
        right.append(run(session) == expected)
    team = [threading.Thread(target=thread) for _ in range(4)]
    for t in team: t.start()
    for t in team: t.join()
    right.append(run(Alone(weights, Pool(3), 64)) == expected)
    return right == [True] * 6

def in_grandchild():
    return in_child() and fork(lambda: run(Alone(weights, pool, 64)) == expected) == 0

def fork(task):
    child = os.fork()
    if child == 0:
        try:
            os._exit(0 if task() else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

used = Alone(weights, pool, 64)
expected = run(used)
used.rewind(0)
for _ in range(5):
    assert fork(in_child) == 0
assert fork(in_grandchild) == 0
assert run(Alone(weights, pool, 64)) == expected
print("every process agrees")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork()")
def test_use_after_fork() -> None:
    paths = [Path(bitnet_lut.__file__).parents[1], Path(__file__).parent]
    done = subprocess.run(
        [sys.executable, "-c", _FORKED, BEST],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("every process agrees\n", "")


def test_pools_have_at_least_one_thread_and_not_too_many() -> None:
    for threads in (0, -1, 257):
        with pytest.raises(ValueError, match=f"threads is {threads}, it must be 1 to 256"):
            Pool(threads)


def test_weights_for_an_unknown_tier() -> None:
    with pytest.raises(ValueError, match=r"isa 'sse9' is not one of .*scalar"):
        Weights(CONFIG, TENSORS, isa="sse9")

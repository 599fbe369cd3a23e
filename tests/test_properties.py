"""Shapes and values that hypothesis chooses, and buffers that must be refused."""

import dataclasses
import functools
from functools import partial
from typing import Any

import numpy as np
import pytest
from alone import Alone
from compare import assert_same_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from ternary_dot import ternary_dot
from tiny_model import dense_matrix, dense_product, tiny_config, tiny_tensors

from bitnet_lut import _native, reference
from bitnet_lut._native import Cache, Pool, Weights, Workspace, cache_bytes
from bitnet_lut.formats.tensors import TernaryMatrix

f32 = np.float32
TIERS = [name for name in _native.tier_names() if not _native.missing_features(name)]
BEST = TIERS[0]
EACH = settings(max_examples=100, deadline=None)

pool = functools.cache(Pool)
isas = st.sampled_from(TIERS)
kernels = st.sampled_from(_native.kernel_names())
seeds = st.integers(0, 2**32 - 1)
finite = st.floats(width=32, allow_nan=False, allow_infinity=False)


@EACH
@given(kernels, isas, seeds, st.integers(1, 300), st.integers(0, 600), st.integers(0, 9), st.data())
def test_ternary_gemm(
    name: str, isa: str, seed: int, rows: int, cols: int, n: int, data: Any
) -> None:
    rng = np.random.default_rng(seed)
    ternary = rng.integers(-1, 2, (rows, cols), dtype=np.int8)
    q = rng.integers(-128, 128, (n, cols), dtype=np.int8)
    panel = _native.Cell(name, isa=isa).panel
    lo = data.draw(st.integers(0, rows // panel)) * panel
    hi = min(rows, data.draw(st.integers(lo // panel, rows // panel + 1)) * panel)
    expected = np.zeros((n, rows), np.int32)
    expected[:, lo:hi] = reference.ternary_dot(ternary[lo:hi], q)
    found = ternary_dot(name, isa, ternary, q, lo=lo, hi=hi)
    np.testing.assert_array_equal(found, expected)


@EACH
@given(arrays.arrays(f32, st.tuples(st.integers(0, 3), st.integers(1, 70)), elements=finite))
def test_quantize(x: np.ndarray) -> None:
    expected_q, expected_max = reference.quantize(x)
    for isa in TIERS:
        q, act_max = _native.quantize(x, isa=isa)
        np.testing.assert_array_equal(q, expected_q)
        assert_same_bits(act_max, expected_max)
    restored = q * (act_max[:, None].astype(np.float64) / 127)
    assert np.all(np.abs(restored - x) <= act_max[:, None] * (0.5 + 1e-5) / 127)


@EACH
@given(isas, seeds, st.sampled_from(["f32", "f16", "bf16", "q8_0", "q4_0", "q6_k"]), st.data())
def test_dense_gemm(isa: str, seed: int, type: str, data: Any) -> None:
    block = {"q8_0": 32, "q4_0": 32, "q6_k": 256}.get(type, 1)
    cols = block * data.draw(st.integers(1, 600 // block))
    rng = np.random.default_rng(seed)
    matrix = dense_matrix(rng, type, data.draw(st.integers(1, 40)), cols)
    x = rng.normal(size=(data.draw(st.integers(0, 36)), cols)).astype(f32)
    found = dense_product(matrix, x, isa=isa)
    assert_same_bits(found, reference.linear(matrix, x))


configs = st.builds(
    lambda group, half_head, half_rope, **sizes: tiny_config(
        head_count=group * sizes["head_count_kv"],
        head_dim=2 * half_head,
        rope_dim=2 * min(half_rope, half_head),
        **sizes,
    ),
    group=st.integers(1, 3),
    half_head=st.integers(1, 40),
    half_rope=st.integers(1, 40),
    head_count_kv=st.integers(1, 3),
    vocab_size=st.integers(1, 70),
    embedding_length=st.integers(1, 150),
    feed_forward_length=st.integers(1, 300),
    block_count=st.integers(1, 2),
    rope_kind=st.sampled_from(["norm", "neox"]),
    activation=st.sampled_from(["silu", "relu2"]),
    sub_norms=st.booleans(),
    qkv_bias=st.booleans(),
    tied_head=st.booleans(),
)


@EACH
@given(configs, isas, seeds, st.integers(1, 20), st.data())
def test_forward_pass_of_any_shape(config: Any, isa: str, seed: int, n: int, data: Any) -> None:
    """Engine and reference agree in every bit whatever the sizes, types, threads and batches."""
    types = st.sampled_from(["f32", "f16", "bf16"])
    linear = data.draw(st.sampled_from(["ternary", "ternary", "f16"]))
    tensors = tiny_tensors(config, seed=seed, linear=linear, embedding=data.draw(types))
    ids = np.random.default_rng(seed).integers(0, config.vocab_size, n, dtype=np.int32)
    kv = data.draw(st.sampled_from(_native.CACHE_KINDS))
    logits, hidden = reference.forward(config, tensors, ids, kv=kv)
    weights = Weights(config, tensors, isa=isa)
    threads, batch = data.draw(st.integers(1, 3)), data.draw(st.integers(1, 8))
    session = Alone(weights, pool(threads), n + 1, kind=kv, batch=batch)
    found_logits, found_hidden = np.zeros_like(logits), np.zeros_like(hidden)
    session.step(ids, found_logits, found_hidden)
    assert_same_bits(found_hidden, hidden)
    assert_same_bits(found_logits, logits)


BYTES = np.zeros(128, np.uint8)
U8, I8, F32 = (np.zeros((4, 32), dtype) for dtype in (np.uint8, np.int8, np.float32))
ROW, FIVE, WIDE = F32[0], np.zeros((5, 32), np.float32), np.zeros((1, 1040), np.float32)
CODES, PACKED = U8, U8.reshape(-1)
KERNEL = _native.Cell("i2_s", isa=BEST)
pack, prepare = KERNEL.pack, KERNEL.prepare
gemm = partial(KERNEL.gemm, PACKED, prepare(I8), 4, 32)
dense = partial(_native.dense_gemm, isa=BEST)
rows = partial(_native.dense_rows, isa=BEST)
strips = _native.pack_dense
quantize = partial(_native.quantize, isa=BEST)
norm = partial(_native.rms_norm, isa=BEST)
gate = partial(_native.gate, isa=BEST)
rope = partial(_native.rope, interleaved=False, isa=BEST)
to_f16 = partial(_native.to_f16, isa=BEST)
attention = partial(_native.attention, isa=BEST)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: pack(I8, 32), ValueError, "Buffer dtype mismatch"),
        (lambda: pack(CODES[0], 32), ValueError, "wrong number of dimensions (expected 2, got 1)"),
        (lambda: pack(None, 32), TypeError, "Argument 'canonical' must not be None"),
        (lambda: pack(np.asfortranarray(CODES), 32), ValueError, "not C-contiguous"),
        (lambda: pack(CODES[::-1], 32), ValueError, "not C-contiguous"),
        (lambda: pack([[1]], 32), TypeError, "a bytes-like object is required, not 'list'"),
        (lambda: pack(CODES, 129), ValueError, "bytes per row is 32, expected 64"),
        (lambda: pack(CODES, -1), ValueError, "4 x -1: rows must not be negative"),
        (lambda: pack(CODES, 1 << 23), ValueError, "at most 4194304 columns keep the int32 sums"),
        (lambda: pack(CODES, 32, out=PACKED[1:]), ValueError, "bytes of out is 127, expected 128"),
        (lambda: prepare(U8), ValueError, "Buffer dtype mismatch, expected 'const"),
        (lambda: prepare(None), TypeError, "Argument 'q' must not be None"),
        (lambda: prepare(I8[::-1]), ValueError, "not C-contiguous"),
        (lambda: KERNEL.token_bytes(32, 0), ValueError, "0 tokens of 32: at least one token"),
        (lambda: KERNEL.packed_bytes(-1, 3), ValueError, "-1 x 3: rows must not be negative"),
        (
            lambda: KERNEL.gemm(PACKED[1:], prepare(I8), 4, 32),
            ValueError,
            "bytes of packed is 127, expected 128",
        ),
        (
            lambda: KERNEL.gemm(PACKED, np.zeros((4, 9), np.uint8), 4, 32),
            ValueError,
            "bytes of a prepared token is 9, expected",
        ),
        (
            lambda: gemm(out=np.zeros((4, 5), np.int32)),
            ValueError,
            "rows of out is 5, expected 4",
        ),
        (lambda: gemm(lo=3, hi=2), ValueError, "rows [3, 2) are not within the 4 rows"),
        (lambda: gemm(lo=-1), ValueError, "rows [-1, 4) are not within the 4 rows"),
        (lambda: gemm(hi=5), ValueError, "rows [0, 5) are not within the 4 rows"),
        (lambda: _native.Cell("tl9", isa=BEST), ValueError, "kernel 'tl9' is not one of i2_s"),
        (lambda: _native.Cell("i2_s", isa="mmx"), ValueError, "isa 'mmx' is not one of"),
        (lambda: quantize(F32.astype(np.float64)), ValueError, "Buffer dtype mismatch"),
        (lambda: quantize(ROW), ValueError, "wrong number of dimensions"),
        (lambda: quantize(None), TypeError, "Argument 'x' must not be None"),
        (lambda: quantize(F32[:, :4]), ValueError, "not C-contiguous"),
        (lambda: dense("f32", BYTES, F32, 2), ValueError, "bytes of packed is 128, expected 256"),
        (lambda: dense("q8_0", BYTES, F32, 1), ValueError, "bytes of packed is 128, expected 1088"),
        (lambda: dense("f32", BYTES[:0], F32, -1), ValueError, "rows is -1"),
        (lambda: dense("q4_1", BYTES, F32, 1), ValueError, "type 'q4_1' is not one of f32, f16,"),
        (lambda: dense("ternary", BYTES, F32, 1), ValueError, "type 'ternary' is not one of"),
        (lambda: dense("q6_k", BYTES, F32, 1), ValueError, "needs columns in blocks of 256, not"),
        (lambda: dense(None, BYTES, F32, 1), TypeError, "Argument 'type' has incorrect type"),
        (lambda: dense(3, BYTES, F32, 1), TypeError, "Argument 'type' has incorrect type"),
        (lambda: strips("q8_0", U8, 64), ValueError, "bytes per row of weights is 32, expected 68"),
        (lambda: strips("q8_0", U8, 33), ValueError, "needs columns in blocks of 32, not 33"),
        (lambda: strips("q6_k", None, 256), TypeError, "Argument 'weights' must not be None"),
        (lambda: rows("q8_0", U8, 33), ValueError, "needs columns in blocks of 32, not 33"),
        (lambda: rows("f16", U8, 17), ValueError, "bytes per row of weights is 32, expected 34"),
        (lambda: rows("f16", U8, -1), ValueError, "bytes per row of weights is 32, expected -2"),
        (lambda: norm(ROW, ROW[1:], 1e-5), ValueError, "length of weight is 31, expected 32"),
        (lambda: norm(F32, ROW, 1e-5), ValueError, "wrong number of dimensions"),
        (lambda: norm(ROW, None, 1e-5), TypeError, "Argument 'weight' must not be None"),
        (lambda: norm(ROW[::2], ROW[::2], 1e-5), ValueError, "not C-contiguous"),
        (lambda: gate("gelu", ROW, ROW), ValueError, "'gelu' is not one of silu, relu2"),
        (lambda: gate("silu", ROW, ROW[1:]), ValueError, "length of up is 31, expected 32"),
        (lambda: rope(ROW, ROW[:4], ROW[:5]), ValueError, "length of sine is 5, expected 4"),
        (lambda: rope(ROW[:9], ROW[:5], ROW[:5]), ValueError, "5 angles rotate 10 values, x has 9"),
        (lambda: to_f16(ROW[:17]), ValueError, "length of x modulo 16 is 1, expected 0"),
        (lambda: attention(F32, F32, F32[1:], 1), ValueError, "do not fit q (4, 32)"),
        (lambda: attention(F32, F32[:, :16].copy(), F32, 1), ValueError, "do not fit q (4, 32)"),
        (lambda: attention(F32, F32.astype("f8"), F32, 1), ValueError, "Buffer dtype mismatch"),
        (lambda: attention(F32, F32[0], F32, 1), ValueError, "wrong number of dimensions"),
        (lambda: attention(F32, F32, F32, 1, kind="q4"), ValueError, "one of f16, f32, q8"),
        (lambda: attention(WIDE, WIDE, WIDE, 1, kind="q8"), ValueError, "at most 1024: use 'f16'"),
        (
            lambda: attention(F32[:, :9].copy(), F32, F32, 1),
            ValueError,
            "columns of q modulo 16 is 9",
        ),
        (lambda: attention(FIVE, F32, F32, 1), ValueError, "q has 5 heads"),
        (lambda: attention(F32, None, F32, 1), TypeError, "Argument 'keys' must not be None"),
        (lambda: _native.quantize(F32, isa="mmx"), ValueError, "isa 'mmx' is not one of"),
        (lambda: _native.missing_features("mmx"), ValueError, "isa 'mmx' is not one of"),
        (lambda: _native.self_test_fault(None), TypeError, "Argument 'isa' has incorrect type"),
    ],
)
def test_kernels_refuse(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as caught:
        call()
    assert text in str(caught.value)


def test_kernels_take_empty_and_read_only_arrays(isa: str) -> None:
    packed, q = CODES.copy(), I8.copy()
    for array in (packed, q):
        array.flags.writeable = False
    for name in _native.kernel_names():
        kernel = _native.Cell(name, isa=isa)
        for codes, inputs in (
            (packed, q),
            (packed[:0], q[:0]),
            (np.zeros((3, 0), np.uint8), np.zeros((2, 0), np.int8)),
        ):
            rows, cols = len(codes), inputs.shape[1]
            dot = kernel.gemm(kernel.pack(codes, cols), kernel.prepare(inputs), rows, cols)
            assert dot.shape == (len(inputs), rows)
            assert cols or not dot.any()
    assert _native.quantize(F32[:, :0].copy(), isa=isa)[0].shape == (4, 0)
    empty = np.zeros((4, 0), np.uint8)
    for type in ("f32", "q8_0"):
        assert _native.pack_dense(type, empty, 0).size == 0
        assert _native.dense_gemm(type, empty[0], F32[:, :0].copy(), 4, isa=isa).sum() == 0
    assert _native.dense_rows("q8_0", U8[:0, :0].copy(), 0, isa=isa).shape == (0, 0)
    assert _native.to_f16(ROW[:0], isa=isa).shape == (0,)
    assert _native.attention(F32[:1], F32[:0], F32[:0], 1, isa=isa).tolist() == [[0] * 32]


CONFIG = tiny_config()
TENSORS = tiny_tensors(CONFIG)
Q = TENSORS["blk.0.attn_q.weight"]
UP = TENSORS["blk.0.ffn_up.weight"]
HEAD = TENSORS["output.weight"]


@pytest.mark.parametrize(
    ("name", "tensor", "text"),
    [
        ("blk.0.attn_q.weight", dataclasses.replace(Q, rows=119), "is 119 x 72, the config asks"),
        (
            "blk.0.attn_q.weight",
            dataclasses.replace(Q, packed=Q.packed[:-1]),
            "has 3808 bytes, kernel i2_s needs 3840",
        ),
        ("blk.0.attn_q.weight", dataclasses.replace(Q, packed=Q.packed[:, :-1]), "not C-contig"),
        ("blk.0.attn_q.weight", dataclasses.replace(Q, packed=Q.packed.view("i1")), "dtype"),
        ("blk.0.attn_q.weight", dataclasses.replace(Q, packed=Q.packed[0]), "has 32 bytes"),
        (
            "blk.0.ffn_up.weight",
            dataclasses.replace(UP, scale=UP.scale[:2]),
            "2 scales for 139 rows",
        ),
        ("blk.0.attn_q.weight", dataclasses.replace(Q, scale=Q.scale.astype("f8")), "dtype"),
        ("blk.0.attn_q.weight", dataclasses.replace(HEAD, rows=120), "needs 120 x 144"),
        ("output.weight", dataclasses.replace(HEAD, data=HEAD.data[:, :-2].copy()), "53 x 142 by"),
        ("output.weight", dataclasses.replace(HEAD, type="q4_1"), "type 'q4_1', which is not one"),
        ("output.weight", dataclasses.replace(HEAD, type="q8_0"), "72 columns, q8_0 needs whole"),
        ("token_embd.weight", Q, "is 120 x 72, the config asks for 53 x 72"),
        ("output_norm.weight", np.ones(71, f32), "has shape (71,), the config asks for (72,)"),
        ("output_norm.weight", np.ones((1, 72), f32), "has shape (1, 72)"),
        ("output_norm.weight", np.ones(72), "Buffer dtype mismatch"),
        ("output_norm.weight", np.ones(144, f32)[::2], "not C-contiguous"),
        ("blk.1.attn_k.bias", np.ones(41, f32), "has shape (41,), the config asks for (40,)"),
    ],
)
def test_weights_refuse(name: str, tensor: object, text: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        Weights(CONFIG, TENSORS | {name: tensor}, isa=BEST)
    assert text in str(caught.value)


def test_weights_refuse_what_does_not_fit_together() -> None:
    embedding = TernaryMatrix(53, 72, np.zeros((53, 32), np.uint8), np.ones(1, f32))
    with pytest.raises(ValueError, match=r"token_embd\.weight is ternary, which is supported for"):
        Weights(CONFIG, TENSORS | {"token_embd.weight": embedding}, isa=BEST)
    with pytest.raises(ValueError, match="rope_dim 22, head_dim 20, heads 6"):
        Weights(tiny_config(rope_dim=22), TENSORS, isa=BEST)
    with pytest.raises(TypeError, match="Argument 'tensors' must not be None"):
        Weights(CONFIG, None, isa=BEST)
    with pytest.raises(KeyError, match=r"blk\.2\.attn_norm\.weight"):
        Weights(tiny_config(block_count=3), TENSORS, isa=BEST)


IDS = np.zeros(3, np.int32)
READ_ONLY = np.frombuffer(bytes(3 * 53 * 4), f32).reshape(3, 53)
ALL, LOGITS = np.arange(3), np.zeros((3, 53), f32)


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ((IDS.astype(np.int64),), ValueError, "Buffer dtype mismatch"),
        ((IDS[None],), ValueError, "wrong number of dimensions (expected 1, got 2)"),
        ((np.zeros(6, np.int32)[::2],), ValueError, "not C-contiguous"),
        ((None,), TypeError, "a chunk is a Cache and its ids"),
        (([1, 2],), TypeError, "a bytes-like object is required, not 'list'"),
        ((IDS, np.arange(4), np.zeros((4, 53), f32)), ValueError, "among the 3 tokens of the step"),
        ((IDS, np.array([-1]), LOGITS[:1]), ValueError, "rows must ascend and be among the 3"),
        ((IDS, np.array([1, 1]), LOGITS[:2]), ValueError, "rows must ascend and be among the 3"),
        ((IDS, ALL[::-1].copy(), LOGITS), ValueError, "rows must ascend and be among the 3"),
        ((IDS, ALL, LOGITS[:2]), ValueError, "3 rows are wanted, logits has 2"),
        ((IDS, ALL), ValueError, "3 rows are wanted, logits has 0"),
        ((IDS, None, LOGITS), ValueError, "0 rows are wanted, logits has 3"),
        ((IDS, ALL.astype(np.int32), LOGITS), ValueError, "Buffer dtype mismatch"),
        ((IDS, ALL, np.zeros((3, 52), f32)), ValueError, "logits is 3 x 52, expected 3 x 53"),
        ((IDS, ALL, np.zeros((3, 53))), ValueError, "Buffer dtype mismatch"),
        ((IDS, ALL, np.zeros((53, 3), f32).T), ValueError, "not C-contiguous"),
        ((IDS, ALL, np.zeros(53, f32)), ValueError, "wrong number of dimensions"),
        ((IDS, ALL, READ_ONLY), ValueError, "buffer source array is read-only"),
        (
            (IDS, None, None, np.zeros((2, 3, 72), f32)),
            ValueError,
            "2 x 3 x 72, expected 3 x 3 x 72",
        ),
        (
            (IDS, None, None, np.zeros((3, 2, 72), f32)),
            ValueError,
            "3 x 2 x 72, expected 3 x 3 x 72",
        ),
        (
            (IDS, None, None, np.zeros((3, 3, 71), f32)),
            ValueError,
            "3 x 3 x 71, expected 3 x 3 x 72",
        ),
    ],
)
def test_step_refuses(arguments: tuple, error: type[Exception], text: str) -> None:
    session = Alone(Weights(CONFIG, TENSORS, isa=BEST), pool(1), 8)
    with pytest.raises(error) as caught:
        session.workspace.step([(session.cache, arguments[0])], *arguments[1:])
    assert text in str(caught.value)
    assert session.position == 0


def test_step_takes_empty_and_read_only_arrays() -> None:
    session = Alone(Weights(CONFIG, TENSORS, isa=BEST), pool(2), 8)
    session.step(IDS[:0], np.zeros((0, 53), f32), np.zeros((3, 0, 72), f32))
    session.step(IDS[:0])
    assert session.position == 0
    ids = IDS.copy()
    ids.flags.writeable = False
    session.step(ids, np.zeros((0, 53), f32))
    assert session.position == 3


def test_session_arguments() -> None:
    weights = Weights(CONFIG, TENSORS, isa=BEST)
    with pytest.raises(TypeError, match="Argument 'weights' has incorrect type"):
        Cache(None, 8)
    with pytest.raises(TypeError, match="Argument 'weights' has incorrect type"):
        Workspace(None, pool(1), context=8)
    with pytest.raises(TypeError, match="Argument 'pool' has incorrect type"):
        Workspace(weights, None, context=8)
    with pytest.raises(TypeError, match="Argument 'weights' has incorrect type"):
        cache_bytes(None, 8)
    for make in (Cache, partial(Workspace, pool=pool(1))):
        with pytest.raises(OverflowError):
            make(weights, context=1 << 64)

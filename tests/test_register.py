"""Kernels from outside: the same results, in a model too, and no exception lost."""

import gc
import threading

import numpy as np
import pytest
from alone import Alone
from outside_kernels import PYTHON, WITH_TABLES, compile_c, gemm, pack
from tiny_model import tiny_config, tiny_tensors

from bitnet_lut import Model, _registry, kernels, reference
from bitnet_lut._native import Pool, Weights
from bitnet_lut.demo import MODEL
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tensors import PackedMatrix, TernaryMatrix
from bitnet_lut.kernels.kernel import Kernel


@pytest.fixture
def rng():
    return np.random.default_rng(5)


@pytest.fixture(params=["python", "tables", "c", "python pack and C gemm"])
def outside(request, tmp_path):
    """The name of a kernel from outside."""
    if request.param == "python":
        functions = PYTHON
    elif request.param == "tables":
        functions = WITH_TABLES
    else:
        functions = compile_c(tmp_path)
        if functions is None:
            pytest.skip("there is no C compiler")
        if request.param != "c":
            functions |= {"pack": pack_padded, "packed_bytes": padded_bytes}
    kernels.register("mine", **functions)
    yield "mine"
    kernels.unregister("mine")


@pytest.fixture
def register():
    """Register a kernel for one test, with some functions replaced."""

    def register_(**functions):
        kernels.register("mine", **{**PYTHON, **functions})
        return kernels.get("mine")

    yield register_
    if "mine" in kernels.names():
        kernels.unregister("mine")


def padded(cols):
    return -(-cols // 16) * 16


def padded_bytes(rows, cols):
    return rows * padded(cols)


def pack_padded(weights):
    cols = weights.shape[1]
    return np.pad(weights, ((0, 0), (0, padded(cols) - cols)))


def use(k):
    """Call every function of a kernel, with 3 x 8 weights and two tokens."""
    packed = k.pack(np.ones((3, 8), np.int8))
    k.unpack(packed)
    k.gemm(packed, np.ones((2, 8), np.int8))


@pytest.mark.parametrize(("rows", "cols"), [(1, 1), (3, 16), (33, 131), (70, 300)])
def test_the_same_products(outside, rng, rows, cols):
    k = kernels.get(outside)
    assert k.outside
    weights = rng.integers(-1, 2, (rows, cols), dtype=np.int8)
    q = rng.integers(-128, 128, (5, cols), dtype=np.int8)
    packed = k.pack(weights)
    np.testing.assert_array_equal(k.unpack(packed), weights)
    expected = reference.ternary_dot(weights, q)
    np.testing.assert_array_equal(k.gemm(packed, q), expected)
    np.testing.assert_array_equal(k.gemv(packed, q[0]), expected[0])
    lo = k.panel * (rows // k.panel // 2)
    found = k.gemm(packed, q, lo=lo)
    np.testing.assert_array_equal(found[:, lo:], expected[:, lo:])
    assert not found[:, :lo].any()


def packed_tensors(tensors, name, isa):
    k = kernels.get(name, isa)
    for key, tensor in tensors.items():
        if isinstance(tensor, TernaryMatrix):
            packed = k.pack(i2_s.unpack_rows(tensor.packed, tensor.cols))
            yield key, PackedMatrix(name, tensor.rows, tensor.cols, packed.packed, tensor.scale)
        else:
            yield key, tensor


def logits(config, tensors, isa, threads, n=7):
    weights = Weights(config, tensors, isa=isa)
    result = np.zeros((n, config.vocab_size), np.float32)
    session = Alone(weights, Pool(threads), 16)
    session.step(np.arange(n, dtype=np.int32), result)
    session.step(np.arange(1, dtype=np.int32), result[:1])
    return result


def test_a_model_file_runs_with_it(outside):
    ids = [1, 5, 9]
    expected = Model(str(MODEL), kernel="i2_s", threads=2).forward(ids)
    model = Model(str(MODEL), kernel=outside, threads=2)
    np.testing.assert_array_equal(model.forward(ids), expected)
    assert model.info.kernel == outside
    layer = model.layers[0].ffn_down
    q = np.ones(layer.cols, np.int8)
    weights = kernels.get(outside).unpack(layer)
    np.testing.assert_array_equal(kernels.get(outside).gemv(layer, q), weights.sum(axis=1))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_model_gives_the_same_logits(outside, isa, threads):
    config = tiny_config()
    tensors = tiny_tensors(config)
    expected = logits(config, tensors, isa, threads)
    found = logits(config, dict(packed_tensors(tensors, outside, isa)), isa, threads)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))
    assert expected.any()


def test_a_model_outlives_the_name(isa):
    config = tiny_config()
    tensors = tiny_tensors(config)
    expected = logits(config, tensors, isa, 1)
    kernels.register("mine", **PYTHON)
    weights = Weights(config, dict(packed_tensors(tensors, "mine", isa)), isa=isa)
    kernels.unregister("mine")
    gc.collect()
    found = np.zeros_like(expected)
    session = Alone(weights, Pool(2), 16)
    session.step(np.arange(7, dtype=np.int32), found)
    session.step(np.arange(1, dtype=np.int32), found[:1])
    np.testing.assert_array_equal(found, expected)


def test_a_step_raises_what_a_kernel_raised(register, isa):
    calls = []

    def breaks(*arguments):
        calls.append(threading.get_ident())
        raise ZeroDivisionError

    config = tiny_config()
    register()
    tensors = dict(packed_tensors(tiny_tensors(config), "mine", isa))
    register(gemm=breaks)
    session = Alone(Weights(config, tensors, isa=isa), Pool(2), 16)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            session.step(np.arange(3, dtype=np.int32), None)
        assert session.position == 0
    assert len(set(calls)) > 1


@pytest.mark.parametrize("broken", ["pack", "unpack", "prepare", "gemm"])
def test_what_a_function_raises_is_raised(register, broken):
    def breaks(*arguments):
        if arguments[0].any():
            raise KeyError(broken)
        return np.zeros(8, np.uint8)

    k = register(**{broken: breaks, "packed_bytes": lambda rows, cols: -(-rows // 4) * 4 * cols})
    with pytest.raises(KeyError, match=broken):
        use(k)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ({"pack": lambda w: np.zeros((len(w), 3), np.int8)}, "packed_bytes says"),
        ({"unpack": lambda p, rows, cols: np.zeros((rows, 1), np.int8)}, r"unpack returned int8\("),
        ({"unpack": lambda p, rows, cols: np.full((rows, cols), 9, np.int8)}, r"-1, 0 or \+1"),
        ({"prepare": lambda q: np.resize(q, 65)}, "prepare returned 65 bytes, token_bytes says 64"),
        ({"gemm": lambda p, q, rows, cols: np.zeros((1, 1), np.int32)}, r"gemm returned int32\("),
        ({"gemm": lambda p, q, rows, cols: np.zeros((2, rows))}, r"gemm returned float64\(2, 3\)"),
    ],
)
def test_results_of_a_wrong_shape(register, functions, message):
    sizes = {
        "packed_bytes": lambda rows, cols: -(-rows // 4) * 4 * cols,
        "token_bytes": lambda cols, n: -(-cols // 64) * 64,
    }
    k = register(**functions, **sizes)
    with pytest.raises(ValueError, match=message):
        use(k)


@pytest.mark.parametrize(
    ("functions", "message"),
    [
        ({"panel": 3}, "panel is 3, it must be 1, 2, 4, 8, or at least 16"),
        ({"gemm": "gemm"}, "gemm is 'gemm', it must be a function"),
        ({"packed_bytes": lambda rows, cols: 0}, r"mine: packed_bytes\(1, 1\) is 0"),
        ({"token_bytes": lambda cols, n: cols}, r"token_bytes\(1, 1\) is 1, not a multiple of 64"),
        ({"gemm": 4096}, "a gemm in C needs token_bytes"),
        ({"pack": 4096}, "a pack in C needs packed_bytes"),
    ],
)
def test_what_cannot_be_registered(register, functions, message):
    with pytest.raises(ValueError, match=message):
        register(**functions)
    assert "mine" not in kernels.names()


@pytest.mark.parametrize("name", ["i2_s", "auto", "", "two words", "a,b"])
def test_names_that_are_refused(name):
    with pytest.raises(ValueError, match="a kernel cannot be named"):
        kernels.register(name, **PYTHON)


def test_registering_again_replaces(register, rng):
    weights = rng.integers(-1, 2, (3, 8), dtype=np.int8)
    q = np.ones(8, np.int8)
    old = register()
    new = register(gemm=lambda *arguments: 2 * gemm(*arguments))
    packed = old.pack(weights)
    np.testing.assert_array_equal(2 * old.gemv(packed, q), new.gemv(packed, q))
    with pytest.raises(ValueError, match="no kernel 'other' was registered"):
        kernels.unregister("other")


def test_concurrent_calls_both_learn_of_a_failure():
    failures = _registry.Failures()
    before = failures.count
    failures.add(KeyError("first"))
    failures.add(KeyError("second"))
    for _ in range(2):
        with pytest.raises(KeyError, match="first"):
            failures.raise_since(before)
    failures.raise_since(failures.count)
    before = failures.count
    failures.add(KeyError("third"))
    with pytest.raises(KeyError, match="third"):
        failures.raise_since(before)


class Panic(BaseException):
    """What some libraries raise in place of an Exception."""


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (Panic("out of cheese"), RuntimeError),
        (GeneratorExit(), RuntimeError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (SystemExit(3), SystemExit),
    ],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)
def test_what_is_no_exception_does_not_pass_for_one(raised, expected):
    failures = _registry.Failures()
    failures.add(raised)
    with pytest.raises(expected) as told:
        failures.raise_since(0)
    assert told.value is raised or told.value.__cause__ is raised


def test_python_functions_may_be_called_from_any_thread(register, rng):
    k = register(pack=pack)
    weights = rng.integers(-1, 2, (40, 90), dtype=np.int8)
    q = rng.integers(-128, 128, (3, 90), dtype=np.int8)
    packed, expected = k.pack(weights), reference.ternary_dot(weights, q)
    results = []

    def work():
        results.extend(np.array_equal(k.gemm(packed, q), expected) for _ in range(20))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 80
    assert all(results)


def test_kernels_of_outside_are_the_same_on_every_tier(register, isa):
    k = register()
    assert Kernel("mine", isa).own
    assert k.panel == 4

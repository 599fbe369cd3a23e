"""Kernels from outside: Python functions on arrays, or C functions of ternary.h by their pointer.

C calls all of them. Python functions are wrapped in C functions that view the raw memory as arrays,
take the GIL, and remember what is raised until C has returned.
"""

import ctypes
import operator
import re
from collections.abc import Callable, Mapping
from ctypes import CFUNCTYPE, c_int64, c_void_p
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native, _registry
from bitnet_lut.formats import i2_s
from bitnet_lut.kernels.bounds import Sums

__all__ = ["Function", "register", "unregister"]

# A Python function; or a C function: a pointer of ctypes, or its address.
Function: TypeAlias = Callable[..., Any] | int

_ROWS = (c_int64, c_int64, c_int64, c_int64)  # rows, cols, lo, hi
# The C functions, as include/bitnet_lut/ternary.h declares them.
_C = {
    "packed_bytes": CFUNCTYPE(c_int64, c_int64, c_int64),
    "pack": CFUNCTYPE(None, c_void_p, c_void_p, *_ROWS),
    "unpack": CFUNCTYPE(None, c_void_p, c_void_p, *_ROWS),
    "token_bytes": CFUNCTYPE(c_int64, c_int64, c_int64),
    "prepare": CFUNCTYPE(None, c_void_p, c_void_p, c_int64, c_int64),
    "gemm": CFUNCTYPE(None, c_void_p, c_int64, c_void_p, c_void_p, *_ROWS, c_int64),
}
_CFunction: type = CFUNCTYPE(None).__mro__[1]  # the base of every function pointer of ctypes
_LINE = 64  # bytes: what prepared tokens are padded to
_INT32 = np.dtype(np.int32).str


def register(
    name: str,
    *,
    pack: Function,
    unpack: Function,
    gemm: Function,
    prepare: Function | None = None,
    packed_bytes: Function | None = None,
    token_bytes: Function | None = None,
    panel: int = 1,
    sums: Sums | None = None,
) -> None:
    """Register a kernel of your own under *name*, for every place that takes the name of a kernel.

    Each function is a Python one, or a C one with the signature that
    ``include/bitnet_lut/ternary.h`` gives it: a function pointer of ctypes, or an address whose
    code the caller keeps. Python functions work on whole matrices, which C may cut between panels
    of rows: a packed matrix must be its packed panels in a row.

    pack: ``pack(weights)`` of int8 (rows, cols) returns an array of any type and shape.
    unpack: ``unpack(packed, rows, cols)`` of its bytes, uint8 (bytes,), returns int8 (rows, cols).
    gemm: ``gemm(packed, prepared, rows, cols)`` returns integers (n, rows), the exact products with
        the n tokens of prepared: uint8 (n, token_bytes), or int8 (n, cols) without *prepare*.
    prepare: ``prepare(q)`` of one token, int8 (cols,), returns an array of any type and shape.
    packed_bytes, token_bytes: ``packed_bytes(rows, cols)`` and ``token_bytes(cols, n)``, the latter
        a multiple of 64; found by trying if pack and prepare are Python.
    panel: rows that are packed together: 1, 2, 4, 8, or any number from 16 on.
    sums: how large its sums get, for ``bitnet-lut kernels test``.

    A name that is already registered gets the new functions; models loaded before keep the old.
    Whatever a Python function raises is raised by the call that needed it.
    """
    if name in ("auto", *_native.kernel_names()) or not re.fullmatch(r"[\w.-]+", name):
        raise ValueError(
            f"a kernel cannot be named {name!r}: the name is taken, or has other characters than "
            "letters, digits, '_', '.' and '-'"
        )
    if panel not in (1, 2, 4, 8) and panel < 16:
        raise ValueError(f"panel is {panel}, it must be 1, 2, 4, 8, or at least 16")
    given = {
        "packed_bytes": packed_bytes,
        "pack": pack,
        "unpack": unpack,
        "token_bytes": token_bytes,
        "prepare": prepare,
        "gemm": gemm,
    }
    adapter = _Adapter(panel, given)
    adapter.check_sizes(name)
    functions: dict[str, Any] = {key: _address(c) for key, c in adapter.c.items()}
    _registry.functions[name] = {**functions, "panel": panel, "kept": adapter, "sums": sums}


def unregister(name: str) -> None:
    """Forget a kernel from outside; models that use it keep it. ValueError if it is unknown."""
    if name not in _registry.functions:
        raise ValueError(f"no kernel {name!r} was registered")
    del _registry.functions[name]


def _row_bytes(cols: int) -> int:
    """Bytes of a canonical row."""
    return -(-cols // 128) * 32


def _is_c(function: Function | None) -> bool:
    return isinstance(function, int | _CFunction)


def _address(function: Function) -> int:
    if isinstance(function, int):
        return function
    return ctypes.cast(function, c_void_p).value or 0  # type: ignore[arg-type]


class _Memory:
    """Raw memory that NumPy views as an array."""

    def __init__(self, **interface: Any) -> None:
        self.__array_interface__ = {"version": 3, **interface}


def _view(
    address: int,
    shape: tuple[int, ...],
    dtype: str = "|u1",
    *,
    strides: tuple[int, int] | None = None,
    writable: bool = False,
) -> NDArray[Any]:
    data = (address, not writable)
    return np.asarray(_Memory(data=data, shape=shape, typestr=dtype, strides=strides))


class _Adapter:
    """C functions out of those that were given; c: all six, as ctypes or as an address.

    It must live as long as C may call them.
    """

    def __init__(self, panel: int, given: Mapping[str, Function | None]) -> None:
        """given: the arguments of `register`; None for sizes to be measured, or no prepare."""
        prepare, gemm = given["prepare"], given["gemm"]
        if given["packed_bytes"] is None and _is_c(given["pack"]):
            raise ValueError("a pack in C needs packed_bytes")
        if given["token_bytes"] is None and _is_c(gemm if prepare is None else prepare):
            raise ValueError("a prepare or a gemm in C needs token_bytes")
        self._panel = panel
        self._panel_bytes: dict[int, int] = {}
        self._token_bytes: dict[int, int] = {}
        self._plain = prepare is None
        defaults: dict[str, Function] = {
            "packed_bytes": self._measure_packed,
            "token_bytes": self._measure_token,
            "prepare": lambda q: q,
        }
        self._call: dict[str, Any] = {}
        self.c: dict[str, Function] = {}
        for name, function in given.items():
            self._add(name, defaults.get(name) if function is None else function)

    def _add(self, name: str, function: Function | None) -> None:
        """Make *function* callable from Python and from C."""
        wrappers: dict[str, Callable[..., Any]] = {
            "packed_bytes": self._packed_bytes,
            "pack": self._pack,
            "unpack": self._unpack,
            "token_bytes": self._bytes_of_token,
            "prepare": self._prepare,
            "gemm": self._gemm,
        }
        if function is not None and _is_c(function):
            self.c[name] = function
            self._call[name] = _C[name](_address(function))
        elif callable(function):
            self._call[name] = function
            self.c[name] = _C[name](_guarded(wrappers[name]))
        else:
            raise ValueError(f"{name} is {function!r}, it must be a function")

    def check_sizes(self, name: str) -> None:
        """ValueError if sizes cannot be right; what Python functions raise is raised here."""
        for rows, cols in ((1, 1), (3, 128), (64, 257)):
            packed, token = self._packed_bytes(rows, cols), self._bytes_of_token(cols, 1)
            if packed < 1:
                raise ValueError(f"{name}: packed_bytes({rows}, {cols}) is {packed}")
            if token < 1 or token % _LINE:
                raise ValueError(
                    f"{name}: token_bytes({cols}, 1) is {token}, not a multiple of {_LINE}"
                )

    def _measure_packed(self, rows: int, cols: int) -> int:
        """Bytes of the panels, each as large as a packed panel of zeros."""
        if cols == 0:
            return 0
        if cols not in self._panel_bytes:
            zeros = np.zeros((self._panel, cols), np.int8)
            self._panel_bytes[cols] = np.asarray(self._call["pack"](zeros)).nbytes
        return -(-rows // self._panel) * self._panel_bytes[cols]

    def _measure_token(self, cols: int, n: int) -> int:
        if cols == 0:
            return _LINE
        if cols not in self._token_bytes:
            prepared = np.asarray(self._call["prepare"](np.zeros(cols, np.int8)))
            self._token_bytes[cols] = max(1, -(-prepared.nbytes // _LINE)) * _LINE
        return self._token_bytes[cols]

    def _packed_bytes(self, rows: int, cols: int) -> int:
        return operator.index(self._call["packed_bytes"](rows, cols))

    def _bytes_of_token(self, cols: int, n: int) -> int:
        return operator.index(self._call["token_bytes"](cols, n))

    def _packed(
        self, address: int, cols: int, lo: int, hi: int, *, writable: bool = False
    ) -> NDArray[Any]:
        """Bytes of packed rows lo..hi, panels being one after another."""
        start = self._packed_bytes(lo, cols) if lo else 0
        size = self._packed_bytes(hi, cols) - start
        return _view(address + start, (size,), writable=writable)

    def _pack(self, to: int, source: int, rows: int, cols: int, lo: int, hi: int) -> None:
        row_bytes = _row_bytes(cols)
        canonical = _view(source + lo * row_bytes, (hi - lo, row_bytes))
        room = self._packed(to, cols, lo, hi, writable=True)
        room[:] = _as_bytes("pack", self._call["pack"](i2_s.unpack_rows(canonical, cols)), room)

    def _unpack(self, to: int, source: int, rows: int, cols: int, lo: int, hi: int) -> None:
        row_bytes = _row_bytes(cols)
        canonical = _view(to + lo * row_bytes, (hi - lo, row_bytes), writable=True)
        canonical[:] = 0x55  # zero weights, should the function fail
        found = self._call["unpack"](self._packed(source, cols, lo, hi), hi - lo, cols)
        weights = np.asarray(found)
        if weights.dtype != np.int8 or weights.shape != (hi - lo, cols):
            raise ValueError(
                f"unpack returned {weights.dtype}{weights.shape}, not int8 {(hi - lo, cols)}"
            )
        canonical[:] = i2_s.pack_rows(weights)

    def _prepare(self, to: int, q: int, cols: int, n: int) -> None:
        room = _view(to, (self._bytes_of_token(cols, n),), writable=True)
        room[:] = 0
        prepared = self._call["prepare"](_view(q, (cols,), "|i1"))
        data = np.ascontiguousarray(prepared).reshape(-1).view(np.uint8)
        if data.size > room.size:
            raise ValueError(f"prepare returned {data.size} bytes, token_bytes says {room.size}")
        room[: data.size] = data

    def _gemm(
        self,
        dot: int,
        stride: int,
        packed: int,
        prepared: int,
        rows: int,
        cols: int,
        lo: int,
        hi: int,
        n: int,
    ) -> None:
        if lo == hi:
            return
        shape = (n, hi - lo)
        out = _view(dot + 4 * lo, shape, _INT32, strides=(4 * stride, 4), writable=True)
        out[:] = 0
        tokens = _view(prepared, (n, self._bytes_of_token(cols, n)))
        if self._plain:
            tokens = tokens.view(np.int8)[:, :cols]
        part = self._packed(packed, cols, lo, hi)
        found = np.asarray(self._call["gemm"](part, tokens, hi - lo, cols))
        if found.dtype.kind not in "iu" or found.shape != shape:
            raise ValueError(f"gemm returned {found.dtype}{found.shape}, not integers {shape}")
        out[:] = found


def _as_bytes(what: str, found: Any, room: NDArray[Any]) -> NDArray[np.uint8]:
    data = np.ascontiguousarray(found).reshape(-1).view(np.uint8)
    if data.size != room.size:
        raise ValueError(f"{what} returned {data.size} bytes, packed_bytes says {room.size}")
    return data


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    """*function* for C: what it raises is remembered, and C gets 0."""

    def call(*arguments: int) -> Any:
        try:
            return function(*arguments)
        except BaseException as error:
            _registry.failures.add(error)
            return 0

    return call

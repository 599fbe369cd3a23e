"""Kernels from outside for tests: one of Python functions, one of C functions."""

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Rows of one signed byte a weight, rounded up to 16; tokens likewise.
C_SOURCE = """
#include <stdint.h>
#include <string.h>

static int64_t padded(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

int64_t packed_bytes(int64_t rows, int64_t cols) { return rows * padded(cols, 16); }
int64_t token_bytes(int64_t cols, int64_t n) { return padded(cols, 64); }

static int code(const uint8_t *row, int64_t k)
{
    return row[k / 128 * 32 + k % 32] >> (6 - k % 128 / 32 * 2) & 3;
}

void pack(uint8_t *to, const uint8_t *from, int64_t rows, int64_t cols, int64_t lo, int64_t hi)
{
    for (int64_t row = lo; row < hi; row++)
        for (int64_t k = 0; k < padded(cols, 16); k++)
            to[row * padded(cols, 16) + k] =
                k < cols ? (uint8_t)(code(from + row * (padded(cols, 128) / 4), k) - 1) : 0;
}

void unpack(uint8_t *to, const uint8_t *from, int64_t rows, int64_t cols, int64_t lo, int64_t hi)
{
    const int64_t row_bytes = padded(cols, 128) / 4;
    memset(to + lo * row_bytes, 0x55, (hi - lo) * row_bytes);
    for (int64_t row = lo; row < hi; row++)
        for (int64_t k = 0; k < cols; k++) {
            const int weight = (int8_t)from[row * padded(cols, 16) + k];
            to[row * row_bytes + k / 128 * 32 + k % 32] += weight * (1 << (6 - k % 128 / 32 * 2));
        }
}

void prepare(uint8_t *prepared, const int8_t *q, int64_t cols, int64_t n)
{
    memset(prepared, 0, padded(cols, 64));
    memcpy(prepared, q, cols);
}

void gemm(int32_t *dot, int64_t dot_stride, const uint8_t *packed, const uint8_t *prepared,
          int64_t rows, int64_t cols, int64_t lo, int64_t hi, int64_t n)
{
    for (int64_t t = 0; t < n; t++)
        for (int64_t row = lo; row < hi; row++) {
            const int8_t *weight = (const int8_t *)packed + row * padded(cols, 16);
            const int8_t *q = (const int8_t *)prepared + t * padded(cols, 64);
            int32_t sum = 0;
            for (int64_t k = 0; k < cols; k++) sum += weight[k] * q[k];
            dot[t * dot_stride + row] = sum;
        }
}
"""


def compile_c(folder: Path) -> dict[str, Any] | None:
    """Compile the functions; None without a compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return None
    source, library = folder / "kernel.c", folder / "kernel.so"
    source.write_text(C_SOURCE)
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    loaded = ctypes.CDLL(str(library))
    names = ("packed_bytes", "pack", "unpack", "token_bytes", "prepare", "gemm")
    return {name: getattr(loaded, name) for name in names}


def pack(weights: NDArray[np.int8]) -> NDArray[np.int8]:
    """Columns of four rows side by side: panels."""
    rows, cols = weights.shape
    padded = np.zeros((-(-rows // 4) * 4, cols), np.int8)
    padded[:rows] = weights
    return padded.reshape(-1, 4, cols).transpose(0, 2, 1)


def unpack(packed: NDArray[np.uint8], rows: int, cols: int) -> NDArray[np.int8]:
    panels = packed.view(np.int8).reshape(-1, cols, 4)
    return panels.transpose(0, 2, 1).reshape(-1, cols)[:rows]


def gemm(packed: NDArray[np.uint8], q: NDArray[np.int8], rows: int, cols: int) -> NDArray[np.int64]:
    weights = unpack(packed, rows, cols).astype(np.float64)
    return (q.astype(np.float64) @ weights.T).astype(np.int64)


def tables(q: NDArray[np.int8]) -> NDArray[np.int16]:
    """Activations as int16: another type than bytes."""
    return q.astype(np.int16)


def gemm_of_tables(
    packed: NDArray[np.uint8], prepared: NDArray[np.uint8], rows: int, cols: int
) -> NDArray[np.int32]:
    q = prepared.view(np.int16)[:, :cols]
    return q.astype(np.int32) @ unpack(packed, rows, cols).astype(np.int32).T


PYTHON: dict[str, Any] = {"pack": pack, "unpack": unpack, "gemm": gemm, "panel": 4}
WITH_TABLES: dict[str, Any] = {**PYTHON, "prepare": tables, "gemm": gemm_of_tables}

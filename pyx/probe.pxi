"""Showing the results of single operations to Python, and finding the first that is not finite."""

import numpy as np

from libc.stdint cimport int64_t
from libc.string cimport memcpy

from cengine cimport bl_op, bl_op_names


class _Watcher:
    """A probe, and the first exception it raised: C cannot hand it on."""

    def __init__(self, probe):
        self.probe = probe
        self.error = None


cdef void _show(void *context, int64_t layer, bl_op op, const float *data, int64_t n, int64_t width) noexcept with gil:
    """Hand a copy of an op's result to the Python probe."""
    cdef float[:, ::1] view
    watcher = <object>context
    if watcher.error is not None:
        return
    try:
        array = np.empty((n, width), np.float32)
        view = array
        memcpy(&view[0, 0], data, n * width * 4)
        watcher.probe(layer, bl_op_names[<int>op].decode(), array)
    except BaseException as error:
        watcher.error = error


class _FirstBad:
    """A probe that remembers the first result that is not finite."""

    def __init__(self):
        self.found = None

    def __call__(self, layer, op, array):
        if self.found is None and not np.isfinite(array).all():
            row, column = np.argwhere(~np.isfinite(array))[0]
            where = op if layer < 0 else f"layer {layer}, {op}"
            self.found = f"{array[row, column]} first appeared in {where}, token {row} of its batch, element {column}"


def first_fault(Workspace workspace not None, Cache cache not None, ids not None, rows=None) -> str:
    """Where NaN or infinity first appears when *ids* (n,) run at the position of *cache*, which stays; "" if nowhere.

    rows: those of the tokens whose logits are computed too; default: the last one.
    """
    rows = np.array([len(ids) - 1] if rows is None else rows, np.int64)
    logits = np.empty((len(rows), workspace.weights.config.vocab_size), np.float32)
    first, start = _FirstBad(), cache.position
    workspace.step([(cache, ids)], rows, logits, probe=first)
    cache.rewind(start)
    return first.found or ""

"""Measuring which kernel is fastest for the matrices of a model; `runtime.choose` reads the result.

The matrices of each of INPUT_GROUPS have one kernel.
"""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bitnet_lut import _native
from bitnet_lut.bench.timing import Timer, prepare_seconds, ring, ring_bytes, take_turns
from bitnet_lut.families import ModelConfig
from bitnet_lut.formats.output import write_text
from bitnet_lut.kernels.kernel import Kernel, get
from bitnet_lut.runtime.choose import (
    group_shapes,
    machine_key,
    measurements_file,
    read_measurements,
)
from bitnet_lut.runtime.packing import INPUT_GROUPS

__all__ = ["TOKENS", "Timing", "Tuning", "measure", "remember"]

# Numbers of tokens at once: the first decides, unless the kernel is far slower with others (_LOSS).
TOKENS = (1, 8, 64)

_PLAIN = "i2_s"  # needs no packing: others must be faster than it, and not by noise alone
_GAIN = 1.02
_LOSS = 1.3  # times as long as it, at most, may others take with several tokens
_WEIGHTS = 2**23  # about as many in the matrix that is timed; more rows take longer in proportion
_ROWS = 256  # whole panels of every kernel, and whole tiles of them


@dataclass(frozen=True)
class Timing:
    """How long a kernel takes for a group; seconds by the number of tokens at once."""

    group: str
    rows: int
    cols: int
    kernel: str
    seconds: Mapping[int, float]


@dataclass(frozen=True)
class Tuning:
    """What was measured on a tier with some threads, and the kernel chosen for each group."""

    isa: str
    threads: int
    timings: Sequence[Timing]

    @property
    def choice(self) -> dict[str, str]:
        """By group, the kernel that is fastest for one token and not much slower for several.

        i2_s stays unless another kernel is 2 % faster.
        """
        return {group: self._fastest(group) for group in INPUT_GROUPS}

    def _fastest(self, group: str) -> str:
        seconds = {one.kernel: one.seconds for one in self.timings if one.group == group}
        plain = seconds[_PLAIN]
        acceptable = [
            kernel
            for kernel, taken in seconds.items()
            if all(taken[n] <= _LOSS * plain[n] for n in plain)
        ]
        best = min(acceptable, key=lambda kernel: seconds[kernel][1])
        return best if seconds[best][1] * _GAIN < plain[1] else _PLAIN


def measure(
    config: ModelConfig,
    isa: str,
    threads: int,
    *,
    nbytes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tuning:
    """Time every kernel that has functions of its own on the tier, for every group of a model.

    nbytes: packed weights that stream from memory, for each kernel; default: several times the
        caches.
    progress: called with the groups done so far and the total.
    """
    if nbytes is None:
        nbytes = ring_bytes()
    kernels = [get(name, isa) for name in _native.kernel_names()]
    kernels = [kernel for kernel in kernels if kernel.own]
    timings: list[Timing] = []
    for done, (group, (rows, cols)) in enumerate(group_shapes(config).items()):
        seconds = _time_group(kernels, rows, cols, threads, nbytes)
        timings += [Timing(group, rows, cols, name, taken) for name, taken in seconds.items()]
        progress(done + 1, len(INPUT_GROUPS))
    return Tuning(isa, threads, timings)


def _time_group(
    kernels: Sequence[Kernel], rows: int, cols: int, threads: int, nbytes: int
) -> dict[str, dict[int, float]]:
    """Seconds by kernel and tokens."""
    part = min(rows, -(-_WEIGHTS // cols // _ROWS) * _ROWS)
    rng = np.random.default_rng(0)
    weights = rng.integers(-1, 2, (part, cols), np.int8)
    rings = [ring(kernel.pack(weights), nbytes) for kernel in kernels]
    seconds: dict[str, dict[int, float]] = {kernel.name: {} for kernel in kernels}
    for n in TOKENS:
        q = rng.integers(-127, 128, (n, cols), np.int8)
        timers = [
            Timer(kernel, matrices, part, kernel.prepare(q), threads)
            for kernel, matrices in zip(kernels, rings, strict=True)
        ]
        for kernel, found in zip(kernels, take_turns(timers), strict=True):
            prepare = prepare_seconds(kernel, q) / min(n, threads)
            seconds[kernel.name][n] = prepare + found * rows / part
    return seconds


def remember(tuning: Tuning) -> Path | None:
    """Keep the result for later models; returns the file, None with a warning if that fails."""
    path = measurements_file()
    if path is None:
        warnings.warn("there is no cache folder: the tuning is not kept", stacklevel=2)
        return None
    shapes = {one.group: f"{one.rows}x{one.cols}" for one in tuning.timings}
    everything = read_measurements()
    entry = everything.setdefault(machine_key(tuning.isa, tuning.threads), {})
    entry.update({shapes[group]: kernel for group, kernel in tuning.choice.items()})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(everything, indent=1) + "\n")
    except OSError as error:
        warnings.warn(f"the tuning is not kept: {error}", stacklevel=2)
        return None
    return path

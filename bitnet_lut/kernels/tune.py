"""The choice among kernels for the matrices of a model: measured once, or by a fixed order.

The matrices of each of INPUT_GROUPS have one kernel. What was measured is kept in the user's cache
folder, by processor, version, tier, threads and shape, for every later model.
"""

import json
import os
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bitnet_lut import _native
from bitnet_lut.bench.machine import machine
from bitnet_lut.families import ModelConfig, tensor_shapes
from bitnet_lut.kernels.kernel import Kernel, get
from bitnet_lut.kernels.timing import Timer, prepare_seconds, ring, ring_bytes, take_turns
from bitnet_lut.runtime.cpu import choose_kernels, is_kernel_asked_for
from bitnet_lut.runtime.packing import INPUT_GROUPS

__all__ = ["TOKENS", "Timing", "Tuning", "choose", "measure", "remember"]

TOKENS = (1, 8, 64)  # at once; the first decides, unless others are far slower (_LOSS)

_PLAIN = "i2_s"  # needs no packing: others must be faster than it, and not by noise alone
_GAIN = 1.02
_LOSS = 1.3  # times as long as it, at most, may others take with several tokens
_WEIGHTS = 2**23  # of the matrix that is timed, about; more rows take as much longer
_ROWS = 256  # whole panels of every kernel, and whole tiles of them


@dataclass(frozen=True)
class Timing:
    """How long a kernel takes for a group. seconds: by the number of tokens at once."""

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
        """The kernel that is fastest for one token, by group, and nowhere much slower than i2_s.

        It is i2_s itself unless another gains 2 %.
        """
        return {group: self._fastest(group) for group in INPUT_GROUPS}

    def _fastest(self, group: str) -> str:
        seconds = {one.kernel: one.seconds for one in self.timings if one.group == group}
        plain = seconds[_PLAIN]
        bearable = [k for k, of in seconds.items() if all(of[n] <= _LOSS * plain[n] for n in plain)]
        best = min(bearable, key=lambda kernel: seconds[kernel][1])
        return best if seconds[best][1] * _GAIN < plain[1] else _PLAIN


def choose(config: ModelConfig, kernel: str, isa: str, threads: int) -> dict[str, str]:
    """The kernel of each group: the one asked for, else as measured, else by the fixed order.

    Raises ValueError for a kernel that is unknown.
    """
    found = choose_kernels(kernel, isa)
    if is_kernel_asked_for(kernel):
        return found
    known = _read().get(_machine_key(isa, threads), {})
    for group, (rows, cols) in _shapes(config).items():
        measured = known.get(f"{rows}x{cols}")
        if measured in _native.kernel_names():
            found[group] = measured
    return found


def measure(
    config: ModelConfig,
    isa: str,
    threads: int,
    *,
    nbytes: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tuning:
    """Time every kernel that has functions of its own on the tier, for every group of a model.

    nbytes: of weights that stream from memory, for each kernel; default: some times the caches.
    progress: called with the groups done and in all.
    """
    if nbytes is None:
        nbytes = ring_bytes()
    kernels = [get(name, isa) for name in _native.kernel_names()]
    kernels = [kernel for kernel in kernels if kernel.own]
    timings: list[Timing] = []
    for done, (group, (rows, cols)) in enumerate(_shapes(config).items()):
        seconds = _time_group(kernels, rows, cols, threads, nbytes)
        timings += [Timing(group, rows, cols, name, of) for name, of in seconds.items()]
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
    """Keep what was measured for `choose`; returns the file, None with a warning if it fails."""
    path = _cache_file()
    if path is None:
        warnings.warn("there is no cache folder: the tuning is not kept", stacklevel=2)
        return None
    shapes = {one.group: f"{one.rows}x{one.cols}" for one in tuning.timings}
    everything = _read()
    entry = everything.setdefault(_machine_key(tuning.isa, tuning.threads), {})
    entry.update({shapes[group]: kernel for group, kernel in tuning.choice.items()})
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(everything, indent=1) + "\n", encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        warnings.warn(f"the tuning is not kept: {error}", stacklevel=2)
        return None
    return path


def _shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Rows of all matrices of a group, and the columns of each."""
    shapes = tensor_shapes(config)
    found = {}
    for group, members in INPUT_GROUPS.items():
        dims = [shapes[f"blk.0.{name}.weight"] for name in members]
        found[group] = (sum(rows for rows, _ in dims), dims[0][1])
    return found


def _machine_key(isa: str, threads: int) -> str:
    here = machine()
    return f"{here.cpu}, bitnet_lut {here.version}, {isa}, threads {threads}"


def _cache_file() -> Path | None:
    """Where tunings are kept; None where no user has a home."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    local = os.environ.get("LOCALAPPDATA", "")
    if Path(given).is_absolute():
        folder = Path(given)
    elif sys.platform == "win32" and local:
        folder = Path(local)
    else:
        try:
            home = Path.home()
        except RuntimeError:
            return None
        folder = home / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return folder / "bitnet_lut" / "kernels.json"


def _read() -> dict[str, Any]:
    """Kernels by machine and shape; empty, with a warning, if the file makes no sense."""
    path = _cache_file()
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, dict) or not all(map(_is_entry, found.values())):
            raise ValueError("it is no table of kernels")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        warnings.warn(
            f"{path} is ignored: {error}; delete it, or run bitnet-lut tune", stacklevel=3
        )
        return {}
    return found


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and all(isinstance(name, str) for name in entry.values())

"""This machine: what it is, the roofs that nothing on it can exceed, and the energy it takes."""

import mmap
import os
import platform
import statistics
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native
from bitnet_lut._native import missing_features
from bitnet_lut.runtime.cpu import choose_isa, cpu_info, cpu_name, default_threads

__all__ = ["EnergyMeter", "Machine", "ReadRoof", "Roof", "integer_gmac_s", "machine", "roof"]

# Far larger than any cache a core has a share of.
READ_BYTES = 2**29
_LEAST_BYTES = 2**28  # of one timed run: some hundredths of a second
_MACS = {"scalar": 2**28}  # of one timed run; wide instructions do more
_MACS_OF_VECTORS = 2**32


@dataclass(frozen=True)
class Machine:
    """What a figure was measured on.

    threads: what the library uses unless told otherwise. caches: bytes by name, such as "L1d", on
    the way from one core to memory. memory: bytes, None if unknown. compiler: of this Python,
    which as a rule is that of the extension modules. version: of this package.
    """

    cpu: str
    features: tuple[str, ...]
    cores: int
    threads: int
    caches: dict[str, int]
    memory: int | None
    os: str
    python: str
    compiler: str | None
    version: str

    def __str__(self) -> str:
        """One line."""
        caches = ", ".join(f"{name} {size // 2**10} KiB" for name, size in self.caches.items())
        memory = "" if self.memory is None else f", {self.memory / 2**30:.0f} GiB"
        return (
            f"{self.cpu}, {self.cores} cores, {caches or 'caches unknown'}{memory}; {self.os}; "
            f"Python {self.python}, bitnet_lut {self.version}"
        )


@dataclass(frozen=True)
class Roof:
    """The fastest that this machine does anything with one tier and a number of threads.

    read_gb_s: bytes read from memory, integer_gmac_s: multiply-adds of bytes; both 1e9 a second.
    """

    isa: str
    threads: int
    read_gb_s: float
    integer_gmac_s: float


def machine() -> Machine:
    """Describe the machine this runs on."""
    info = cpu_info()
    return Machine(
        cpu=cpu_name(),
        features=info.features,
        cores=os.cpu_count() or 1,
        threads=default_threads(),
        caches=_caches(Path("/sys/devices/system/cpu/cpu0/cache")),
        memory=_memory(),
        os=platform.platform(),
        python=platform.python_version(),
        compiler=sysconfig.get_config_var("CC") and platform.python_compiler(),
        version=version("bitnet_lut"),
    )


def _caches(folder: Path) -> dict[str, int]:
    """Sizes by name; empty where the system does not tell."""
    found = {}
    for index in sorted(folder.glob("index*")):
        try:
            level, kind, size = (
                (index / name).read_text().strip() for name in ("level", "type", "size")
            )
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            found[f"L{level}{'d' if kind == 'Data' else ''}"] = int(size[:-1]) * 1024
    return found


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


class ReadRoof:
    """Measures how fast *nbytes* are read again and again: from memory if they fit no cache.

    On huge pages where the system gives them. Memory knows nothing of tiers, and the widest loads
    need not be the fastest: each run takes the best tier of this machine.
    """

    def __init__(self, nbytes: int = READ_BYTES) -> None:
        """Fill a buffer of *nbytes*, rounded up to whole pages and at most READ_BYTES."""
        nbytes = min(max(nbytes, 1), READ_BYTES)
        self._data = _buffer(-(-nbytes // _native.READ_UNIT) * _native.READ_UNIT)
        self._isas = [isa for isa in _native.roof_names() if not missing_features(isa)]

    def gb_s(self, threads: int) -> float:
        """One run: 1e9 bytes per second."""
        passes = -(-_LEAST_BYTES // self._data.size)
        seconds = min(
            _native.read_roof(self._data, isa=isa, threads=threads, passes=passes)[0]
            for isa in self._isas
        )
        return self._data.size * passes / seconds / 1e9


def _buffer(nbytes: int) -> NDArray[np.uint8]:
    if hasattr(mmap, "MADV_HUGEPAGE"):
        memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        memory.madvise(mmap.MADV_HUGEPAGE)
    else:
        memory = mmap.mmap(-1, nbytes)
    data = np.frombuffer(memory, np.uint8)
    data[:] = 1  # a page that was never written is the one page of zeros, which is in the cache
    return data


def integer_gmac_s(isa: str, threads: int) -> float:
    """One run of multiply-adds in registers, 1e9 per second on all threads together."""
    seconds, macs = _native.multiply_roof(
        _MACS.get(isa, _MACS_OF_VECTORS), isa=isa, threads=threads
    )
    return macs / seconds / 1e9


def roof(isa: str = "auto", threads: int = 1, *, runs: int = 7) -> Roof:
    """Measure the roofs: the medians of *runs* runs.

    Raises ValueError for a tier that is unknown or missing here.
    """
    isa = choose_isa(isa)
    memory = ReadRoof()
    return Roof(
        isa,
        threads,
        read_gb_s=_median(runs, lambda: memory.gb_s(threads)),
        integer_gmac_s=_median(runs, lambda: integer_gmac_s(isa, threads)),
    )


def _median(runs: int, measure: Callable[[], float]) -> float:
    measure()
    return statistics.median(measure() for _ in range(runs))


class EnergyMeter:
    """The energy counters of the processor packages, where the system lets this process read them.

    The counters cover the whole package: other programs' work on it is in them too.
    """

    def __init__(self, root: Path = Path("/sys/class/powercap")) -> None:
        """Find the counters below *root*."""
        self._packages = [
            folder for folder in sorted(root.glob("*rapl:*")) if folder.name.count(":") == 1
        ]

    def read(self) -> tuple[int, ...] | None:
        """Microjoules of every package since some moment; None where they cannot be read."""
        try:
            counts = tuple(int((folder / "energy_uj").read_text()) for folder in self._packages)
        except (OSError, ValueError):
            return None
        return counts or None

    def joules(self, before: Sequence[int] | None, after: Sequence[int] | None) -> float | None:
        """Energy between two readings, each counter having wrapped around at most once."""
        if before is None or after is None:
            return None
        total = 0
        for folder, old, new in zip(self._packages, before, after, strict=True):
            wrap = 0 if new >= old else int((folder / "max_energy_range_uj").read_text()) + 1
            total += new - old + wrap
        return total / 1e6

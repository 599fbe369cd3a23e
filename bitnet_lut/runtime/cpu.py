"""Which tier computes, and with how many threads."""

import os
import platform
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from bitnet_lut import _native

__all__ = ["CpuInfo", "choose_isa", "cpu_info", "cpu_name", "default_threads"]

ISA_VARIABLE = "BITNET_LUT_ISA"


@dataclass(frozen=True)
class CpuInfo:
    """What was found on this machine, what is used, and why.

    features: instruction sets found that a tier may need.
    tiers: every tier, best first, with what speaks for or against it.
    isa: the tier that ``isa="auto"`` stands for; reason: why it was chosen.
    threads: what ``threads=None`` stands for.
    """

    features: tuple[str, ...]
    tiers: dict[str, str]
    isa: str
    reason: str
    threads: int


@cache
def _verdict(isa: str) -> str:
    """What speaks against *isa* here; empty if it may be used. The self-test runs once."""
    missing = _native.missing_features(isa)
    return f"this machine lacks {', '.join(missing)}" if missing else _native.self_test_fault(isa)


def _checked(isa: str, asked_by: str) -> str:
    if isa not in _native.tier_names():
        known = ", ".join(_native.tier_names())
        raise ValueError(f"{asked_by} asks for {isa!r}, the tiers are {known}")
    verdict = _verdict(isa)
    if verdict:
        raise ValueError(f"{asked_by} asks for {isa!r}, but {verdict}")
    return isa


def _best() -> tuple[str, str]:
    asked = os.environ.get(ISA_VARIABLE, "auto")
    if asked != "auto":
        return _checked(asked, ISA_VARIABLE), f"{ISA_VARIABLE} asks for it"
    here = [isa for isa in _native.tier_names() if not _native.missing_features(isa)]
    usable = next(isa for isa in here if not _verdict(isa))
    for isa in here[: here.index(usable)]:
        warnings.warn(
            f"tier {isa} is not used, {_verdict(isa)}; {usable} computes in its place",
            RuntimeWarning,
            stacklevel=3,
        )
    return usable, "the best tier that this machine has and that passed its self-test"


def choose_isa(isa: str = "auto") -> str:
    """The tier to use: *isa* itself, else the environment's BITNET_LUT_ISA, else the best one.

    Raises ValueError for a tier that is unknown, missing here or failed its self-test. Where the
    best one of this machine fails, the next is taken, and a RuntimeWarning says why.
    """
    return _best()[0] if isa == "auto" else _checked(isa, "isa")


def cpu_info() -> CpuInfo:
    """What was found on this machine, what is used, and why."""
    isa, reason = _best()
    tiers = {name: _verdict(name) or "usable" for name in _native.tier_names()}
    return CpuInfo(tuple(_native.cpu_features()), tiers, isa, reason, default_threads())


def cpu_name() -> str:
    """The name of the processor, else of its architecture, with its family and model if known.

    In virtual machines the name may be that of a whole series, as AMD EPYC.
    """
    found: dict[str, str] = {}
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            key, _, value = line.partition(":")
            found.setdefault(key.strip(), value.strip())
    name = found.get("model name", platform.machine())
    if "cpu family" in found and "model" in found:
        name += f" (family {found['cpu family']}, model {found['model']})"
    return name


def default_threads() -> int:
    """Cores this process may use: its affinity, cut to the quota of its control group.

    At most as many as a model can use.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:
        cores = os.cpu_count() or 1
    quota = _cgroup_quota(Path("/sys/fs/cgroup"))
    cores = cores if quota is None else min(cores, int(quota))
    return min(max(1, cores), _native.MAX_THREADS)


def _cgroup_quota(root: Path) -> float | None:
    """CPUs that the control group below *root* grants, version 2 or 1; None without a limit."""
    try:
        limit, period = (root / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            limit = (root / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (root / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    try:
        quota = int(limit) / int(period)
    except (ValueError, ZeroDivisionError):
        return None  # "max"
    return quota if quota > 0 else None

"""The processor's own counters, where the system lets programs read them: perf_event of Linux."""

import ctypes
import errno
import os
import platform
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Counts", "count", "why_not"]

# The system call, by machine; kinds of events as linux/perf_event.h numbers them.
_CALLS = {"x86_64": 298, "aarch64": 241}
_HARDWARE = 0
_EVENTS = {"cycles": 0, "instructions": 1, "cache_misses": 3}
_ATTRIBUTE = struct.Struct("<IIQQQQQIIQ")  # perf_event_attr, the first version: 64 bytes
_INHERIT, _NO_KERNEL, _NO_HYPERVISOR = 1 << 1, 1 << 5, 1 << 6
_REASONS = {
    errno.ENOENT: "this processor, or the virtual machine, has no such counters",
    errno.EACCES: "/proc/sys/kernel/perf_event_paranoid forbids it",
    errno.EPERM: "/proc/sys/kernel/perf_event_paranoid or a container forbids it",
    errno.ENOSYS: "the system or a container does not allow perf_event_open",
}


@dataclass(frozen=True)
class Counts:
    """What a piece of work took, on all threads that it started; in user space only.

    cache_misses: of the last cache, as the processor defines the event.
    """

    cycles: float
    instructions: float
    cache_misses: float


def count(work: Callable[[], object]) -> Counts:
    """Run *work* and count; OSError, with the reason, where that is not possible."""
    opened: list[int] = []
    try:
        opened.extend(map(_open, _EVENTS.values()))
        work()
        found = [int.from_bytes(os.read(one, 8), sys.byteorder) for one in opened]
    finally:
        for one in opened:
            os.close(one)
    return Counts(**dict(zip(_EVENTS, map(float, found), strict=True)))


def why_not() -> str | None:
    """Why `count` does not work here; None where it does."""
    try:
        count(lambda: None)
    except OSError as error:
        return str(error)
    return None


def _open(event: int) -> int:
    """A file that counts *event* from now on."""
    number = _CALLS.get(platform.machine())
    if sys.platform != "linux" or number is None:
        raise OSError(f"not known how on {sys.platform} {platform.machine()}")
    flags = _INHERIT | _NO_KERNEL | _NO_HYPERVISOR
    attribute = _ATTRIBUTE.pack(_HARDWARE, _ATTRIBUTE.size, event, 0, 0, 0, flags, 0, 0, 0)
    system = ctypes.CDLL(None, use_errno=True)
    # This process, on any processor, in no group, without flags.
    found: int = system.syscall(ctypes.c_long(number), attribute, 0, -1, -1, ctypes.c_ulong(0))
    if found < 0:
        reason = ctypes.get_errno()
        raise OSError(_REASONS.get(reason, os.strerror(reason)))
    return found

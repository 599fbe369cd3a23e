"""How much memory there is."""

from pathlib import Path

__all__ = ["available_memory", "in_megabytes", "refuse_beyond"]


def in_megabytes(count: int) -> str:
    """*count* bytes, as people read them."""
    return f"{count / 1e6:,.1f} MB"


def available_memory() -> int | None:
    """Bytes this process could still take, by machine and control group; None if unknown."""
    found = [size for size in (_free_on_machine(), _free_in_cgroup()) if size is not None]
    return min(found, default=None)


def refuse_beyond(needed: int, what: str, advice: str) -> None:
    """MemoryError with the numbers if *needed* bytes are more than there are."""
    available = available_memory()
    if available is not None and needed > available:
        raise MemoryError(
            f"{what} takes {in_megabytes(needed)}, but {in_megabytes(available)} are free: {advice}"
        )


def _free_on_machine() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kilobytes = next(line.split()[1] for line in lines if line.startswith("MemAvailable:"))
        return int(kilobytes) * 1024
    except (OSError, StopIteration, ValueError):
        return None


def _free_in_cgroup() -> int | None:
    try:
        root = Path("/sys/fs/cgroup")
        limit = int((root / "memory.max").read_text())
        return limit - int((root / "memory.current").read_text())
    except (OSError, ValueError):
        return None  # no such group, or no limit ("max")

"""How much memory a model takes, and how much there is."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["ModelInfo", "available_memory", "refuse_beyond"]


@dataclass(frozen=True)
class ModelInfo:
    """Sizes in bytes, and what they come from.

    parameters: weights of all tensors. weight_bytes: in memory by kind of tensor ("ternary",
    "dense", "embedding", "head", "vectors"); a tied head counts as embedding, but for one of block
    types, which is laid out anew to be multiplied with, while rows are looked up in the file.
    mapped_bytes: the part of them used in place in the file; the rest was packed at load.
    ternary_bits_per_weight, bits_per_weight: of the ternary matrices, and of all tensors.
    kv_bytes, scratch_bytes: of one session with the model's context, touched as it fills.
    """

    parameters: int
    weight_bytes: dict[str, int]
    mapped_bytes: int
    ternary_bits_per_weight: float
    bits_per_weight: float
    kv_bytes: int
    scratch_bytes: int
    isa: str
    kernel: str
    threads: int

    def __str__(self) -> str:
        """One line: what lies where."""
        total = sum(self.weight_bytes.values())
        return (
            f"weights {_megabytes(total)} ({_megabytes(self.mapped_bytes)} of it mapped), "
            f"{self.bits_per_weight:.2f} bits per weight; KV cache {_megabytes(self.kv_bytes)}, "
            f"scratch {_megabytes(self.scratch_bytes)}; {self.kernel} on {self.isa}, "
            f"{self.threads} threads"
        )


def _megabytes(count: int) -> str:
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
            f"{what} takes {_megabytes(needed)}, but {_megabytes(available)} are free: {advice}"
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

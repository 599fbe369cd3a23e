"""The energy that this machine uses."""

from collections.abc import Sequence
from pathlib import Path

__all__ = ["EnergyMeter"]


class EnergyMeter:
    """The energy counters of the processor packages, where the system lets this process read them.

    The counters cover the whole package: they include the work of other programs.
    """

    def __init__(self, root: Path = Path("/sys/class/powercap")) -> None:
        """Find the counters below *root*."""
        self._packages = [
            folder for folder in sorted(root.glob("*rapl:*")) if folder.name.count(":") == 1
        ]

    def read(self) -> tuple[int, ...] | None:
        """Microjoules counted by every package; None where they cannot be read."""
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

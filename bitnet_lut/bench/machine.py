"""This machine, described beside every figure."""

import os
import platform
import sysconfig
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from bitnet_lut.runtime.cpu import cpu_info, cpu_name, default_threads

__all__ = ["Machine", "machine"]


@dataclass(frozen=True)
class Machine:
    """The machine that a figure was measured on.

    threads: the default of the library.
    caches: bytes by name, such as "L1d", on the way from one core to memory.
    memory: bytes, None if unknown.
    compiler: the one that built this Python, as a rule also the extension module.
    version: that of this package.
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
        # Not platform.platform(), which starts `uname -p`.
        os=f"{platform.system()} {platform.release()} {platform.machine()}",
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

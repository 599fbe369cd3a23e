"""The engine as WebAssembly: the committed modules, and the C self-test by two runtimes."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BUILD = Path("wasm", "build.py")

pytestmark = pytest.mark.skipif(
    find_spec("ziglang") is None, reason="NO ZIGLANG: nothing is built as WebAssembly"
)


def run(command: list[str], status: int = 0) -> str:
    """What a command, which must end with this status, says."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, f"{' '.join(command)}: {done.returncode}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def elsewhere(tmp_path_factory) -> Path:
    """A copy of the sources in another folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    for name in ("include", "src", "wasm", "bitnet_lut/web"):
        shutil.copytree(ROOT / name, folder / name)
    return folder


def test_committed_modules_are_what_the_sources_give_in_any_folder(elsewhere):
    assert run([sys.executable, str(elsewhere / BUILD), "--check"]) == ""


def test_check_names_a_module_that_differs(elsewhere):
    module = elsewhere / "bitnet_lut" / "web" / "relaxed.wasm"
    module.write_bytes(module.read_bytes() + b"\0")
    said = run([sys.executable, str(elsewhere / BUILD), "--check"], status=1)
    assert f"{Path('bitnet_lut', 'web', 'relaxed.wasm')} is not what the sources give" in said


@pytest.fixture(scope="module")
def selftest(tmp_path_factory) -> Path:
    """The folder that the self-test was built into."""
    folder = tmp_path_factory.mktemp("selftest")
    run([sys.executable, str(ROOT / BUILD), "--selftest", str(folder)])
    return folder


WASMTIME = (sys.executable, str(Path(__file__).parent / "wasi.py"))
TIERS = {"relaxed": ["wasmrelaxed", "wasm128", "scalar"], "simd": ["wasm128", "scalar"]}


@pytest.mark.parametrize("build", TIERS)
def test_selftest_by_wasmtime(selftest, build):
    if find_spec("wasmtime") is None:
        pytest.skip("NO WASMTIME: the C self-test is not run by it")
    assert run([*WASMTIME, str(selftest / f"selftest-{build}.wasm")]).split() == TIERS[build]

"""The engine as WebAssembly: the committed modules, and the C self-test by two runtimes."""

import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from dumps import dumped
from node import NODE

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


WASI = Path(__file__).with_name("wasi.mjs")
FIRST_GOOD_NODE = 22  # 20 computes relaxed SIMD wrongly, and crashes at times

WASMTIME = (sys.executable, str(Path(__file__).parent / "wasi.py"))
TIERS = {"relaxed": ["wasmrelaxed", "wasm128", "scalar"], "simd": ["wasm128", "scalar"]}
MODELS = [
    ("relaxed", "odd"),
    ("simd", "odd"),
    ("relaxed", "bitnet-b1.58/model-i2_s"),
    ("simd", "qwen2-plain/model-q8_0"),
]


@pytest.fixture(scope="module")
def wasmtime() -> tuple[str, ...]:
    """Command that runs a WASI program by wasmtime."""
    if find_spec("wasmtime") is None:
        pytest.skip("NO WASMTIME: the C self-test is not run by it")
    return WASMTIME


@pytest.mark.parametrize("build", TIERS)
def test_selftest_by_wasmtime(selftest, wasmtime, build):
    assert run([*wasmtime, str(selftest / f"selftest-{build}.wasm")]).split() == TIERS[build]


@pytest.mark.parametrize(("build", "model"), MODELS)
def test_engine_gives_the_logits_of_python(selftest, wasmtime, tmp_path, build, model):
    path, lines = dumped(model, tmp_path)
    command = [*wasmtime, str(selftest / f"selftest-{build}.wasm"), str(path)]
    assert run(command).splitlines() == lines


def version(node: str) -> int:
    """The major version of a node."""
    return int(run([node, "--version"]).removeprefix("v").split(".")[0])


def node_command(node: str, options: list[str], rounds: int, program: Path) -> list[str]:
    """Command that runs a WASI program several times in one process."""
    return [node, "--no-warnings", *options, str(WASI), str(rounds), str(program)]


# V8 compiles twice: first fast, then well. By itself it does the second during the first round.
COMPILERS = {"fast": (["--liftoff-only"], 1), "well": (["--no-liftoff"], 1), "both": ([], 2)}


@pytest.mark.parametrize("compiler", COMPILERS)
@pytest.mark.parametrize("build", TIERS)
def test_selftest_by_node(selftest, build, compiler):
    if NODE is None or version(NODE) < FIRST_GOOD_NODE:
        pytest.skip("NO NEW NODE: the C self-test is not run by it")
    options, rounds = COMPILERS[compiler]
    command = node_command(NODE, options, rounds, selftest / f"selftest-{build}.wasm")
    assert run(command).split() == TIERS[build] * rounds


def test_tier_that_node_computes_wrongly_is_refused(selftest):
    old = shutil.which("node")
    if old is None or version(old) >= FIRST_GOOD_NODE:
        pytest.skip("NO OLD NODE: none here computes relaxed dot products wrongly")
    options = ["--experimental-wasm-relaxed-simd", "--liftoff-only"]
    command = node_command(old, options, 1, selftest / "selftest-relaxed.wasm")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stderr.startswith("selftest: bl_tier_agrees refuses wasmrelaxed\n")
    assert done.returncode

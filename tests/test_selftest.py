"""The C library without Python: by several compilers, under sanitizers and on an ARM processor.

Each build runs its own checks (see selftest.c), then the engine on dumped models, whose logits must
be those of the Python engine bit for bit.
"""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from dumps import dumped

from bitnet_lut._native import missing_features, tier_names

TESTS = Path(__file__).parent
FLAGS = ["-std=gnu11", "-ffp-contract=off", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-pthread"]
FLAGS += ["-DBL_FAR=3", "-DBL_PAGE=16"]  # so that short texts reach them
INCLUDE = [f"-I{TESTS.parent / folder}" for folder in ("include", "src")]
SOURCES = [TESTS / "selftest.c"]
SOURCES += sorted(path for path in (TESTS.parent / "src").rglob("*.c") if path.name != "main.c")

MODELS = [
    "odd",
    "bitnet-b1.58/model-i2_s",
    "llama-1.58/model-i2_s",
    "qwen2-plain/model-q8_0",
    "qwen2-plain/model-q4_0",
]


class Build(NamedTuple):
    """How to compile the self-test, the models it is given, what emulates which tiers."""

    compiler: tuple[str, ...]
    models: list[str]
    emulator: tuple[str, ...] = ()
    tiers: tuple[str, ...] = ()


ZIG = (sys.executable, "-m", "ziglang")
CLANG = ("clang",) if shutil.which("clang") else (*ZIG, "cc", "-mcpu=baseline")
SANITIZED = ("gcc", "-Og", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SANITIZED += ("-DBL_RED_ZONE=64",)
# Neither qemu-user nor ThreadSanitizer can start threads in a forked child.
UNFORKED = "-DBL_SELFTEST_NO_FORK"
# The tier avxvnni by the AVX-512 form of its instruction, which more machines have.
AS_EVEX = "-DBL_AVXVNNI_AS_EVEX"
# The tier amx with arrays in place of tiles, which qemu does not have.
STANDIN = "-DBL_AMX_STANDIN"
ARM64 = ("aarch64-linux-gnu-gcc", "-O2", "-static", UNFORKED)
X86_TIERS = [name for name in ("avx512", "avxvnni", "avx2", "scalar") if name in tier_names()]
ARM64_TIERS = ("neoni8mm", "neondot", "neon", "scalar")
AMX_TIERS = ("amx", *(name for name in X86_TIERS if not missing_features(name)))
BUILDS = {
    "gcc": Build(("gcc", "-O3"), MODELS),
    "clang": Build((*CLANG, "-O2"), MODELS),
    "memory-sanitized": Build(SANITIZED, MODELS),
    "thread-sanitized": Build(("gcc", "-O1", "-fsanitize=thread", UNFORKED), ["odd"]),
    "avxvnni": Build(
        ("gcc", "-O3", AS_EVEX), ["odd"], tiers=("avx512", "avxvnni", "avx2", "scalar")
    ),
    "amx": Build(("gcc", "-O3", STANDIN), MODELS[:2], tiers=AMX_TIERS),
    "amx-sanitized": Build((*SANITIZED, STANDIN), ["odd"], tiers=AMX_TIERS),
    "no-threads": Build(("gcc", "-O1", "-DBL_NO_THREADS"), ["odd"]),
    "sse2": Build(
        ("gcc", "-O2", UNFORKED), ["odd"], ("qemu-x86_64", "-cpu", "qemu64"), ("scalar",)
    ),
    "neoni8mm": Build(ARM64, MODELS, ("qemu-aarch64", "-cpu", "max"), ARM64_TIERS),
    "neondot": Build(ARM64, ["odd"], ("qemu-aarch64", "-cpu", "neoverse-n1"), ARM64_TIERS[1:]),
    "neon": Build(ARM64, ["odd"], ("qemu-aarch64", "-cpu", "cortex-a72"), ARM64_TIERS[2:]),
}


def run(command: list[str]) -> str:
    """Standard output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("NO THREAD SANITIZER: this kernel's address randomization defeats it")
    assert done.returncode == 0, f"{' '.join(command)}: {done.returncode}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def selftest(tmp_path_factory):
    """Function from a build's name to the command that runs it."""

    @cache
    def compiled(compiler: tuple[str, ...]) -> str:
        folder = tmp_path_factory.mktemp("build")

        def compile_one(source: Path) -> str:
            object_file = str(folder / f"{source.parent.name}-{source.stem}.o")
            run([*compiler, *FLAGS, *INCLUDE, "-c", str(source), "-o", object_file])
            return object_file

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, SOURCES))
        program = str(folder / "selftest")
        run([*compiler, *FLAGS, *objects, "-o", program, "-lm"])
        return program

    def make(name: str) -> list[str]:
        compiler, _, emulator, _ = BUILDS[name]
        if {AS_EVEX, STANDIN} & set(compiler) and missing_features("avx512"):
            pytest.skip(f"NO AVX-512: the C self-test is not run as {name}")
        for tool in (compiler[0], *emulator[:1]):
            if shutil.which(tool) is None:
                pytest.skip(f"NO {tool.upper()}: the C self-test is not run as {name}")
        if "ziglang" in compiler and find_spec("ziglang") is None:
            pytest.skip("NO CLANG and no ziglang: the C self-test is not run as clang")
        return [*emulator, compiled(compiler)]

    return make


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Function from a model's name to its dump and the output that the self-test owes for it."""
    return partial(dumped, folder=tmp_path_factory.mktemp("dumps"))


@pytest.mark.parametrize("build", BUILDS)
def test_kernels_and_pool(selftest, build):
    here = [name for name in tier_names() if not missing_features(name)]
    assert run(selftest(build)).split() == list(BUILDS[build].tiers or here)


@pytest.mark.parametrize(
    ("build", "model"),
    [(name, model) for name, build in BUILDS.items() for model in build.models],
)
def test_engine_gives_the_logits_of_python(selftest, expected, build, model):
    path, lines = expected(model)
    assert run([*selftest(build), str(path)]).splitlines() == lines

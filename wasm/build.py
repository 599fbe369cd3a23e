"""Build the engine as WebAssembly, with the compiler in the package ziglang from PyPI.

    python wasm/build.py                    # the modules in bitnet_lut/web, which are committed
    python wasm/build.py --check            # build elsewhere and compare with those
    python wasm/build.py --selftest FOLDER  # two programs of the C self-test, for WASI

The same sources give the same bytes on any machine and from any folder.
"""

import argparse
import importlib.metadata
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WEB = ROOT / "bitnet_lut" / "web"
ZIG_VERSION = "0.16.0"  # another version gives other bytes

# What each build may use. Both have threads; without bulk memory operations, because compilers
# turn copies of small structs into them, which browsers execute as calls.
FEATURES = "generic+simd128+atomics"
BUILDS = {
    "relaxed": [f"-mcpu={FEATURES}+relaxed_simd"],
    "simd": [f"-mcpu={FEATURES}"],
}
FLAGS = ["-O3", "-g0", "-std=gnu11", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math"]
FLAGS += ["-Wall", "-Wextra", "-Wshadow", "-Werror", "-Iinclude", "-Isrc"]
BARE = ["-target", "wasm32-freestanding", "-nostdlib", "-Iwasm/include"]

# 65,535 pages, the most that zig's linker takes. Each thread sets a stack of its own.
LINK = ["--no-entry", "--strip-all", "--import-memory", "--shared-memory"]
LINK += ["--max-memory=4294901760", "--export=__stack_pointer", "--export=__heap_base"]

# Sources that want the library of C; a page draws its tokens in JavaScript.
HOSTED = ("main.c", "native.c", "gguf.c", "sampling.c", "changes.c")


def zig(arguments: list[str]) -> None:
    """Run the compiler in the root of the sources, so that no path differs."""
    command = [sys.executable, "-m", "ziglang", "cc", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"wasm/build.py: {' '.join(command)}\n{done.stderr}")


def library() -> list[str]:
    """Sources of the engine, relative to the root, in a fixed order."""
    paths = (path for path in (ROOT / "src").rglob("*.c") if path.name not in HOSTED)
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


def compile_all(sources: list[str], flags: list[str], folder: Path) -> list[str]:
    """Objects of the sources, compiled on all cores, in their order."""

    def compile_one(source: str) -> str:
        to = str(folder / source.replace("/", "-").replace(".c", ".o"))
        zig([*flags, "-c", source, "-o", to])
        return to

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(compile_one, sources))


def build(name: str, to: Path) -> None:
    """Build the module of this name for browsers."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [*BARE, *BUILDS[name], *FLAGS]
        objects = compile_all([*library(), "wasm/entry.c"], flags, Path(folder))
        bulk = [*BARE, f"-mcpu={FEATURES}+bulk_memory", *FLAGS, "-fno-builtin"]
        objects += compile_all(["wasm/memory.c"], bulk, Path(folder))
        link = [f"-Wl,{option}" for option in LINK]
        zig([*BARE[:3], BUILDS[name][0] + "+bulk_memory", *objects, *link, "-o", str(to)])
        to.chmod(0o644)


def build_selftest(name: str, to: Path) -> None:
    """Build the C self-test as a WASI program."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["-target", "wasm32-wasi", *BUILDS[name], *FLAGS, "-DBL_FAR=3", "-DBL_PAGE=16"]
        flags += ["-DBL_SELFTEST_NO_FORK", "-DBL_NO_THREADS"]
        sources = [*library(), "src/changes.c", "src/sampling.c", "tests/selftest.c"]
        objects = compile_all(sources, flags, Path(folder))
        zig([*flags[:3], *objects, "-o", str(to)])


def check() -> None:
    """Exit with an error unless the committed modules are what the sources give."""
    with tempfile.TemporaryDirectory() as folder:
        for name in BUILDS:
            built = Path(folder, f"{name}.wasm")
            build(name, built)
            committed = WEB / built.name
            if not committed.exists() or committed.read_bytes() != built.read_bytes():
                sys.exit(
                    f"wasm/build.py: {committed.relative_to(ROOT)} is not what the sources give; "
                    "run python wasm/build.py and commit it"
                )


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="compare with the committed files")
    parser.add_argument("--selftest", type=Path, metavar="FOLDER", help="build the C self-test")
    arguments = parser.parse_args()
    version = importlib.metadata.version("ziglang")
    if version != ZIG_VERSION:
        sys.exit(
            f"wasm/build.py: ziglang {version} is installed; pip install ziglang=={ZIG_VERSION}"
        )
    if arguments.check:
        check()
    elif arguments.selftest:
        for name in BUILDS:
            build_selftest(name, arguments.selftest.resolve() / f"selftest-{name}.wasm")
    else:
        for name in BUILDS:
            build(name, WEB / f"{name}.wasm")


if __name__ == "__main__":
    main()

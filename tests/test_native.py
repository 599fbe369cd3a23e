"""The C program that runs a native file without Python: same ids, and no read beyond a bad file."""

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from golden_data import GOLDEN

from bitnet_lut import Model
from bitnet_lut.convert import convert
from bitnet_lut.demo import MODEL
from bitnet_lut.formats.gguf import GGUFFile
from bitnet_lut.formats.gguf_writer import GGUFWriter

ROOT = Path(__file__).parents[1]
FLAGS = ["-std=gnu11", "-ffp-contract=off", "-Wall", "-Wextra", "-Wshadow", "-Werror", "-pthread"]
INCLUDE = [f"-I{ROOT / folder}" for folder in ("include", "src")]
SOURCES = sorted((ROOT / "src").rglob("*.c"))
IDS, COUNT = [0, 261, 300, 7, 45], 24


class Build(NamedTuple):
    """How to compile the program, and what emulates its processor."""

    compiler: tuple[str, ...]
    emulator: tuple[str, ...] = ()


ZIG = (sys.executable, "-m", "ziglang", "cc", "-mcpu=baseline")
CLANG = ("clang",) if shutil.which("clang") else ZIG
SANITIZED = ("gcc", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
ARM64 = "aarch64-linux-gnu-gcc"
BUILDS = {
    "gcc": Build(("gcc", "-O2")),
    "clang": Build((*CLANG, "-O2")),
    "sanitized": Build(SANITIZED),
    "arm64": Build((ARM64, "-O2", "-static"), ("qemu-aarch64", "-cpu", "max")),
}


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Function from a build's name to the command that runs the program."""

    @cache
    def make(name: str) -> list[str]:
        compiler, emulator = BUILDS[name]
        for tool in (compiler[0], *emulator[:1]):
            if shutil.which(tool) is None:
                pytest.skip(f"NO {tool.upper()}: the native program is not run as {name}")
        if "ziglang" in compiler and find_spec("ziglang") is None:
            pytest.skip("NO CLANG and no ziglang: the native program is not run as clang")
        folder = tmp_path_factory.mktemp(name)

        def compile_one(source: Path) -> str:
            to = str(folder / f"{source.parent.name}-{source.stem}.o")
            subprocess.run([*compiler, *FLAGS, *INCLUDE, "-c", source, "-o", to], check=True)
            return to

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, SOURCES))
        made = str(folder / "bitnet-lut-native")
        subprocess.run([*compiler, *FLAGS, *objects, "-o", made, "-lm"], check=True)
        return [*emulator, made]

    return make


def run(command: list[str], path: Path, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [*command, str(path), *map(str, arguments)], capture_output=True, timeout=300, check=False
    )


MODELS = {
    "demo-tl5": ("tl5", MODEL),
    "demo-i2_s": (None, MODEL),
    "bitnet": ("tl5", "bitnet-b1.58/model-i2_s.gguf"),
    "llama": ("tl5", "llama-1.58/model-i2_s.gguf"),
    "1bitllm": ("tl5", "bitnet-1bitllm/model-i2_s.gguf"),
    "q8_0": (None, "qwen2-plain/model-q8_0.gguf"),
    "q4_0": (None, "qwen2-plain/model-q4_0.gguf"),
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """Function from a model's name to its native file, and the ids and text that Python gives."""
    folder = tmp_path_factory.mktemp("native")

    @cache
    def make(name: str) -> tuple[Path, list[int], str]:
        kind, source = MODELS[name]
        if source is not MODEL:
            if GOLDEN is None:
                pytest.skip(f"NO REFERENCE DATA: ../shared/golden is absent, {name} is not run")
            source = GOLDEN / source
        path = Path(source)
        if kind:
            path = folder / f"{name}.gguf"
            convert(source, path, type=kind)
        with Model(str(path), threads=1) as model:
            found = model.generate(IDS, max_tokens=COUNT, ignore_eos=True)
            ids = list(found.ids)
            pieces = [model.detokenize([id]) for id in ids]
        return path, ids, "".join(pieces)

    return make


@pytest.mark.parametrize(
    ("build", "model", "threads"),
    [
        *(("gcc", model, threads) for model in MODELS for threads in (1, 3)),
        *((build, model, 2) for build in ("clang", "arm64") for model in ("demo-tl5", "llama")),
        *(("sanitized", model, 2) for model in MODELS),
    ],
)
def test_ids_are_those_of_python(program, expected, build, model, threads):
    command, (path, ids, _) = program(build), expected(model)
    done = run(command, path, ",".join(map(str, IDS)), COUNT, threads)
    assert (done.returncode, done.stderr) == (0, b"")
    assert list(map(int, done.stdout.split(b"\n")[0].split())) == ids


def test_text_is_that_of_python(program, tmp_path):
    convert(MODEL, tmp_path / "demo.gguf", type="tl5")
    with Model(MODEL, threads=1) as model:
        prompt = model.tokenize("The capital of France is")
        found = model.generate(prompt, max_tokens=20, ignore_eos=True)
        text = model.detokenize(found.ids)
    done = run(program("gcc"), tmp_path / "demo.gguf", ",".join(map(str, prompt)), 20)
    ids, _, printed = done.stdout.partition(b"\n")
    assert ids.split() == [str(id).encode() for id in found.ids]
    assert printed.decode() == text + "\n"


def test_wrong_arguments(program, tmp_path):
    command = program("sanitized")
    for arguments, status, fault in (
        ([], 2, b"usage: "),
        (["1", "2", "3", "4"], 2, b"usage: "),
        (["1536", "1"], 1, b"IDS: they must be ids of the vocabulary"),
        (["1,,2", "1"], 1, b"IDS: they must be ids of the vocabulary"),
        (["", "1"], 1, b"IDS: they must be ids of the vocabulary"),
        (["1", "0"], 1, b"COUNT: it must be a number in 1..1048576"),
        (["1", "2x"], 1, b"COUNT: it must be a number in 1..1048576"),
        (["1", "2", "1 2"], 1, b"THREADS: it must be a number in 1..1024"),
        (["1", "2", "0"], 1, b"THREADS: it must be a number in 1..1024"),
    ):
        done = run(command, Path(MODEL), *arguments)
        assert done.returncode == status
        assert fault in done.stderr
    for path, fault in (
        (tmp_path / "none.gguf", b"none.gguf: it cannot be opened\n"),
        (tmp_path, b": it is empty, or not a file\n"),
    ):
        done = run(command, path, "1", "1")
        assert (done.returncode, done.stderr.endswith(fault)) == (1, True)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"rope.scaling.type": "linear" + 40 * "x"}, b"rope.scaling.type is linearxxx"),
        ({"rope.scaling.type": True}, b"rope.scaling.type is not a string"),
        ({"hidden_activation": 40 * "x"}, b"hidden_activation is xxx"),
        ("blk.0.attn_q.scale", b"tensors of a graph that only Python runs: 1"),
        ("blk.1.attn_k_norm.weight", b"tensors of a graph that only Python runs: 1"),
    ],
)
def test_what_would_be_another_model(program, tmp_path, change, fault):
    """No key or tensor that changes the results is passed over."""
    with GGUFFile(MODEL) as file:
        metadata = dict(file.metadata)
        if isinstance(change, dict):
            metadata |= {f"{metadata['general.architecture']}.{k}": v for k, v in change.items()}
        names = {name: name for name in file.tensors}
        if isinstance(change, str):
            names[change] = "output_norm.weight"
        infos = {name: file.tensors[source] for name, source in names.items()}
        specs = [(name, info.shape, info.type_id, info.span) for name, info in infos.items()]
        with GGUFWriter(tmp_path / "other.gguf", metadata, specs) as writer:
            for name, source in names.items():
                writer.write(name, file.data(source, infos[name].span))
    done = run(program("sanitized"), tmp_path / "other.gguf", "1,2", 2)
    assert done.returncode == 1
    assert fault in done.stderr


def refused_or_run(command: list[str], path: Path) -> int:
    """Nothing else may come of a bad file, least of all a report of a sanitizer."""
    done = run(command, path, "1,2", 2)
    message = done.stderr.decode(errors="replace")
    assert done.returncode in (0, 1), message
    assert done.returncode == 0 or message.count("\n") == 1, message
    assert "Sanitizer" not in message
    assert "runtime error" not in message
    return done.returncode


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> bytes:
    """A native file whose vocabulary leaves room for damage elsewhere."""
    path = tmp_path_factory.mktemp("small") / "small.gguf"
    convert(MODEL, path, type="tl5")
    return path.read_bytes()


def test_files_that_end_early(program, small, tmp_path):
    command, path = program("sanitized"), tmp_path / "short.gguf"
    rng = np.random.default_rng(1)
    ends = [0, 3, 4, 8, 23, 24, 31, len(small) - 1, len(small) - 64]
    for end in (*ends, *rng.integers(0, len(small), 12)):
        path.write_bytes(small[: int(end)])
        assert refused_or_run(command, path) == 1, end


def test_files_with_changed_bytes(program, small, tmp_path):
    """Mostly in keys and in the table of tensors, where lengths, counts, types and offsets are."""
    command, path = program("sanitized"), tmp_path / "changed.gguf"
    (tmp_path / "whole.gguf").write_bytes(small)
    with GGUFFile(tmp_path / "whole.gguf") as file:
        data = file.data_offset
    table = small.index(b"token_embd.weight")
    rng, refused = np.random.default_rng(2), 0
    for attempt in range(45):
        changed = bytearray(small)
        lo, hi = ((table - 8, data), (24, 1400), (data, len(small)))[attempt % 3]
        for at in rng.integers(lo, hi, rng.integers(1, 4)):
            changed[at] = int(rng.choice([0, 1, 0x7F, 0x80, 0xFF, rng.integers(256)]))
        path.write_bytes(changed)
        refused += refused_or_run(command, path)
    assert refused > 10


@pytest.mark.parametrize("name", ["malformed"])
def test_malformed_files_of_the_reference_data(program, golden, name):
    command = program("sanitized")
    for path in sorted((golden / name).glob("*.gguf")):
        refused_or_run(command, path)

"""The same weights in other engines: each round runs the other one and then this one.

Give the llama-bench of each by environment variable, and take the llama-cpp-python that this Python
has; a peer that is not there is skipped. The result is a table at the end and a file in
benches/baselines (or in BITNET_LUT_BASELINES), which plot_baselines.py draws. Leave the machine
alone meanwhile: the threads of other engines spin, and one busy core stops them all.

    BITNET_LUT_BENCH_MODEL=2b.gguf BITNET_LUT_PEER_BITNET_CPP=... BITNET_LUT_PEER_IK_LLAMA=... \\
        BITNET_LUT_PEER_THREADS=1,2 pytest benches/bench_peers.py
"""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from bitnet_lut import Model
from bitnet_lut.convert import convert
from bitnet_lut.runtime.cpu import default_threads

THREADS = os.environ.get("BITNET_LUT_PEER_THREADS", f"1,{default_threads()}")
CASES = [("prompt", 128), ("prompt", 512), ("prompt", 2048), ("generate", 64)]
ROUNDS = 5

# Prints tokens per second; arguments: file, "prompt" or "generate", tokens, threads.
_LLAMA_CPP_PYTHON = """
import sys, time
from llama_cpp import Llama
path, what, tokens, threads = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
context = max(1024, tokens)
llama = Llama(path, n_ctx=context, n_threads=threads, n_threads_batch=threads, verbose=False)
ids = [(7919 * i) % llama.n_vocab() for i in range(tokens)]
pieces = [ids] if what == "prompt" else [[id] for id in ids]
for measured in (False, True):
    llama.reset()
    start = time.perf_counter()
    for piece in pieces if measured else pieces[:1]:
        llama.eval(piece)
print(tokens / (time.perf_counter() - start))
"""


@dataclass(frozen=True)
class Peer:
    """Another engine.

    program: what runs it, None if it is not here; missing: how to provide it.
    type, architecture: what its file must be. command: the program with all that it is told, from
    program, file, "prompt" or "generate", tokens and threads.
    """

    name: str
    program: str | None
    missing: str
    type: str
    architecture: str
    command: Callable[[str, Path, str, int, int], list[str]]

    def tokens_per_second(self, model: Path, what: str, tokens: int, threads: int) -> float:
        """Run it once, after its own warm-up."""
        assert self.program is not None
        command = self.command(self.program, model, what, tokens, threads)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.fail(f"{' '.join(command)} ended with {done.returncode}: {done.stderr[-2000:]}")
        found = json.loads(done.stdout)
        return found if isinstance(found, float) else found[0]["avg_ts"]


def _llama_bench(*options: str) -> Callable[[str, Path, str, int, int], list[str]]:
    def command(program: str, model: Path, what: str, tokens: int, threads: int) -> list[str]:
        prompt, generate = (tokens, 0) if what == "prompt" else (0, tokens)
        counts = ["-p", str(prompt), "-n", str(generate), "-t", str(threads), "-r", "1"]
        return [program, "-m", str(model), *counts, "-o", "json", *options]

    return command


def _python(program: str, model: Path, what: str, tokens: int, threads: int) -> list[str]:
    return [program, "-c", _LLAMA_CPP_PYTHON, str(model), what, str(tokens), str(threads)]


def _given(variable: str) -> tuple[str | None, str]:
    return os.environ.get(variable) or None, f"set {variable} to the path of its llama-bench"


PEERS = [
    Peer(
        "bitnet.cpp I2_S",
        *_given("BITNET_LUT_PEER_BITNET_CPP"),
        "i2_s",
        "bitnet",
        _llama_bench(),
    ),
    Peer(
        "ik_llama.cpp IQ2_BN_R4",
        *_given("BITNET_LUT_PEER_IK_LLAMA"),
        "iq2_bn",
        "bitnet-b1.58",
        _llama_bench("-rtr", "1", "-fa", "1"),
    ),
    Peer(
        "llama-cpp-python TQ2_0",
        sys.executable if importlib.util.find_spec("llama_cpp") else None,
        "install llama-cpp-python beside this package",
        "tq2_0",
        "bitnet",
        _python,
    ),
]


@pytest.fixture(scope="module", params=PEERS, ids=lambda peer: peer.name)
def peer(request: pytest.FixtureRequest) -> Peer:
    if request.param.program is None:
        pytest.skip(f"NO {request.param.name}: {request.param.missing}")
    return request.param


@pytest.fixture(scope="module")
def peer_file(peer: Peer, model_file: Path, tmp_path_factory: pytest.TempPathFactory):
    path = tmp_path_factory.mktemp("peer") / f"{peer.type}.gguf"
    convert(model_file, path, type=peer.type, architecture=peer.architecture)
    yield path
    path.unlink()


@pytest.fixture(scope="module", params=sorted({int(count) for count in THREADS.split(",")}))
def model(request: pytest.FixtureRequest, model_file: Path):
    with Model(model_file, threads=request.param) as model:
        yield model


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]} {case[1]}")
def bench_beside(benchmark, comparisons, peer, peer_file, model, case):
    what, tokens = case
    threads = model.info.threads
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, tokens).tolist()
    pieces = [ids] if what == "prompt" else [[id] for id in ids]
    session = model.session()
    if tokens > session.context:
        pytest.skip(f"the model has a context of {session.context}")
    theirs: list[float] = []

    def run_the_peer() -> None:
        theirs.append(peer.tokens_per_second(peer_file, what, tokens, threads))

    def run() -> None:
        session.rewind(0)
        for piece in pieces:
            session.step(piece)

    run()
    benchmark.pedantic(run, setup=run_the_peer, rounds=ROUNDS)
    if benchmark.disabled:
        return
    seconds: Sequence[float] = benchmark.stats.stats.data
    comparison = {
        "model": model.config.name,
        "weight_bytes": model.info.weight_bytes,
        "what": what,
        "tokens": tokens,
        "threads": threads,
        "isa": model.info.isa,
        "kernel": model.info.kernel,
        "tokens_per_second": [tokens / second for second in seconds],
        "peer": peer.name,
        "peer_tokens_per_second": theirs,
    }
    benchmark.extra_info |= comparison
    comparisons.append(comparison)

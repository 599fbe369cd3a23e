"""The server under load, beside the same texts in Python, by turns.

BITNET_LUT_BENCH_MODEL=2b.gguf pytest benches/bench_server.py
"""

import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from bitnet_lut import Model

PROMPT = TOKENS = 32
CLIENTS = Path(__file__).with_name("clients.py")


@pytest.fixture(scope="module")
def model(model_file):
    return Model(model_file)


@pytest.fixture(scope="module")
def address(model_file) -> Iterator[str]:
    with served(model_file) as found:
        yield found


@contextmanager
def served(model_file) -> Iterator[str]:
    """A server in a process of its own."""
    command = [
        sys.executable,
        "-P",
        "-m",
        "bitnet_lut",
        "serve",
        "--port",
        "0",
        "--prefix-cache",
        "0",
    ]
    with subprocess.Popen(
        [*command, "-m", str(model_file)], stderr=subprocess.PIPE, text=True
    ) as process:
        for line in process.stderr:
            if match := re.match(r"(http\S+) is ready", line):
                yield match[1]
                break
        process.terminate()


def ask(address: str, clients: int, requests: int, *sizes: int) -> dict:
    """What clients.py found."""
    command = [sys.executable, CLIENTS, address, str(clients), str(requests), *map(str, sizes)]
    return json.loads(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.parametrize("clients", [1, 2, 4, 8, 16])
def bench_clients(benchmark, model, address, clients):
    """Tokens per second of all answers, and the share that HTTP costs."""
    prompts = [[(97 * n + at) % 200 + 3 for at in range(PROMPT)] for n in range(clients)]
    http, python = [], []

    def turn():
        found = ask(address, clients, 1)
        http.append(found["tokens"] / found["seconds"])
        start = time.perf_counter()
        model.generate(prompts, max_tokens=TOKENS, ignore_eos=True)
        python.append(clients * TOKENS / (time.perf_counter() - start))

    ask(address, clients, 1)
    benchmark.pedantic(turn, rounds=5, iterations=1)
    benchmark.extra_info |= {
        "tokens_per_second": round(statistics.median(http), 1),
        "in_python": round(statistics.median(python), 1),
        "ratio": round(statistics.median(h / p for h, p in zip(http, python, strict=True)), 3),
    }


def bench_gaps(benchmark, model, address):
    """The gaps of 4 texts, in milliseconds, while a prompt of 2,000 tokens arrives."""
    long = min(2000, model.context - 1)

    def turn():
        command = [sys.executable, CLIENTS, address, "4", "1", "32", "96"]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as running:
            time.sleep(1)
            ask(address, 1, 1, long, 1)
            return json.loads(running.communicate()[0])["gaps"]

    gaps = [1000 * gap for gap in benchmark.pedantic(turn, rounds=1, iterations=1)]
    benchmark.extra_info |= {
        "median_ms": round(statistics.median(gaps), 1),
        "p95_ms": round(float(np.percentile(gaps, 95)), 1),
        "most_ms": round(max(gaps), 1),
    }

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
from bitnet_lut.runtime.scheduler import Scheduler
from bitnet_lut.server.settings import Settings

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


def step(model, prompts, budget: float | None) -> float:
    """Tokens per second of the same texts, stepped in Python without HTTP.

    budget: how long a step with prompts may take while texts are generated; None: no limit.
    """
    scheduler = Scheduler(model._engine, budget=budget)
    start = time.perf_counter()
    for prompt in prompts:
        scheduler.add(*model._decoder(prompt, 0, max_tokens=TOKENS, ignore_eos=True))
    scheduler.finish()
    return len(prompts) * TOKENS / (time.perf_counter() - start)


@pytest.mark.parametrize("clients", [1, 2, 4, 8, 16])
def bench_clients(benchmark, model, address, clients):
    """Tokens per second of all answers; without HTTP; and also without the server's budget."""
    prompts = [[(97 * n + at) % 200 + 3 for at in range(PROMPT)] for n in range(clients)]
    http, python, unbounded = [], [], []

    def turn():
        found = ask(address, clients, 1)
        http.append(found["tokens"] / found["seconds"])
        python.append(step(model, prompts, Settings.step_seconds))
        unbounded.append(step(model, prompts, None))

    ask(address, clients, 1)
    benchmark.pedantic(turn, rounds=5, iterations=1)

    def ratio(others: list[float]) -> float:
        return round(statistics.median(h / p for h, p in zip(http, others, strict=True)), 3)

    benchmark.extra_info |= {
        "tokens_per_second": round(statistics.median(http), 1),
        "in_python": round(statistics.median(python), 1),
        "ratio": ratio(python),
        "without_budget": round(statistics.median(unbounded), 1),
        "ratio_without_budget": ratio(unbounded),
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

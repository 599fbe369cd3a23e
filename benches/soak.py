"""A server under mixed load for a long time: its memory must stay flat, and its answers the same.

    python benches/soak.py MINUTES [MODEL.gguf]

Eight clients send chats, completions, several texts at once and JSON, stream some of them and hang
up in the middle of others, with more texts than the pool of pages can hold. Every answer that comes
twice must be the same. Prints a line every half minute: answers, refusals, preemptions, pages in
use, and the memory of the server's process. Exit status 1 if an answer differed or one was lost, or
if memory grew by more than 1 % in the second half of the time.
"""

import asyncio
import random
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx

from bitnet_lut.demo import MODEL

CLIENTS = 8
PAUSE = 0.2  # seconds between the requests of a client, so that other work goes on beside it
REPORT = 30.0  # seconds
MOST_GROWTH = 1.01
TEXT = "the capital of France and a small kind girl who lived in an old house"


def make_request(number: int) -> tuple[str, dict]:
    """One of 500 requests, by its number."""
    draw = random.Random(number)
    text = " ".join(draw.choices(TEXT.split(), k=draw.randint(3, 60)))
    body = {"max_tokens": draw.randint(4, 60), "temperature": draw.choice([0, 0.8]), "seed": number}
    if number % 5 == 0:
        return "/v1/chat/completions", body | {"messages": [{"role": "user", "content": text}]}
    if number % 5 == 1:
        return "/v1/completions", body | {"prompt": [text, text[:20]], "n": 2}
    if number % 5 == 2:
        json_only = {"response_format": {"type": "json_object"}}
        messages = [{"role": "user", "content": text[:40]}]
        return "/v1/chat/completions", body | json_only | {"messages": messages}
    return "/v1/completions", body | {"prompt": text, "logprobs": 2, "ignore_eos": number % 2 == 0}


class Soak:
    """What the clients found."""

    def __init__(self, address: str) -> None:
        self.http = httpx.AsyncClient(base_url=address, timeout=300)
        self.answers: dict[int, list] = {}
        self.count = self.left = self.refused = 0
        self.wrong: list[int] = []

    async def client(self, number: int, end: float) -> None:
        """Ask until the end."""
        draw = random.Random(-number)
        while time.monotonic() < end:
            request = draw.randrange(500)
            path, body = make_request(request)
            if draw.random() < 0.1:
                await self.hang_up(path, body, draw.randint(0, 5))
            else:
                await self.ask(request, path, body)
            await asyncio.sleep(PAUSE)

    async def ask(self, request: int, path: str, body: dict) -> None:
        response = await self.http.post(path, json=body)
        if response.status_code == 429:
            self.refused += 1
            return
        response.raise_for_status()
        choices = response.json()["choices"]
        self.count += 1
        if self.answers.setdefault(request, choices) != choices:
            self.wrong.append(request)

    async def hang_up(self, path: str, body: dict, events: int) -> None:
        """Read some events of a stream, and go."""
        async with self.http.stream("POST", path, json=body | {"stream": True}) as response:
            async for _ in response.aiter_lines():
                events -= 1
                if events < 0:
                    break
        self.left += 1

    async def metric(self, name: str) -> int:
        text = (await self.http.get("/metrics")).text
        return int(float(re.search(rf"^bitnet_lut_{name} (\S+)", text, re.M)[1]))


def memory(process: int) -> float:
    """Megabytes that a process holds."""
    status = Path(f"/proc/{process}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024


async def watch(soak: Soak, process: int, begin: float, end: float) -> list[float]:
    """Print a line every half minute; gives the memory at each."""
    found = []
    while time.monotonic() < end:
        await asyncio.sleep(min(REPORT, max(0.1, end - time.monotonic())))
        found.append(memory(process))
        minutes = (time.monotonic() - begin) / 60
        pages, preempted = [await soak.metric(n) for n in ("cache_pages_used", "preempted_total")]
        print(
            f"{minutes:6.1f} min  {soak.count:6} answers, {soak.left} hung up, {soak.refused} "
            f"refused, {preempted} preempted, {pages} pages, {found[-1]:.1f} MB",
            flush=True,
        )
    return found


async def run(address: str, process: int, minutes: float) -> int:
    """Load the server; the exit status."""
    soak = Soak(address)
    begin = time.monotonic()
    end = begin + 60 * minutes
    clients = [soak.client(number, end) for number in range(CLIENTS)]
    found, *_ = await asyncio.gather(watch(soak, process, begin, end), *clients)
    half = len(found) // 2
    first, second = max(found[:half], default=found[0]), max(found[half:])
    print(f"{len(soak.wrong)} answers differed from the same request before: {soak.wrong[:10]}")
    print(f"memory: at most {first:.1f} MB in the first half of the time, {second:.1f} MB since")
    await soak.http.aclose()
    return int(bool(soak.wrong) or second > MOST_GROWTH * first)


def main() -> int:
    """Serve, and load it."""
    minutes, model = float(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else str(MODEL)
    command = [sys.executable, "-P", "-m", "bitnet_lut", "serve", "--port", "0", "-m", model]
    command += ["--cache-memory", "2", "--prefix-cache", "1"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        address = next(
            match[1] for line in process.stderr if (match := re.match(r"(http\S+) is ready", line))
        )
        try:
            return asyncio.run(run(address, process.pid, minutes))
        finally:
            process.terminate()


if __name__ == "__main__":
    sys.exit(main())

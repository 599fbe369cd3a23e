"""Clients in a closed loop: each asks again as soon as its answer has come.

    python benches/clients.py ADDRESS CLIENTS REQUESTS [PROMPT TOKENS]

Prints a line of JSON: seconds, tokens of all answers, and the gaps between the events of a stream,
in seconds. Prompts and answers have 32 tokens unless the last two arguments say otherwise.
"""

import asyncio
import json
import sys
import time

import httpx

RUN = time.time_ns() // 1000 % 199


async def client(http: httpx.AsyncClient, number: int, requests: int, prompt: int, tokens: int):
    """Ask *requests* times; returns the tokens that came and the gaps between them."""
    gaps: list[float] = []
    count = 0
    for request in range(requests):
        body = {
            # Other tokens each time and in each run: nothing comes from a cache of prefixes.
            "prompt": [
                (97 * number + 31 * request + RUN * (at + 1)) % 200 + 3 for at in range(prompt)
            ],
            "max_tokens": tokens,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
        }
        last = None
        async with http.stream("POST", "/v1/completions", json=body) as response:
            response.raise_for_status()
            async for line in response.aiter_lines():
                if not line.startswith("data: {"):
                    continue
                now = time.perf_counter()
                if last is not None:
                    gaps.append(now - last)
                last = now
        count += tokens
    return count, gaps


async def main(address: str, clients: int, requests: int, prompt: int, tokens: int) -> None:
    """Run them all."""
    async with httpx.AsyncClient(base_url=address, timeout=None) as http:
        start = time.perf_counter()
        found = await asyncio.gather(
            *(client(http, number, requests, prompt, tokens) for number in range(clients))
        )
        seconds = time.perf_counter() - start
    gaps = [gap for _, some in found for gap in some]
    print(json.dumps({"seconds": seconds, "tokens": sum(n for n, _ in found), "gaps": gaps}))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, [*sys.argv[2:], 32, 32][:4])))

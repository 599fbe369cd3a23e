"""The server with more texts than it has room for: its answers, and whom it sends away."""

import json
import re
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from serving import PROMPT, QUESTION, served, until

from bitnet_lut import Model
from bitnet_lut._native import PAGE
from bitnet_lut.demo import MODEL

httpx = pytest.importorskip("httpx", reason="NO HTTPX: the server is not tested")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(MODEL, threads=2)


def metric(http: Any, name: str) -> float:
    (found,) = re.findall(rf"^bitnet_lut_{name} (\S+)", http.get("/metrics").text, re.M)
    return float(found)


def mixed_requests() -> list[tuple[str, dict[str, Any]]]:
    """Sampled, greedy, JSON, several choices, shared beginnings, scores."""
    story = "Once upon a time there was a young mouse named Leo. " * 3
    found: list[tuple[str, dict[str, Any]]] = []
    for i in range(40):
        body: dict[str, Any] = {"seed": i, "max_tokens": 10 + i, "temperature": 0.8}
        if i % 5 == 0:
            chat = {"messages": [*QUESTION], "logprobs": True, "top_logprobs": 2, "n": 3}
            found.append(("/v1/chat/completions", body | chat))
        elif i % 5 == 1:
            json_only = {"response_format": {"type": "json_object"}, "messages": QUESTION}
            found.append(("/v1/chat/completions", body | json_only))
        elif i % 5 == 2:
            found.append(("/v1/completions", body | {"prompt": story + str(i), "logprobs": 2}))
        elif i % 5 == 3:
            texts = {"prompt": [story, PROMPT], "n": 2, "min_p": 0.05, "repetition_penalty": 1.2}
            found.append(("/v1/completions", body | texts))
        else:
            plain = {"prompt": story[: 20 * i], "temperature": 0, "logprobs": 3}
            found.append(("/v1/completions", body | plain))
    return found


def test_every_mixture_gives_each_request_its_own_answer(model: Model) -> None:
    """40 at once, with prefixes and without: digit for digit what each is alone."""

    def ask(http: Any, request: tuple[str, dict[str, Any]]) -> Any:
        path, body = request
        response = http.post(path, json=body)
        assert response.status_code == 200, response.text
        return response.json()["choices"]

    requests = mixed_requests()
    with served(model, prefix_bytes=0) as (address, _), httpx.Client(base_url=address) as http:
        alone = [ask(http, request) for request in requests]
    with (
        served(model) as (address, _),
        httpx.Client(base_url=address, timeout=120) as http,
        ThreadPoolExecutor(40) as pool,
    ):
        for _ in range(2):  # the second time from prefixes
            together = list(pool.map(lambda request: ask(http, request), requests))
            assert together == alone
        assert metric(http, "reused_tokens_total") > 500
    few = model._engine.cache_bytes(10 * PAGE)
    with (
        served(model, cache_bytes=few) as (address, app),
        httpx.Client(base_url=address, timeout=120) as http,
        ThreadPoolExecutor(40) as pool,
    ):
        together = list(pool.map(lambda request: ask(http, request), requests))
        assert together == alone
        assert metric(http, "preempted_total") > 20
        used, free = (metric(http, f"cache_pages_{what}") for what in ("used", "free"))
        assert used == app.texts.pages.used  # of the texts that are kept
        assert used + free == 10


def test_a_text_that_could_never_fit_is_refused(model: Model) -> None:
    few = model._engine.cache_bytes(3 * PAGE)
    with (
        served(model, cache_bytes=few) as (address, app),
        httpx.Client(base_url=address, timeout=60) as http,
    ):
        body = {"prompt": [5] * 100, "max_tokens": 93, "ignore_eos": True}
        refused = http.post("/v1/completions", json=body)
        assert refused.status_code == 400
        assert (
            "up to 193 tokens, prompt and answer, needs more" in refused.json()["error"]["message"]
        )
        second = http.post("/v1/completions", json=body | {"prompt": [[5], [5] * 100]})
        assert second.status_code == 400
        assert until(lambda: app.texts.count == 0)
        assert http.post("/v1/completions", json=body | {"max_tokens": 92}).status_code == 200


@pytest.mark.parametrize("when", ["in the prompt", "at token 5"])
def test_pages_are_free_one_step_after_a_client_has_gone(
    model: Model, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Of a text, its siblings, and one that waits for room."""
    steps: list[int] = []
    engine = model._engine
    step = engine.step

    def slow(*given: Any, **more: Any) -> Any:
        steps.append(0)
        time.sleep(0.05)
        return step(*given, **more)

    monkeypatch.setattr(engine, "step", slow)
    few = engine.cache_bytes(8 * PAGE)
    with served(model, cache_bytes=few, prefix_bytes=0) as (address, app):
        body = {"prompt": [5] * 400, "max_tokens": 100, "ignore_eos": True, "stream": True, "n": 2}
        with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2]))) as client:
            sent = json.dumps(body).encode()
            client.sendall(
                b"POST /v1/completions HTTP/1.1\r\nHost: here\r\nContent-Type: application/json\r\n"
                b"Content-Length: %d\r\n\r\n" % len(sent) + sent
            )
            if when == "at token 5":
                got = b""
                while got.count(b"data: ") < 5:
                    got += client.recv(4096)
            assert until(lambda: app.texts.pages.used > 0)
        assert until(lambda: app.texts.count == 0)
        after = len(steps)
        assert until(lambda: app.texts.pages.used == 0)
        assert len(steps) <= after + 1


def test_a_full_queue_says_when_to_come_back(model: Model) -> None:
    with (
        served(model, most_requests=3) as (address, app),
        httpx.Client(base_url=address, timeout=60) as http,
        ThreadPoolExecutor(3) as pool,
    ):
        long = {"prompt": PROMPT, "max_tokens": 400, "ignore_eos": True, "n": 8}
        running = [pool.submit(http.post, "/v1/completions", json=long) for _ in range(3)]
        assert until(lambda: app.texts.count == 3)
        start = time.monotonic()
        refused = http.post("/v1/completions", json={"prompt": PROMPT})
        assert time.monotonic() - start < 1
        assert refused.status_code == 429
        assert 1 <= int(refused.headers["retry-after"]) <= 60
        assert refused.json()["error"]["code"] == "queue_full"
        assert [one.result().status_code for one in running] == [200] * 3
        assert http.post("/v1/completions", json={"prompt": PROMPT}).status_code == 200


def test_ten_times_the_load_loses_no_request(model: Model) -> None:
    """40 clients at 4 places and few pages, who come back sooner than they are told.

    Every request is answered, with the text it gets alone or a 429, and nothing stays behind.
    """
    places, clients, most_tries = 4, 40, 1000

    def body(number: int) -> dict[str, Any]:
        sampled = {"temperature": 0.8, "seed": number, "logprobs": 1}
        return {"prompt": [5, number] * 25, "max_tokens": 30, "ignore_eos": True, **sampled}

    def ask(http: Any, number: int) -> tuple[Any, int]:
        for tries in range(most_tries):
            response = http.post("/v1/completions", json=body(number))
            if response.status_code == 200:
                return response.json()["choices"], tries
            assert response.status_code == 429, response.text
            assert int(response.headers["retry-after"]) >= 1
            time.sleep(0.2)
        raise AssertionError(f"no place in {most_tries} tries")

    with served(model) as (address, _), httpx.Client(base_url=address, timeout=60) as http:
        alone = [ask(http, number)[0] for number in range(clients)]
    few = model._engine.cache_bytes(4 * PAGE)
    with (
        served(model, most_requests=places, cache_bytes=few, prefix_bytes=0) as (address, app),
        httpx.Client(base_url=address, timeout=60) as http,
        ThreadPoolExecutor(clients) as pool,
    ):
        found = list(pool.map(lambda number: ask(http, number), range(clients)))
        assert [choices for choices, _ in found] == alone
        refused = sum(tries for _, tries in found)
        assert refused > 0
        assert metric(http, "refused_total") == refused
        assert until(lambda: app.texts.count == 0)
        assert metric(http, "generated_tokens_total") == 30 * clients
        assert app.texts.pages.used == 0


def test_tokens_of_prompts_are_limited_too(model: Model) -> None:
    with (
        served(model, most_prompt_tokens=300) as (address, app),
        httpx.Client(base_url=address, timeout=60) as http,
        ThreadPoolExecutor(1) as pool,
    ):
        long = {"prompt": [5] * 200, "max_tokens": 300, "ignore_eos": True, "n": 16}
        running = pool.submit(http.post, "/v1/completions", json=long)
        assert until(lambda: app.texts.count == 1)
        time.sleep(0.1)
        assert http.post("/v1/completions", json={"prompt": [5] * 200}).status_code == 429
        assert running.result().status_code == 200
        # One that is over the limit alone does run when there is nobody else.
        assert http.post("/v1/completions", json={"prompt": [5] * 400}).status_code == 200

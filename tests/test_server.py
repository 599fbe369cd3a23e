"""The server, as clients see it: OpenAI's own, and hostile ones."""

import asyncio
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from serving import PROMPT, QUESTION, served, until, validator

from bitnet_lut import Model, Sampling
from bitnet_lut.demo import MODEL

httpx = pytest.importorskip("httpx", reason="NO HTTPX: the server is not tested")
openai = pytest.importorskip("openai", reason="NO OPENAI: the server is not tested")


@pytest.fixture(scope="module")
def model() -> Model:
    return Model(MODEL, threads=2)


@pytest.fixture(scope="module")
def server(model: Model) -> Iterator[tuple[str, Any]]:
    with served(model) as found:
        yield found


@pytest.fixture(scope="module")
def http(server: tuple[str, Any]) -> Iterator[Any]:
    with httpx.Client(base_url=server[0], timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def client(server: tuple[str, Any]) -> Any:
    return openai.OpenAI(base_url=f"{server[0]}/v1", api_key="none", max_retries=0)


def events(http: Any, path: str, body: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of a stream, which must end as OpenAI's do."""
    response = http.post(path, json=body | {"stream": True})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    *found, last = [line[6:] for line in response.text.split("\n\n") if line]
    assert last == "[DONE]"
    return [json.loads(event) for event in found]


def test_openai_client(client: Any, model: Model) -> None:
    expected = model.chat(QUESTION, max_tokens=20)
    answer = client.chat.completions.create(
        model="demo", messages=QUESTION, max_tokens=20, temperature=0
    )
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens == len(expected.ids)
    stream = client.chat.completions.create(
        model="demo",
        messages=QUESTION,
        max_completion_tokens=20,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1])
    assert text == expected.text
    assert chunks[-1].usage.total_tokens == answer.usage.total_tokens
    completion = client.completions.create(model="demo", prompt=PROMPT, temperature=0)
    assert completion.choices[0].text == model.generate(PROMPT, max_tokens=16).text
    assert [one.id for one in client.models.list()] == ["demo"]
    assert client.models.retrieve("demo").id == "demo"
    with pytest.raises(openai.NotFoundError, match="no model 'gpt-4' here, only 'demo'"):
        client.models.retrieve("gpt-4")


def test_openai_client_of_asyncio(server: tuple[str, Any], model: Model) -> None:
    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server[0]}/v1", api_key="none") as client:

            async def one(seed: int) -> str:
                stream = await client.completions.create(
                    model="demo", prompt=PROMPT, seed=seed, max_tokens=20, stream=True
                )
                return "".join([chunk.choices[0].text async for chunk in stream])

            return list(await asyncio.gather(*map(one, range(8))))

    sampled = [
        model.generate(
            PROMPT,
            max_tokens=20,
            sampling=Sampling(temperature=1, seed=seed, order="transformers"),
        ).text
        for seed in range(8)
    ]
    assert asyncio.run(ask()) == sampled
    assert len(set(sampled)) > 1


COMPLETIONS: list[dict[str, Any]] = [
    {"prompt": PROMPT, "temperature": 0, "logprobs": 5},
    {"prompt": [PROMPT, "Once upon a time"], "n": 2, "seed": 3, "echo": True, "logprobs": 1},
    {"prompt": [[5, 6, 7], [8]], "max_tokens": 3},
    {"prompt": PROMPT, "max_tokens": 0, "echo": True, "logprobs": 0},
    {"prompt": PROMPT, "stop": ["is.", "."], "temperature": 0, "logprobs": 2},
]
CHATS: list[dict[str, Any]] = [
    {"messages": QUESTION, "temperature": 0},
    {"messages": QUESTION, "n": 3, "seed": 5, "logprobs": True, "top_logprobs": 4},
    {"messages": QUESTION, "max_tokens": 1},
    {"messages": QUESTION, "response_format": {"type": "json_object"}, "max_tokens": 40},
    {"messages": QUESTION, "structured_outputs": {"choice": ["yes", "no"]}},
]


@pytest.mark.parametrize("body", COMPLETIONS)
def test_completions_are_what_openai_documents(http: Any, body: dict[str, Any]) -> None:
    check = validator("CreateCompletionResponse")
    answer = http.post("/v1/completions", json=body).json()
    check.validate(answer)
    merged: dict[int, str] = {}
    tokens: dict[int, list[Any]] = {}
    for event in events(http, "/v1/completions", body):
        check.validate(event)
        for choice in event["choices"]:
            merged[choice["index"]] = merged.get(choice["index"], "") + choice["text"]
            if choice["logprobs"]:
                scores = choice["logprobs"]
                tokens.setdefault(choice["index"], []).extend(
                    zip(*(scores[key] for key in sorted(scores)), strict=True)
                )
    for choice in answer["choices"]:
        assert merged[choice["index"]] == choice["text"]
        if scores := choice["logprobs"]:
            whole = list(zip(*(scores[key] for key in sorted(scores)), strict=True))
            assert tokens.get(choice["index"], []) == whole


@pytest.mark.parametrize("body", CHATS)
def test_chats_are_what_openai_documents(http: Any, body: dict[str, Any]) -> None:
    answer = http.post("/v1/chat/completions", json=body).json()
    validator("CreateChatCompletionResponse").validate(answer)
    check = validator("CreateChatCompletionStreamResponse")
    merged: dict[int, str] = {}
    scores: dict[int, list[Any]] = {}
    for event in events(http, "/v1/chat/completions", body):
        check.validate(event)
        (choice,) = event["choices"]
        index = choice["index"]
        merged[index] = merged.get(index, "") + choice["delta"].get("content", "")
        if choice["logprobs"]:
            scores.setdefault(index, []).extend(choice["logprobs"]["content"])
    for choice in answer["choices"]:
        assert merged[choice["index"]] == choice["message"]["content"]
        if choice["logprobs"]:
            assert scores[choice["index"]] == choice["logprobs"]["content"]


def test_scores_of_a_prompt_are_those_of_forward(http: Any, model: Model) -> None:
    """What evaluation harnesses add up."""
    ids = model.tokenize("Once upon a time there was a mouse.")
    body = {"prompt": ids, "max_tokens": 1, "echo": True, "logprobs": 1, "temperature": 0}
    scores = http.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]
    logits = model.forward(ids).astype(np.float64)[:, : model.tokenizer.vocab_size]
    shifted = logits - logits.max(axis=1, keepdims=True)
    expected = [
        float(row[id]) - float(np.log(np.exp(row).sum()))
        for row, id in zip(shifted, ids[1:], strict=False)
    ]
    assert scores["token_logprobs"][0] is None
    assert scores["token_logprobs"][1 : len(ids)] == pytest.approx(expected, abs=1e-6)


def test_scores_end_where_the_text_ends(http: Any, model: Model) -> None:
    """A stop string may lie across tokens: what it cuts off is not scored; an end token is."""
    whole = model.generate(PROMPT, max_tokens=16, logprobs=0)
    assert whole.text == " Paris."
    body = {"prompt": PROMPT, "temperature": 0, "logprobs": 0}
    scores = http.post("/v1/completions", json=body).json()["choices"][0]["logprobs"]
    assert scores["tokens"][:-1] == [" Par", "is", "."]
    assert scores["tokens"][-1] == model.tokenizer.token_text(model.tokenizer.eos_id or 0)
    assert scores["token_logprobs"][:-1] == [token.logprob for token in whole.logprobs or ()]
    for stop, shown in (("s.", " Pari"), ("ari", " P"), ("Par", " "), (" Par", "")):
        body = {"prompt": PROMPT, "temperature": 0, "stop": stop, "logprobs": 0}
        found = http.post("/v1/completions", json=body).json()["choices"][0]
        assert (found["text"], found["finish_reason"]) == (shown, "stop")
        starts = found["logprobs"]["text_offset"]
        assert all(start < len(shown) for start in starts)
        covered = "".join(found["logprobs"]["tokens"])
        assert covered.startswith(shown)
        streamed = events(http, "/v1/completions", body)
        told = [t for event in streamed for t in event["choices"][0]["logprobs"]["tokens"]]
        assert told == found["logprobs"]["tokens"]


def test_a_client_that_goes_frees_its_place(server: tuple[str, Any], http: Any) -> None:
    address, app = server
    body = {"prompt": PROMPT, "max_tokens": 400, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{address}/v1/completions", json=body) as response:
        lines = response.iter_lines()
        for _ in range(5):
            next(lines)
        assert app.texts.count == 1
    assert until(lambda: app.texts.count == 0)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{address}/v1/completions", json=body | {"stream": False, "n": 64}, timeout=0.2)
    assert until(lambda: app.texts.count == 0)
    assert http.get("/health").json() == {"status": "ok"}


def test_keys(model: Model) -> None:
    with (
        served(model, api_keys=["one", "two"]) as (address, _),
        httpx.Client(base_url=address) as http,
    ):
        assert http.get("/health").status_code == 200
        for headers in ({}, {"Authorization": "Bearer three"}, {"Authorization": "one"}):
            answer = http.get("/v1/models", headers=headers)
            assert answer.status_code == 401
            assert answer.json()["error"]["code"] == "invalid_api_key"
        long = {"prompt": [7] * 100, "max_tokens": 1}
        cached = []
        for key in ("one", "one", "two"):
            headers = {"Authorization": f"Bearer {key}"}
            usage = http.post("/v1/completions", json=long, headers=headers).json()["usage"]
            cached.append(usage["prompt_tokens_details"]["cached_tokens"])
        assert cached == [0, 99, 0]  # the second key does not see what the first has asked


def test_tokens(http: Any, model: Model) -> None:
    ids = model.tokenize(PROMPT)
    answer = http.post("/tokenize", json={"prompt": PROMPT}).json()
    assert answer == {"tokens": ids, "count": len(ids), "max_model_len": model.context}
    plain = http.post("/tokenize", json={"content": PROMPT, "add_special_tokens": False}).json()
    assert plain["tokens"] == model.tokenize(PROMPT, add_bos=False)
    chat = http.post("/tokenize", json={"messages": QUESTION}).json()
    assert chat["tokens"] == model.apply_chat_template(QUESTION)
    assert http.post("/tokenize", json={}).status_code == 400
    assert http.post("/detokenize", json={"tokens": ids[1:]}).json() == {"prompt": PROMPT}
    assert http.post("/detokenize", json={"tokens": [10**9]}).status_code == 400
    info = http.get("/tokenizer_info").json()
    assert info["eos_token"] == model.tokenizer.token_text(model.tokenizer.eos_id or 0)


def test_other_paths(http: Any) -> None:
    assert http.get("/").text.startswith("<!doctype html>")
    assert "default-src 'none'" in http.get("/").headers["content-security-policy"]
    assert http.get("/props").json()["model"] == "demo"
    assert "bitnet_lut_generated_tokens_total" in http.get("/metrics").text
    document = http.get("/openapi.json").json()
    assert "/v1/chat/completions" in document["paths"]
    assert http.post("/v1/embeddings", json={"input": "x"}).status_code == 400
    missing, wrong = http.get("/v2"), http.get("/v1/completions")
    assert (missing.status_code, wrong.status_code) == (404, 405)
    assert missing.json()["error"]["message"] == "GET /v2: Not Found"


def test_tools_that_a_template_carries(tmp_path: Any) -> None:
    """A required call is a call, whole or in a stream, by its schema."""
    from bitnet_lut.text.chat import ChatTemplates

    model = Model(MODEL, threads=2)
    source = (
        "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}"
        "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:"
    )
    model.__dict__["chat_templates"] = ChatTemplates(
        model.tokenizer, {"default": source}, "bitnet", name="test"
    )
    place = {"type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}}
    place |= {"required": ["city"], "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "weather", "parameters": place}}
    body = {"messages": QUESTION, "tools": [tool], "tool_choice": "required", "temperature": 0}
    with served(model) as (address, _), httpx.Client(base_url=address, timeout=60) as http:
        answer = http.post("/v1/chat/completions", json=body).json()
        validator("CreateChatCompletionResponse").validate(answer)
        choice = answer["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        (call,) = choice["message"]["tool_calls"]
        assert call["function"]["name"] == "weather"
        assert json.loads(call["function"]["arguments"])["city"] in ("Paris", "Rome")
        found = events(http, "/v1/chat/completions", body)
        for event in found:
            validator("CreateChatCompletionStreamResponse").validate(event)
        deltas = [event["choices"][0]["delta"].get("tool_calls") for event in found]
        ((told,),) = [delta for delta in deltas if delta]
        assert told["function"] == call["function"]
        assert (
            http.post("/v1/chat/completions", json=body | {"tool_choice": "none", "max_tokens": 3})
            .json()["choices"][0]["message"]
            .get("tool_calls")
            is None
        )


def test_cross_origin(model: Model) -> None:
    with (
        served(model, cors=["https://example.com"], api_keys=["k"]) as (address, _),
        httpx.Client(base_url=address) as http,
    ):
        asked = {"Origin": "https://example.com", "Access-Control-Request-Method": "POST"}
        answer = http.options("/v1/completions", headers=asked)
        assert answer.headers["access-control-allow-origin"] == "https://example.com"
        other = http.options("/v1/completions", headers=asked | {"Origin": "https://evil.com"})
        assert "access-control-allow-origin" not in other.headers


@contextmanager
def command(*arguments: str) -> Iterator[tuple[Any, str]]:
    """A server in a process of its own, and its address."""
    line = [sys.executable, "-m", "bitnet_lut", "serve", "--port", "0", *arguments]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said: list[str] = []
        for text in process.stderr:
            said.append(text)
            if " is ready" in text:
                break
        assert " is ready" in said[-1], said
        try:
            yield process, said[-1].split()[0]
        finally:
            process.kill()


def test_an_end_in_order() -> None:
    """SIGTERM under load: new texts are refused, running ones end, exit code 0."""
    body = {"prompt": PROMPT, "max_tokens": 480, "ignore_eos": True, "stream": True, "n": 4}
    got: list[str] = []
    begun = threading.Event()
    with (
        command("--grace", "20") as (process, address),
        httpx.Client(base_url=address, timeout=60) as http,
        ThreadPoolExecutor(1) as pool,
    ):

        def read() -> None:
            with http.stream("POST", "/v1/completions", json=body) as response:
                for line in filter(None, response.iter_lines()):
                    got.append(line)
                    begun.set()

        reader = pool.submit(read)
        assert begun.wait(30)
        process.send_signal(signal.SIGTERM)
        assert until(lambda: http.get("/health").status_code == 503)
        assert http.post("/v1/completions", json={"prompt": PROMPT}).status_code == 503
        reader.result()
        assert process.wait(30) == 0
    assert got[-1] == "data: [DONE]"


def test_an_end_in_haste() -> None:
    """Texts that take longer than the grace end with an error event."""
    body = {"prompt": PROMPT, "max_tokens": 490, "ignore_eos": True, "stream": True, "n": 100}
    with (
        command("--grace", "0") as (process, address),
        httpx.stream("POST", f"{address}/v1/completions", json=body, timeout=60) as response,
    ):
        lines = response.iter_lines()
        next(lines)
        process.send_signal(signal.SIGTERM)
        rest = [line for line in lines if line]
        assert process.wait(30) == 0
    assert "the server is shutting down" in rest[-1]


def test_a_port_that_is_taken(server: tuple[str, Any]) -> None:
    port = server[0].rsplit(":", 1)[1]
    line = [sys.executable, "-m", "bitnet_lut", "serve", "--port", port]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"127.0.0.1:{port}: Address already in use" in done.stderr
    assert "Traceback" not in done.stderr

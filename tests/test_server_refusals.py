"""What the server refuses, and how it says why."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from serving import QUESTION, SHARED, served

httpx = pytest.importorskip("httpx", reason="NO HTTPX: the server is not tested")


@pytest.fixture(scope="module")
def http() -> Iterator[Any]:
    with served() as (address, _), httpx.Client(base_url=address, timeout=60) as client:
        yield client


HOSTILE: list[tuple[bytes, int, str]] = [
    (b"", 400, "not JSON"),
    (b"\xff\xfe", 400, "not JSON"),
    (b"[" * 100_000, 400, "nested too deep|not JSON|Expected `object`"),
    (b'{"prompt": "\\ud800"}', 400, "not JSON"),
    (b'{"prompt": "x", "unknown": 1}', 400, "unknown field `unknown`"),
    (b'{"prompt": "x", "temperature": "hot"}', 400, r"Expected `float.*\$.temperature"),
    (b'{"prompt": "x", "temperature": -1}', 400, "temperature is -1"),
    (b'{"prompt": "x", "top_p": 0}', 400, "top_p is 0"),
    (b'{"prompt": [999999999]}', 400, "999999999"),
    (b'{"prompt": [-1]}', 400, "prompt"),
    (b'{"prompt": [1, "a"]}', 400, "prompt must be"),
    (b'{"prompt": []}', 400, "prompt must be"),
    (b'{"prompt": "x", "best_of": 3}', 400, "best_of is not supported"),
    (b'{"prompt": "x", "suffix": "y"}', 400, "suffix is not supported"),
    (b'{"prompt": "x", "n": 1000}', 400, r"\$.n"),
    (b'{"prompt": "x", "logit_bias": {"a": 1}}', 400, "logit_bias has the key 'a'"),
    (b'{"prompt": "x", "logit_bias": {"99999": 1}}', 400, "logit_bias"),
    (b'{"prompt": "x", "seed": 99999999999999999999}', 400, "seed|range|integer"),
    (b'{"prompt": "x", "model": "gpt-4"}', 404, "no model 'gpt-4'"),
    (b'{"prompt": "x", "stream_options": {}}', 400, "stream_options"),
    (b'{"prompt": "x", "structured_outputs": {"regex": "(a{1,9999}){9999}"}}', 400, "."),
    (b'{"prompt": "x", "structured_outputs": {"regex": "("}}', 400, "."),
    (b'{"prompt": "x", "structured_outputs": {"json": "{"}}', 400, "must be a schema"),
    (b'{"prompt": "x", "structured_outputs": {}}', 400, "takes one of"),
    (b'{"prompt": "x", "response_format": {"type": "xml"}}', 400, "."),
    (b'{"prompt": "x", "stop": [' + b'"a",' * 10**6 + b'"a"]}', 400, r"\$.stop|length <= 16"),
    (b'{"prompt": "' + b"x" * 10**7 + b'"}', 413, "more than"),
    (b'{"prompt": "' + b"x " * 10**6 + b'"}', 400, "the context holds"),
]


@pytest.mark.parametrize(("body", "status", "message"), HOSTILE)
def test_what_is_wrong_is_said(http: Any, body: bytes, status: int, message: str) -> None:
    answer = http.post("/v1/completions", content=body)
    assert answer.status_code == status, answer.text[:300]
    error = answer.json()["error"]
    assert re.search(message, error["message"]), error
    assert set(error) == {"message", "type", "param", "code"}
    assert http.get("/health").status_code == 200


CHAT_ERRORS: list[tuple[dict[str, Any], str]] = [
    ({"messages": []}, r"\$.messages"),
    ({"messages": [{"role": "bot", "content": "x"}]}, r"messages\[0\].role is 'bot'"),
    ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, r"messages\[0\]"),
    ({"messages": QUESTION, "tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
    ({"messages": QUESTION, "tools": [{"type": "x"}]}, r"tools\[0\]"),
    ({"messages": QUESTION, "tool_choice": "required"}, "not in tools"),
    ({"messages": QUESTION, "top_logprobs": 3}, "needs logprobs"),
    ({"messages": QUESTION, "max_tokens": 1, "max_completion_tokens": 2}, "differ"),
    ({"messages": QUESTION, "store": True}, "store"),
    ({"messages": QUESTION, "reasoning_effort": "high"}, "reasoning_effort"),
]


@pytest.mark.parametrize(("body", "message"), CHAT_ERRORS)
def test_what_is_wrong_with_a_chat_is_said(http: Any, body: dict[str, Any], message: str) -> None:
    answer = http.post("/v1/chat/completions", json=body)
    assert answer.status_code == 400, answer.text
    assert re.search(message, answer.json()["error"]["message"]), answer.text


def test_formats_of_the_field(http: Any) -> None:
    """Schemas that people use: each is followed, or refused with a reason."""
    files = sorted((SHARED / "schemas").glob("*.json"))
    if not files:
        pytest.skip("NO ../shared/serving: its schemas are not tried")
    taken = 0
    for file in files[::5]:
        schema = json.loads(file.read_bytes())["schema"]
        wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
        body = {"messages": QUESTION, "response_format": wanted, "max_tokens": 8}
        answer = http.post("/v1/chat/completions", json=body)
        assert answer.status_code in (200, 400), answer.text
        assert answer.status_code == 200 or answer.json()["error"]["message"]
        taken += answer.status_code == 200
    assert taken >= 0.8 * len(files[::5])

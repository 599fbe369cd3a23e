"""A server of the demonstration model in a thread, and what its answers must look like."""

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bitnet_lut import Model
from bitnet_lut.demo import MODEL

SHARED = Path(__file__).parents[2] / "shared" / "serving"
QUESTION = [{"role": "user", "content": "What is the capital of France?"}]
PROMPT = "The capital of France is"


@contextmanager
def served(model: Model | None = None, **settings: Any) -> Iterator[tuple[str, Any]]:
    """The address and the app of a server of *model*, by default the demonstration model's."""
    pytest.importorskip("starlette", reason="NO STARLETTE: the server is not tested")
    from bitnet_lut.server.app import App
    from bitnet_lut.server.run import Listening, Server
    from bitnet_lut.server.settings import Settings

    app = App(model or Model(MODEL, threads=2), Settings(name="demo", **settings))
    started, address = threading.Event(), []

    def tell(where: str) -> None:
        address.append(where)
        started.set()

    server = Server(app, Listening("127.0.0.1", 0, grace=1), tell)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()))
    thread.start()
    assert started.wait(30)
    try:
        yield address[0], app
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def until(condition: Callable[[], bool], seconds: float = 5) -> bool:
    """Whether *condition* comes true in time."""
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    return condition()


def validator(name: str) -> Any:
    """Checks one schema of OpenAI's own document."""
    jsonschema = pytest.importorskip("jsonschema")
    file = SHARED / "openai-openapi.json"
    if not file.is_file():
        pytest.skip("NO ../shared/serving: answers are not checked by OpenAI's document")
    schemas = json.loads(file.read_bytes())["components"]["schemas"]
    # Two things that OpenAI's server does and its document leaves out: events before the last have
    # no reason to end, and the first token of a prompt has no score.
    choice = schemas["CreateCompletionResponse"]["properties"]["choices"]["items"]["properties"]
    scores = choice["logprobs"]["anyOf"][0]["properties"]
    for part in (
        choice["finish_reason"],
        scores["token_logprobs"]["items"],
        scores["top_logprobs"]["items"],
    ):
        part["nullable"] = True
    document = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
    return jsonschema.Draft202012Validator(_without_nullable(document))


def _without_nullable(value: Any) -> Any:
    """A schema in which null is a type, as JSON Schema has it and OpenAPI 3.0 had not."""
    if isinstance(value, list):
        return [_without_nullable(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    found = {key: _without_nullable(entry) for key, entry in value.items() if key != "nullable"}
    return {"anyOf": [found, {"type": "null"}]} if value.get("nullable") is True else found

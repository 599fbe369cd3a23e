"""The OpenAPI document of the server."""

from functools import cache
from typing import Any

import msgspec

from bitnet_lut import __version__
from bitnet_lut.server.protocol import (
    ChatAnswer,
    ChatChunk,
    ChatRequest,
    CompletionAnswer,
    CompletionRequest,
    Detokenize,
    ErrorAnswer,
    ModelCard,
    ModelList,
    Tokenize,
    Tokens,
)

__all__ = ["document"]

_GET: dict[str, tuple[str, type | None]] = {
    "/health": ("Whether texts are taken", None),
    "/metrics": ("Counters for Prometheus", None),
    "/props": ("What the model is", None),
    "/tokenizer_info": ("What evaluation harnesses ask of a tokenizer", None),
    "/v1/models": ("The one model", ModelList),
    "/v1/models/{name}": ("The model, by its name", ModelCard),
}
_POST: dict[str, tuple[str, type, type | None, type | None]] = {
    "/v1/completions": (
        "Continue prompts",
        CompletionRequest,
        CompletionAnswer,
        CompletionAnswer,
    ),
    "/v1/chat/completions": ("Answer messages", ChatRequest, ChatAnswer, ChatChunk),
    "/tokenize": ("Ids of a text or a chat", Tokenize, Tokens, None),
    "/detokenize": ("The text of ids", Detokenize, None, None),
}


@cache
def document() -> dict[str, Any]:
    """All paths, with the schemas of requests and answers."""
    kinds = {kind for _, *some in _POST.values() for kind in some if kind} | {ErrorAnswer}
    kinds |= {kind for _, kind in _GET.values() if kind}
    in_order = sorted(kinds, key=lambda kind: kind.__name__)
    refs, schemas = msgspec.json.schema_components(
        in_order, ref_template="#/components/schemas/{name}"
    )
    named = dict(zip(in_order, refs, strict=True))
    error = {"default": _answer("An error", named[ErrorAnswer])}
    paths: dict[str, Any] = {}
    for path, (summary, answer) in _GET.items():
        ok = _ok(named[answer] if answer else None)
        entry: dict[str, Any] = {"summary": summary, "responses": {"200": ok, **error}}
        if "{name}" in path:
            where = {"name": "name", "in": "path", "required": True}
            entry["parameters"] = [where | {"schema": {"type": "string"}}]
        paths[path] = {"get": entry}
    for path, (summary, body, whole, event) in _POST.items():
        ok = _ok(named[whole] if whole else None)
        if event:
            ok["content"]["text/event-stream"] = {"schema": named[event]}
        content = {"application/json": {"schema": named[body]}}
        paths[path] = {
            "post": {
                "summary": summary,
                "requestBody": {"required": True, "content": content},
                "responses": {"200": ok, **error},
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "bitnet_lut", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _ok(schema: dict[str, Any] | None) -> dict[str, Any]:
    return _answer("OK", schema) if schema else {"description": "OK"}


def _answer(text: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}

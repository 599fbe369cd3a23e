"""The routes."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bitnet_lut.errors import NumericsError
from bitnet_lut.model import Model
from bitnet_lut.server import openapi
from bitnet_lut.server.asgi import EventStream, Gate, while_connected
from bitnet_lut.server.errors import RequestError, blame_client, explain
from bitnet_lut.server.metrics import Metrics
from bitnet_lut.server.protocol import (
    ChatRequest,
    CompletionRequest,
    Detokenize,
    ModelCard,
    ModelList,
    Tokenize,
    Tokens,
    decode,
    encode,
)
from bitnet_lut.server.replies import ChatReply, CompletionReply, Reply
from bitnet_lut.server.settings import Settings
from bitnet_lut.server.texts import Job, Texts

__all__ = ["App", "create_app"]

_EXPLAINED = (RequestError, ValueError, OverflowError, MemoryError, NumericsError)
_LOG = logging.getLogger("bitnet_lut.server")

_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; connect-src 'self'; img-src data:; "
    "script-src 'unsafe-inline'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def create_app(model: Model, settings: Settings) -> Gate:
    """An ASGI app that serves *model*. One process steps it; run it with a single worker."""
    return App(model, settings).asgi()


class App:
    """What stands behind the routes.

    texts: all that run or wait. is_draining: whether new texts are refused, before the end.
    """

    def __init__(self, model: Model, settings: Settings) -> None:
        """Serve *model*; runs a few tokens of it."""
        self._model, self._settings = model, settings
        self._metrics = Metrics()
        self.texts = Texts(model, settings, self._metrics)
        self._watch()
        self.is_draining = False
        self._started = int(time.time())
        self._fingerprint = f"bl-{model._engine.fingerprint()[:16]}"
        self._page = files("bitnet_lut.server").joinpath("page.html").read_bytes()

    def _watch(self) -> None:
        texts, watch = self.texts, self._metrics.watch
        watch("requests_now", "Requests that run or wait.", lambda: texts.count)
        watch("cache_pages_used", "Pages of keys and values in use.", lambda: texts.pages.used)
        watch(
            "cache_pages_free",
            "Pages that are free; texts that ended hold some of the others until they are needed.",
            lambda: (texts.pages.most or 0) - texts.pages.used,
        )

    def asgi(self) -> Gate:
        """The whole app."""
        routes = [
            Route("/", self.page),
            Route("/health", self.health),
            Route("/metrics", self.metrics),
            Route("/openapi.json", self.openapi),
            Route("/props", self.props),
            Route("/tokenizer_info", self.tokenizer_info),
            Route("/tokenize", self.tokenize, methods=["POST"]),
            Route("/detokenize", self.detokenize, methods=["POST"]),
            Route("/v1/models", self.models),
            Route("/v1/models/{name:path}", self.one_model),
            Route("/v1/completions", self.completions, methods=["POST"]),
            Route("/v1/chat/completions", self.chat, methods=["POST"]),
            Route("/v1/embeddings", self.embeddings, methods=["POST"]),
        ]
        middleware = []
        if self._settings.cors:
            cors = list(self._settings.cors)
            middleware.append(
                Middleware(
                    CORSMiddleware, allow_origins=cors, allow_methods=["*"], allow_headers=["*"]
                )
            )
        app = Starlette(
            routes=routes,
            middleware=middleware,
            exception_handlers={
                HTTPException: _of_http,
                **dict.fromkeys(_EXPLAINED, _explained),
                Exception: _explained,
            },
        )
        return Gate(
            app,
            paths={route.path for route in routes},
            api_keys=self._settings.api_keys,
            most_body=self._settings.most_body,
            metrics=self._metrics,
        )

    async def page(self, request: Request) -> Response:
        """The page for people."""
        return Response(self._page, media_type="text/html", headers=_PAGE_HEADERS)

    async def health(self, request: Request) -> Response:
        """Whether texts are taken: 200, or 503 before the end."""
        status = "draining" if self.is_draining else "ok"
        return _json({"status": status}, 503 if self.is_draining else 200)

    async def metrics(self, request: Request) -> Response:
        """Counters for Prometheus."""
        return Response(self._metrics.text(), media_type="text/plain; version=0.0.4")

    async def openapi(self, request: Request) -> Response:
        """What the server understands."""
        return _json(openapi.document())

    async def models(self, request: Request) -> Response:
        """The one model."""
        return _json(ModelList([self._card()]))

    async def one_model(self, request: Request) -> Response:
        """The model, by its name."""
        self._check_model(request.path_params["name"])
        return _json(self._card())

    async def props(self, request: Request) -> Response:
        """What the model is, and what computes it."""
        info, config = self._model.info, self._model.config
        return _json(
            {
                "model": self._settings.name,
                "architecture": config.architecture,
                "parameters": info.parameters,
                "context": self._model.context,
                "kernel": info.kernel,
                "isa": info.isa,
                "threads": info.threads,
                "chat_templates": list(self._model.chat_templates.names),
                "system_fingerprint": self._fingerprint,
            }
        )

    async def tokenizer_info(self, request: Request) -> Response:
        """What evaluation harnesses ask of a tokenizer."""
        tokenizer = self._model.tokenizer
        ends = {
            key: None if id is None else tokenizer.token_text(id)
            for key, id in (("bos_token", tokenizer.bos_id), ("eos_token", tokenizer.eos_id))
        }
        template = self._model.chat_templates.source("default")
        return _json(
            {"tokenizer_class": type(tokenizer).__name__, **ends, "chat_template": template}
            | {"vocab_size": tokenizer.vocab_size, "model_max_length": self._model.context}
        )

    async def tokenize(self, request: Request) -> Response:
        """Ids of a text or a chat."""
        wanted = decode(await request.body(), Tokenize)
        self._check_model(wanted.model)
        with blame_client():
            ids = await asyncio.to_thread(self._ids, wanted)
        return _json(Tokens(ids, len(ids), self._model.context))

    async def detokenize(self, request: Request) -> Response:
        """The text of ids."""
        wanted = decode(await request.body(), Detokenize)
        self._check_model(wanted.model)
        with blame_client():
            text = await asyncio.to_thread(self._model.detokenize, wanted.tokens)
        return _json({"prompt": text})

    async def completions(self, request: Request) -> Any:
        """Continue prompts."""
        wanted = decode(await request.body(), CompletionRequest)
        self._check_model(wanted.model)
        return await self._answer(
            request, CompletionReply(self._model, self._named(wanted), self._fingerprint)
        )

    async def chat(self, request: Request) -> Any:
        """Answer messages."""
        wanted = decode(await request.body(), ChatRequest)
        self._check_model(wanted.model)
        return await self._answer(
            request, ChatReply(self._model, self._named(wanted), self._fingerprint)
        )

    async def embeddings(self, request: Request) -> Response:
        """No model of today has them."""
        raise RequestError(400, f"the model {self._settings.name!r} gives no embeddings")

    async def _answer(self, request: Request, reply: Reply) -> Any:
        if self.is_draining:
            raise RequestError(503, "the server is shutting down", headers={"Retry-After": "5"})
        job = self.texts.admit(request.state.owner)
        is_stream = False
        try:
            with blame_client():
                prompts, options = await asyncio.to_thread(reply.prepare)
                await job.start(prompts, reply.choices, options, stream=reply.streams)
            if reply.streams:
                is_stream = True
                return EventStream(_events(job, reply), job.close)
            results = await while_connected(request, job.results())
            if results is None:
                return Response(status_code=499)  # which nobody reads
            return _json(reply.whole(results, job.decoders))
        finally:
            if not is_stream:
                job.close()

    def _ids(self, wanted: Tokenize) -> list[int]:
        given = [one for one in (wanted.prompt, wanted.content, wanted.messages) if one is not None]
        if len(given) != 1:
            raise RequestError(400, "give one of prompt, content and messages")
        if wanted.messages is not None:
            return self._model.apply_chat_template(
                wanted.messages, add_generation_prompt=wanted.add_generation_prompt
            )
        add_bos = None if wanted.add_special_tokens else False
        return self._model.tokenize(str(given[0]), add_bos=add_bos)

    def _card(self) -> ModelCard:
        return ModelCard(self._settings.name, self._started, self._model.context)

    def _check_model(self, name: str | None) -> None:
        if name not in (None, self._settings.name):
            known = self._settings.name
            raise RequestError(
                404, f"no model {name!r} here, only {known!r}", "model", "model_not_found"
            )

    def _named(self, wanted: Any) -> Any:
        return msgspec.structs.replace(wanted, model=self._settings.name)


async def _events(job: Job, reply: Reply) -> AsyncIterator[bytes]:
    try:
        async for piece in job.pieces():
            for event in reply.events(piece, job.decoders):
                yield encode(event)
        for event in reply.end(job.decoders):
            yield encode(event)
    except Exception as error:
        _note(error)
        yield explain(error).body()
    else:
        yield b"[DONE]"


def _json(answer: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(answer), status, media_type="application/json")


def _note(error: Exception) -> None:
    if explain(error).status >= 500 and not isinstance(error, RequestError):
        _LOG.error("a request failed", exc_info=error)


async def _explained(request: Request, error: Exception) -> Response:
    _note(error)
    return explain(error).response()


async def _of_http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    path = f"{request.method} {request.url.path}"
    message = f"{path}: {error.detail}" if error.status_code in (404, 405) else str(error.detail)
    headers = dict(error.headers or {})
    return RequestError(error.status_code, message, headers=headers).response()

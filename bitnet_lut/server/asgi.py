"""What stands around the app: keys, limits of requests, and clients that go away."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bitnet_lut.server.errors import RequestError
from bitnet_lut.server.metrics import Metrics

__all__ = ["EventStream", "Gate", "while_connected"]

_Result = TypeVar("_Result")

_PUBLIC = frozenset({"/", "/health"})


class Gate:
    """Checks keys, refuses bodies that are too large, and counts answers.

    Whoever sent a key is known as ``scope["state"]["owner"]``, a hash of it.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        paths: Collection[str],
        api_keys: Sequence[str],
        most_body: int,
        metrics: Metrics,
    ) -> None:
        """Stand before *app*, which answers at *paths*."""
        self._app, self._paths, self._most_body, self._metrics = app, paths, most_body, metrics
        self._keys = [key.encode() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or hand on to the app."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        sent = _Sent(send)
        try:
            scope.setdefault("state", {})["owner"] = self._owner(scope)
            await self._app(scope, _Limited(receive, scope, self._most_body), sent)
        except RequestError as error:
            if sent.status is not None:
                raise
            await error.response()(scope, receive, sent)
        finally:
            path = scope["path"] if scope["path"] in self._paths else "unknown"
            self._metrics.requests.labels(path, str(sent.status or "none")).inc()

    def _owner(self, scope: Scope) -> str:
        if not self._keys or scope["path"] in _PUBLIC or scope["method"] == "OPTIONS":
            return ""
        header = dict(scope["headers"]).get(b"authorization", b"")
        given = header[7:].strip() if header[:7].lower() == b"bearer " else b""
        # Every key is compared, so that the time says nothing about them.
        if not sum([hmac.compare_digest(given, key) for key in self._keys]):
            what = "is not known" if given else "is missing: send Authorization: Bearer KEY"
            raise RequestError(401, f"the API key {what}", code="invalid_api_key")
        return hashlib.sha256(given).hexdigest()


class _Sent:
    """Notes the status of an answer."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status: int | None = None

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


class _Limited:
    """Receives a body of at most *most* bytes."""

    def __init__(self, receive: Receive, scope: Scope, most: int) -> None:
        self._receive, self._most, self._left = receive, most, most
        length = dict(scope["headers"]).get(b"content-length", b"0")
        if length.isdigit() and int(length) > most:
            raise self._refusal()

    async def __call__(self) -> Message:
        message = await self._receive()
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise self._refusal()
        return message

    def _refusal(self) -> RequestError:
        return RequestError(413, f"the body has more than {self._most} bytes")


async def while_connected(request: Request, work: Awaitable[_Result]) -> _Result | None:
    """The result of *work*, which is canceled when the client goes; None then."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_disconnect(request.receive))
    try:
        await asyncio.wait((task, watch), return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        await _stop(watch, task)


class EventStream:
    """An answer of server-sent events.

    Where the client goes, the events are closed at once, though nothing may be there to send.
    """

    def __init__(self, events: AsyncIterator[bytes], close: Callable[[], None]) -> None:
        """Send *events*, and call *close* at the end of them or of the connection."""
        self._events, self._close = events, close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send all."""
        sender = asyncio.ensure_future(self._send(send))
        watch = asyncio.ensure_future(_disconnect(receive))
        try:
            await asyncio.wait((sender, watch), return_when=asyncio.FIRST_COMPLETED)
            if sender.done():
                sender.result()
        finally:
            await _stop(watch, sender)
            self._close()

    async def _send(self, send: Send) -> None:
        headers = [
            (b"content-type", b"text/event-stream; charset=utf-8"),
            (b"cache-control", b"no-store"),
            (b"x-accel-buffering", b"no"),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        async for event in self._events:
            body = b"data: " + event + b"\n\n"
            await send({"type": "http.response.body", "body": body, "more_body": True})
        await send({"type": "http.response.body", "body": b""})


async def _disconnect(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def _stop(*tasks: "asyncio.Future[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

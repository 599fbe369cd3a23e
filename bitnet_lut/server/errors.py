"""Errors in the shape that OpenAI's clients expect."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from starlette.responses import Response

from bitnet_lut.errors import NumericsError
from bitnet_lut.server.protocol import ErrorAnswer, ErrorDetails, encode

__all__ = ["RequestError", "blame_client", "explain"]

_TYPES = {
    401: "authentication_error",
    404: "not_found_error",
    405: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}


@dataclass
class RequestError(Exception):
    """A request that is refused, with an HTTP *status* of 400 or more.

    param: the field that is wrong. code: for programs. headers: of the answer.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """What the client reads, as JSON."""
        server = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = _TYPES.get(self.status, server)
        return encode(ErrorAnswer(ErrorDetails(self.message, kind, self.param, self.code)))

    def response(self) -> Response:
        """The whole answer."""
        return Response(self.body(), self.status, self.headers, "application/json")


def explain(error: BaseException) -> RequestError:
    """What a client is told about an *error* of the model or of its own request."""
    match error:
        case RequestError():
            return error
        case NumericsError():
            return RequestError(500, f"the model failed: {error}", code="numerics_error")
        case MemoryError():
            return RequestError(
                503, f"no memory for this request: {error}", headers={"Retry-After": "5"}
            )
        case ImportError():
            return RequestError(400, f"this server cannot do that: {error}")
        case ValueError() | OverflowError():
            code = "context_length_exceeded" if "the context holds" in str(error) else None
            return RequestError(400, str(error), code=code)
        case _:
            return RequestError(500, f"{type(error).__name__} in the server, see its log")


@contextmanager
def blame_client() -> Iterator[None]:
    """Raise errors of arguments, which a request has given, as a RequestError."""
    try:
        yield
    except TypeError as error:
        raise RequestError(400, str(error)) from None
    except (ValueError, OverflowError, ImportError, MemoryError) as error:
        raise explain(error) from None

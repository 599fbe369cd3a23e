"""An HTTP server of the page for this machine alone, with nothing beyond Python's own library."""

import errno
import os
import re
import sys
from collections.abc import Mapping
from email.utils import formatdate, parsedate_to_datetime
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import FileIO
from pathlib import Path
from socketserver import TCPServer
from urllib.parse import unquote, urlsplit

from bitnet_lut.web.site import HEADERS, media_type

__all__ = ["Host"]

_LOOPBACK = "127.0.0.1"
_NAMES = (_LOOPBACK, "localhost")
_RANGE = re.compile(r"bytes=(?:(\d{1,18})-(\d{0,18})|-(\d{1,18}))")


class Host(ThreadingHTTPServer):
    """Serves *files*, {path below the root: file}, and nothing else, on the loopback interface.

    A file may change while it is served: each answer states and sends what is there then.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, files: Mapping[str, Path], port: int) -> None:
        """port: 0 for a free one. Raises OSError if it is taken."""
        self.files = {**files, "": files["index.html"]}
        try:
            super().__init__((_LOOPBACK, port), _Handler)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            taken = f"port {port} is taken by another program; choose one with --port, or 0"
            raise OSError(error.errno, taken) from None
        self.names = {f"{name}:{self.server_port}" for name in _NAMES}
        self.names.update(_NAMES if self.server_port == 80 else ())

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{_LOOPBACK}:{self.server_port}/"

    def server_bind(self) -> None:
        """Bind without asking the network for this machine's name, as HTTPServer does."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = _LOOPBACK, self.socket.getsockname()[1]

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of browsers that go away, which they do when a load is stopped."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)  # type: ignore[arg-type]


class _Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD, with ranges and conditions."""

    server: Host
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "bitnet_lut", ""
    timeout = 300  # seconds for a browser that takes no more bytes

    def do_GET(self) -> None:
        """Send a file, or the part of it that is asked for."""
        self._answer(body=True)

    def do_HEAD(self) -> None:
        """Send what GET would, without the file."""
        self._answer(body=False)

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing."""

    def _answer(self, *, body: bool) -> None:
        # A name that another site made point here (DNS rebinding) is not ours.
        if self.headers.get("Host", "").lower() not in self.server.names:
            self._refuse(HTTPStatus.FORBIDDEN, f"open {self.server.address} instead", body)
            return
        path = unquote(urlsplit(self.path).path).removeprefix("/")
        file = self.server.files.get(path)
        if file is None:
            self._refuse(HTTPStatus.NOT_FOUND, f"there is no {path!r} here", body)
            return
        try:
            opened = file.open("rb", buffering=0)
        except OSError as error:
            self._refuse(HTTPStatus.NOT_FOUND, f"{file.name}: {error.strerror}", body)
            return
        with opened:
            self._send_file(file.name, opened, body)

    def _send_file(self, name: str, file: FileIO, body: bool) -> None:
        status = os.fstat(file.fileno())
        size = status.st_size
        tag = f'"{status.st_mtime_ns:x}-{size:x}"'
        fresh = {
            "ETag": tag,
            "Last-Modified": formatdate(status.st_mtime, usegmt=True),
            "Cache-Control": "no-cache",
        }
        if self._known(tag, status.st_mtime):
            self._send_head(HTTPStatus.NOT_MODIFIED, fresh)
            return
        about = {**fresh, "Content-Type": media_type(name), "Accept-Ranges": "bytes"}
        asked = self._asked(size, tag)
        if asked is None:
            start, stop, code = 0, size, HTTPStatus.OK
        elif asked[0] >= asked[1]:
            refusal = {**fresh, "Content-Range": f"bytes */{size}", "Content-Length": "0"}
            self._send_head(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, refusal)
            return
        else:
            (start, stop), code = asked, HTTPStatus.PARTIAL_CONTENT
            about["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        self._send_head(code, {**about, "Content-Length": str(stop - start)})
        if (
            body
            and stop > start
            and self.connection.sendfile(file, start, stop - start) < (stop - start)
        ):
            self.close_connection = True  # the file was shortened: the browser must learn of it

    def _known(self, tag: str, modified: float) -> bool:
        """Whether the browser has just this version."""
        if tags := self.headers.get("If-None-Match"):
            known = [one.strip().removeprefix("W/") for one in tags.split(",")]
            return tag in known or known == ["*"]
        try:
            since = parsedate_to_datetime(self.headers.get("If-Modified-Since", ""))
            return int(modified) <= since.timestamp()
        except (ValueError, OverflowError):
            return False

    def _asked(self, size: int, tag: str) -> tuple[int, int] | None:
        """Start and stop of the one range that is wanted; None for the whole file."""
        if self.headers.get("If-Range", tag) != tag:
            return None
        found = _RANGE.fullmatch(self.headers.get("Range", "").strip())
        if found is None:
            return None
        first, last, suffix = found.groups()
        if suffix is not None:
            return max(size - int(suffix), 0) if int(suffix) else size, size
        if last and int(last) < int(first):
            return None  # not valid, so to be ignored
        return int(first), min(int(last) + 1, size) if last else size

    def _refuse(self, code: HTTPStatus, text: str, body: bool) -> None:
        data = f"{text}\n".encode()
        about = {"Content-Type": media_type("refusal.txt"), "Content-Length": str(len(data))}
        self._send_head(code, about)
        if body:
            self.wfile.write(data)

    def _send_head(self, code: HTTPStatus, headers: Mapping[str, str]) -> None:
        self.send_response(code)
        for name, value in {**headers, **HEADERS}.items():
            self.send_header(name, value)
        self.end_headers()

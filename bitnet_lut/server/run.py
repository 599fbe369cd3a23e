"""Running the server: sockets, signals, and an orderly end."""

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import uvicorn

from bitnet_lut.server.app import App

__all__ = ["Listening", "Server"]

_POLL = 0.05  # seconds


@dataclass(frozen=True)
class Listening:
    """Where a server listens, and how it ends.

    grace: seconds that texts may go on after a signal to end. cert, key: PEM files for TLS.
    """

    host: str
    port: int
    grace: float
    cert: str | None = None
    key: str | None = None


class Server(uvicorn.Server):
    """Serves until SIGTERM or Ctrl-C, and then stays for the answers that are on their way.

    ``run`` serves; it raises OSError if the port cannot be had.
    """

    def __init__(
        self, app: App, where: Listening, tell: Callable[[str], None] = lambda address: None
    ) -> None:
        """Serve *app*. tell: is called with the address when the server listens."""
        config = uvicorn.Config(
            app.asgi(),
            host=where.host,
            port=where.port,
            ssl_certfile=where.cert,
            ssl_keyfile=where.key,
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=2,
            h11_max_incomplete_event_size=64 * 1024,
        )
        super().__init__(config)
        self._app, self._grace, self._tell = app, where.grace, tell
        self._ending: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say where."""
        if sockets is None:
            sockets = [self._bound()]
        await super().startup(sockets)
        scheme = "https" if self.config.is_ssl else "http"
        host, port, *_ = sockets[0].getsockname()
        self._tell(f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}")

    def _bound(self) -> socket.socket:
        """A socket at the port; uvicorn's own would end the process where it cannot be had."""
        host, port = self.config.host, self.config.port
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            return socket.create_server((host, port), family=family, backlog=self.config.backlog)
        except OSError as error:
            raise OSError(error.errno, error.strerror, f"{host}:{port}") from None

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Begin the end at the first signal; a second one ends at once."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.signal(one, self.handle_exit) for one in _SIGNALS}
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Refuse new texts from now on, and leave when the others have ended."""
        if self._app.is_draining:
            self.should_exit = self.force_exit = True
            return
        self._app.is_draining = True

    async def on_tick(self, counter: int) -> bool:
        """Watch for the end."""
        if self._app.is_draining and self._ending is None:
            self._ending = asyncio.create_task(self._drain())
        return await super().on_tick(counter)

    async def _drain(self) -> None:
        end = asyncio.get_running_loop().time() + self._grace
        while self._app.texts.count and asyncio.get_running_loop().time() < end:
            await asyncio.sleep(_POLL)
        self._app.texts.cancel()
        await asyncio.sleep(_POLL)  # for the last events
        self.should_exit = True


_SIGNALS = (signal.SIGTERM, signal.SIGINT)

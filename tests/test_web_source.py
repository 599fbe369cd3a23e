"""What the browser's reader makes of servers, run by node."""

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from golden_data import GOLDEN
from node import NODE, answering
from test_malformed import FAULTS

from bitnet_lut.demo import MODEL

MALFORMED = GOLDEN / "malformed"
PADDING = 3 << 20

pytestmark = pytest.mark.skipif(NODE is None, reason="NO NODE: nothing is fetched by it")

Ask = Callable[..., dict[str, Any]]


class Handler(BaseHTTPRequestHandler):
    """Sends /HOW/NAME: the demonstration model, or a damaged file that is as long as one."""

    def do_GET(self) -> None:
        _, how, name = self.path.split("/", 2)
        if how == "missing":
            self.send_error(404)
            return
        if name == "model.gguf":
            data = MODEL.read_bytes()
        else:  # longer than what is read at once, so that its header is parsed before its end
            damaged = MALFORMED / name
            data = damaged.read_bytes() + bytes(PADDING) if damaged.exists() else b""
        self.send_response(200)
        if how != "unsized":
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data[: len(data) // 2] if how == "cut" else data)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join(30)


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Function that has node read a url; see web_source.mjs."""
    with answering("web_source.mjs") as ask:
        yield lambda **job: ask(job)


@pytest.mark.parametrize("how", ["whole", "unsized"])
def test_a_file_is_read_with_and_without_its_size(ask, address, how):
    size = MODEL.stat().st_size
    told = size if how == "unsized" else 0  # else the engine counts what it reads
    expected = {"name": "model.gguf", "size": size, "bytes": size, "told": told}
    assert ask(url=f"{address}{how}/model.gguf") == expected


@pytest.mark.parametrize(
    "name", ["huge_array_count", "huge_kv_count", "huge_string_length", "offset_past_eof"]
)
def test_damage_is_found_where_the_server_says_no_size(ask, address, name):
    error = ask(url=f"{address}unsized/{name}.gguf")["error"]
    assert (error["name"], error["code"]) == ("BitNetError", "format"), error
    size = (MALFORMED / f"{name}.gguf").stat().st_size
    pattern = FAULTS[name].replace(str(size), str(size + PADDING))
    assert re.search(pattern, error["message"], re.IGNORECASE), error["message"]


def test_a_connection_that_ends_early_is_an_error(ask, address):
    error = ask(url=f"{address}cut/model.gguf")["error"]
    half = MODEL.stat().st_size // 2
    assert (error["name"], error["code"]) == ("BitNetError", "network")
    assert re.match(rf"model\.gguf: .*byte {half}\b|.* after {half} of", error["message"]), error


def test_statuses_and_addresses_are_told(ask, address):
    url = f"{address}missing/model.gguf"
    error = ask(url=url)["error"]
    assert error["code"] == "network"
    assert error["message"].startswith(f"{url} cannot be fetched: the server answers 404")
    error = ask(url="http://127.0.0.1:1/model.gguf")["error"]
    assert error["code"] == "network"
    error = ask(url="model.gguf")["error"]
    assert error["code"] == "argument"
    assert error["message"].startswith("'model.gguf' is not a url")


def test_a_percent_sign_that_spells_nothing_is_no_error(ask, address):
    error = ask(url=f"{address}whole/%E0%A4%A.gguf")["error"]
    assert error["message"] == "%E0%A4%A.gguf: the file is empty"


@pytest.mark.parametrize("after", [0, 1000])
def test_a_signal_stops_it(ask, address, after):
    assert ask(url=f"{address}whole/model.gguf", abortAfter=after)["error"]["name"] == "AbortError"

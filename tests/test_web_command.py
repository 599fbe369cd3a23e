"""``bitnet-lut web``: what its server sends and refuses, and the folder that it exports."""

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import call, refused
from web_host import hosted

import bitnet_lut.web
from bitnet_lut.demo import MODEL
from bitnet_lut.web.host import Host
from bitnet_lut.web.site import site

DATA = MODEL.read_bytes()
ISOLATION = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
}


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with hosted() as found:
        yield found


class Answer:
    def __init__(self, host: Host, path: str, method: str = "GET", **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        connection = http.client.HTTPConnection("127.0.0.1", host.server_port, timeout=10)
        try:
            connection.putrequest(method, path, skip_host="Host" in named)
            for name, value in named.items():
                connection.putheader(name, value)
            connection.endheaders()
            response = connection.getresponse()
            self.status, self.headers, self.body = (
                response.status,
                response.headers,
                response.read(),
            )
        finally:
            connection.close()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/index.html", "text/html; charset=utf-8"),
        ("/page/main.js?v=1", "text/javascript; charset=utf-8"),
        ("/page/style.css", "text/css; charset=utf-8"),
        ("/model.gguf", "application/octet-stream"),
    ],
)
def test_files_come_with_their_types_and_isolated(host: Host, path: str, kind: str) -> None:
    answer = Answer(host, path)
    assert answer.status == 200
    assert answer.headers["Content-Type"] == kind
    assert int(answer.headers["Content-Length"]) == len(answer.body) > 0
    assert {name: answer.headers[name] for name in ISOLATION} == ISOLATION
    head = Answer(host, path, "HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["Content-Length"] == answer.headers["Content-Length"]


def test_webassembly_has_its_type() -> None:
    """A browser compiles a stream only if it does."""
    assert bitnet_lut.web.site.media_type("simd.wasm") == "application/wasm"


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-3", 0, 4),
        ("bytes=4-", 4, len(DATA)),
        ("bytes=-10", len(DATA) - 10, len(DATA)),
        (f"bytes=100-{len(DATA) * 2}", 100, len(DATA)),
        (f"bytes=-{len(DATA) * 2}", 0, len(DATA)),
    ],
)
def test_ranges(host: Host, asked: str, start: int, stop: int) -> None:
    answer = Answer(host, "/model.gguf", Range=asked)
    assert answer.status == 206
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(DATA)}"
    assert answer.body == DATA[start:stop]


@pytest.mark.parametrize(
    "asked", ["bytes=5-2", "bytes=0-1,3-4", "lines=1-2", "bytes=x-", "bytes=-"]
)
def test_what_is_no_single_range_is_ignored(host: Host, asked: str) -> None:
    answer = Answer(host, "/model.gguf", Range=asked)
    assert (answer.status, len(answer.body)) == (200, len(DATA))


@pytest.mark.parametrize("asked", [f"bytes={len(DATA)}-", "bytes=-0", f"bytes={10**17}-"])
def test_ranges_beyond_the_end(host: Host, asked: str) -> None:
    answer = Answer(host, "/model.gguf", Range=asked)
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(DATA)}"


def test_what_the_browser_has_is_not_sent_again(host: Host) -> None:
    first = Answer(host, "/model.gguf", "HEAD").headers
    tag, date = first["ETag"], first["Last-Modified"]
    assert first["Accept-Ranges"] == "bytes"
    for headers in ({"If_None_Match": f'"other", W/{tag}'}, {"If_Modified_Since": date}):
        answer = Answer(host, "/model.gguf", **headers)
        assert (answer.status, answer.body, answer.headers["ETag"]) == (304, b"", tag)
    assert Answer(host, "/model.gguf", If_None_Match='"other"').status == 200
    assert Answer(host, "/model.gguf", If_Modified_Since="no date").status == 200
    assert Answer(host, "/model.gguf", Range="bytes=0-3", If_Range=tag).status == 206
    assert Answer(host, "/model.gguf", Range="bytes=0-3", If_Range='"other"').status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/../demo/model.gguf",
        "/%2e%2e/demo/model.gguf",
        "//etc/passwd",
        "/page/../../__init__.py",
        "/host.py",
        "/__init__.py",
        "/page/",
        "/%00",
        "/" + "a" * 5000,
    ],
)
def test_nothing_else_is_served(host: Host, path: str) -> None:
    answer = Answer(host, path)
    assert answer.status == 404
    assert answer.headers["Content-Type"].startswith("text/plain")


def test_other_names_are_refused(host: Host) -> None:
    """A site whose name points to this machine must not read the model (DNS rebinding)."""
    port = host.server_port
    for name in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}"):
        assert Answer(host, "/", Host=name).status == 200
    for name in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1.evil:{port}", ""):
        answer = Answer(host, "/model.gguf", Host=name)
        assert answer.status == 403
        assert host.address in answer.body.decode()


def test_other_methods_are_refused(host: Host) -> None:
    assert Answer(host, "/", "POST", Content_Length="0").status == 501
    assert host.socket.getsockname()[0] == "127.0.0.1"


def test_a_model_that_changes(tmp_path: Path) -> None:
    file = tmp_path / "some.gguf"
    shutil.copy(MODEL, file)
    with hosted(file) as host:
        tag = Answer(host, "/model.gguf", "HEAD").headers["ETag"]
        file.write_bytes(b"GGUF and more")
        answer = Answer(host, "/model.gguf", If_None_Match=tag)
        assert (answer.status, answer.body) == (200, b"GGUF and more")
        file.unlink()
        assert Answer(host, "/model.gguf").status == 404


def test_browsers_that_go_away(host: Host, capfd: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", host.server_port)) as connection:
            name = f"127.0.0.1:{host.server_port}"
            connection.sendall(f"GET /model.gguf HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
            connection.recv(10)
    assert Answer(host, "/").status == 200
    assert capfd.readouterr().err == ""


def test_models_that_no_browser_reads(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    text = tmp_path / "text.gguf"
    text.write_text("no model")
    for given, fault in (
        (tmp_path, "a folder; the browser reads GGUF files"),
        (text, "not a GGUF file; the browser reads GGUF files"),
        (tmp_path / "none.gguf", "No such file"),
    ):
        line = refused(capsys, "web", "--no-open", "-m", given)
        assert str(given) in line
        assert fault in line
    assert "the largest port" in refused(capsys, "web", "--port", "70000", "--no-open")


def test_a_taken_port(host: Host, capsys: pytest.CaptureFixture[str]) -> None:
    line = refused(capsys, "web", "--no-open", "--port", host.server_port)
    assert f"port {host.server_port} is taken by another program" in line


@pytest.mark.skipif(os.name != "posix", reason="signals as a terminal sends them")
def test_ctrl_c_ends_it_quietly() -> None:
    line = [sys.executable, "-m", "bitnet_lut", "web", "--no-open", "--port", "0"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        address = said.split()[0]
        with urllib.request.urlopen(f"{address}model.gguf", timeout=10) as answer:
            assert answer.read() == DATA
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr.read().strip() == ""


@pytest.mark.skipif(os.name != "posix", reason="a program that stands in for the browser")
def test_the_browser_opens(tmp_path: Path) -> None:
    browser, opened = tmp_path / "browser", tmp_path / "opened"
    browser.write_text(f'#!/bin/sh\nprintf %s "$1" > {opened}.part && mv {opened}.part {opened}\n')
    browser.chmod(0o755)
    line = [sys.executable, "-m", "bitnet_lut", "web", "--port", "0"]
    environment = {**os.environ, "BROWSER": f"{browser} %s"}
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        address = process.stderr.readline().split()[0]
        deadline = time.monotonic() + 10
        while not opened.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        process.terminate()
    assert opened.read_text() == address


def test_the_export(tmp_path: Path) -> None:
    folder = tmp_path / "site"
    done = call("web", "--export", folder)
    assert (done.returncode, done.stderr) == (0, b"")
    written = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert written == {*site(MODEL), "README.txt", "_headers", ".nojekyll"}
    assert (folder / "model.gguf").read_bytes() == DATA
    for name, value in ISOLATION.items():
        assert f"{name}: {value}" in (folder / "_headers").read_text()
        assert f"{name}: {value}" in (folder / "README.txt").read_text()


def test_an_export_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    done = call("web", "--export", tmp_path)
    assert done.returncode == 2
    assert b"not an empty folder" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_the_package_holds_the_whole_site() -> None:
    """As .ci/run installs it from the wheel that it made of the sdist."""
    source = Path(__file__).parents[1] / "bitnet_lut" / "web"
    installed = Path(bitnet_lut.web.__file__).parent
    wanted = {path.relative_to(source) for path in source.rglob("*") if path.is_file()}
    missing = {path for path in wanted if not (installed / path).is_file()}
    assert {path for path in missing if path.suffix != ".pyc"} == set()
    served = {path.as_posix() for path in wanted if path.suffix not in {".py", ".pyc"}}
    assert served <= set(site(MODEL))

"""Logits in browsers are the native ones, bit for bit: both builds, 1 and 2 threads, cold, warm."""

import hashlib
import json
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browsing import chromium, needs_chromium
from golden_data import GOLDEN
from web_host import hosted

import bitnet_lut.web
from bitnet_lut import Model
from bitnet_lut.demo import MODEL
from bitnet_lut.web.host import Host

HERE = Path(__file__).parent
FIREFOX = shutil.which("firefox-esr") or shutil.which("firefox")
TOKENS = 40
needs_firefox = pytest.mark.skipif(FIREFOX is None, reason="NO FIREFOX: nothing is tried in it")
# Every golden model of a type that the browser reads; of TL2, files do not say the tiles.
MODELS = (
    "bitnet-b1.58/model-i2_s.gguf",
    "bitnet-1bitllm/model-i2_s.gguf",
    "llama-1.58/model-i2_s.gguf",
    "llama-1.58/model-tq1_0.gguf",
    "llama-1.58/model-tq2_0.gguf",
    "ik-bn/model-i2_s.gguf",
    "ik-bn/model-iq1_bn.gguf",
    "ik-bn/model-iq2_bn.gguf",
    "qwen2-plain/model-q4_0.gguf",
    "qwen2-plain/model-q8_0.gguf",
)


def native(file: Path) -> tuple[list[int], str]:
    """Some ids, and the digest of their logits."""
    model = Model(file, threads=1)
    ids = np.random.default_rng(7).integers(0, model.config.vocab_size, TOKENS).tolist()
    return ids, hashlib.sha256(model.forward(ids).tobytes()).hexdigest()


def check(found: list[dict[str, Any]], digest: str) -> None:
    expected = [
        {"build": build, "tier": tier, "threads": threads, "cold": digest, "warm": digest}
        for build, tier in (("relaxed", "wasmrelaxed"), ("simd", "wasm128"))
        for threads in (1, 2)
    ]
    assert found == expected


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    more = {f"golden/{name}": GOLDEN / name for name in MODELS if GOLDEN.joinpath(name).exists()}
    with hosted(more={"web_bits.js": HERE / "web_bits.js", **more}) as found:
        yield found


@pytest.fixture(scope="module")
def browser(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("browser") / "profile") as driver:
        driver.set_script_timeout(120)
        driver.get(f"{host.address}page/style.css")  # isolated, and without a model of its own
        yield driver


@needs_chromium
@pytest.mark.parametrize("name", ["model.gguf", *(f"golden/{name}" for name in MODELS)])
def test_chromium(browser: Any, name: str) -> None:
    file = GOLDEN / name.removeprefix("golden/") if "/" in name else MODEL
    ids, digest = native(file)
    script = """
    const [path, ids, done] = arguments;
    import("/web_bits.js")
      .then(({digests}) => digests(path, ids))
      .then(done, (error) => done(String(error)));
    """
    check(browser.execute_async_script(script, name, ids), digest)


def firefox(folder: Path, page: str, script: str, more: Mapping[str, Path]) -> Any:
    """What *script* posts, the module check.js of a page of our own: so no driver is needed."""
    html, module, profile = folder / "check.html", folder / "check.js", folder / "profile"
    html.write_text(f'{page}<script type="module" src="check.js"></script>')
    profile.mkdir()
    with Reports() as reports:
        module.write_text(
            f"{script}\n"
            f'const post = (found) => fetch("{reports.address}", '
            '{ method: "POST", body: JSON.stringify(found) });\n'
            "check().then(post, (error) => post(String(error)));\n"
        )
        files = {"check.html": html, "check.js": module, **more}
        with hosted(more=files) as host:
            line = [str(FIREFOX), "--headless", "--profile", profile, f"{host.address}check.html"]
            with subprocess.Popen(
                line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            ) as process:
                try:
                    return json.loads(reports.wait(90))
                finally:
                    process.terminate()


@needs_firefox
def test_firefox(tmp_path: Path) -> None:
    ids, digest = native(MODEL)
    script = (
        'import { digests } from "./web_bits.js";\n'
        f'const check = () => digests("model.gguf", {ids});'
    )
    page = "<!doctype html>"
    check(firefox(tmp_path, page, script, {"web_bits.js": HERE / "web_bits.js"}), digest)


@needs_firefox
def test_the_page_in_firefox(tmp_path: Path) -> None:
    script = """
    const $ = (id) => document.getElementById(id);
    const until = async (condition) => {
      while (!condition()) await new Promise((resolve) => setTimeout(resolve, 20));
    };
    async function check() {
      const failures = [];
      addEventListener("error", (event) => failures.push(event.message));
      addEventListener("unhandledrejection", (event) => failures.push(String(event.reason)));
      await until(() => !$("continue").disabled);
      $("continue").click();
      await until(() => $("output").textContent.includes(" Paris."));
      const { threads, tier } = model.info;
      return { failures, threads, tier, wide: document.documentElement.scrollWidth > innerWidth };
    }
    """
    page = Path(bitnet_lut.web.__file__).with_name("index.html").read_text()
    found = firefox(tmp_path, page, script, {})
    assert found.pop("threads") >= 1
    assert found == {"failures": [], "tier": "wasmrelaxed", "wide": False}


class Reports:
    """Hears what a page posts."""

    def __init__(self) -> None:
        heard = self.heard = threading.Event()
        texts = self.texts = [""]

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                texts[0] = self.rfile.read(int(self.headers["Content-Length"])).decode()
                self.send_response(204)
                self.send_header("Access-Control-Allow-Origin", "*")
                self.end_headers()
                heard.set()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.02,))

    def __enter__(self) -> "Reports":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def wait(self, seconds: float) -> str:
        assert self.heard.wait(seconds), "the page reported nothing"
        return self.texts[0]

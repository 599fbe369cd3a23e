"""The engine in Chromium: python benches/browser.py 2b.gguf --threads 2 --rounds 3.

Each round loads the model from a server on this machine and again from the browser's storage, and
measures a prompt, a text, how long it takes to stop, and the memory of the browser's process. With
``--wllama node_modules/@wllama/wllama --peer 2b-tq2.gguf`` wllama takes turns with it.
"""

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bitnet_lut.bench.machine import machine
from bitnet_lut.cli.options import positive
from bitnet_lut.web.host import Host
from bitnet_lut.web.site import site

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from browsing import chromium

_STEP = """
const [name, args, done] = arguments;
import("/browser.js").then((steps) => steps[name](...args))
  .then((found) => done({found: found ?? null}), (error) => done({error: String(error)}));
"""


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as folder, _hosted(options) as address:
        rounds = [
            _round(address, Path(folder) / str(number), options) for number in range(options.rounds)
        ]
    if options.json:
        print(json.dumps({"machine": str(machine()), "rounds": rounds}, indent=1))
        return
    print(machine())
    print(", ".join(f"{key} {value}" for key, value in rounds[0]["load"].items()))
    for name, unit in _FIGURES.items():
        found = [value for value in (_at(one, name) for one in rounds) if value is not None]
        if found:
            middle, least, most = statistics.median(found), min(found), max(found)
            print(f"{name:20} {middle:8.3g} {unit}, {least:.3g} to {most:.3g}")


_FIGURES = {
    "load.seconds": "s from the network",
    "again.seconds": "s from the browser's storage",
    "speed.prompt": "tokens/s",
    "speed.generate": "tokens/s",
    "abort.generate": "s to stop a text",
    "abort.prompt": "s to stop a prompt",
    "memory.loaded": "MB of the process with the model",
    "memory.freed": "MB after free()",
    "wllama.prompt": "tokens/s",
    "wllama.generate": "tokens/s",
}


def _at(found: dict[str, Any], name: str) -> float | None:
    part, key = name.split(".")
    value: float | None = found.get(part, {}).get(key)
    return value


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="GGUF file")
    parser.add_argument("--threads", type=positive, default=2)
    parser.add_argument("--rounds", type=positive, default=3)
    parser.add_argument("--prompt", type=positive, default=128, help="tokens")
    parser.add_argument("--generate", type=positive, default=64, help="tokens")
    parser.add_argument("--wllama", type=Path, help="folder of the npm package @wllama/wllama")
    parser.add_argument("--peer", type=Path, help="what wllama runs: a TQ2_0 file of that shape")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if bool(options.wllama) != bool(options.peer):
        parser.error("--wllama and --peer belong together")
    return options


@contextmanager
def _hosted(options: argparse.Namespace) -> Iterator[str]:
    files = {**site(options.model), "browser.js": Path(__file__).with_suffix(".js")}
    if options.wllama:
        root = options.wllama / "esm"
        files |= {f"wllama/{path.relative_to(root)}": path for path in root.rglob("*.*")}
        files["peer.gguf"] = options.peer
    with Host(files, 0) as host:
        thread = threading.Thread(target=host.serve_forever)
        thread.start()
        try:
            yield host.address
        finally:
            host.shutdown()
            thread.join()


def _round(address: str, profile: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One series in a new browser."""
    with chromium(profile) as browser:
        browser.set_script_timeout(1800)

        def step(name: str, *args: object) -> Any:
            answer = browser.execute_async_script(_STEP, name, args)
            if "error" in answer:
                raise RuntimeError(f"{name}: {answer['error']}")
            return answer["found"]

        browser.get(f"{address}page/style.css")  # a page of this host with nothing on it
        found = {"load": step("load", options.threads)}
        found["speed"] = step("speed", options.prompt, options.generate)
        found["abort"] = step("abort")
        found["memory"] = {"loaded": _megabytes(browser)}
        step("free")
        found["memory"]["freed"] = min(_settling(browser))
        found["again"] = step("load", options.threads)
        step("free")
        if options.wllama:
            browser.get(f"{address}page/style.css")
            found["wllama"] = step("wllama", options.threads, options.prompt, options.generate)
        return found


def _settling(browser: Any) -> Iterator[float]:
    """Memory while the browser gives back what nothing refers to: that takes it some seconds."""
    for _ in range(8):
        browser.execute_cdp_cmd("HeapProfiler.collectGarbage", {})
        time.sleep(1)
        yield _megabytes(browser)


def _megabytes(browser: Any) -> float:
    """Resident memory of the browser's processes that show pages."""
    below, total = {browser.service.process.pid}, 0
    statuses = [path.parent for path in Path("/proc").glob("[0-9]*/status")]
    for process in sorted(statuses, key=lambda path: int(path.name)):  # parents first
        try:
            status = dict(
                line.split(":", 1) for line in (process / "status").read_text().splitlines()
            )
            command = (process / "cmdline").read_text()
        except OSError:
            continue  # it has ended
        if int(status["PPid"]) in below:
            below.add(int(process.name))
            if "--type=renderer" in command:
                total += int(status["VmRSS"].split()[0])
    return total / 1000


if __name__ == "__main__":
    main()

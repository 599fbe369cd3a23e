"""What a model shows of itself: a bar while it loads, and a table in a notebook."""

import html
import os
import re
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

from bitnet_lut import Model
from bitnet_lut.demo import MODEL
from bitnet_lut.runtime import progress
from bitnet_lut.runtime.info import as_html


@pytest.fixture(scope="module")
def demo() -> Model:
    return Model(MODEL, threads=1)


def rows(table: str) -> dict[str, str]:
    """The rows of a table, which must be well-formed."""
    body = ElementTree.fromstring(table).findall("tbody/tr")
    return {str(row[0].text): str(row[1].text) for row in body}


def test_a_table_for_notebooks(demo: Model) -> None:
    info = demo.info
    found = rows(demo._repr_html_())
    assert found == {
        "Name": "bitnet_lut demonstration model",
        "Family": "bitnet-b1.58",
        "Parameters": "3.94 million",
        "Types": ", ".join(info.types),
        "Weights": found["Weights"],
        "Context": "512 of 512 tokens",
        "Kernel": info.kernel,
        "Tier": info.isa,
        "Threads": "1",
    }
    assert re.fullmatch(r"\d\.\d MB, \d\.\d\d bits each", found["Weights"])
    assert "(closed)" not in demo._repr_html_()
    model = Model(MODEL, threads=1)
    model.close()
    assert "(closed)" in model._repr_html_()


def test_what_a_file_says_stays_text_in_the_table(demo: Model) -> None:
    name = "<script>alert('x')</script>&\"</td>"
    table = as_html(replace(demo.config, name=name), demo.info, demo.context, is_open=True)
    assert rows(table)["Name"] == name
    assert html.escape(name) in table
    assert rows(as_html(replace(demo.config, name=""), demo.info, 1, is_open=True))["Name"]


@pytest.mark.parametrize(
    ("file", "types"),
    [
        ("model-i2_s.gguf", {"i2_s", "f16"}),
        ("hf-packed", {"u8", "bf16"}),
        ("hf-master-bf16", {"bf16"}),
    ],
)
def test_types_of_the_matrices(golden: Any, file: str, types: set[str]) -> None:
    path = golden / "bitnet-b1.58" / file
    if not path.exists() or (path.is_dir() and not (path / "tokenizer.json").exists()):
        pytest.skip("this set of models has no such file with a vocabulary")
    assert set(Model(path, threads=1).info.types) == types


# A model whose tensors come so slowly that a bar shows.
SLOW = (
    "import sys, time; from bitnet_lut import Model; from bitnet_lut.demo import MODEL\n"
    "from bitnet_lut.checkpoint import Checkpoint\n"
    "tensors = Checkpoint.tensors\n"
    "def slow(self, report, **rest):\n"
    "    found = tensors(self, report, **rest)\n"
    "    for i in range(4): time.sleep(0.3 * DELAY); report(i, 4)\n"
    "    return found\n"
    "Checkpoint.tensors = slow\n"
    "Model(MODEL, threads=1, progress=PROGRESS)\n"
)


def loading(progress: Any, *, terminal: bool = False, delay: int = 1) -> bytes:
    """What a program that opens a model writes to its standard error."""
    program = SLOW.replace("PROGRESS", str(progress)).replace("DELAY", str(delay))
    command = [sys.executable, "-c", program]
    if not terminal:
        return subprocess.run(command, capture_output=True, check=True, timeout=60).stderr
    import pty
    import termios

    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    subprocess.run(command, stderr=theirs, check=True, timeout=60)
    os.write(theirs, b"end")
    shown = os.read(ours, 10000)
    os.close(theirs)
    os.close(ours)
    return shown


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals on Windows")
def test_a_bar_in_a_terminal_after_a_second() -> None:
    assert b"%" in loading(None, terminal=True)
    assert loading(None, terminal=True, delay=0) == b"end"
    assert loading(False, terminal=True) == b"end"


def test_no_bar_elsewhere_unless_it_is_asked_for() -> None:
    assert loading(None) == b""
    assert b"%" in loading(True)


def test_a_bar_in_a_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[dict[str, Any]] = []

    class Bar(progress._bar_class()):  # type: ignore[misc]
        def __init__(self, **settings: Any) -> None:
            made.append(settings)
            super().__init__(**settings, disable=True)

    shell = SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    monkeypatch.setattr("tqdm.auto.tqdm", Bar)
    Model(MODEL, threads=1)
    assert [one["delay"] for one in made] == [1]
    del shell.kernel  # IPython in a terminal
    Model(MODEL, threads=1)
    assert len(made) == 1


def test_progress_is_a_function_or_says_whether() -> None:
    seen: list[tuple[int, int]] = []
    Model(MODEL, threads=1, progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1][0] == seen[-1][1] > 0
    with pytest.raises(TypeError, match="progress is 5, it must be a function, True, False or"):
        Model(MODEL, progress=5)  # type: ignore[arg-type]

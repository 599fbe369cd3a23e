"""The examples of README and docs run as they stand, against the demonstration model."""

import ast
import asyncio
import contextlib
import doctest
import io
import math
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

import bitnet_lut
from bitnet_lut import kernels
from bitnet_lut.cli import main
from bitnet_lut.demo import MODEL

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(
    r"^(?P<skip><!-- not run: [^\n]+ -->\n)?```(?P<language>\w*)\n(?P<code>.*?)^```$", re.M | re.S
)
# A block that begins like this is a file, which commands after it may name.
FILE = re.compile(r'(?:"""|/\* )([\w.]+)(?:"""| \*/)\n')
NEEDS_A_FRESH_ENVIRONMENT = ("pip", "pytest")
COMPARE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


@dataclass
class Block:
    """An example, with the output that the page shows for it."""

    language: str
    code: str
    line: int


def blocks(page):
    """The examples of *page*, except those that it says are not run."""
    text = page.read_text(encoding="utf-8")
    for match in FENCE.finditer(text):
        if not match["skip"]:
            yield Block(match["language"], match["code"], text.count("\n", 0, match.start()) + 1)


PAGES_WITH_EXAMPLES = [page for page in PAGES if any(b.language for b in blocks(page))]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the demonstration model under the names that the pages use."""
    for name in ("model.gguf", "ggml-model-i2_s.gguf"):
        shutil.copy(MODEL, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    # Measuring has its own tests: here it only has to run.
    monkeypatch.setattr("bitnet_lut.bench.kernels.ring_bytes", lambda: 2**20)
    monkeypatch.setattr("bitnet_lut.bench.timing._LEAST_SECONDS", 1e-4)
    monkeypatch.setattr("bitnet_lut.bench.kernels.TOLERANCE", math.inf)
    yield tmp_path
    for name in ("pairs", "dense"):
        if name in kernels.names():
            kernels.unregister(name)


def compare(expected, printed, where):
    """Compare as doctest does: any run of spaces is one, and ``...`` stands for anything."""
    if not doctest.OutputChecker().check_output(expected, printed, COMPARE):
        pytest.fail(f"{where}: the page shows\n{expected}\nbut this was printed\n{printed}")


def run_command(command, where):
    """Run a line of a console block; what it prints on the standard output."""
    arguments = shlex.split(command)
    if arguments[0] in NEEDS_A_FRESH_ENVIRONMENT:
        return None
    assert arguments[0] == "bitnet-lut", f"{where}: who runs {command!r}? Mark it as not run."
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        judges = ("doctor", "diverge", "compare")
        fine = (0, 1) if arguments[1] in judges else (0,)  # 1 if it finds something
        assert main(arguments[1:]) in fine, f"{where}: {command}"
    return printed.getvalue()


def run_console(block, where):
    """Run every command of a console block and compare what it prints with what is shown."""
    for part in re.split(r"^\$ ", block.code, flags=re.M)[1:]:
        command, _, expected = part.partition("\n")
        printed = run_command(command, where)
        if printed is not None:
            compare(expected, printed, f"{where}: {command}")


@pytest.mark.filterwarnings("ignore:no model given:UserWarning")
@pytest.mark.parametrize("page", PAGES_WITH_EXAMPLES, ids=lambda page: page.stem)
def test_examples(page, place):
    names, printed = {}, None
    for block in blocks(page):
        where = f"{page.name}:{block.line}"
        if match := FILE.match(block.code):
            if match[1].endswith(".c") and shutil.which("cc") is None:
                pytest.skip("there is no C compiler")
            (place / match[1]).write_text(block.code, encoding="utf-8")
        elif block.language == "python":
            if "torch" in block.code:
                pytest.importorskip("torch")
            # Blank lines in front, so that a traceback names the line of the page.
            code = compile("\n" * block.line + block.code, str(page), "exec")
            with contextlib.redirect_stdout(io.StringIO()) as output:
                exec(code, names)
            printed = output.getvalue()
        elif block.language == "console":
            run_console(block, where)
        elif block.language == "text":
            assert printed is not None, f"{where}: no example printed this"
            compare(block.code, printed, where)
            printed = None


def test_the_ten_tasks_take_no_more_than_with_llama_cpp_python(place):
    """And ours run; theirs are only checked to be Python."""
    page = ROOT / "docs/llama-cpp-python.md"
    text = page.read_text(encoding="utf-8")
    tasks = re.findall(r"^\| [^|`]+ \| `([^|]+)` \| `([^|]+)` \|$", text, re.M)
    assert len(tasks) == 10
    assert (tasks[0][1], tasks[-1][1][:12]) == ('model = Model("model.gguf")', "session.save")
    names = {}
    with contextlib.redirect_stdout(io.StringIO()):
        for block in blocks(page):
            if block.language == "python":
                exec(block.code, names)
        for theirs, ours in tasks:
            assert len(ours) <= len(theirs), ours
            code = compile(ours, "page", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            found = eval(code, names)
            if found is not None:
                asyncio.run(found)
            ast.parse(theirs)


def test_a_kernel_in_c_takes_under_60_lines():
    page = (ROOT / "docs/kernels.md").read_text(encoding="utf-8")
    files = [b.code for b in blocks(ROOT / "docs/kernels.md") if "pairs." in b.code[:12]]
    assert len(files) == 2
    assert len("".join(files).splitlines()) < 60
    # The library is not called pairs.so: a second `import pairs` would find that first.
    assert "libpairs.so" in page


def test_a_kernel_can_be_imported_twice(place):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    for block in blocks(ROOT / "docs/kernels.md"):
        if match := FILE.match(block.code):
            (place / match[1]).write_text(block.code, encoding="utf-8")
    environment = os.environ | {"PYTHONPATH": str(place)}
    environment.pop("PYTHONSAFEPATH", None)
    for _ in range(2):
        subprocess.run([sys.executable, "-c", "import pairs"], check=True, env=environment)


def test_every_command_has_its_help_on_the_page():
    page = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```\{command-help\}(?: (.*))?$", page, re.M)
    with contextlib.redirect_stdout(io.StringIO()) as printed, contextlib.suppress(SystemExit):
        main(["--help"])
    commands = re.findall(r"^    (\w+) ", printed.getvalue(), re.M)
    assert "run" in commands
    assert set(commands) <= set(shown)


def test_every_public_name_is_on_the_page():
    page = (ROOT / "docs/api.md").read_text(encoding="utf-8")
    shown = re.findall(r"^\.\. auto\w+:: bitnet_lut\.(\w+)$", page, re.M)
    assert {*shown, "__version__"} - {"kernels"} == set(bitnet_lut.__all__)


def test_links_between_pages_lead_somewhere():
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)", text):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"

"""The examples of docs/kernels.md, run as they stand."""

import math
import re
import shutil
from pathlib import Path

import pytest

from bitnet_lut import kernels
from bitnet_lut.cli import main

TEXT = (Path(__file__).parent.parent / "docs/kernels.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(?:python|c)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


def block(start):
    """The only example that starts like this."""
    (found,) = [text for text in BLOCKS if text.startswith(start)]
    return found


@pytest.fixture(autouse=True)
def forget():
    yield
    for name in ("pairs", "dense"):
        if name in kernels.names():
            kernels.unregister(name)


def test_arrays():
    exec(block("import numpy"), {})


def test_a_kernel_in_c_has_its_place_in_under_60_lines(tmp_path, monkeypatch, capsys):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    c, python = block("/* pairs.c */"), block('"""pairs.py"""')
    assert len((c + python).splitlines()) < 60
    (tmp_path / "pairs.c").write_text(c)
    (tmp_path / "pairs.py").write_text(python)
    monkeypatch.chdir(tmp_path)
    assert main(["kernels", "--load", "pairs.py"]) == 0
    shown = capsys.readouterr().out.splitlines()[-1].split()
    assert shown == ["pairs", "any", "4.000", "1", "16,777,215", "from", "outside", "yes"]
    command = re.search(r"^\$ bitnet-lut (kernels test .*)\n(.*)$", TEXT, re.MULTILINE)
    assert main(command[1].split()) == 0
    assert capsys.readouterr().out == f"{command[2]}\n"
    monkeypatch.setattr("bitnet_lut.kernels.bench.ring_bytes", lambda: 2**20)
    monkeypatch.setattr("bitnet_lut.kernels.timing._LEAST_SECONDS", 1e-4)
    monkeypatch.setattr("bitnet_lut.kernels.bench.TOLERANCE", math.inf)
    command = re.search(r"^\$ bitnet-lut (kernels bench .*)$", TEXT, re.MULTILINE)
    assert main(command[1].split()) == 0
    assert re.search(r"^pairs .* 2560x2560  from memory  +128 ", capsys.readouterr().out, re.M)
    assert "pairs" in (tmp_path / "roof.svg").read_text()


def test_a_kernel_in_numpy(tmp_path, capsys):
    path = tmp_path / "dense.py"
    path.write_text(block('"""dense.py"""'))
    assert main(["kernels", "test", "dense", "--load", str(path)]) == 0
    assert capsys.readouterr().out.startswith("dense any: ")

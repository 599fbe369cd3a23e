"""The notebook of docs/ runs from its first cell to its picture, on small matrices."""

import contextlib
import io
import json
import math
import shutil
from pathlib import Path

import matplotlib
import pytest
from matplotlib import pyplot

from bitnet_lut import kernels

NOTEBOOK = Path(__file__).parent.parent / "docs/study.ipynb"


@pytest.fixture
def quick(monkeypatch):
    """Measuring has its own tests: here it only has to run."""
    matplotlib.use("Agg")
    monkeypatch.setattr("bitnet_lut.bench.kernels.ring_bytes", lambda: 2**16)
    monkeypatch.setattr("bitnet_lut.bench.timing._LEAST_SECONDS", 1e-4)
    monkeypatch.setattr("bitnet_lut.bench.kernels.TOLERANCE", math.inf)
    yield
    pyplot.close("all")
    if "bytes" in kernels.names():
        kernels.unregister("bytes")


def test_the_study_runs(quick):
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    notebook = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in notebook["cells"]}) == len(notebook["cells"])
    kept = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    assert sum("image/png" in output.get("data", {}) for output in kept) == 1
    assert not any(output["output_type"] == "error" for output in kept)
    names = {"__name__": "study"}
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for place, cell in enumerate(notebook["cells"]):
            if cell["cell_type"] == "code":
                source = "".join(cell["source"]).replace(
                    "SHAPE = (2560, 2560)", "SHAPE = (64, 128)"
                )
                exec(compile(source, f"cell {place}", "exec"), names)
    assert "products exact; largest safe K 16,777,215" in printed.getvalue()
    assert printed.getvalue().count("bytes / i2_s = ") == len(names["TOKENS"]) == 7
    lines = names["axes"].lines
    assert [len(line.get_xydata()) for line in lines] == [7] * 4
    assert "bytes" not in kernels.names()

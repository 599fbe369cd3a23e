"""The commands about kernels: proof, speed beside the roofs, and their text."""

import csv
import ctypes
import io
import json
import math
import mmap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from outside_kernels import PYTHON, gemm

from bitnet_lut import _native, kernels
from bitnet_lut.bench import counters, pictures, timing
from bitnet_lut.bench import kernels as bench
from bitnet_lut.bench.kernels import KernelFigure, matrix_shapes
from bitnet_lut.bench.report import report_kernels
from bitnet_lut.bench.timing import Timer, ring, take_turns
from bitnet_lut.cli import main
from bitnet_lut.kernels.proof import Fault, prove

LOAD = ("--load", str(Path(__file__).with_name("broken_kernel.py")))


@pytest.fixture
def small_ring(monkeypatch):
    monkeypatch.setattr(bench, "ring_bytes", lambda: 2**16)
    monkeypatch.setattr(timing, "_LEAST_SECONDS", 1e-4)
    monkeypatch.setattr(bench, "TOLERANCE", math.inf)  # such short figures vary


@pytest.fixture
def register():
    yield lambda **functions: kernels.register("mine", **{**PYTHON, **functions})
    for name in ("mine", "right", "wrong"):
        if name in kernels.names():
            kernels.unregister(name)


def figure(**changes):
    given = {
        "kernel": "k",
        "isa": "scalar",
        "rows": 10,
        "cols": 10,
        "tokens": 1,
        "threads": 1,
        "cached": False,
        "gmac_s": 40.0,
        "gb_s": 10.0,
        "weights_per_lookup": 0,
        "read_gb_s": 20.0,
        "integer_gmac_s": 100.0,
    }
    return KernelFigure(**given | changes)


# proof


@pytest.mark.parametrize("isa", [_native.tier_names()[0], "scalar"])
def test_kernels_are_proved(kernel, isa):
    if _native.missing_features(isa):
        pytest.skip(f"this machine lacks {isa}")
    proof = prove(kernels.get(kernel, isa))
    assert proof.products > 10_000
    assert proof.largest_cols >= _native.MAX_COLS


def all_but(wrong):
    """A gemm that is wrong where wrong(q, rows, cols) says so."""

    def changed(packed, q, rows, cols):
        return gemm(packed, q, rows, cols) + (1 if wrong(q, rows, cols) else 0)

    return changed


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gemm": all_but(lambda q, rows, cols: rows == 11)}, "shapes, 11 x 1, 1 tokens: 11 of 11"),
        ({"gemm": all_but(lambda q, rows, cols: cols == 257)}, "shapes, .* x 257, 1 tokens"),
        ({"gemm": all_but(lambda q, rows, cols: len(q) == 33)}, "tokens, 9 x 161, 33 tokens"),
        (
            {"gemm": lambda *given: gemm(*given).astype(np.int16).astype(np.int32)},
            "saturated sums, 70 x 2560, 6 tokens",
        ),
        (
            {"unpack": lambda p, rows, cols: np.zeros((rows, cols), np.int8)},
            "every group of weights, 729 x 30, 1 tokens: unpack does not give",
        ),
        ({"gemm": lambda *given: 1 // 0}, "every group of weights.*: ZeroDivisionError"),
        (
            {"sums": kernels.Sums(128, (kernels.Block(16, 512, 64),))},
            "bounds: .* overflow beyond 0 columns",
        ),
        ({"sums": kernels.Sums(1024)}, "bounds: .* overflow beyond 2097151 columns"),
    ],
)
def test_faults_are_found(register, changes, message):
    register(**changes)
    with pytest.raises(Fault, match=message):
        prove(kernels.get("mine"))


def test_a_gemm_of_c_that_writes_too_far_is_found(register):
    def far(dot, stride, packed, prepared, rows, cols, lo, hi, n):
        (ctypes.c_int32 * (rows * n + 1)).from_address(dot)[rows * n] = 1

    whole = ctypes.c_int64
    pointer = ctypes.CFUNCTYPE(
        None, ctypes.c_void_p, whole, ctypes.c_void_p, ctypes.c_void_p, *[whole] * 5
    )(far)
    register(gemm=pointer, token_bytes=lambda cols, n: -(-cols // 64) * 64)
    with pytest.raises(Fault, match="gemm wrote beyond the last row of the last token"):
        prove(kernels.get("mine"))


# speed


def test_shapes_of_models_and_of_your_own():
    assert matrix_shapes("2b-4t") == [(640, 2560), (2560, 2560), (2560, 6912), (6912, 2560)]
    assert matrix_shapes("12x34") == [(12, 34)]
    for wrong in ("12", "0x4", "axb", "1x2x3"):
        with pytest.raises(ValueError, match="is neither ROWSxCOLS nor one of 2b-4t"):
            matrix_shapes(wrong)


def test_ring_holds_whole_copies():
    packed = kernels.get("i2_s").pack(np.ones((3, 8), np.int8))
    matrices = ring(packed, 1000)
    assert matrices.shape == (11, 96)
    assert (matrices == packed.packed).all()
    assert ring(packed, 0).shape == (1, 96)


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_timer_shares_out_every_row(register, threads):
    seen = []

    def watched(packed, q, rows, cols):
        seen.append(rows)
        return gemm(packed, q, rows, cols)

    register(gemm=watched)
    k = kernels.get("mine")
    packed = k.pack(np.ones((70, 8), np.int8))
    timer = Timer(k, ring(packed, 4000), 70, k.prepare(np.ones((1, 8), np.int8)), threads)
    assert all(seconds > 0 for seconds in take_turns([timer, timer]))
    parts = min(threads, 5)
    assert sum(seen) % 70 == 0
    assert len(set(seen)) == (1 if parts == 1 else 2)


def test_roofs_of_a_figure():
    memory = figure()
    assert memory.intensity == 4
    assert memory.roof_gmac_s == 80
    assert memory.share == 0.5
    assert figure(gmac_s=4000.0).roof_gmac_s == 100
    assert figure(cached=True).share == 0.4
    assert figure(cached=True, cache_gb_s=20.0).share == 0.5
    assert figure(cache_gb_s=1.0).share == 0.5


@pytest.mark.parametrize(
    ("changes", "possible"),
    [
        ({}, True),
        ({"gb_s": 21.0}, True),
        ({"gb_s": 21.1}, False),
        ({"gb_s": 21.1, "cached": True}, True),
        ({"gb_s": 21.1, "cached": True, "cache_gb_s": 20.0}, False),
        ({"gmac_s": 105.0}, True),
        ({"gmac_s": 106.0}, False),
        ({"gmac_s": 106.0, "cached": True}, False),
        ({"gmac_s": 260.0, "weights_per_lookup": 5}, True),
        ({"gmac_s": 263.0, "weights_per_lookup": 5}, False),
    ],
)
def test_what_is_possible(changes, possible):
    assert figure(**changes).is_possible == possible


def test_a_figure_above_the_roof_is_doubtful_after_a_second_look(monkeypatch):
    measured = []

    class Roofs:
        def above(self, one):
            return one

        def measure(self, isa):
            measured.append(isa)

    monkeypatch.setattr(bench, "take_turns", lambda timers: [2.0])

    def at_first_too_fast(seconds):
        return figure(gmac_s={1.0: 1000.0, 2.0: 50.0}[seconds])

    found = bench._believable(at_first_too_fast, 1.0, None, Roofs())
    assert found.gmac_s == 50
    assert measured == ["scalar", "scalar"]
    assert found.is_possible
    assert not bench._believable(
        lambda seconds: figure(gmac_s=1000.0), 1.0, None, Roofs()
    ).is_possible


def test_bench_measures_everything(register, small_ring):
    register()
    chosen = [kernels.get("i2_s"), kernels.get("mine")]
    steps = []
    found = bench.bench(
        chosen, [(20, 64)], tokens=(1, 3), progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(i + 1, 8) for i in range(8)]
    assert {(one.kernel, one.cached, one.tokens) for one in found} == {
        (name, cached, n) for name in ("i2_s", "mine") for cached in (True, False) for n in (1, 3)
    }
    assert all(math.isfinite(one.share) for one in found)


# commands


def test_list(capsys, register):
    assert main(["kernels", *LOAD]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + len(_native.kernel_names()) * len(_native.tier_names()) + 2
    assert lines[1].split()[:5] == ["i2_s", _native.tier_names()[0], "2.000", "1", "5,592,405"]
    assert lines[-1].split() == ["wrong", "any", "8.000", "4", "unknown", "from", "outside", "yes"]


def test_test_stops_at_the_first_fault(capsys, register):
    assert main(["kernels", "test", "right,wrong,i2_s", "--isa=scalar", *LOAD]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("right any: ")
    assert "largest safe K 16,777,215, the limit is 4,194,304\n" in said.out
    assert len(said.out.splitlines()) == 1
    assert said.err.startswith("bitnet-lut: error: wrong any: shapes, 1 x 1, 5 tokens: 1 of 5 ")


def test_bench_prints_a_table_and_draws(capsys, register, small_ring, tmp_path):
    plot = tmp_path / "roof.svg"
    command = ["kernels", "bench", "right", "--against=i2_s", "--shape=20x64", "--tokens=1,2"]
    assert main([*command, *LOAD, f"--plot={plot}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("machine  ")
    assert len([line for line in lines if line.startswith(("right ", "i2_s "))]) == 8
    assert lines[-1].startswith("roof of ")
    assert "<svg" in plot.read_text()


def test_bench_sweeps_threads_and_shapes_and_prints_json_and_csv(capsys, register, small_ring):
    command = ["kernels", "bench", "i2_s", "--against=i2_s", "--tokens=1", "--threads=1,2"]
    command.append("--shape=20x64,30x64,20x64")
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["machine"]["cpu"]
    figures = found["figures"]
    assert [(one["rows"], one["threads"]) for one in figures if not one["cached"]] == [
        (20, 1),
        (30, 1),
        (20, 2),
        (30, 2),
    ]
    assert len(figures) == 6
    assert all(one["is_possible"] and one["share"] > 0 for one in figures)
    assert main([*command, "--csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["threads"] for row in rows] == ["1"] * 3 + ["2"] * 3
    assert list(rows[0]) == list(figures[0])


def test_a_doubtful_figure_is_marked_beside_the_others(capsys, monkeypatch, small_ring):
    monkeypatch.setattr(bench, "TOLERANCE", 1.05)
    found = [figure(gmac_s=4.0), figure(gmac_s=1000.0, tokens=4), figure(tokens=8, gmac_s=8.0)]
    monkeypatch.setattr(bench, "bench", lambda *given, **more: found)
    assert main(["kernels", "bench", "i2_s", "--shape=20x64"]) == 1
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("k ")]
    assert [row.endswith(" !") for row in rows] == [False, True, False]
    assert lines[-1] == " !: 1 above a roof twice: measured wrongly, or some work is left out"
    assert main(["kernels", "bench", "i2_s", "--shape=20x64", "--json"]) == 1
    marks = [one["is_possible"] for one in json.loads(capsys.readouterr().out)["figures"]]
    assert marks == [True, False, True]


# perf_event's software events, which every Linux has: nanoseconds, page faults, processor changes.
SOFTWARE = {"cycles": 1, "instructions": 2, "cache_misses": 4}


@pytest.fixture
def software_counters(monkeypatch):
    monkeypatch.setattr(counters, "_HARDWARE", 1)
    monkeypatch.setattr(counters, "_EVENTS", SOFTWARE)
    if reason := counters.why_not():
        pytest.skip(f"NO COUNTERS: {reason}")


def test_counters_see_what_threads_do(software_counters):
    def touch():
        mmap.mmap(-1, 2**22).write(bytes(2**22))  # 1024 pages

    def in_a_thread():
        with ThreadPoolExecutor(1) as pool:
            pool.submit(touch).result()

    idle = counters.count(lambda: None)
    for work in (touch, in_a_thread):
        found = counters.count(work)
        assert found.instructions > idle.instructions
        assert found.cycles > idle.cycles


def test_bench_shows_counters(software_counters, capsys, small_ring):
    command = ["kernels", "bench", "i2_s", "--against=i2_s", "--tokens=1", "--shape=20x64"]
    assert main([*command, "--counters"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[2].endswith("MACs/instruction  instructions/cycle  misses/KB")
    assert main([*command, "--counters", "--json"]) == 0
    for one in json.loads(capsys.readouterr().out)["figures"]:
        assert one["cycles"] > 0


def test_missing_counters_are_no_error(capsys, monkeypatch, small_ring):
    monkeypatch.setattr(counters, "_CALLS", {})
    command = ["kernels", "bench", "i2_s", "--against=i2_s", "--tokens=1", "--shape=20x64"]
    assert main([*command, "--counters"]) == 0
    said = capsys.readouterr()
    assert "bitnet-lut: counters are not available: not known how on " in said.err
    assert "misses" not in said.out


def test_counts_are_shown_beside_the_work():
    counts = counters.Counts(cycles=20.0, instructions=40.0, cache_misses=5.0)
    one = figure(rows=20, cols=10, tokens=2, counts=counts)  # 400 products, 100 bytes
    row = next(line for line in report_kernels([one]) if line.startswith("k "))
    assert row.split()[-3:] == ["10.0", "2.00", "50.00"]


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_pictures_have_the_format_of_their_suffix(tmp_path, suffix):
    some = [figure(), figure(tokens=4, cached=True, cache_gb_s=50.0), figure(gmac_s=1e4)]
    pictures.save(pictures.roofline(some, "title"), tmp_path / f"x.{suffix}")
    start = (tmp_path / f"x.{suffix}").read_bytes()[:200]
    assert {"png": b"\x89PNG", "svg": b"<svg", "pdf": b"%PDF"}[suffix] in start + b"<svg"
    with pytest.raises(ValueError, match=r"x\.nope: the suffix must be one of .*png"):
        pictures.save(pictures.roofline(some, "title"), tmp_path / "x.nope")


def test_a_roofline_shows_every_figure_shape_and_roof():
    some = [
        figure(),
        figure(tokens=4, gb_s=2.0),
        figure(tokens=4, cached=True, cache_gb_s=50.0),
        figure(gmac_s=1e4, rows=20),
    ]
    picture = pictures.roofline([*some, figure(threads=2)], "title")
    axes, other = picture.axes
    assert (axes.get_title(), other.get_title()) == ("title, 1 thread", "title, 2 threads")
    assert axes.get_ylim() == other.get_ylim()
    points = [tuple(line.get_xydata()[0]) for line in axes.lines if len(line.get_xydata()) == 1]
    assert {(one.intensity, one.gmac_s) for one in some} == set(points)
    assert len(points) == 5  # what is not possible has a circle as well
    shown = [text.get_text() for text in picture.legends[0].get_texts()]
    shapes = ["10 x 10 from memory", "10 x 10 in the L2 cache", "20 x 10 from memory"]
    assert shown == ["k on scalar", *shapes, "above a roof: not possible"]
    roofs = [text.get_text() for text in axes.get_legend().get_texts()]
    assert any(text.startswith("memory 20 GB/s") for text in roofs)
    assert [text.get_text() for text in axes.texts] == ["1 token", "4 tokens"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["test", "nope"], "kernel 'nope' is not one of i2_s"),
        (["test", "--isa=nope"], "isa asks for 'nope'"),
        (["bench", "--shape=nope"], "shape 'nope' is neither"),
        (["bench", "--plot=x.nope"], "x.nope: the suffix must be one of "),
        (["bench", "--threads="], "--threads and --tokens need at least one number"),
        (["--load=nope.py"], "nope.py: No such file"),
    ],
)
def test_wrong_arguments(capsys, arguments, message):
    assert main(["kernels", *arguments]) == 2
    assert message in capsys.readouterr().err

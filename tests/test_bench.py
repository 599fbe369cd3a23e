import json
import os
import statistics
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

import bitnet_lut
from bitnet_lut import Model, _native
from bitnet_lut.bench import engine, profile, roofs
from bitnet_lut.bench import machine as machines
from bitnet_lut.bench.energy import EnergyMeter
from bitnet_lut.bench.engine import AboveRoofError, ModelFigure, believable, bench, bytes_per_token
from bitnet_lut.bench.report import report_model, table
from bitnet_lut.bench.roofs import ReadRoof
from bitnet_lut.cli import main
from bitnet_lut.convert.synth import synthesize
from bitnet_lut.demo import MODEL

SVG = "{http://www.w3.org/2000/svg}"
BENCHES = Path(__file__).parent.parent / "benches"


@pytest.fixture(scope="module")
def model():
    with Model(MODEL, threads=1, kernel="i2_s") as model:
        yield model


@pytest.fixture
def high_roofs(monkeypatch):
    """Roofs that a busy machine cannot be seen to exceed."""
    monkeypatch.setattr(ReadRoof, "gb_s", lambda *_: 1e6)
    monkeypatch.setattr(engine, "integer_gmac_s", lambda *_: 1e6)


def figure(**changes) -> ModelFigure:
    """64 tokens of 1e6 bytes and 4e6 multiply-adds in 1, 2 or 4 seconds, roofs 1 and 1 G."""
    given = ModelFigure(
        what="generate",
        tokens=64,
        position=0,
        threads=2,
        isa="scalar",
        kernel="i2_s",
        seconds=(2.0, 1.0, 4.0),
        joules=(64.0, 32.0, 640.0),
        bytes_per_token={"ternary": 750_000, "head": 250_000},
        macs_per_token=4_000_000,
        read_roof_gb_s=1.0,
        integer_roof_gmac_s=1.0,
    )
    return replace(given, **changes)


class TestRoofs:
    @pytest.mark.parametrize("units", [1, 2, 7])
    def test_every_byte_is_read(self, isa, units):
        rng = np.random.default_rng(units)
        data = rng.integers(0, 256, units * _native.READ_UNIT, np.uint8)
        expected = int(np.bitwise_xor.reduce(data.view(np.uint64)))
        for threads in (1, 2, 3):
            for passes, digest in ((1, expected), (2, 0), (3, expected)):
                seconds, found = _native.read_roof(data, isa=isa, threads=threads, passes=passes)
                assert found == digest
                assert seconds > 0

    def test_multiply_adds_are_counted(self, isa):
        for threads in (1, 2):
            seconds, macs = _native.multiply_roof(100_000, isa=isa, threads=threads)
            assert macs >= 100_000 * threads
            assert macs % threads == 0
            assert seconds > 0

    def test_every_tier_has_a_roof(self):
        for isa in _native.tier_names():
            if not _native.missing_features(isa):
                assert _native.multiply_roof(1, isa=isa)[1] > 0

    @pytest.mark.parametrize(("size", "passes"), [(0, 1), (4095, 1), (4097, 1), (4096, 0)])
    def test_wrong_sizes_are_refused(self, size, passes):
        with pytest.raises(ValueError, match=f"data has {size} bytes and passes is {passes}"):
            _native.read_roof(np.zeros(size, np.uint8), isa="scalar", passes=passes)

    def test_wrong_arguments_are_refused(self):
        with pytest.raises(ValueError, match=r"isa 'sse9' is not one of .*scalar"):
            _native.multiply_roof(1, isa="sse9")
        with pytest.raises(ValueError, match="threads is 0, it must be 1 to 256"):
            _native.multiply_roof(1, isa="scalar", threads=0)
        with pytest.raises(ValueError, match="macs is 0"):
            _native.multiply_roof(0, isa="scalar")

    def test_roof_is_the_median(self, monkeypatch):
        speeds = iter([0.0, 3.0, 1.0, 2.0, 0.0, 6.0, 4.0, 5.0])  # the first of each warms up
        monkeypatch.setattr(roofs, "READ_BYTES", 2**12)
        monkeypatch.setattr(ReadRoof, "gb_s", lambda *_: next(speeds))
        monkeypatch.setattr(roofs, "integer_gmac_s", lambda *_: next(speeds))
        assert roofs.roof("scalar", 2, runs=3) == roofs.Roof("scalar", 2, 2.0, 5.0)

    def test_read_roof_of_any_size(self):
        assert ReadRoof(5000).gb_s(1) > 0


class TestMachine:
    def test_description(self):
        found = machines.machine()
        assert found.cores >= found.threads >= 1
        assert found.python == ".".join(map(str, sys.version_info[:3]))
        assert found.cpu in str(found)

    def test_caches(self, tmp_path):
        rows = [("1", "Data", "32K"), ("1", "Instruction", "32K"), ("3", "Unified", "32768K")]
        for index, row in enumerate(rows):
            folder = tmp_path / f"index{index}"
            folder.mkdir()
            for name, text in zip(("level", "type", "size"), row, strict=True):
                (folder / name).write_text(text + "\n")
        (tmp_path / "index9").mkdir()
        assert machines._caches(tmp_path) == {"L1d": 32 * 1024, "L3": 32768 * 1024}


class TestEnergy:
    @staticmethod
    def package(root: Path, name: str, microjoules: int) -> Path:
        folder = root / name
        folder.mkdir()
        (folder / "energy_uj").write_text(f"{microjoules}\n")
        (folder / "max_energy_range_uj").write_text("999999\n")
        return folder / "energy_uj"

    def test_sum_of_packages(self, tmp_path):
        first = self.package(tmp_path, "intel-rapl:0", 100)
        second = self.package(tmp_path, "intel-rapl:1", 900_000)
        self.package(tmp_path, "intel-rapl:0:0", 5)  # a part of the first
        meter = EnergyMeter(tmp_path)
        before = meter.read()
        assert before == (100, 900_000)
        first.write_text("500100\n")
        second.write_text("400000\n")  # past the end of its range of a million
        assert meter.joules(before, meter.read()) == pytest.approx(1.0)

    def test_unknown(self, tmp_path):
        assert EnergyMeter(tmp_path / "absent").read() is None
        self.package(tmp_path, "intel-rapl:0", 0).write_text("not a number")
        meter = EnergyMeter(tmp_path)
        assert meter.read() is None
        assert meter.joules(None, (1,)) is None


class TestFigure:
    def test_generation(self):
        given = figure(position=4000)
        assert given.name == "generate 64 at 4000"
        assert given.tokens_per_second == 32
        assert given.spread == (16, 64)
        assert given.gb_s == pytest.approx(0.032)
        assert given.gmac_s == pytest.approx(0.128)
        assert given.share_of_roof == pytest.approx(0.032)
        assert given.joules_per_token == 1

    def test_prompt(self):
        given = figure(what="prompt", bytes_per_token={}, joules=None)
        assert given.gb_s is None
        assert given.share_of_roof == pytest.approx(0.128)
        assert given.joules_per_token is None

    def test_below_the_roof(self, monkeypatch):
        monkeypatch.setattr(engine, "ReadRoof", None)  # not measured again
        for given in (figure(), figure(read_roof_gb_s=0.032 / 1.049)):
            assert believable(given) is given

    def test_a_roof_that_was_measured_too_low(self, monkeypatch):
        monkeypatch.setattr(ReadRoof, "gb_s", lambda *_: 0.5)
        assert believable(figure(read_roof_gb_s=0.01)) == figure(read_roof_gb_s=0.5)
        monkeypatch.setattr(engine, "integer_gmac_s", lambda *_: 0.25)
        prompt = figure(what="prompt", integer_roof_gmac_s=0.1)
        assert believable(prompt) == replace(prompt, integer_roof_gmac_s=0.25)

    @pytest.mark.parametrize("what", ["generate", "prompt"])
    def test_above_the_roof(self, monkeypatch, what):
        monkeypatch.setattr(ReadRoof, "gb_s", lambda *_: 0.01)
        monkeypatch.setattr(engine, "integer_gmac_s", lambda *_: 0.04)
        given = figure(what=what, read_roof_gb_s=0.016, integer_roof_gmac_s=0.064)
        with pytest.raises(AboveRoofError, match=f"{what} 64 with 2 threads .* at 200% of"):
            believable(given)

    def test_prompts_of_look_up_kernels_have_that_roof_too(self, monkeypatch):
        monkeypatch.setattr(engine, "integer_gmac_s", lambda *_: 0.01)
        with pytest.raises(AboveRoofError, match="prompt 64"):
            believable(figure(what="prompt", kernel="tl5", integer_roof_gmac_s=0.01))


@pytest.mark.usefixtures("high_roofs")
class TestBench:
    def test_bytes_per_token(self, model):
        config = model.config
        found = bytes_per_token(model, 100)
        linear = config.embedding_length * config.head_dim * (
            2 * config.head_count + 2 * config.head_count_kv
        ) + 3 * (config.embedding_length * config.feed_forward_length)
        assert found["ternary"] == pytest.approx(config.block_count * linear / 4, rel=0.01)
        assert found["head"] == model.info.weight_bytes["embedding"]
        heads = config.block_count * config.head_count_kv
        assert found["kv"] == 100 * 2 * heads * config.head_dim * 2
        assert "kv" not in bytes_per_token(model, 0)

    def test_figures(self):
        seen = []
        found = bench(
            MODEL,
            threads=[1, 2],
            prompt=[5, 70],
            generate=[3],
            position=10,
            rounds=2,
            isa="scalar",
            kernel="i2_s",
            progress=lambda *state: seen.append(state),
        )
        names = ["prompt 5", "prompt 70", "generate 3 at 10"]
        assert [(one.name, one.threads) for one in found.figures] == [
            (name, threads) for threads in (1, 2) for name in names
        ]
        assert all(len(one.seconds) == 2 and min(one.seconds) > 0 for one in found.figures)
        assert {(one.isa, one.kernel) for one in found.figures} == {("scalar", "i2_s")}
        assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]
        assert found.profiles == ()
        with Model(MODEL, kernel="i2_s") as model:  # halfway through the generation
            assert found.figures[2].bytes_per_token == bytes_per_token(model, 11)
        assert json.loads(json.dumps(found.as_json()))["figures"][2]["name"] == names[2]

    def test_multiply_adds_of_a_token(self, model):
        found = bench(MODEL, prompt=[4], generate=[], rounds=1)
        config = model.config
        attention = 2 * config.head_count + 2 * config.head_count_kv
        linear = config.embedding_length * config.head_dim * attention
        linear += 3 * config.embedding_length * config.feed_forward_length
        assert found.figures[0].macs_per_token == config.block_count * linear

    def test_profile(self):
        found = bench(MODEL, prompt=[4], generate=[40], rounds=1, profiled=True)
        prompt, generation = found.profiles
        assert (prompt.name, prompt.tokens) == ("prompt 4", 4)
        assert (generation.name, generation.tokens) == ("generate 40", 16)
        for one in found.profiles:
            assert min(one.parts.values()) > 0
            assert one.seconds == pytest.approx(sum(one.parts.values()))
        text = "\n".join(report_model(found))
        assert "ffn matrices" in text
        assert "waiting for each other" in text

    def test_nothing_to_measure(self):
        for arguments in ({"rounds": 0}, {"prompt": [], "generate": []}, {"threads": []}):
            with pytest.raises(ValueError, match="nothing to measure"):
                bench(MODEL, **arguments)

    def test_no_room(self, model):
        context = model.session().context
        with pytest.raises(ValueError, match=f"{context + 1} positions do not fit .* {context}"):
            bench(MODEL, prompt=[], generate=[2], position=context - 1, rounds=1)


class TestClock:
    def test_time_of_the_probe_is_not_counted(self, monkeypatch):
        now = iter([0, 1, 11, 13, 113, 117, 1117, 1125])
        monkeypatch.setattr(profile.time, "perf_counter", lambda: next(now))
        clock = profile.Clock()

        def trace(ids, probe):
            assert ids == [5]
            probe(-1, "embedding", None)
            probe(0, "attn_q", None)
            probe(0, "something new", None)

        clock.time(trace, [5])
        found = {part: seconds for part, seconds in clock.parts.items() if seconds}
        assert found == {"embedding": 1, "attention matrices": 2, "the rest": 4 + 8}

    def test_every_op_has_its_part(self, model):
        ops = set()
        model.session().trace([1, 2], lambda layer, op, array: ops.add(op))
        assert ops - set(profile._PART) == {"residual"}
        assert set(profile._PART) <= ops


@pytest.mark.usefixtures("high_roofs")
class TestCommand:
    def test_table(self, capsys):
        options = ["--threads", "1,2", "--prompt", "", "--generate", "2,3", "--position", "4"]
        code = main(["bench", "-m", str(MODEL), "--rounds", "1", *options])
        assert code == 0
        lines = capsys.readouterr().out.splitlines()
        rows = [line.split() for line in lines if "generate" in line and "read" not in line]
        assert [(row[0], *row[3:7]) for row in rows] == [
            (threads, "generate", tokens, "at", "4") for threads in "12" for tokens in "23"
        ]

    def test_json(self, capsys):
        assert main(["bench", "-m", str(MODEL), "--prompt", "4", "--generate", "", "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["machine"]["cpu"]
        assert [one["name"] for one in found["figures"]] == ["prompt 4"]

    def test_above_the_roof(self, capsys, monkeypatch):
        monkeypatch.setattr(ReadRoof, "gb_s", lambda *_: 1e-9)
        code = main(["bench", "-m", str(MODEL), "--prompt", "", "--generate", "2", "--rounds", "1"])
        said = capsys.readouterr()
        assert (code, said.out) == (2, "")
        assert "generate 2" in said.err
        assert "which is impossible" in said.err

    @pytest.mark.parametrize("numbers", ["0", "1,,2", "-1", "many"])
    def test_numbers(self, capsys, numbers):
        with pytest.raises(SystemExit) as stop:
            main(["bench", "-m", str(MODEL), "--prompt", numbers])
        assert stop.value.code == 2
        assert "is not a positive whole number" in capsys.readouterr().err


def test_columns_are_aligned():
    assert list(table([("a", "bc", ""), ("def", "g", "hi")])) == ["a    bc    ", "def   g  hi"]


class TestPeers:
    PEER = """#!/bin/sh
    case "$*" in
    "-m "*.gguf" -p 128 -n 0 -t 1 -r 1 -o json") echo '[{"avg_ts": 2.0}]' ;;
    "-m "*.gguf" -p 512 -n 0 -t 1 -r 1 -o json") echo '[{"avg_ts": 4.0}]' ;;
    "-m "*.gguf" -p 0 -n 64 -t 1 -r 1 -o json") echo '[{"avg_ts": 8.0}]' ;;
    *) echo "not understood: $*" >&2; exit 1 ;;
    esac
    """

    @staticmethod
    def run(tmp_path: Path, **environment: str) -> str:
        environment |= {"BITNET_LUT_BASELINES": str(tmp_path), "BITNET_LUT_PEER_THREADS": "1"}
        model = tmp_path / "tiny.gguf"
        synthesize(model, "tiny")
        command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "bench_peers.py"]
        done = subprocess.run(
            [*command, "-k", "bitnet.cpp"],
            cwd=BENCHES,
            env=os.environ | environment | {"BITNET_LUT_BENCH_MODEL": str(model)},
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    @pytest.mark.skipif(os.name == "nt", reason="the peer is a shell script")
    def test_ratios(self, tmp_path):
        program = tmp_path / "llama-bench"
        program.write_text(self.PEER)
        program.chmod(0o755)
        said = self.run(tmp_path, BITNET_LUT_PEER_BITNET_CPP=str(program))
        assert "tokens/s beside other engines" in said
        (path,) = tmp_path.glob("*.json")
        found = json.loads(path.read_text())
        assert [(one["what"], one["tokens"]) for one in found["comparisons"]] == [
            ("prompt", 128),
            ("prompt", 512),
            ("generate", 64),
        ]
        for one, speed in zip(found["comparisons"], (2.0, 4.0, 8.0), strict=True):
            assert one["peer_tokens_per_second"] == [speed] * 5
            ratio = statistics.median(one["tokens_per_second"]) / speed
            assert f"  {ratio:.2f}\n" in said
        assert found["roofs"][0]["threads"] == 1
        assert found["machine"]["cpu"]
        assert found["commit"]

    def test_absent(self, tmp_path):
        said = self.run(tmp_path, BITNET_LUT_PEER_BITNET_CPP="")
        assert "NO bitnet.cpp I2_S: set BITNET_LUT_PEER_BITNET_CPP to the path" in said
        assert not list(tmp_path.glob("*.json"))


class TestHistory:
    def test_history(self, tmp_path):
        files = []
        for day, speed in ((1, 10.0), (2, 20.0)):
            comparison = {"what": "generate", "tokens": 64, "threads": 2, "isa": "avx2"}
            comparison |= {"kernel": "i2_s", "tokens_per_second": [speed, 2 * speed, speed]}
            comparison |= {"peer": "other <engine>", "peer_tokens_per_second": [5.0]}
            run = {"date": f"2026-11-0{day}T12:00:00+00:00", "comparisons": [comparison]}
            run |= {"load_average": [1.5, 1, 1], "machine": {"cpu": "A CPU"}}
            run |= {"commit": "abcdef1234567"} if day == 2 else {}
            files.append(tmp_path / f"{day}.json")
            files[-1].write_text(json.dumps(run))
        output = tmp_path / "history.svg"
        command = [
            sys.executable,
            str(BENCHES / "plot_baselines.py"),
            *map(str, files),
            "-o",
            str(output),
        ]
        subprocess.run(command, check=True, timeout=60)
        texts = [
            text.text for text in ElementTree.fromstring(output.read_text()).iter(f"{SVG}text")
        ]
        assert {"bitnet_lut i2_s avx2", "other <engine>", "01 Nov 12:00"} <= set(texts)
        assert texts.count("load 1.5") == texts.count("A CPU") == 2
        assert {"abcdef123", "generate 64, threads 2"} <= set(texts)


class TestCompare:
    @staticmethod
    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(BENCHES / "compare.py"), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    def test_two_builds_take_turns(self):
        here = Path(bitnet_lut.__file__).parents[1]
        command = [here, here, "-m", MODEL, "--prompt=8", "--generate=4", "--threads=1,2"]
        done = self.run(*command, "--rounds=3", "--json")
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert [found["a"], found["b"]] == [str(here)] * 2
        tasks = [(one["what"], one["tokens"], one["threads"]) for one in found["comparisons"]]
        assert tasks == [
            (what, n, t) for t in (1, 2) for what, n in (("prompt", 8), ("generate", 4))
        ]
        for one in found["comparisons"]:
            assert len(one["a"]) == len(one["b"]) == len(one["ratios"]) == 3
            assert one["ratio"] == statistics.median(one["b"]) / statistics.median(one["a"])
        done = self.run(*command, "--rounds=1")
        assert done.returncode == 0, done.stderr
        rows = [line for line in done.stdout.splitlines() if "tokens/s" in line]
        assert len(rows) == 4
        assert rows[0].startswith("prompt 8 ")

    def test_what_cannot_be_compared(self, tmp_path):
        done = self.run("no-such-revision", "HEAD", "-m", MODEL)
        assert done.returncode == 1
        assert "no-such-revision is neither a folder nor a revision" in done.stderr
        done = self.run(tmp_path, tmp_path, "-m", MODEL)
        assert done.returncode == 1
        assert f"{tmp_path} holds no build: Python found " in done.stderr

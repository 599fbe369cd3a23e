"""The choice among kernels, and its cache."""

import importlib.metadata
import json
import os
import re
from types import SimpleNamespace

import pytest
from tiny_model import tiny_config

from bitnet_lut import Model, _native
from bitnet_lut.bench import timing, tune
from bitnet_lut.bench.tune import Timing, Tuning, measure, remember
from bitnet_lut.cli import main
from bitnet_lut.convert.synth import SHAPES
from bitnet_lut.demo import MODEL
from bitnet_lut.families import tensor_shapes
from bitnet_lut.runtime import choose
from bitnet_lut.runtime.choose import choose_kernels, group_shapes
from bitnet_lut.runtime.packing import INPUT_GROUPS

CONFIG = SHAPES["2b-4t"].config
SHAPES_OF_GROUPS = {
    "attn_qkv": (3840, 2560),
    "attn_output": (2560, 2560),
    "ffn_gate_up": (13824, 2560),
    "ffn_down": (2560, 6912),
}


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "bitnet_lut" / "kernels.json"


@pytest.fixture
def other(monkeypatch):
    """A second kernel, by name."""
    monkeypatch.setattr(_native, "kernel_names", lambda: ["i2_s", "other"])
    return "other"


def tuning(ratio, isa="avx2", threads=1, *, several=1.1):
    """Another kernel takes *ratio* times as long as i2_s for one token, *several* times for 8."""
    timings = [
        Timing(group, *shape, kernel, {1: seconds, 8: 5 * eight, 64: 30.0})
        for group, shape in SHAPES_OF_GROUPS.items()
        for kernel, seconds, eight in (("i2_s", 1.0, 1.0), ("other", ratio, several))
    ]
    return Tuning(isa, threads, timings)


@pytest.mark.parametrize(
    ("ratio", "kernel"), [(0.5, "other"), (0.97, "other"), (0.99, "i2_s"), (1.5, "i2_s")]
)
def test_one_token_decides(ratio, kernel):
    assert tuning(ratio).choice == dict.fromkeys(INPUT_GROUPS, kernel)


def test_what_is_much_slower_for_several_tokens_is_not_chosen():
    assert tuning(0.5, several=1.4).choice == dict.fromkeys(INPUT_GROUPS, "i2_s")


def test_a_fixed_order_before_any_measurement(other, monkeypatch):
    monkeypatch.setattr(choose, "_PREFERRED", {"avx2": "other"})
    assert choose_kernels(CONFIG, "auto", "avx2", 1) == dict.fromkeys(INPUT_GROUPS, "other")
    assert choose_kernels(CONFIG, "auto", "scalar", 1) == dict.fromkeys(INPUT_GROUPS, "i2_s")


def test_the_fixed_order_prefers_kernels_of_the_tier_itself(isa):
    for name in choose_kernels(CONFIG, "auto", isa, 1).values():
        assert _native.Cell(name, isa=isa).own


def test_what_is_asked_for_comes_before_what_was_measured(other, monkeypatch):
    remember(tuning(0.5))
    assert choose_kernels(CONFIG, "i2_s", "avx2", 1) == dict.fromkeys(INPUT_GROUPS, "i2_s")
    monkeypatch.setenv(choose.KERNEL_VARIABLE, "i2_s")
    assert choose_kernels(CONFIG, "auto", "avx2", 1) == dict.fromkeys(INPUT_GROUPS, "i2_s")
    with pytest.raises(ValueError, match="kernel asks for 'nope'"):
        choose_kernels(CONFIG, "nope", "avx2", 1)


def test_what_was_measured_is_kept(other, cache):
    assert remember(tuning(0.5)) == cache
    chosen = dict.fromkeys(INPUT_GROUPS, "other")
    plain = dict.fromkeys(INPUT_GROUPS, "i2_s")
    assert choose_kernels(CONFIG, "auto", "avx2", 1) == chosen
    assert choose_kernels(CONFIG, "auto", "avx2", 2) == plain
    assert choose_kernels(CONFIG, "auto", "scalar", 1) == plain
    assert choose_kernels(tiny_config(), "auto", "avx2", 1) == plain
    remember(tuning(2, isa="scalar"))
    assert choose_kernels(CONFIG, "auto", "avx2", 1) == chosen
    remember(tuning(2))
    assert choose_kernels(CONFIG, "auto", "avx2", 1) == plain
    assert [path.name for path in cache.parent.iterdir()] == ["kernels.json"]


def test_the_key_names_processor_and_version(other, cache, monkeypatch):
    remember(tuning(0.5))
    (key,) = json.loads(cache.read_text())
    assert key.endswith("avx2, threads 1")
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "newer")
    assert choose_kernels(CONFIG, "auto", "avx2", 1) == dict.fromkeys(INPUT_GROUPS, "i2_s")


def test_a_kernel_that_is_gone_is_not_chosen(other, monkeypatch):
    remember(tuning(0.5))
    monkeypatch.setattr(_native, "kernel_names", lambda: ["i2_s"])
    assert choose_kernels(CONFIG, "auto", "avx2", 1) == dict.fromkeys(INPUT_GROUPS, "i2_s")


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[1]", '{"a": 1}', '{"a": {"1x1": 2}}', "\0\xff", " " * 2**22 + "{}"),
        *("[" * 100_000, '{"a":' * 100_000, '{"a": ' + "9" * 10_000 + "}"),
    ],
    ids=lambda text: repr(text[:12]),
)
def test_a_damaged_cache_is_ignored_with_a_warning(other, cache, text):
    cache.parent.mkdir()
    cache.write_text(text, encoding="latin-1")
    with pytest.warns(UserWarning, match=r"kernels\.json is ignored: .*run bitnet-lut tune"):
        assert choose_kernels(CONFIG, "auto", "avx2", 1) == dict.fromkeys(INPUT_GROUPS, "i2_s")
    with pytest.warns(UserWarning, match="is ignored"):
        remember(tuning(0.5))
    assert choose_kernels(CONFIG, "auto", "avx2", 1) == dict.fromkeys(INPUT_GROUPS, "other")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_cache_that_is_no_file_is_ignored_with_a_warning(cache, make):
    cache.parent.mkdir()
    make(cache)
    with pytest.warns(UserWarning, match=r"kernels\.json is ignored: not a regular file"):
        assert set(choose_kernels(CONFIG, "auto", "scalar", 1).values()) == {"i2_s"}


def test_a_model_opens_beside_a_damaged_cache(cache):
    cache.parent.mkdir()
    cache.write_text("[" * 100_000)
    with pytest.warns(UserWarning, match="is ignored") as told, Model(MODEL) as model:
        assert model.generate("2 + 2 =", max_tokens=1).ids
    assert len(told) == 1
    assert told[0].filename == __file__


def test_a_cache_that_cannot_be_written_is_a_warning(other, cache):
    cache.parent.write_text("a file where the folder should be")
    with (
        pytest.warns(UserWarning, match="is ignored"),
        pytest.warns(UserWarning, match="the tuning is not kept: "),
    ):
        assert remember(tuning(0.5)) is None


def test_no_home_is_a_warning(other, monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME")

    def no_home():
        raise RuntimeError("no home")

    monkeypatch.setattr(choose.Path, "home", no_home)
    with pytest.warns(UserWarning, match="there is no cache folder"):
        assert remember(tuning(0.5)) is None
    assert set(choose_kernels(CONFIG, "auto", "avx2", 1).values()) == {"i2_s"}


@pytest.mark.parametrize(
    ("platform", "folder"),
    [("linux", ".cache"), ("darwin", "Library/Caches"), ("win32", "AppData/Local")],
)
def test_cache_folders(tmp_path, monkeypatch, platform, folder):
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path / "AppData/Local"))
    monkeypatch.setattr(choose.sys, "platform", platform)
    monkeypatch.setattr(choose.Path, "home", lambda: tmp_path)
    assert choose.measurements_file() == tmp_path / folder / "bitnet_lut/kernels.json"


def test_groups_are_all_linear_layers():
    linear = {name for group in INPUT_GROUPS.values() for name in group}
    shapes = tensor_shapes(CONFIG)
    assert {f"blk.0.{name}.weight" for name in linear} <= set(shapes)
    assert len(linear) == 7
    assert group_shapes(CONFIG) == SHAPES_OF_GROUPS


def test_measure_times_every_kernel_for_every_group(isa, monkeypatch):
    monkeypatch.setattr(timing, "_LEAST_SECONDS", 1e-4)
    steps = []
    found = measure(
        tiny_config(), isa, 2, nbytes=0, progress=lambda done, total: steps.append((done, total))
    )
    assert steps == [(1, 4), (2, 4), (3, 4), (4, 4)]
    own = [name for name in _native.kernel_names() if _native.Cell(name, isa=isa).own]
    assert [(one.group, one.kernel) for one in found.timings] == [
        (group, name) for group in INPUT_GROUPS for name in own
    ]
    assert all(set(one.seconds) == {1, 8, 64} for one in found.timings)
    assert all(min(one.seconds.values()) > 0 for one in found.timings)


def test_command(capsys, monkeypatch, cache):
    monkeypatch.setattr(tune, "ring_bytes", lambda: 0)
    monkeypatch.setattr(tune, "_WEIGHTS", 2**16)
    monkeypatch.setattr(timing, "_LEAST_SECONDS", 1e-4)
    assert main(["tune", "--threads=1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["matrices", "shape", "kernel"]
    assert len([line for line in lines if line.endswith("chosen")]) == 4
    assert re.match("attn_qkv  +3840x2560  +i2_s ", lines[1])
    assert lines[-1] == f"kept in {cache}"
    kept = cache.read_text()
    monkeypatch.setattr(choose, "machine_key", lambda isa, threads: next(iter(json.loads(kept))))
    assert main(["info"]) == 0
    assert f"tuned    {cache}: 4 shapes measured by bitnet-lut tune" in capsys.readouterr().out
    cache.unlink()
    assert main(["tune", "--threads=1", "--dry-run"]) == 0
    assert not cache.exists()
    assert "kept in" not in capsys.readouterr().out


def test_a_model_says_which_kernel_runs_in_plain_c(monkeypatch):
    """No kernel of the package is so on x86: one that has no cell but the scalar one."""
    fast = Model(MODEL, kernel="i2_s")
    isa = fast.info.isa
    assert fast.info.plain == ()
    assert f"i2_s on {isa}, " in repr(fast)
    monkeypatch.setattr(_native, "Cell", lambda name, isa: SimpleNamespace(own=name != "tl1"))
    slow = Model(MODEL, kernel="tl1")
    assert slow.info.plain == ("tl1",)
    for said in (repr(slow), str(slow.info)):
        assert f"tl1 in plain C, having nothing for {isa}, " in said
        assert f"tl1 on {isa}" not in said

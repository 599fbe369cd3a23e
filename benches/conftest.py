"""A machine description for every result, a full-size model to measure, and the table of peers."""

import json
import os
import statistics
import subprocess
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bitnet_lut.bench.machine import machine
from bitnet_lut.bench.report import table
from bitnet_lut.bench.roofs import roof
from bitnet_lut.convert.synth import synthesize

HERE = Path(__file__).parent
BASELINES = Path(os.environ.get("BITNET_LUT_BASELINES", HERE / "baselines"))
_COMPARISONS = pytest.StashKey[list[dict]]()


def pytest_configure(config):
    config.stash[_COMPARISONS] = []


def pytest_benchmark_update_machine_info(config, machine_info):
    machine_info["bitnet_lut"] = asdict(machine())


@pytest.fixture(scope="session")
def model_file(tmp_path_factory, pytestconfig):
    """The 2B-4T shape, from BITNET_LUT_BENCH_MODEL or synthesized; a tiny one without timing."""
    given = os.environ.get("BITNET_LUT_BENCH_MODEL")
    if given:
        return Path(given)
    shape = "tiny" if pytestconfig.getoption("benchmark_disable") else "2b-4t"
    path = tmp_path_factory.mktemp("models") / f"{shape}.gguf"
    synthesize(path, shape)
    return path


@pytest.fixture(scope="session")
def comparisons(pytestconfig):
    """Results beside another engine, for the table at the end."""
    return pytestconfig.stash[_COMPARISONS]


def pytest_terminal_summary(terminalreporter, config):
    comparisons = config.stash[_COMPARISONS]
    if not comparisons:
        return
    terminalreporter.section("tokens/s beside other engines, medians (slowest to fastest)")
    rows = [("what", "threads", "tier", "bitnet_lut", "peer", "its tokens/s", "ratio")]
    for one in comparisons:
        ours, theirs = one["tokens_per_second"], one["peer_tokens_per_second"]
        rows.append(
            (
                f"{one['what']} {one['tokens']}",
                str(one["threads"]),
                f"{one['kernel']} {one['isa']}",
                _spread(ours),
                one["peer"],
                _spread(theirs),
                f"{statistics.median(ours) / statistics.median(theirs):.2f}",
            )
        )
    for line in table(rows):
        terminalreporter.write_line(line)
    terminalreporter.write_line(f"written to {_keep(comparisons)}")


def _spread(speeds):
    return f"{statistics.median(speeds):.1f} ({min(speeds):.1f} to {max(speeds):.1f})"


def _keep(comparisons):
    """Write a baseline; returns its path."""
    now = datetime.now(UTC)
    BASELINES.mkdir(exist_ok=True)
    path = BASELINES / f"{now:%Y-%m-%dT%H%M}.json"
    tiers = sorted({(one["isa"], one["threads"]) for one in comparisons})
    found = {
        "date": now.isoformat(timespec="seconds"),
        "commit": _commit(),
        "machine": asdict(machine()),
        "load_average": os.getloadavg(),
        "roofs": [asdict(roof(isa, threads)) for isa, threads in tiers],
        "comparisons": comparisons,
    }
    path.write_text(json.dumps(found, indent=1) + "\n")
    return path


def _commit():
    """The commit that was measured, with a + behind it if files differ from it."""
    try:
        command = ["git", "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty=+"]
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()

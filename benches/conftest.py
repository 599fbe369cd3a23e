"""A machine description for every result, and a full-size model to measure."""

import os
import platform
from pathlib import Path

import pytest

from bitnet_lut import cpu_info
from bitnet_lut.synth import synthesise


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor()


def pytest_benchmark_update_machine_info(config, machine_info):
    info = cpu_info()
    machine_info["bitnet_lut"] = {
        "cpu": _cpu_name(),
        "features": info.features,
        "isa": info.isa,
        "threads": info.threads,
    }


@pytest.fixture(scope="session")
def model_file(tmp_path_factory, pytestconfig):
    """The 2B-4T shape, from BITNET_LUT_BENCH_MODEL or synthesised; a tiny one without timing."""
    given = os.environ.get("BITNET_LUT_BENCH_MODEL")
    if given:
        return Path(given)
    shape = "tiny" if pytestconfig.getoption("benchmark_disable") else "2b-4t"
    path = tmp_path_factory.mktemp("models") / f"{shape}.gguf"
    synthesise(path, shape)
    return path

import os
import sys
import tempfile
from pathlib import Path

import pytest
from golden_data import GOLDEN

from bitnet_lut import _native

# Programs that tests start import the installed package, not the folder they are started in.
os.environ["PYTHONSAFEPATH"] = "1"
# training/ is not installed. It comes last, so that the installed bitnet_lut is found first.
sys.path.append(str(Path(__file__).parents[1]))
# What was measured on this machine does not choose kernels in tests.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="bitnet_lut-tests-")


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference data."""
    return GOLDEN


@pytest.fixture(params=_native.tier_names())
def isa(request: pytest.FixtureRequest) -> str:
    """Each tier that was compiled in, skipped where this machine cannot run it."""
    name: str = request.param
    missing = _native.missing_features(name)
    if missing:
        pytest.skip(f"tier {name} needs {', '.join(missing)}, which this machine lacks")
    return name


@pytest.fixture(params=_native.kernel_names())
def kernel(request: pytest.FixtureRequest) -> str:
    """Each ternary kernel that was compiled in."""
    name: str = request.param
    return name

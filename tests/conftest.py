from pathlib import Path

import pytest
from golden_data import GOLDEN


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of reference data."""
    if GOLDEN is None:
        pytest.skip("NO REFERENCE DATA: ../shared/golden is absent, so nothing is compared with it")
    return GOLDEN

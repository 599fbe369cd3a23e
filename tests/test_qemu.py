"""The package on processors that this machine is not: same logits, whatever tiers are there."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bitnet_lut._kernels import missing_features, tier_names

TESTS = Path(__file__).parent
# The oldest processor that NumPy's own baseline allows, and the oldest one with AVX2.
TIERS = {"Nehalem": ["scalar"], "Haswell": ["avx2", "scalar"]}
# Prints, for each tier that can run: whether it passes its self-test, and a digest of its logits.
PROGRAM = """
import hashlib, json, sys
sys.path.insert(0, sys.argv[1])
from bitnet_lut._kernels import missing_features, self_test, tier_names
from tiny_models import odd_model
model, found = odd_model(), {}
for isa in (name for name in tier_names() if not missing_features(name)):
    logits = [model.logits(9, isa=isa, kv_f16=half, threads=2, batch=4) for half in (False, True)]
    digests = [hashlib.sha256(values).hexdigest() for values in logits]
    found[isa] = [self_test(isa), *digests]
print(json.dumps(found))
"""


def tiers_of(emulator: list[str]) -> dict[str, list[bool | str]]:
    """What the program above prints."""
    command = [*emulator, sys.executable, "-W", "error", "-c", PROGRAM, str(TESTS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(emulator)}: {done.returncode}\n{done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def native():
    """The results of this machine's own processor."""
    found = tiers_of([])
    assert list(found) == [name for name in tier_names() if not missing_features(name)]
    assert all(result == found["scalar"] and result[0] for result in found.values())
    return found


@pytest.mark.parametrize("cpu", TIERS)
def test_other_processor_gives_the_same_logits(cpu, native):
    if "avx2" not in tier_names() or shutil.which("qemu-x86_64") is None:
        pytest.skip(f"NO QEMU-X86_64: the package is not run on a {cpu}")
    emulated = tiers_of(["qemu-x86_64", "-cpu", cpu])
    assert emulated == dict.fromkeys(TIERS[cpu], native["scalar"])

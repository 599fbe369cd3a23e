"""The package on processors that this machine is not: same logits, whatever tiers are there."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from golden_data import GOLDEN

from bitnet_lut._native import missing_features, tier_names

TESTS = Path(__file__).parent
# The oldest processor that NumPy's own baseline allows, and the oldest one with AVX2.
TIERS = {"Nehalem": ["scalar"], "Haswell": ["avx2", "scalar"]}
# Prints digests of logits: by each tier that can run and passes its self-test, of a model made here
# ("odd") and of a file through the public interface.
PROGRAM = """
import hashlib, json, sys
from bitnet_lut import Model
from bitnet_lut._native import missing_features, self_test_fault, tier_names
from tiny_models import odd_model

def digest(logits):
    return hashlib.sha256(logits).hexdigest()

odd, found = odd_model(), {}
for isa in (name for name in tier_names() if not missing_features(name)):
    assert not self_test_fault(isa), isa
    found[isa] = {
        kv: digest(odd.logits(9, isa=isa, kind=kv, threads=2, batch=4))
        for kv in ("f16", "f32")
    }
    for path in sys.argv[1:]:
        with Model(path, threads=2, isa=isa) as model:
            found[isa][path] = digest(model.forward(range(9)))
print(json.dumps(found))
"""


def logits_of_tiers(emulator: list[str]) -> dict[str, dict[str, str]]:
    """What the program above prints."""
    files = [GOLDEN / "bitnet-b1.58" / "model-i2_s.gguf"]
    command = [*emulator, sys.executable, "-W", "error", "-c", PROGRAM, *map(str, files)]
    here = {**os.environ, "PYTHONPATH": str(TESTS)}  # for tiny_models
    here.pop("OPENBLAS_CORETYPE", None)  # the emulated processor is another than this one
    done = subprocess.run(command, env=here, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{' '.join(emulator)}: {done.returncode}\n{done.stderr}"
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def native():
    """The logits of this machine's own processor, the same on all its tiers."""
    found = logits_of_tiers([])
    assert list(found) == [name for name in tier_names() if not missing_features(name)]
    assert all(logits == found["scalar"] for logits in found.values())
    return found


@pytest.mark.parametrize("cpu", TIERS)
def test_other_processor_gives_the_same_logits(cpu, native):
    if "avx2" not in tier_names() or shutil.which("qemu-x86_64") is None:
        pytest.skip(f"NO QEMU-X86_64: the package is not run on a {cpu}")
    emulated = logits_of_tiers(["qemu-x86_64", "-cpu", cpu])
    assert emulated == dict.fromkeys(TIERS[cpu], native["scalar"])


# As if the processor had promised every feature.
PROMISED = """
import warnings
from bitnet_lut import _native
from bitnet_lut.runtime import cpu

_native.missing_features = lambda isa: []
with warnings.catch_warnings(record=True) as told:
    warnings.simplefilter("always")
    print(cpu.choose_isa())
for one in told:
    print(one.category.__name__, one.message)
"""


def test_an_illegal_instruction_ends_the_self_test_and_not_the_program():
    if "avx2" not in tier_names() or shutil.which("qemu-x86_64") is None:
        pytest.skip("NO QEMU-X86_64: no tier is run on a processor that lacks it")
    command = ["qemu-x86_64", "-cpu", "Haswell", sys.executable, "-c", PROMISED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    used, *told = done.stdout.splitlines()
    assert used == "avx2"
    assert told == [
        f"RuntimeWarning tier {isa} is not used, its self-test was ended by signal 4 (Illegal "
        "instruction); avx2 computes in its place"
        for isa in tier_names()[: tier_names().index("avx2")]
    ]

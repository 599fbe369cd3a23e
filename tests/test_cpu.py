"""Which tier computes: the best one that is there and has passed its self-test."""

import os
import platform
import signal
import subprocess
import sys
import threading

import pytest

from bitnet_lut import _native
from bitnet_lut.runtime import cpu

HERE = [isa for isa in _native.tier_names() if not _native.missing_features(isa)]
ILLEGAL = "its self-test was ended by signal 4 (Illegal instruction)"


@pytest.fixture
def broken(monkeypatch):
    """Function that makes the self-tests of some tiers fail."""
    monkeypatch.delenv(cpu.ISA_VARIABLE, raising=False)

    def fail(*names):
        monkeypatch.setattr(_native, "self_test_fault", lambda isa: ILLEGAL if isa in names else "")
        cpu._verdict.cache_clear()

    yield fail
    cpu._verdict.cache_clear()


def test_a_tier_that_fails_is_passed_over_with_a_warning(broken):
    best = HERE[0]
    if len(HERE) < 2:
        pytest.skip("this machine has no tier but scalar")
    broken(best)
    told = rf"tier {best} is not used, its self-test was ended by signal 4 \(Illegal instruction\)"
    with pytest.warns(RuntimeWarning, match=rf"{told}; {HERE[1]} computes in its place"):
        assert cpu.choose_isa() == HERE[1]
    with pytest.warns(RuntimeWarning, match=told):
        info = cpu.cpu_info()
    assert (info.isa, info.tiers[best], info.tiers["scalar"]) == (HERE[1], ILLEGAL, "usable")
    with pytest.raises(ValueError, match=f"isa asks for '{best}', but its self-test was ended"):
        cpu.choose_isa(best)
    assert cpu.choose_isa("scalar") == "scalar"


def test_every_failure_is_told(broken):
    broken(*HERE[:-1])
    with pytest.warns(RuntimeWarning) as told:
        assert cpu.choose_isa() == "scalar"
    assert [str(one.message).split()[1] for one in told] == HERE[:-1]


@pytest.mark.filterwarnings("error")
def test_tiers_that_are_not_here_are_no_reason_to_warn(broken):
    broken(*(name for name in _native.tier_names() if name not in HERE))
    assert cpu.choose_isa() == HERE[0]


@pytest.mark.filterwarnings("error")
def test_the_self_test_beside_threads():
    """It runs in a second process, whatever other threads do at that time."""
    stop = threading.Event()
    faults = []

    def compute():
        while not stop.is_set():
            faults.append(_native.self_test_fault(HERE[0]))

    threads = [threading.Thread(target=compute) for _ in range(3)]
    for thread in threads:
        thread.start()
    faults.extend(_native.self_test_fault(HERE[0]) for _ in range(5))
    stop.set()
    for thread in threads:
        thread.join(timeout=30)
        assert not thread.is_alive()
    assert set(faults) == {""}


@pytest.mark.skipif(not hasattr(signal, "SIGCHLD"), reason="there is no fork")
def test_the_self_test_in_a_program_that_does_not_wait_for_children():
    program = (
        "import faulthandler, signal\n"
        "from bitnet_lut import _native\n"
        "faulthandler.enable()\n"
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN)\n"
        f"assert _native.self_test_fault({HERE[0]!r}) == ''\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b""), os.fsdecode(done.stderr)


def test_a_processor_is_named_with_its_family_and_model(monkeypatch):
    text = "processor\t: 0\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\nmodel\t: 9\n"
    monkeypatch.setattr(cpu.Path, "read_text", lambda path: text)
    assert cpu.cpu_name() == "AMD EPYC (family 26, model 2)"
    monkeypatch.setattr(cpu.Path, "read_text", lambda path: "Processor\t: ARM\n")
    assert cpu.cpu_name() == platform.machine()

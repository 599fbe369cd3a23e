"""Checks of this machine: wrong kernels and tiers are found."""

import numpy as np
import pytest
from outside_kernels import PYTHON, gemm

from bitnet_lut import kernels
from bitnet_lut.demo import MODEL
from bitnet_lut.diagnose import doctor
from bitnet_lut.diagnose import machine_checks as checks
from bitnet_lut.diagnose.running import Runner
from bitnet_lut.diagnose.subject import Subject


def only(check):
    (finding,) = check(Subject(MODEL))
    return finding


@pytest.fixture
def wrong_kernel():
    def wrong(packed, q, rows, cols):
        found = gemm(packed, q, rows, cols)
        found[:, rows - 1] += np.arange(len(q)) == 4
        return found

    kernels.register("wrong", **{**PYTHON, "gemm": wrong})
    yield
    kernels.unregister("wrong")


@pytest.mark.parametrize("check", checks.CHECKS)
def test_what_is_compiled_in_is_right(check):
    assert only(check).status == "ok"


def test_a_kernel_that_is_wrong_is_named(wrong_kernel):
    found = only(checks.check_kernels)
    assert (found.status, found.verdict) == ("fault", "kernel")
    assert found.where.startswith("wrong on ")
    assert doctor(MODEL).verdict == "kernel"


def test_a_tier_that_is_wrong_is_named(monkeypatch):
    run = Runner.logits

    def wrong(runner, variant, ids, *, probe=None):
        found = run(runner, variant, ids, probe=probe)
        return found + np.float32(1e-3) if runner.isa != "scalar" else found

    monkeypatch.setattr(Runner, "logits", wrong)
    if checks._usable_tiers() == ["scalar"]:
        pytest.skip("this machine has the scalar tier only")
    found = only(checks.check_tiers)
    assert (found.status, found.verdict) == ("fault", "kernel")
    assert "differ from scalar" in found.measured


def test_a_tier_that_failed_its_self_test_is_a_warning(monkeypatch):
    info = checks.cpu_info()
    tiers = dict.fromkeys(info.tiers, "usable") | {"scalar": "its self-test failed: ..."}
    monkeypatch.setattr(checks, "cpu_info", lambda: type(info)((), tiers, "", "", 1))
    found = only(checks.check_self_tests)
    assert (found.status, found.where) == ("warning", "scalar")

"""Diagnosis by trial: cures applied in memory, and what they do for the model."""

from collections.abc import Sequence

from bitnet_lut.diagnose.findings import Finding, Trial
from bitnet_lut.diagnose.subject import Subject

__all__ = ["try_cures"]


def try_cures(subject: Subject, findings: Sequence[Finding]) -> tuple[list[Trial], list[Finding]]:
    """Try every cure on a model; returns all trials and what follows from them.

    findings: of the checks, which ran before.
    """
    return [], []

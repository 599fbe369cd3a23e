"""What an examination finds, and how it is told."""

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

__all__ = ["Diagnosis", "Finding", "Status", "Trial", "Verdict", "fault", "ok", "warning"]

Verdict: TypeAlias = Literal[
    "ok",
    "encoding",
    "layout",
    "scale",
    "activation",
    "norms",
    "rope",
    "tokenizer",
    "embedding",
    "layers",
    "quantization",
    "not-ternary",
    "untrained",
    "undertrained",
    "damaged",
    "kernel",
    "diffusion",
    "unknown",
]
Status: TypeAlias = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """The result of one check.

    check: what was looked at, "<kind>: <what>". where: the tensors or keys concerned; "" for the
        whole source.
    measured, expected: what was found, and what is normal and why.
    meaning: what follows from it; fix: what to do. Both are "" where all is well.
    verdict: what a fault says is wrong with the source; "unknown" where it could be anything.
    certainty: how surely a fault means that, 0 to 1. The surest fault decides the diagnosis.
    """

    check: str
    status: Status
    where: str
    measured: str
    expected: str
    meaning: str = ""
    fix: str = ""
    verdict: Verdict = "unknown"
    certainty: float = 0.5


def ok(check: str, measured: str, expected: str, *, where: str = "") -> Finding:
    """A check that found nothing wrong."""
    return Finding(check, "ok", where, measured, expected, verdict="ok", certainty=0.0)


def warning(
    check: str,
    measured: str,
    expected: str,
    *,
    meaning: str,
    fix: str = "",
    verdict: Verdict = "unknown",
    where: str = "",
) -> Finding:
    """A check that found something unusual, which need not be wrong."""
    return Finding(check, "warning", where, measured, expected, meaning, fix, verdict)


def fault(
    check: str,
    measured: str,
    expected: str,
    *,
    meaning: str,
    fix: str,
    certainty: float,
    verdict: Verdict = "unknown",
    where: str = "",
) -> Finding:
    """A check that found something wrong."""
    return Finding(check, "fault", where, measured, expected, meaning, fix, verdict, certainty)


@dataclass(frozen=True)
class Trial:
    """A change that was tried in memory, and what the model was worth with it.

    name: the change, as "code 00=0 01=+1 10=-1". verdict: what is wrong if it helps.
    bits_per_byte: of the built-in text it does best; infinite if the model gave NaN or Inf.
    detail: further figures in words.
    """

    name: str
    verdict: Verdict
    bits_per_byte: float
    detail: str = ""


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong with a source, and what says so.

    confidence: 0 to 1. summary: one sentence for people.
    """

    source: str
    verdict: Verdict
    confidence: float
    summary: str
    findings: tuple[Finding, ...]
    trials: tuple[Trial, ...] = ()

    @property
    def healthy(self) -> bool:
        """Whether no fault was found."""
        return self.verdict == "ok"

    def to_json(self) -> dict[str, Any]:
        """The diagnosis as JSON has it; an infinite number is null."""
        shown = ("check", "status", "where", "measured", "expected", "meaning", "fix")
        return {
            "verdict": self.verdict,
            "confidence": round(self.confidence, 3),
            "findings": [
                {name: getattr(finding, name) for name in shown} for finding in self.findings
            ],
            "trials": [
                {
                    "name": trial.name,
                    "verdict": trial.verdict,
                    "bits_per_byte": _finite(trial.bits_per_byte),
                    "detail": trial.detail,
                }
                for trial in self.trials
            ],
        }


def _finite(value: float) -> float | None:
    return value if abs(value) < float("inf") else None

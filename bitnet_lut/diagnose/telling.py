"""Telling a diagnosis to people, on one screen."""

from collections import Counter
from collections.abc import Iterator
from textwrap import wrap

from bitnet_lut.diagnose.findings import Diagnosis, Finding

__all__ = ["tell"]

_WIDTH = 96
_MOST_TRIALS = 4


def tell(diagnosis: Diagnosis) -> Iterator[str]:
    """Lines of text that begin with one sentence."""
    yield diagnosis.summary
    yield f"verdict: {diagnosis.verdict}, confidence {diagnosis.confidence:.0%}"
    surest_first = sorted(diagnosis.findings, key=lambda finding: -finding.certainty)
    for status in ("fault", "warning"):
        for finding in surest_first:
            if finding.status == status:
                yield ""
                yield from _finding(finding)
    if diagnosis.trials:
        yield "\ntrials, bits per byte"
        best = sorted(diagnosis.trials, key=lambda trial: trial.bits_per_byte)
        for trial in best[:_MOST_TRIALS]:
            yield f"  {trial.bits_per_byte:8.3f}  {trial.name}"
        if len(best) > _MOST_TRIALS:
            yield f"  {len(best) - _MOST_TRIALS} others were worse"
    kinds = Counter(f.check.partition(":")[0] for f in diagnosis.findings if f.status == "ok")
    if kinds:
        fine = ", ".join(f"{kind} ({count})" for kind, count in kinds.items())
        yield f"\nfine: {fine}"


def _finding(finding: Finding) -> Iterator[str]:
    where = f", {finding.where}" if finding.where else ""
    yield f"{finding.status.upper()}  {finding.check}{where}"
    parts = ("measured", "expected", "meaning", "fix")
    for name in parts:
        words: str = getattr(finding, name)
        lines = wrap(words, _WIDTH - 12)
        yield from (f"  {name if not i else '':8}  {line}" for i, line in enumerate(lines))

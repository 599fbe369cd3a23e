"""The examination: every check in turn, then trials, then the verdict."""

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from bitnet_lut.convert import check_output
from bitnet_lut.diagnose import (
    behavior_checks,
    file_checks,
    layers_checks,
    machine_checks,
    records_checks,
    reference_checks,
    tokenizer_checks,
    weights_checks,
)
from bitnet_lut.diagnose.findings import Diagnosis, Finding, Verdict, fault
from bitnet_lut.diagnose.mended import write_mended
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.diagnose.trial import try_cures
from bitnet_lut.errors import FormatError
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tiles import Shape, Tile

__all__ = ["CHECKS", "doctor"]

Check: TypeAlias = Callable[[Subject], Iterable[Finding]]

# By kind, in the order in which they run: the first ones explain most of what the later ones see.
CHECKS: Mapping[str, Sequence[Check]] = {
    "records": records_checks.CHECKS,
    "file": file_checks.CHECKS,
    "weights": (*weights_checks.CHECKS, *layers_checks.CHECKS),
    "tokenizer": tokenizer_checks.CHECKS,
    "behavior": behavior_checks.CHECKS,
    "reference": reference_checks.CHECKS,
    "machine": machine_checks.CHECKS,
}

# Words of errors about what is not wrong, but unknown here.
_UNSUPPORTED = re.compile("supported|not known|neither a GGUF file nor a folder")

_SENTENCES: Mapping[Verdict, str] = {
    "ok": "nothing is wrong with it",
    "encoding": "its weights were decoded with another code than they were written with",
    "layout": "its weights were read in another layout than they were written in",
    "scale": "its weight scales are wrong",
    "activation": "it is run with the wrong activation function",
    "norms": "its norms are wrong",
    "rope": "its rotary position embedding is wrong",
    "tokenizer": "its tokenizer is wrong",
    "embedding": "its embedding or output matrix is wrong",
    "layers": "its layers are missing, doubled or out of order",
    "quantization": "it is not run with the quantization that it was trained for",
    "not-ternary": "it was never trained to be ternary",
    "untrained": "its weights are random: it was never trained",
    "undertrained": "it was trained, but not enough",
    "damaged": "the file is damaged",
    "kernel": "this machine computes wrongly",
    "diffusion": "it is a diffusion model, which cannot be decoded from left to right",
    "unknown": "it is sick, but no known cause explains it",
}


def doctor(
    source: str | os.PathLike[str],
    *,
    text: str | None = None,
    reference: str | os.PathLike[str] | None = None,
    i2_s_layout: i2_s.Layout = "128x32",
    tiles: Mapping[Shape, Tile] | None = None,
    threads: int | None = None,
    write_fixed: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Diagnosis:
    """Say what is wrong with a model, and what shows it.

    source: a GGUF file, a Hugging Face folder, a torch state dict, or the folder of a training run.
    text: a text that the model should predict well, measured besides the built-in ones.
    reference: another source of what should be the same model, known to be good.
    i2_s_layout, tiles: see ``checkpoint.open_checkpoint``. threads: default: the cores this process
        may use. write_fixed: where to write the mended model, a GGUF file, if a trial finds what is
        wrong. progress: called with the kinds of checks done so far and in all.

    A damaged file is a verdict and not an error. Raises FormatError for a model that is not
    supported or no model at all, OSError if the source cannot be read, ImportError if reading it
    needs a package that is missing, and ValueError or TypeError for wrong arguments.
    """
    if write_fixed is not None:
        check_output(Path(source), Path(write_fixed), folder=False)
    subject = Subject(
        source,
        text=text,
        reference=reference,
        i2_s_layout=i2_s_layout,
        tiles=tiles,
        threads=threads,
    )
    steps = len(CHECKS) + 1
    findings: list[Finding] = []
    for done, (kind, checks) in enumerate(CHECKS.items()):
        progress(done, steps)
        for check in checks:
            findings += _run(kind, check, subject, findings)
    progress(len(CHECKS), steps)
    trials, cured = try_cures(subject, findings) if subject.runs else ([], None)
    if write_fixed is not None:
        findings.append(write_mended(subject, cured, Path(write_fixed)))
    progress(steps, steps)
    verdict, confidence = decide(findings)
    return Diagnosis(
        source=subject.name,
        verdict=verdict,
        confidence=confidence,
        summary=f"{subject.source.name or subject.name}: {_SENTENCES[verdict]}.",
        findings=tuple(findings),
        trials=tuple(trials),
    )


def decide(findings: Iterable[Finding]) -> tuple[Verdict, float]:
    """The verdict of the surest fault and its certainty; the first of several that are as sure.

    Without a fault the verdict is "ok", the less surely the more warnings there are.
    """
    found = list(findings)
    faults = [finding for finding in found if finding.status == "fault"]
    if not faults:
        warnings = sum(finding.status == "warning" for finding in found)
        return "ok", max(0.5, 0.95 - 0.05 * warnings)
    surest = max(faults, key=lambda finding: finding.certainty)
    return surest.verdict, surest.certainty


def _run(kind: str, check: Check, subject: Subject, so_far: Sequence[Finding]) -> list[Finding]:
    """What a check finds; a source that cannot be read for it is damaged.

    FormatError for one that this package does not support, unless a fault explains that.
    """
    try:
        return list(check(subject))
    except FormatError as error:
        text = str(error).removeprefix(f"{subject.name}: ")
        if _UNSUPPORTED.search(text):
            if any(finding.status == "fault" for finding in so_far):
                return []
            raise
        if any(text in finding.measured for finding in so_far):
            return []  # one fault stops several checks
        return [
            fault(
                f"{kind}: reading",
                text,
                "a source that can be read in full",
                meaning="what the file says contradicts itself",
                fix="get the file again, or convert it again from its original",
                verdict="damaged",
                certainty=0.9,
            )
        ]

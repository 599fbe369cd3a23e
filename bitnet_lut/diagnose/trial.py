"""Diagnosis by trial: cures applied in memory, and what they do for the model."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from time import monotonic

import numpy as np

from bitnet_lut.diagnose.asking import Answers, ask, gain
from bitnet_lut.diagnose.cures import ROUNDING, Cure, cures
from bitnet_lut.diagnose.facts import FACTS, SUMS, Fact
from bitnet_lut.diagnose.findings import Finding, Trial, fault, ok
from bitnet_lut.diagnose.inspection import some
from bitnet_lut.diagnose.running import Variant
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.errors import FormatError
from bitnet_lut.families import is_linear
from bitnet_lut.formats.tensors import DenseMatrix
from bitnet_lut.formats.ternary import from_scaled
from bitnet_lut.reference import dense_weights

__all__ = ["Cured", "try_cures"]

_SURE = 3.5  # standard deviations by which a cure must be better
_HOPEFUL = 1.0  # and one, after a third of the sentences, that is asked for all of them
_BETTER = 0.6  # of the bits that a model held which made no sense, a cure leaves at most that share
_KNOWN = 0.9  # of the sentences: with less, a second cure is looked for
_MOST_HOPEFUL = 7  # cures that are tried in pairs
_LARGE = 2e8  # weights of a model that is asked few sentences
_FEW = 24
_SECONDS = 150.0  # no further cure is tried after that
_ROWS_THAT_TELL = 64  # of a matrix, whether it is ternary
_EXPLAINED = ("untrained", "quantization", "not-ternary")
_OWN_WORDS = 12  # of the user's text in a sentence


@dataclass(frozen=True)
class Cured:
    """The cure that helped, and the model with it."""

    cure: Cure
    variant: Variant


def try_cures(subject: Subject, findings: list[Finding]) -> tuple[list[Trial], Cured | None]:
    """Try every cure on a model; returns all trials, and what helped.

    findings: of the checks, which ran before; what follows from the trials is added. Where they
    have explained all, nothing is tried: a model whose weights are random or lost, or that does not
    survive the rounding it was not trained for.
    """
    floats = [name for name in subject.dense if is_linear(name)]
    if floats and all(_is_ternary(subject.dense[name]) for name in floats):
        findings.append(_ternary_floats(floats))
        return [], Cured(ROUNDING, ROUNDING.change(subject.model))
    if any(f.status == "fault" and _explains(f) for f in findings):
        return [], None
    bench = _Bench(subject)
    best = bench.best(list(cures(subject)))
    if best is not None:
        findings.append(_helped(bench, best))
        return bench.trials, Cured(best, best.change(subject.model))
    findings.append(_nothing_helped(subject, bench))
    return bench.trials, None


def _explains(fault: Finding) -> bool:
    lost = fault.check.startswith("weights: ") and fault.verdict in ("layers", "damaged")
    return fault.verdict in _EXPLAINED or (lost and fault.certainty > 0.8)


def _is_ternary(matrix: DenseMatrix) -> bool:
    rows = np.arange(min(_ROWS_THAT_TELL, matrix.rows))
    return from_scaled(dense_weights(matrix, rows)) is not None


def _ternary_floats(names: Sequence[str]) -> Finding:
    return fault(
        "weights: quantization",
        f"{len(names)} linear layers hold nothing but -s, 0 and +s, stored as floats of a family "
        "that is run in full precision",
        "ternary weights with activations rounded to int8 for each token, as BitNet is trained",
        where=some(names),
        meaning="every program that reads it leaves out the quantization of activations",
        fix=ROUNDING.fix,
        verdict="quantization",
        certainty=0.93,
    )


class _Bench:
    """Tries cures on one model.

    trials: all so far, that of the model itself first, with a third of the sentences.
    base: what the model as it is makes of all of them; answers: the same with the cures that could
    help, by name. left_out: how many cures were not tried.
    """

    def __init__(self, subject: Subject) -> None:
        """Ask the model as it is."""
        self._subject = subject
        self._groups = _groups(subject)
        self._some = {name: facts[::3] for name, facts in self._groups.items()}
        self._end = monotonic() + _SECONDS
        self.base = self._ask(subject.model, self._groups)
        self._first = self._ask(subject.model, self._some)
        self.trials = [Trial("as it is", "ok", self._first.bits_per_byte, str(self._first))]
        self.answers: dict[str, Answers] = {}
        self.left_out = 0

    def best(self, table: Sequence[Cure]) -> Cure | None:
        """The cure, or pair of cures, that surely helps most; None if nothing helps."""
        hopeful = [cure for cure in table if self._hopeful(cure)]
        hopeful.sort(key=lambda cure: self.answers[cure.name].mean)
        best = self._better(None, hopeful)
        pairs = [a.then(b) for a, b in combinations(hopeful[:_MOST_HOPEFUL], 2) if a.kind != b.kind]
        best = self._better(best, filter(self._hopeful, pairs))
        if best is not None and self.answers[best.name].known < _KNOWN * self.base.asked:
            more = [best.then(cure) for cure in table if cure.kind not in best.name.split()]
            best = self._better(best, filter(self._hopeful, more))
        if best is not None and self._brings_sense(self.answers[best.name]):
            return best
        return None

    def _better(self, best: Cure | None, others: Iterable[Cure]) -> Cure | None:
        """The best of all, where that is surely better than *best*."""
        for cure in others:
            before = self.base if best is None else self.answers[best.name]
            if gain(before, self.answers[cure.name]) > _SURE:
                best = cure
        return best

    def _hopeful(self, cure: Cure) -> bool:
        """Try a cure, with all sentences if some of them go better."""
        if monotonic() > self._end:
            self.left_out += 1
            return False
        try:
            variant = cure.change(self._subject.model)
        except FormatError:  # codes that no other layout could have written either
            return False
        first = self._ask(variant, self._some)
        self.trials.append(Trial(cure.name, cure.verdict, first.bits_per_byte, str(first)))
        if gain(self._first, first) < _HOPEFUL:
            return False
        self.answers[cure.name] = self._ask(variant, self._groups)
        return True

    def _brings_sense(self, after: Answers) -> bool:
        """Whether the model made sense before, or makes far more sense now."""
        return self.base.known > self.base.asked / 2 or after.mean < _BETTER * self.base.mean

    def _ask(self, variant: Variant, groups: Mapping[str, Sequence[Fact]]) -> Answers:
        return ask(self._subject.runner, variant, groups)


def _groups(subject: Subject) -> Mapping[str, Sequence[Fact]]:
    """The sentences to ask for; a few of each kind where the model is large."""
    groups: dict[str, Sequence[Fact]] = {"facts": FACTS, "sums": SUMS}
    if subject.text:
        groups["your text"] = tuple(_sentences(subject.text))
    weights = sum(matrix.rows * matrix.cols for matrix in subject.ternary.values())
    return {name: facts[: _FEW if weights > _LARGE else None] for name, facts in groups.items()}


def _sentences(text: str) -> Iterator[Fact]:
    """Pieces of a text, each with its first half as the beginning."""
    words = text.split(" ")[: _OWN_WORDS * 64]
    for start in range(0, len(words) - _OWN_WORDS + 1, _OWN_WORDS):
        piece = words[start : start + _OWN_WORDS]
        half = _OWN_WORDS // 2
        yield " ".join(piece[:half]), " " + " ".join(piece[half:])


def _helped(bench: _Bench, cure: Cure) -> Finding:
    before, after = bench.base, bench.answers[cure.name]
    return fault(
        "trials: cure",
        f"{cure.name}: {after.bits_per_byte:.3f} bits per byte instead of "
        f"{before.bits_per_byte:.3f}, {after.known} of {after.asked} simple sentences ended as "
        f"expected instead of {before.known}",
        "no change of the weights or of the graph makes a healthy model better",
        meaning="the model makes more sense with this change than as it is",
        fix=cure.fix,
        verdict=cure.verdict,
        certainty=0.97 if after.mean < before.mean / 2 else 0.92,
    )


def _nothing_helped(subject: Subject, bench: _Bench) -> Finding:
    check, tried = "trials: cures", len(bench.trials) - 1
    measured = f"none of {tried} changes helps; {bench.base}"
    expected = "no change of the weights or of the graph makes a healthy model better"
    if bench.left_out:
        measured += f"; {bench.left_out} more were not tried, which would take too long"
    if subject.sensible:
        return ok(check, measured, expected)
    if subject.learned or bench.base.known > bench.base.asked / 10:
        return fault(
            check,
            measured,
            expected,
            meaning="it knows something, and no known mistake hides more: it was trained too "
            "little",
            fix="train it longer, or use a later checkpoint",
            verdict="undertrained",
            certainty=0.5,
        )
    return fault(
        check,
        measured,
        expected,
        meaning="no known mistake explains it: it was trained too little, or for another language "
        "or subject than simple English, or there are two mistakes of which neither cure shows",
        fix="give a text of its own kind as --text; compare with another program by "
        "bitnet-lut diverge",
        certainty=0.35,
    )

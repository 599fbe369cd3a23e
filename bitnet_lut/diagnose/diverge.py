"""The first op at which two programs part, and every op beside it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from bitnet_lut.diagnose.explain import explain
from bitnet_lut.diagnose.judging import NOISE, Step, judge, relative
from bitnet_lut.diagnose.ops import Place, inputs_of, key_of, order_of
from bitnet_lut.diagnose.sources import AnySource, Source, Weights, open_source
from bitnet_lut.diagnose.trace import Floats, Trace

__all__ = ["Divergence", "OpDifference", "choose_ids", "diverge", "trace_source"]

PROMPT = "The capital of France is"
TOKENS = 16
_GAIN = 8  # differences grow less than this at an op that only hands them on

Status: TypeAlias = Literal["same", "noise", "follows", "parts", "not in A", "not in B"]


@dataclass(frozen=True)
class OpDifference:
    """How the results of one op differ between A and B.

    layer: -1 outside the layers. status: "same" bits; "noise" below the tolerance; "follows" if the
    inputs differ and the op does what it should with them; "parts" if not; "not in A", "not in B".
    relative: root mean square of the difference, relative to the larger of the two. ratio: of
    norms, B to A. step: the relative difference to what the op gives from B's own inputs, if our
    weights tell that. All are None where a source lacks the op, infinite where NaN makes them so.
    """

    layer: int
    op: str
    status: Status
    cosine: float | None = None
    max_difference: float | None = None
    ratio: float | None = None
    relative: float | None = None
    step: float | None = None

    @property
    def name(self) -> str:
        """Its key in a dump."""
        return key_of((self.layer, self.op))


@dataclass(frozen=True)
class Divergence:
    """What two sources make of the same ids.

    ops: in the order of the computation. first: the one that parts, None if none does.
    summary: a sentence; explanations: more of them, where the reason can be known.
    tolerance: the largest relative difference that counts as none; 0 between exact sources.
    """

    a: str
    b: str
    tokens: int
    tolerance: float
    ops: tuple[OpDifference, ...]
    first: OpDifference | None
    summary: str
    explanations: tuple[str, ...]

    @property
    def same(self) -> bool:
        """Whether no op parts."""
        return self.first is None

    def to_json(self) -> dict[str, Any]:
        """The divergence as JSON has it; numbers that are not finite are null."""
        return {
            "same": self.same,
            "a": self.a,
            "b": self.b,
            "tokens": self.tokens,
            "tolerance": self.tolerance,
            "summary": self.summary,
            "explanations": list(self.explanations),
            "first": None if self.first is None else _json(self.first),
            "ops": [_json(op) for op in self.ops],
        }


def _json(op: OpDifference) -> dict[str, Any]:
    found = {"name": op.name, **asdict(op)}
    return {
        key: None if isinstance(value, float) and not np.isfinite(value) else value
        for key, value in found.items()
    }


def diverge(
    a: AnySource,
    b: AnySource,
    *,
    prompt: str | None = None,
    ids: Sequence[int] | None = None,
    tokens: int = TOKENS,
    tolerance: float | None = None,
) -> Divergence:
    """Run the same ids through two sources and find the first op that parts.

    a, b: see `open_source`. prompt: a text, default a short one, or ids: at most *tokens* of them
    run. A dump with ids brings its own, and a prompt does not count then. tolerance: the relative
    difference (root mean square) that counts as none; default: 0 between our engine and the
    reference, which are the same bits, and 1e-4 to other programs. Where our weights are known
    each op is judged from the inputs that the other program had, so that int8 codes that float
    noise turned over are not taken for faults.

    Raises ValueError for sources that cannot be compared, and what `open_source` raises.
    """
    first, second = open_source(a), open_source(b)
    chosen = choose_ids(first, second, PROMPT if prompt is None else prompt, ids, tokens)
    left, right = first.trace(chosen), second.trace(chosen)
    if left.tokens != right.tokens:
        raise ValueError(
            f"{left.name} has {left.tokens} tokens, {right.name} has {right.tokens}: give both "
            "the same ids"
        )
    exact = left.exact is not None and left.exact == right.exact
    allowed = tolerance if tolerance is not None else 0.0 if exact else NOISE
    comparison = _Comparison(left, right, chosen, exact and tolerance is None, allowed)
    return comparison.result(first, second)


def trace_source(
    source: AnySource,
    *,
    prompt: str | None = None,
    ids: Sequence[int] | None = None,
    tokens: int = TOKENS,
) -> Trace:
    """Run one source; arguments and errors as for `diverge`."""
    opened = open_source(source)
    text = PROMPT if prompt is None else prompt
    return opened.trace(choose_ids(opened, opened, text, ids, tokens))


def choose_ids(
    a: Source, b: Source, text: str, ids: Sequence[int] | None, tokens: int
) -> list[int]:
    """The ids to run: those given, those of a dump, or those of a text.

    Raises ValueError where there are none, or a dump holds results for others.
    """
    if tokens < 1:
        raise ValueError(f"tokens is {tokens}: at least one has to run")
    stored = [(one.name, one.ids) for one in (a, b) if one.ids is not None]
    if len(stored) == 2 and stored[0][1] != stored[1][1]:
        raise ValueError(f"{a.name} and {b.name} hold results for different ids")
    if ids is None and stored:
        return list(stored[0][1] or ())
    if ids is None:
        ids = a.tokenize(text) or b.tokenize(text)
    if ids is None:
        if a.tokens is None or b.tokens is None:
            raise ValueError("neither source can tokenize: give ids")
        return [0] * a.tokens  # two dumps: nothing is run
    chosen = list(ids)[:tokens]
    if not chosen:
        raise ValueError("there are no ids to run: give some text")
    for name, known in stored:
        if known is not None and list(known) != chosen:
            raise ValueError(f"{name} holds results for other ids: {list(known)[:8]}")
    return chosen


@dataclass(frozen=True)
class _Judged:
    """A trace with what was found at each of its ops."""

    trace: Trace
    steps: dict[Place, Step]

    def fits(self, place: Place) -> bool:
        return place not in self.steps or self.steps[place].fits


class _Comparison:
    """Two traces side by side."""

    def __init__(
        self, a: Trace, b: Trace, ids: Sequence[int], exact: bool, tolerance: float
    ) -> None:
        self.a, self.b, self.ids, self.exact, self.tolerance = a, b, ids, exact, tolerance
        self.layers = 1 + max(layer for layer, _ in {*a.results, *b.results})

    def result(self, first: Source, second: Source) -> Divergence:
        places = sorted({*self.a.results, *self.b.results}, key=order_of)
        rows = {place: self._measure(place) for place in places}
        weights: Weights | None = None
        judged: list[_Judged] = []
        if any(row.status == "parts" for row in rows.values()):
            weights, judged = self._judge(first, second)
        ops = {place: self._decide(place, rows, judged) for place in places}
        parting = next((op for op in ops.values() if op.status == "parts"), None)
        explanations = list(self._notes())
        if parting is not None:
            wrong = [one for one in judged if not one.fits((parting.layer, parting.op))]
            suspect = wrong[0].trace if wrong else None
            explanations = [
                *explain(parting, ops, (self.a, self.b), suspect, weights, self.ids),
                *explanations,
            ]
        return Divergence(
            a=self.a.name,
            b=self.b.name,
            tokens=self.a.tokens,
            tolerance=self.tolerance,
            ops=tuple(ops.values()),
            first=parting,
            summary=_summary(parting, ops, self._inputs(parting)),
            explanations=tuple(explanations),
        )

    def _judge(self, first: Source, second: Source) -> tuple[Weights | None, list["_Judged"]]:
        """Judge what need not follow our definition by weights of one of the sources.

        Where both follow it B is judged by the weights of A.
        """
        owners = [one for one in (first, second) if one.weights is not None]
        owners.sort(key=lambda one: not one.exact)
        if not owners or owners[0].weights is None:
            return None, []
        weights = owners[0].weights()
        traces = [one for one in (self.b, self.a) if not one.exact]
        if not traces:
            traces = [self.b if owners[0] is first else self.a]
        return weights, [
            _Judged(one, judge(weights, one, self.ids, exact=self.exact)) for one in traces
        ]

    def _measure(self, place: Place) -> OpDifference:
        """Compare an op by itself; it parts if the difference is above the tolerance."""
        pair = self._pair(place)
        layer, op = place
        if pair is None:
            absent: Status = "not in B" if place in self.a.results else "not in A"
            return OpDifference(layer, op, absent)
        a, b = pair
        if a.shape != b.shape:
            raise ValueError(
                f"{key_of(place)} is {a.shape[1]} wide in {self.a.name} and {b.shape[1]} in "
                f"{self.b.name}: these are not the same model"
            )
        with np.errstate(all="ignore"):
            x, y = a.astype(np.float64), b.astype(np.float64)
            norms = float(np.linalg.norm(x)), float(np.linalg.norm(y))
            cosine = float((x * y).sum() / (norms[0] * norms[1])) if all(norms) else 0.0
            difference = relative(a, b)
            return OpDifference(
                layer,
                op,
                "same" if difference == 0 else "noise" if difference <= self.tolerance else "parts",
                cosine=1.0 if difference == 0 else cosine,
                max_difference=float(np.abs(x - y).max()),
                ratio=norms[1] / norms[0] if norms[0] else float("inf") if norms[1] else 1.0,
                relative=difference,
            )

    def _pair(self, place: Place) -> tuple[Floats, Floats] | None:
        """Both results; of the last tokens if one has only those."""
        a, b = self.a.results.get(place), self.b.results.get(place)
        if a is None or b is None:
            return None
        rows = min(len(a), len(b))
        return a[-rows:], b[-rows:]

    def _decide(
        self, place: Place, rows: dict[Place, OpDifference], judged: Sequence["_Judged"]
    ) -> OpDifference:
        """An op whose result differs parts, unless that follows from its inputs."""
        row = rows[place]
        steps = [one.steps[place] for one in judged if place in one.steps]
        values = asdict(row)
        if steps:
            values["step"] = max(step.difference for step in steps)
        follows = all(step.fits for step in steps) if steps else self._hands_on(place, rows)
        if row.status == "parts" and follows:
            values["status"] = "follows"
        return OpDifference(**values)

    def _hands_on(self, place: Place, rows: dict[Place, OpDifference]) -> bool:
        """Without weights: whether the inputs differ so much that the result has to."""
        relative = rows[place].relative
        before = [rows[one] for one in inputs_of(place, rows, self.layers) if one in rows]
        entering = max((one.relative or 0.0 for one in before), default=0.0)
        if not before or any(one.relative is None for one in before):
            # A source that lacks ops between: judge by the last op before that both have.
            earlier = [row for at, row in rows.items() if order_of(at) < order_of(place)]
            entering = max((row.relative or 0.0 for row in earlier), default=0.0)
        return relative is not None and entering > 0 and relative <= _GAIN * entering

    def _inputs(self, parting: OpDifference | None) -> float | None:
        """How much the inputs of the op that parts differ; None if that is not known."""
        if parting is None:
            return None
        place = parting.layer, parting.op
        pairs = [self._pair(one) for one in inputs_of(place, self.a.results, self.layers)]
        known = [relative(*pair) for pair in pairs if pair is not None]
        return max(known) if known and len(known) == len(pairs) else None

    def _notes(self) -> list[str]:
        """What a reader has to know of the sources."""
        notes = []
        for name, one, other in (("A", self.a, self.b), ("B", self.b, self.a)):
            lacking = sorted({op for _, op in other.results} - {op for _, op in one.results})
            if lacking:
                notes.append(f"Not in {name}: {', '.join(lacking)}.")
            if one.unknown:
                some = ", ".join(repr(key[:40]) for key in one.unknown[:4])
                notes.append(f"{name} holds names that are no ops: {some}.")
        return notes


def _summary(
    parting: OpDifference | None,
    ops: dict[Place, OpDifference],
    entering: float | None,
) -> str:
    compared = [op for op in ops.values() if op.relative is not None]
    if parting is None:
        if all(op.status == "same" for op in compared):
            return f"A and B agree in every bit of {len(compared)} ops."
        most = max(compared, key=lambda op: op.relative or 0.0)
        if all(op.status != "follows" for op in compared):
            return (
                f"A and B agree to float noise in {len(compared)} ops: the largest relative "
                f"difference is {most.relative:.1e}, at {most.name}."
            )
        start = next(op for op in compared if op.status == "follows")
        certain = any(op.step is not None for op in compared)
        return (
            f"A and B {'do' if certain else 'seem to do'} the same at every op. From {start.name} "
            f"on their results differ, by up to {most.relative:.1e} at {most.name}, because float "
            "noise rounds some activations to another int8 code."
        )
    if not np.isfinite(parting.relative or 0.0):
        return f"They part at {parting.name}: one of the results is not finite."
    before = ""
    if entering is not None:
        differs = f"differs by {entering:.1e}" if entering else "agrees in every bit"
        before = f"; what goes in {differs}"
    return (
        f"They part at {parting.name}: what comes out differs by {parting.relative:.1e} (cosine "
        f"{parting.cosine:.4f}){before}."
    )

"""Judging each op by itself: from the inputs that the other program had, does it give its result?

Two programs that follow the same definition agree to float noise only until one of them rounds an
activation to another int8 code; from there on everything differs, and nothing is wrong. So our
definition is run with the results of the other program in the place of its own: what it then gives
at each op must be what the other program gave there.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import reference
from bitnet_lut.diagnose.ops import Place, inputs_of, key_of
from bitnet_lut.diagnose.sources import Weights
from bitnet_lut.diagnose.trace import Floats, Trace, to_file_order, to_hf_order
from bitnet_lut.families import ModelConfig
from bitnet_lut.formats.tensors import TernaryMatrix

__all__ = ["NOISE", "Step", "judge", "relative", "replay"]

NOISE = 1e-4  # float noise of one op is below, as a root mean square relative to the result
_FLIPS = 8  # codes of a token that float noise may round to another side of a tie
_CHAINED = 0.03  # the same where a dump lacks ops between, so that codes differ on the way


@dataclass(frozen=True)
class Step:
    """How far an op is from what its own inputs give.

    difference: root mean square over all tokens, relative. fits: whether noise explains it.
    """

    difference: float
    fits: bool


def judge(weights: Weights, given: Trace, ids: Sequence[int], *, exact: bool) -> dict[Place, Step]:
    """Judge every op of *given* that the definition has too; exact: each bit must be the same."""
    steps: dict[Place, Step] = {}
    missing: set[Place] = set()

    def probe(layer: int, op: str, array: Floats) -> Floats | None:
        place = layer, op
        found = given.results.get(place)
        ours = to_hf_order(weights.config, place, array)
        if found is None or found.shape[1] != ours.shape[1]:
            missing.add(place)
            return None
        step = _step(weights, given, place, ours[-len(found) :], found, missing)
        steps[place] = Step(step.difference, step.difference == 0) if exact else step
        usable = len(found) == len(ours) and bool(np.isfinite(found).all())
        return to_file_order(weights.config, place, found) if usable else None

    with np.errstate(all="ignore"):
        reference.forward(
            weights.config, weights.tensors, np.asarray(ids), kv=weights.kv, probe=probe
        )
    return steps


def _step(
    weights: Weights,
    given: Trace,
    place: Place,
    ours: Floats,
    found: Floats,
    missing: set[Place],
) -> Step:
    inputs = inputs_of(place, given.results.keys(), weights.config.block_count)
    difference = relative(ours, found)
    if missing.intersection(inputs):
        return Step(difference, difference <= _CHAINED)
    matrix = weights.tensors.get(f"{key_of(place)}.weight")
    if isinstance(matrix, TernaryMatrix) and inputs[0] in given.results:
        codes, _ = reference.quantize(given.results[inputs[0]][-len(found) :])
        return Step(difference, _fits(ours, found, codes))
    return Step(difference, difference <= NOISE)


def _fits(ours: Floats, found: Floats, codes: Any) -> bool:
    """Whether a few codes on the other side of a tie explain the difference: in few tokens."""
    each = np.array([relative(a, b) for a, b in zip(ours, found, strict=True)])
    size = np.sqrt(np.square(codes, dtype=np.float64).sum(axis=1))
    few = each <= NOISE + _FLIPS / np.maximum(size, 1)
    most = len(each) < 3 or bool(np.median(each) <= NOISE)
    return most and bool(few.all())


def relative(ours: NDArray[Any], found: NDArray[Any]) -> float:
    """Root mean square of the difference, relative to the larger of the two; NaN gives infinity."""
    if np.array_equal(ours, found, equal_nan=True):
        return 0.0
    a, b = ours.astype(np.float64), found.astype(np.float64)
    difference = float(np.linalg.norm(a - b))
    size = max(float(np.linalg.norm(a)), float(np.linalg.norm(b)))
    return difference / size if np.isfinite(difference) and size > 0 else float("inf")


class _Reached(Exception):
    """The op that is wanted was computed."""


def replay(
    weights: Weights,
    place: Place,
    given: Mapping[Place, Floats],
    ids: Sequence[int],
    *,
    config: ModelConfig | None = None,
    tensors: Mapping[str, Any] | None = None,
    multiply: Callable[[Any, Floats], Floats] = reference.linear,
) -> Floats | None:
    """What one op gives from inputs in *given*, by another *config*, *tensors* or *multiply*.

    None where the inputs are not there.
    """
    config = config or weights.config
    layers, (layer, _) = weights.config.block_count, place
    if any(before not in given for before in inputs_of(place, given.keys(), layers)):
        return None
    reached: list[Floats] = []

    def probe(at: int, op: str, array: Floats) -> Floats | None:
        if (at, op) == place:
            reached.append(to_hf_order(weights.config, place, array))
            raise _Reached
        found = given.get((at, op))
        return None if found is None else to_file_order(weights.config, (at, op), found)

    more = {**weights.tensors, **(tensors or {})}
    with np.errstate(all="ignore"):
        try:
            if layer >= 0:
                x = given.get((layer - 1, "residual") if layer else (-1, "embedding"))
                blank = np.zeros((len(ids), config.embedding_length), np.float32)
                reference.run_layer(
                    config,
                    more,
                    layer,
                    blank if x is None else x,
                    kv=weights.kv,
                    probe=probe,
                    multiply=multiply,
                )
            else:
                _run_outside(config, more, place, given, ids, probe)
        except _Reached:
            return reached[0]
    return None


def _run_outside(
    config: ModelConfig,
    tensors: Mapping[str, Any],
    place: Place,
    given: Mapping[Place, Floats],
    ids: Sequence[int],
    probe: Callable[[int, str, Floats], Floats | None],
) -> None:
    """Run the model as if it had no layers, with the last residual stream as its embedding."""

    def first(at: int, op: str, array: Floats) -> Floats | None:
        if op == "embedding" and place[1] != op:
            return given.get((config.block_count - 1, "residual"))
        return probe(at, op, array)

    reference.forward(replace(config, block_count=0), tensors, np.asarray(ids), probe=first)

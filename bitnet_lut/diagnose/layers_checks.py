"""Checks of the layers: each there once, and in the order in which they were trained."""

import hashlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.diagnose.findings import Finding, fault, ok
from bitnet_lut.diagnose.inspection import some
from bitnet_lut.diagnose.subject import Subject

__all__ = ["CHECKS", "best_order", "likeness"]

_LEAST_LAYERS = 4
# Neighbors are alike in trained models; where the best order finds less than this mean correlation,
# the norms do not tell.
_TELLING = 0.08
# How good the order of the file must be, 0 as by chance and 1 as the best order there is.
_GOOD = 0.45
_STARTS = 3  # of the search for the best order


def check_twins(subject: Subject) -> Iterator[Finding]:
    """Layers that occur twice."""
    seen: dict[bytes, str] = {}
    twins = []
    for name, matrix in subject.ternary.items():
        if subject.statistics[name].zero < 1:
            digest = hashlib.blake2b(np.ascontiguousarray(matrix.packed).data).digest()
            twin = seen.setdefault(digest, name)
            if twin != name:
                twins.append(f"{name} = {twin}")
    expected = "every matrix is in the model once"
    if twins:
        yield fault(
            "weights: layers",
            f"{len(twins)} matrices hold the same weights as another one",
            expected,
            where=some(twins),
            meaning="a conversion wrote one layer in the place of another",
            fix="convert it again from its original",
            verdict="layers",
            certainty=0.9,
        )
    elif subject.ternary:
        yield ok("weights: layers", f"{len(seen)} different matrices", expected)


def check_order(subject: Subject) -> Iterator[Finding]:
    """Whether neighbors are alike: training makes the norms of layers change step by step."""
    layers = subject.config.block_count
    if layers < _LEAST_LAYERS:
        return
    alike = likeness(subject)
    given = np.arange(layers)
    best = best_order(alike)
    chance = float(alike[~np.eye(layers, dtype=bool)].mean()) * (layers - 1)
    most, found = _score(alike, best), _score(alike, given)
    measured = f"norms of neighbors correlate by {found / (layers - 1):.2f}, in the best order "
    measured += f"by {most / (layers - 1):.2f}, by chance by {chance / (layers - 1):.2f}"
    expected = "the order of the file is the best one, or nearly so"
    if most < _TELLING * (layers - 1):
        yield ok("weights: order", measured, f"{expected}; here they are too unlike to tell")
    elif found - chance > _GOOD * (most - chance):
        yield ok("weights: order", measured, expected)
    else:
        yield subject.suspicion(
            fault(
                "weights: order",
                f"{measured}, which is {', '.join(map(str, best))}",
                expected,
                meaning="the layers were written in another order, as when names are sorted "
                "as texts",
                fix="see the trials; or convert it again from its original",
                verdict="layers",
                certainty=0.4,
            )
        )


def likeness(subject: Subject) -> NDArray[np.float64]:
    """Mean correlation of the norms of each two layers, float64 (layers, layers)."""
    kinds: dict[str, list[NDArray[np.float32]]] = {}
    for layer in range(subject.config.block_count):
        prefix = f"blk.{layer}."
        for name, vector in subject.vectors.items():
            if name.startswith(prefix) and name.endswith("norm.weight") and vector.std() > 0:
                kinds.setdefault(name.removeprefix(prefix), []).append(vector)
    whole = [norms for norms in kinds.values() if len(norms) == subject.config.block_count]
    if not whole:
        return np.zeros((subject.config.block_count,) * 2)
    each = [np.corrcoef(np.stack(norms).astype(np.float64)) for norms in whole]
    mean: NDArray[np.float64] = np.mean(each, axis=0)
    return mean


def best_order(alike: NDArray[np.float64]) -> NDArray[np.intp]:
    """The order in which neighbors are the most alike, as far as a local search finds it.

    It starts from the order that is given or from chains of nearest neighbors, turns parts around
    and moves single layers. Between an order and its reverse it takes the one that is
    nearer to the given one.
    """

    def score(order: NDArray[np.intp]) -> float:
        return _score(alike, order)

    starts = [np.arange(len(alike)), *(_chain(alike, first) for first in range(len(alike)))]
    starts = sorted(starts, key=score, reverse=True)[:_STARTS]
    found = max((_improve(alike, start) for start in starts), key=score)
    given = np.arange(len(alike))
    reverse = found[::-1]
    return reverse if np.abs(reverse - given).sum() < np.abs(found - given).sum() else found


def _chain(alike: NDArray[np.float64], first: int) -> NDArray[np.intp]:
    """Each layer followed by the one of the rest that is most like it."""
    order, rest = [first], set(range(len(alike))) - {first}
    while rest:
        order.append(max(rest, key=lambda layer: alike[order[-1], layer]))
        rest.remove(order[-1])
    return np.array(order)


def _improve(alike: NDArray[np.float64], order: NDArray[np.intp]) -> NDArray[np.intp]:
    best = _score(alike, order)
    better = True
    while better:
        better = False
        for candidate in _neighbors(order):
            score = _score(alike, candidate)
            if score > best + 1e-9:
                order, best, better = candidate, score, True
                break
    return order


def _neighbors(order: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    n = len(order)
    for start in range(n):
        for stop in range(start + 2, n + 1):
            yield np.concatenate([order[:start], order[start:stop][::-1], order[stop:]])
        rest = np.delete(order, start)
        for place in range(n):
            yield np.insert(rest, place, order[start])


def _score(alike: NDArray[np.float64], order: NDArray[np.intp]) -> float:
    return float(sum(alike[a, b] for a, b in pairwise(order)))


CHECKS = (check_twins, check_order)

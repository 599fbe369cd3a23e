"""Which tokens stay candidates: the steps that take unlikely ones out before one is drawn."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "likeliest",
    "nucleus",
    "typical",
    "within_share",
    "within_sigmas",
    "without_top_choices",
]

# How many candidates top_p sorts at first; the nucleus of a language model is rarely larger.
_FIRST_NUCLEUS = 1024
_PART = 64


def within_sigmas(logits: NDArray[Any], ids: NDArray[np.intp], sigmas: float) -> NDArray[np.intp]:
    """Those of *ids* whose logits are at most *sigmas* standard deviations below the largest.

    The deviation is that of all finite logits of *ids*, as of a whole population.
    """
    candidates = logits[ids].astype(np.float64)
    deviation = float(candidates[np.isfinite(candidates)].std())
    kept: NDArray[np.intp] = ids[candidates >= candidates.max() - sigmas * deviation]
    return kept


def typical(logits: NDArray[Any], ids: NDArray[np.intp], mass: float) -> NDArray[np.intp]:
    """The most typical of *ids*, in their order, whose probabilities add up to at least *mass*.

    A token is the more typical, the closer its surprise (minus the logarithm of its probability)
    is to the expected one; of equal ones the lower id is taken first.
    """
    shifted = logits[ids].astype(np.float64)
    shifted -= shifted.max()
    weights = np.exp(shifted)
    probabilities = weights / weights.sum()
    surprise = np.log(weights.sum()) - shifted
    likely = probabilities > 0
    expected = float(np.sum(probabilities[likely] * surprise[likely]))
    order = np.argsort(np.abs(surprise - expected), kind="stable")
    reached = np.cumsum(probabilities[order])
    size = int(np.searchsorted(reached, min(mass, reached[-1]))) + 1
    return ids[np.sort(order[:size])]


def likeliest(logits: NDArray[Any], ids: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """The *count* likeliest of *ids*, in their order."""
    return ids[largest(logits if ids.size == logits.size else logits[ids], count)]


def within_share(logits: NDArray[Any], ids: NDArray[np.intp], share: float) -> NDArray[np.intp]:
    """Those of *ids* that are at least *share* times as likely as the likeliest."""
    shifted = logits[ids].astype(np.float64)
    shifted -= shifted.max()
    kept: NDArray[np.intp] = ids[shifted >= math.log(share)]
    return kept


def without_top_choices(
    logits: NDArray[Any], ids: NDArray[np.intp], threshold: float
) -> NDArray[np.intp]:
    """*ids* without those of a probability of at least *threshold*, but for the least likely.

    Of equally likely ones the last stays.
    """
    shifted = logits[ids].astype(np.float64)
    shifted -= shifted.max()
    weights = np.exp(shifted)
    likely = np.flatnonzero(weights / weights.sum() >= threshold)
    ranked = likely[np.argsort(-shifted[likely], kind="stable")]
    return np.delete(ids, ranked[:-1])


def largest(logits: NDArray[Any], count: int) -> NDArray[np.intp]:
    """Indices of the *count* largest, in ascending order; of equal ones the first are taken."""
    if count >= logits.size:
        return np.arange(logits.size)
    # At least count logits reach the count-th largest of the parts' maxima, so the rest can go
    # before the slow step. Where a partition puts equal elements depends on the CPU, but not the
    # value at the cut.
    parts = np.maximum.reduceat(logits, np.arange(0, logits.size, _PART))
    if count < parts.size:
        left = np.flatnonzero(logits >= np.partition(parts, -count)[-count])
    else:
        left = np.arange(logits.size)
    cut = np.partition(logits[left], -count)[-count]
    above = left[logits[left] > cut]
    equal = left[logits[left] == cut][: count - above.size]
    return np.sort(np.concatenate([above, equal]))


def nucleus(logits: NDArray[Any], ids: NDArray[np.intp], top_p: float) -> NDArray[np.intp]:
    """The likeliest of *ids*, largest first, whose probabilities add up to at least *top_p*."""
    if top_p == 1:
        return ids
    candidates = logits[ids]
    weights = np.exp(candidates.astype(np.float64) - float(candidates.max()))
    wanted = top_p * weights.sum()
    size = _FIRST_NUCLEUS
    while True:
        top = largest(candidates, size)
        top = top[np.argsort(-candidates[top], kind="stable")]
        cumulative = np.cumsum(weights[top])
        if cumulative[-1] >= wanted or top.size == ids.size:
            return ids[top[: int(np.searchsorted(cumulative, wanted)) + 1]]
        size *= 16

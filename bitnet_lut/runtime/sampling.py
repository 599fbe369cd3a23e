"""Choosing the next token from logits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Sampler", "Sampling"]

# How many candidates top_p sorts at first; the nucleus of a language model is rarely larger.
_FIRST_NUCLEUS = 1024
_PART = 64


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; each default switches its step off, so the default is greedy.

    temperature: divides the logits; 0 takes the likeliest token, whatever the next three say.
    top_k: keep the k likeliest tokens; 0 keeps all.
    top_p: keep the fewest likeliest tokens whose probabilities add up to at least p; 1 keeps all.
    min_p: keep tokens at least this many times as likely as the likeliest; 0 keeps all.
    repetition_penalty: divides the positive logits of tokens seen before and multiplies the
        negative ones, in greedy choice too.
    seed: the same seed gives the same tokens; None takes one from the operating system.

    Raises ValueError for a value outside its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check every range. The comparisons are written so that NaN fails them."""
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}: it must be finite and at least 0")
        if not isinstance(self.top_k, Integral) or self.top_k < 0:
            raise ValueError(f"top_k is {self.top_k}: it must be a whole number, 0 to keep all")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p is {self.top_p}: it must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p is {self.min_p}: it must be between 0 and 1")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(
                f"repetition_penalty is {self.repetition_penalty}: it must be finite and above 0"
            )
        if self.seed is not None and not (isinstance(self.seed, Integral) and self.seed >= 0):
            raise ValueError(f"seed is {self.seed}: it must be None or a whole number, 0 or above")


class Sampler:
    """Draws tokens; holds the random state, so one Sampler serves one generated text.

    The steps run in the order of llama.cpp: repetition penalty, top_k, top_p, min_p, temperature.
    So top_p and min_p look at probabilities before the temperature flattens or sharpens them.
    Every step but the penalty works in float64.
    """

    def __init__(self, sampling: Sampling) -> None:
        """Start the random numbers (PCG64) from the seed of *sampling*."""
        self.sampling = sampling
        self._bits = np.random.PCG64(sampling.seed)

    def __call__(self, logits: NDArray[np.float32], history: Sequence[int]) -> int:
        """Choose a token id.

        logits: float32 (vocab,); not changed. -inf forbids a token.
        history: the ids that count as repeated, usually the prompt and everything generated.
        Equal logits are ordered by id, the lowest first. Raises ValueError if a logit is NaN or
        +inf, if none is finite, or if *history* holds an id outside the vocabulary.
        """
        if logits.ndim != 1 or logits.size == 0:
            raise ValueError(f"logits have the shape {logits.shape}: they must be (vocab,)")
        sampling = self.sampling
        logits = _penalize(logits, history, sampling.repetition_penalty)
        peak = float(logits.max())  # NaN if any is
        if not math.isfinite(peak):
            raise ValueError(f"the largest logit is {peak}: there is nothing to choose from")
        if sampling.temperature == 0:
            return int(logits.argmax())
        ids = np.arange(logits.size) if sampling.top_k == 0 else _largest(logits, sampling.top_k)
        ids = _nucleus(logits, ids, sampling.top_p)
        kept = logits[ids].astype(np.float64)
        kept -= kept.max()
        if sampling.min_p > 0:
            likely = kept >= math.log(sampling.min_p)
            ids, kept = ids[likely], kept[likely]
        return int(ids[self._draw(kept)])

    def _draw(self, logits: NDArray[np.float64]) -> int:
        """Draw an index by softmax(logits / temperature), logits being at most 0."""
        with np.errstate(over="ignore", under="ignore"):
            cumulative = np.cumsum(np.exp(logits / self.sampling.temperature))
        # The raw stream is the part of NumPy's generators that is promised never to change.
        uniform = (int(self._bits.random_raw()) >> 11) * 2.0**-53
        drawn = int(np.searchsorted(cumulative, uniform * cumulative[-1], side="right"))
        # Rounding of the product can reach the end, where tokens of no probability may stand.
        return min(drawn, int(np.searchsorted(cumulative, cumulative[-1])))


def _penalize(
    logits: NDArray[np.float32], history: Sequence[int], penalty: float
) -> NDArray[np.float32]:
    if penalty == 1 or len(history) == 0:
        return logits
    seen = np.fromiter(set(history), np.int64)
    if seen.min() < 0 or seen.max() >= logits.size:
        bad = seen.min() if seen.min() < 0 else seen.max()
        raise ValueError(f"history holds id {bad}, the vocabulary has {logits.size}")
    repeated = logits[seen]
    logits = logits.copy()
    with np.errstate(over="ignore", under="ignore"):
        logits[seen] = np.where(repeated > 0, repeated / penalty, repeated * penalty)
    return logits


def _largest(logits: NDArray[Any], count: int) -> NDArray[np.intp]:
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


def _nucleus(logits: NDArray[np.float32], ids: NDArray[np.intp], top_p: float) -> NDArray[np.intp]:
    """The likeliest of *ids*, largest first, whose probabilities add up to at least *top_p*."""
    if top_p == 1:
        return ids
    candidates = logits[ids]
    weights = np.exp(candidates.astype(np.float64) - float(candidates.max()))
    wanted = top_p * weights.sum()
    size = _FIRST_NUCLEUS
    while True:
        top = _largest(candidates, size)
        top = top[np.argsort(-candidates[top], kind="stable")]
        cumulative = np.cumsum(weights[top])
        if cumulative[-1] >= wanted or top.size == ids.size:
            return ids[top[: int(np.searchsorted(cumulative, wanted)) + 1]]
        size *= 16

"""Choosing the next token from logits."""

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.runtime.filters import largest, nucleus, typical, within_sigmas

__all__ = ["Sampler", "Sampling"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; each default switches its step off, so the default is greedy.

    The steps run in the order of llama.cpp: logit_bias, repetition_penalty, presence and frequency
    penalty, top_n_sigma, top_k, typical_p, top_p, min_p, temperature. So all that look at
    probabilities see them before the temperature flattens or sharpens them. In greedy choice only
    the bias and the penalties have an effect.

    temperature: divides the logits; 0 takes the likeliest token (greedy choice).
    top_k: keep the k likeliest tokens; 0 keeps all.
    top_p: keep the fewest likeliest tokens whose probabilities add up to at least p; 1 keeps all.
    min_p: keep tokens at least this many times as likely as the likeliest; 0 keeps all.
    repetition_penalty: divides the positive logits of tokens seen before, in prompt or text, and
        multiplies the negative ones.
    seed: the same seed gives the same tokens; None takes one from the operating system.
    presence_penalty: is taken off the logits of tokens that the text, without its prompt, holds.
    frequency_penalty: is taken off those logits once for every time.
    penalty_window: how many of the last tokens the three penalties look at; 0 for all.
    typical_p: keep the fewest most typical tokens whose probabilities add up to at least p: those
        about as surprising as is to be expected; 1 keeps all.
    top_n_sigma: keep tokens whose logits are within so many standard deviations of the largest; 0
        keeps all.
    logit_bias: {token id: number} added to logits; -inf forbids a token.

    Raises TypeError for what is not a number, ValueError for a value outside its range.
    """

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_window: int = 0
    typical_p: float = 1.0
    top_n_sigma: float = 0.0
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)

    @classmethod
    def greedy(cls) -> Self:
        """The likeliest token each time, and nothing else."""
        return cls()

    def __post_init__(self) -> None:
        """Check every range. The comparisons are written so that NaN fails them."""
        for name in _NUMBERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"{name} is {value!r}: it must be a number")
        if not 0 <= self.temperature < math.inf:
            raise ValueError(f"temperature is {self.temperature}: it must be finite and at least 0")
        for name in ("top_k", "penalty_window"):
            value = getattr(self, name)
            if not isinstance(value, Integral) or value < 0:
                raise ValueError(f"{name} is {value}: it must be a whole number, 0 for all")
        for name in ("top_p", "typical_p"):
            if not 0 < getattr(self, name) <= 1:
                value = getattr(self, name)
                raise ValueError(f"{name} is {value}: it must be above 0 and at most 1")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p is {self.min_p}: it must be between 0 and 1")
        if not 0 < self.repetition_penalty < math.inf:
            raise ValueError(
                f"repetition_penalty is {self.repetition_penalty}: it must be finite and above 0"
            )
        for name in ("presence_penalty", "frequency_penalty"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"{name} is {getattr(self, name)}: it must be finite")
        if not 0 <= self.top_n_sigma < math.inf:
            raise ValueError(f"top_n_sigma is {self.top_n_sigma}: it must be finite and at least 0")
        if self.seed is not None and not (isinstance(self.seed, Integral) and self.seed >= 0):
            raise ValueError(f"seed is {self.seed}: it must be None or a whole number, 0 or above")
        object.__setattr__(self, "logit_bias", _checked_bias(self.logit_bias))


_NUMBERS = (
    *("temperature", "top_k", "top_p", "min_p", "repetition_penalty", "presence_penalty"),
    *("frequency_penalty", "penalty_window", "typical_p", "top_n_sigma"),
)


def _checked_bias(bias: Any) -> Mapping[int, float]:
    """A copy of *bias* that nobody can change."""
    if not isinstance(bias, Mapping):
        raise TypeError(f"logit_bias is {bias!r}: it must be a mapping of token ids to numbers")
    found: dict[int, float] = {}
    for id, value in bias.items():
        if isinstance(id, bool) or not isinstance(id, Integral):
            raise TypeError(f"logit_bias has the key {id!r}: keys must be token ids")
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError(f"logit_bias of token {id} is {value!r}: it must be a number")
        if id < 0 or not float(value) < math.inf:
            raise ValueError(
                f"logit_bias of token {id} is {value}: ids are at least 0, numbers below infinity"
            )
        found[int(id)] = float(value)
    return MappingProxyType(found)


class Sampler:
    """Draws tokens; holds the random state, so one Sampler serves one generated text.

    `Sampling` says in which order the steps run. Every step but bias and penalties works in
    float64.
    """

    def __init__(self, sampling: Sampling) -> None:
        """Start the random numbers (PCG64) from the seed of *sampling*."""
        self.sampling = sampling
        self._bits = np.random.PCG64(sampling.seed)
        self._bias_ids = np.array(list(sampling.logit_bias), np.int64)
        self._biases = np.array(list(sampling.logit_bias.values()), np.float32)

    def __call__(
        self,
        logits: NDArray[np.float32],
        history: Sequence[int],
        *,
        prompt: int = 0,
        forbidden: Collection[int] = (),
    ) -> int:
        """Choose a token id.

        logits: float32 (vocab,); not changed. -inf forbids a token.
        history: the ids that count as repeated, usually the prompt and everything generated.
        prompt: how many of them, the first ones, were not generated.
        forbidden: ids that must not be chosen.
        Equal logits are ordered by id, the lowest first. Raises ValueError if a logit is NaN or
        +inf, if none is finite, or if *history* or the bias has an id outside the vocabulary.
        """
        if logits.ndim != 1 or logits.size == 0:
            raise ValueError(f"logits have the shape {logits.shape}: they must be (vocab,)")
        logits = self._shape(logits, history, prompt, forbidden)
        peak = float(logits.max())  # NaN if any is
        if not math.isfinite(peak):
            raise ValueError(f"the largest logit is {peak}: there is nothing to choose from")
        if self.sampling.temperature == 0:
            return int(logits.argmax())
        ids = self._candidates(logits)
        kept = logits[ids].astype(np.float64)
        kept -= kept.max()
        if self.sampling.min_p > 0:
            likely = kept >= math.log(self.sampling.min_p)
            ids, kept = ids[likely], kept[likely]
        return int(ids[self._draw(kept)])

    def _shape(
        self,
        logits: NDArray[np.float32],
        history: Sequence[int],
        prompt: int,
        forbidden: Collection[int],
    ) -> NDArray[np.float32]:
        """Logits after bias and penalties: *logits* themselves or a copy."""
        sampling = self.sampling
        if self._bias_ids.size:
            _refuse_outside("logit_bias", self._bias_ids, logits.size)
            logits = logits.copy()
            logits[self._bias_ids] += self._biases
        window = sampling.penalty_window or len(history)
        if sampling.repetition_penalty != 1:
            logits = _penalize(logits, history[-window:], sampling.repetition_penalty)
        if sampling.presence_penalty or sampling.frequency_penalty:
            generated = history[max(prompt, len(history) - window) :]
            logits = self._penalize_generated(logits, generated)
        if forbidden:
            logits = logits.copy()
            logits[list(forbidden)] = -np.inf
        return logits

    def _penalize_generated(
        self, logits: NDArray[np.float32], generated: Sequence[int]
    ) -> NDArray[np.float32]:
        counts = Counter(generated)
        ids = np.fromiter(counts, np.int64, len(counts))
        times = np.fromiter(counts.values(), np.float64, len(counts))
        _refuse_outside("history", ids, logits.size)
        logits = logits.copy()
        sampling = self.sampling
        logits[ids] -= sampling.presence_penalty + sampling.frequency_penalty * times
        return logits

    def _candidates(self, logits: NDArray[np.float32]) -> NDArray[np.intp]:
        """The ids that are left to choose from, before min_p."""
        sampling = self.sampling
        ids = np.arange(logits.size)
        if sampling.top_n_sigma:
            ids = within_sigmas(logits, ids, sampling.top_n_sigma)
        if sampling.top_k:
            ids = ids[largest(logits if ids.size == logits.size else logits[ids], sampling.top_k)]
        if sampling.typical_p < 1:
            ids = typical(logits, ids, sampling.typical_p)
        return nucleus(logits, ids, sampling.top_p)

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
    if not history:
        return logits
    seen = np.fromiter(set(history), np.int64)
    _refuse_outside("history", seen, logits.size)
    repeated = logits[seen]
    logits = logits.copy()
    with np.errstate(over="ignore", under="ignore"):
        logits[seen] = np.where(repeated > 0, repeated / penalty, repeated * penalty)
    return logits


def _refuse_outside(what: str, ids: NDArray[np.int64], size: int) -> None:
    if ids.size and (ids.min() < 0 or ids.max() >= size):
        bad = ids.min() if ids.min() < 0 else ids.max()
        raise ValueError(f"{what} holds id {bad}, the vocabulary has {size}")

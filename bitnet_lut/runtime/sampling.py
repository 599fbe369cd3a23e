"""Choosing the next token from logits."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from bitnet_lut._native import Changes
from bitnet_lut.runtime.changes import Changer
from bitnet_lut.runtime.drawer import drawer
from bitnet_lut.runtime.dry import Breakers
from bitnet_lut.runtime.filters import (
    likeliest,
    nucleus,
    typical,
    within_share,
    within_sigmas,
    without_top_choices,
)

if TYPE_CHECKING:
    from bitnet_lut.runtime.bad_words import BadWords

__all__ = ["Drawing", "LogitsProcessor", "Order", "Sampler", "Sampling"]

LogitsProcessor = Callable[[Sequence[int], NDArray[np.float32]], NDArray[Any]]
Order = Literal["llama.cpp", "transformers"]


@dataclass(frozen=True)
class Sampling:
    """How tokens are chosen; each default switches its step off, so the default is greedy.

    The steps run in the order of llama.cpp: logit_bias, repetition_penalty, presence and frequency
    penalty, DRY, top_n_sigma, top_k, typical_p, top_p, min_p, XTC, temperature. So all that look at
    probabilities see them before the temperature flattens or sharpens them. In greedy choice only
    the bias, the penalties and DRY have an effect.

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
    dry_multiplier: penalize ("don't repeat yourself") a token that would continue a repeat of n
        tokens, in prompt or text, by dry_multiplier * dry_base ** (n - dry_allowed_length); 0: off.
    dry_base, dry_allowed_length: see there; repeats shorter than that length are free.
    dry_penalty_last_n: how many of the last tokens DRY looks at; -1 for all, 0 for none.
    dry_sequence_breakers: texts that no repeat reaches over.
    xtc_probability: how often "exclude top choices" takes place: of the tokens whose probability is
        at least xtc_threshold only the least likely stays; 0: never. It draws from the same seed.
    xtc_threshold: see there; above 0.5 it has no effect.
    order: "llama.cpp", as above; or "transformers", as there (and much as in vLLM): temperature
        after the penalties, then top_n_sigma, top_k, top_p, min_p, typical_p, XTC.

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
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: Sequence[str] = ("\n", ":", '"', "*")
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    order: Order = "llama.cpp"

    @classmethod
    def greedy(cls) -> Self:
        """The likeliest token each time, and nothing else."""
        return cls()

    @property
    def is_dry(self) -> bool:
        """Whether DRY has an effect."""
        return self.dry_multiplier > 0 and self.dry_penalty_last_n != 0

    def __post_init__(self) -> None:
        """Check every range."""
        for name in _RANGES:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Real):
                raise TypeError(f"{name} is {value!r}: it must be a number")
        for name, (is_inside, wanted) in _RANGES.items():
            value = getattr(self, name)
            if not is_inside(value):
                raise ValueError(f"{name} is {value}: it must be {wanted}")
        if self.seed is not None and not (isinstance(self.seed, Integral) and self.seed >= 0):
            raise ValueError(f"seed is {self.seed}: it must be None or a whole number, 0 or above")
        if self.order not in _ORDERS:
            raise ValueError(f"order is {self.order!r}: it must be {' or '.join(_ORDERS)}")
        object.__setattr__(self, "logit_bias", _checked_bias(self.logit_bias))
        breakers = _checked_breakers(self.dry_sequence_breakers)
        object.__setattr__(self, "dry_sequence_breakers", breakers)


def _whole(least: int) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, Integral) and int(value) >= least


# The comparisons are written so that NaN fails them.
_COUNT = (_whole(0), "a whole number, 0 for all")
_SHARE = (lambda value: 0 < value <= 1, "above 0 and at most 1")
_PROBABILITY = (lambda value: 0 <= value <= 1, "between 0 and 1")
_SIZE = (lambda value: 0 <= value < math.inf, "finite and at least 0")
_RANGES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "temperature": _SIZE,
    "top_k": _COUNT,
    "penalty_window": _COUNT,
    "top_p": _SHARE,
    "typical_p": _SHARE,
    "min_p": _PROBABILITY,
    "repetition_penalty": (lambda value: 0 < value < math.inf, "finite and above 0"),
    "presence_penalty": (math.isfinite, "finite"),
    "frequency_penalty": (math.isfinite, "finite"),
    "top_n_sigma": _SIZE,
    "dry_multiplier": _SIZE,
    "dry_base": (lambda value: 1 <= value < math.inf, "finite and at least 1"),
    "dry_allowed_length": (_whole(1), "a whole number of at least 1"),
    "dry_penalty_last_n": (_whole(-1), "a whole number, -1 for all or 0 for none"),
    "xtc_probability": _PROBABILITY,
    "xtc_threshold": _PROBABILITY,
}
_FILTERS: dict[str, Callable[..., NDArray[np.intp]]] = {
    "top_n_sigma": within_sigmas,
    "top_k": likeliest,
    "typical_p": typical,
    "top_p": nucleus,
    "min_p": within_share,
}
_ORDERS = {
    "llama.cpp": ("top_n_sigma", "top_k", "typical_p", "top_p", "min_p"),
    "transformers": ("top_n_sigma", "top_k", "top_p", "min_p", "typical_p"),
}


# Settings whose steps are done here; without them a token is drawn in C.
_RARE = ("top_n_sigma", "xtc_probability", "order")


def _checked_breakers(strings: Any) -> tuple[str, ...]:
    if isinstance(strings, str) or not isinstance(strings, Sequence):
        raise TypeError(f"dry_sequence_breakers is {strings!r}: it must be a sequence of texts")
    for string in strings:
        if not isinstance(string, str) or not string:
            raise ValueError(f"dry_sequence_breakers holds {string!r}: it must hold texts")
    return tuple(strings)


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


class Drawing(NamedTuple):
    """What `_native.Drawer.draw` draws a token from."""

    logits: NDArray[np.float32]
    top_k: int
    typical_p: float
    top_p: float
    log_min_p: float
    temperature: float
    uniform: float
    changes: Changes | None = None

    def checked(self, id: int) -> int:
        """The *id* that was drawn; ValueError if there was nothing to choose from."""
        if id < 0:
            _peak(_changed(self.logits, self.changes))  # raises
        return id


class Sampler:
    """Draws tokens; holds the random state, so one Sampler serves one generated text.

    `Sampling` says in which order the steps run. Bias and penalties are applied in C, see
    src/sampling.h, and top_k, typical_p, top_p, min_p, temperature and the draw run there too;
    beside top_n_sigma, XTC or the order of transformers they run here, in float64 as those do.
    """

    def __init__(
        self,
        sampling: Sampling,
        *,
        breakers: Breakers | None = None,
        bad_words: "BadWords | None" = None,
        processors: Sequence[LogitsProcessor] = (),
    ) -> None:
        """Start the random numbers (PCG64) from the seed of *sampling*.

        breakers: the tokens of its dry_sequence_breakers; see `sequence_breakers`.
        bad_words: what is not chosen. processors: change the logits before all else.
        """
        self.sampling = sampling
        self._changes = Changer(sampling, breakers or {}, bad_words)
        self._processors = tuple(processors)
        self._bits = np.random.PCG64(sampling.seed)
        is_rare = any(getattr(sampling, name) != getattr(Sampling, name) for name in _RARE)
        self._in_c = sampling.temperature == 0 or not is_rare

    def __call__(
        self,
        logits: NDArray[np.float32],
        history: Sequence[int],
        *,
        prompt: int = 0,
        forbidden: Collection[int] = (),
        allowed: NDArray[np.bool_] | None = None,
    ) -> int:
        """Choose a token id.

        logits: float32 (vocab,); not changed. -inf forbids a token.
        history: the ids that count as repeated, usually the prompt and everything generated.
        prompt: how many of them, the first ones, were not generated.
        forbidden: ids that must not be chosen. allowed: bool (vocab,), those that may; None: all.
        Equal logits are ordered by id, the lowest first. Raises ValueError if a logit is NaN or
        +inf, if none is finite, or if *history* or the bias has an id outside the vocabulary;
        and what the processors raise.
        """
        if logits.ndim != 1 or logits.size == 0:
            raise ValueError(f"logits have the shape {logits.shape}: they must be (vocab,)")
        for process in self._processors:
            logits = _processed(process, history, logits)
        if self._in_c:
            drawing = self.drawing(
                logits, history, prompt=prompt, forbidden=forbidden, allowed=allowed
            )
            return drawing.checked(*drawer().draw([drawing]))
        logits = _changed(logits, self._changes(logits.size, history, prompt, forbidden, allowed))
        temperature = self.sampling.temperature
        peak = _peak(logits)
        scaled: NDArray[Any] = logits
        if self.sampling.order == "transformers":
            with np.errstate(over="ignore"):
                scaled = (logits.astype(np.float64) - peak) / temperature
            temperature = 1.0
        ids = self._candidates(scaled)
        kept = scaled[ids].astype(np.float64)
        kept -= kept.max()
        return int(ids[self._draw(kept, temperature)])

    @property
    def is_plain(self) -> bool:
        """Whether `drawing` says all that a call does: no processor is called."""
        return self._in_c and not self._processors

    def drawing(
        self,
        logits: NDArray[np.float32],
        history: Sequence[int],
        *,
        prompt: int = 0,
        forbidden: Collection[int] = (),
        allowed: NDArray[np.bool_] | None = None,
    ) -> Drawing:
        """The draw that a call would make, with its random number; arguments as for a call.

        Raises ValueError if *history* or the bias has an id outside the vocabulary.
        """
        sampling = self.sampling
        return Drawing(
            np.ascontiguousarray(logits),
            min(sampling.top_k, logits.size),
            sampling.typical_p,
            sampling.top_p,
            math.log(sampling.min_p) if sampling.min_p else -math.inf,
            sampling.temperature,
            self._uniform() if sampling.temperature else 0.0,
            self._changes(logits.size, history, prompt, forbidden, allowed),
        )

    def _candidates(self, logits: NDArray[Any]) -> NDArray[np.intp]:
        """The ids that are left to choose from."""
        sampling = self.sampling
        ids = np.arange(logits.size)
        for name in _ORDERS[sampling.order]:
            value = getattr(sampling, name)
            if value != getattr(Sampling, name):  # the default: off
                ids = _FILTERS[name](logits, ids, value)
        # Two tokens cannot both have a probability above one half.
        may_exclude = sampling.xtc_probability > 0 and sampling.xtc_threshold <= 0.5
        if may_exclude and ids.size > 1 and self._uniform() <= sampling.xtc_probability:
            ids = without_top_choices(logits, ids, sampling.xtc_threshold)
        return ids

    def _uniform(self) -> float:
        """A random number in [0, 1)."""
        # The raw stream is the part of NumPy's generators that is promised never to change.
        return (int(self._bits.random_raw()) >> 11) * 2.0**-53

    def _draw(self, logits: NDArray[np.float64], temperature: float) -> int:
        """Draw an index by softmax(logits / temperature), logits being at most 0."""
        with np.errstate(over="ignore", under="ignore"):
            cumulative = np.cumsum(np.exp(logits / temperature))
        drawn = int(np.searchsorted(cumulative, self._uniform() * cumulative[-1], side="right"))
        # Rounding of the product can reach the end, where tokens of no probability may stand.
        return min(drawn, int(np.searchsorted(cumulative, cumulative[-1])))


def _changed(logits: NDArray[np.float32], changes: Changes | None) -> NDArray[np.float32]:
    return changes.applied(np.ascontiguousarray(logits)) if changes else logits


def _peak(logits: NDArray[np.float32]) -> float:
    """The largest logit; ValueError if it is not finite or one is NaN."""
    peak = float(logits.max())
    if not math.isfinite(peak):
        raise ValueError(f"the largest logit is {peak}: there is nothing to choose from")
    return peak


def _processed(
    process: LogitsProcessor, history: Sequence[int], logits: NDArray[np.float32]
) -> NDArray[np.float32]:
    found: object = process(list(history), logits.copy())
    if not isinstance(found, np.ndarray) or found.dtype.kind != "f" or found.shape != logits.shape:
        what = type(found).__name__
        if isinstance(found, np.ndarray):
            what = f"an array of {found.dtype}, {found.shape}"
        raise TypeError(
            f"the logits processor {process!r} returned {what}: it must return logits, a float "
            f"array of {logits.shape}"
        )
    return found.astype(np.float32, copy=False)

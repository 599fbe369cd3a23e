"""Log-probabilities of tokens, as the model gives them before any sampling step."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.runtime.drawer import drawer

__all__ = ["TokenLogprob", "token_logprob"]


@dataclass(frozen=True)
class TokenLogprob:
    """How likely a token was, among all of the vocabulary.

    logprob: natural logarithm of the probability that the model gave token *id*, before penalties,
        temperature and all else that `Sampling` does.
    top: (id, logprob) of the likeliest tokens, the likeliest first, as many as were asked for.
    """

    id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


def token_logprob(logits: NDArray[np.float32], id: int, top: int) -> TokenLogprob:
    """Score token *id* by *logits* (vocab,), and name the *top* likeliest.

    Equal logits are ordered by id, the lowest first. A logarithm is off by less than 1e-6: weights
    are those of `Sampler`, float32, and their sum is float64. Raises ValueError if a logit is NaN
    or the largest is not finite.
    """
    peak, total, best = drawer().score(np.ascontiguousarray(logits), min(top, logits.size))
    log_total = math.log(total)

    def logprob(id: int) -> float:
        return float(logits[id]) - peak - log_total

    return TokenLogprob(id, logprob(id), tuple((int(one), logprob(one)) for one in best))

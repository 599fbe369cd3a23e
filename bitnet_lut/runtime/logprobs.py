"""Log-probabilities of tokens, as the model gives them before any sampling step."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.runtime.filters import largest

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

    Equal logits are ordered by id, the lowest first.
    """
    shifted = logits.astype(np.float64)
    shifted -= shifted.max()
    total = float(np.log(np.exp(shifted).sum()))
    best = largest(logits, top) if top else np.empty(0, np.intp)
    best = best[np.argsort(-logits[best], kind="stable")]
    return TokenLogprob(
        id,
        float(shifted[id]) - total,
        tuple((int(other), float(shifted[other]) - total) for other in best),
    )

"""Log-probabilities of tokens, as the model gives them before any sampling step."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Score", "Scoring", "TokenLogprob"]

# Of a row: the largest logit, the sum of all weights, and int32 (top,), the likeliest ids.
Score = tuple[float, float, NDArray[np.int32]]


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


class Scoring(NamedTuple):
    """A row for `_native.Drawer.score`: logits float32 (vocab,), and how many ids to name."""

    logits: NDArray[np.float32]
    top: int

    def token(self, id: int, score: Score | None) -> TokenLogprob:
        """The score of token *id* by that of the row; ValueError if the row has none.

        Equal logits are ordered by id, the lowest first. A logarithm is off by less than 1e-6:
        weights are those of `Sampler`, float32, and their sum is float64.
        """
        if score is None:
            raise ValueError(
                "there is nothing to score: the largest logit is not finite, or one is NaN"
            )
        peak, total, best = score
        log_total = math.log(total)

        def logprob(id: int) -> float:
            return float(self.logits[id]) - peak - log_total

        return TokenLogprob(id, logprob(id), tuple((int(one), logprob(one)) for one in best))

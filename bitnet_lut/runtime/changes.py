"""What is done to logits before a token is drawn: bias, penalties, and what is forbidden."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitnet_lut._native import Changes
from bitnet_lut.runtime.dry import Breakers, dry_penalties

if TYPE_CHECKING:
    from bitnet_lut.runtime.bad_words import BadWords
    from bitnet_lut.runtime.sampling import Sampling

__all__ = ["Changer"]

Additions = tuple[NDArray[np.int64], NDArray[np.float64]]

_NO_IDS = np.empty(0, np.int64)


class Changer:
    """Gathers bias, penalties, DRY and what is forbidden; C applies them in this order."""

    def __init__(
        self, sampling: "Sampling", breakers: Breakers, bad_words: "BadWords | None"
    ) -> None:
        """*breakers* and *bad_words* as of `Sampler`."""
        self._sampling, self._breakers, self._bad_words = sampling, breakers, bad_words
        biases = np.array(list(sampling.logit_bias.values()), np.float32)
        self._bias = np.array(list(sampling.logit_bias), np.int64), biases.astype(np.float64)
        self._counts = bool(sampling.presence_penalty or sampling.frequency_penalty)
        self._looks_back = self._counts or sampling.repetition_penalty != 1

    def __call__(
        self,
        vocab: int,
        history: Sequence[int],
        prompt: int,
        forbidden: Collection[int],
        allowed: NDArray[np.bool_] | None,
    ) -> Changes | None:
        """What changes, if anything does; the arguments are those of a call of `Sampler`.

        Raises ValueError if *history* or the bias has an id outside the vocabulary.
        """
        others = self._others(history, forbidden)
        if not (self._looks_back or self._bias[0].size or others or allowed is not None):
            return None
        first = max(0, len(history) - (self._sampling.penalty_window or len(history)))
        seen = np.array(history[first:], np.int64) if self._looks_back else _NO_IDS
        return Changes(
            vocab,
            bias=self._bias,
            history=seen,
            prompt=min(max(0, prompt - first), seen.size),
            repetition=self._sampling.repetition_penalty,
            presence=self._sampling.presence_penalty,
            frequency=self._sampling.frequency_penalty,
            others=_joined(others),
            allowed=allowed,
        )

    def _others(self, history: Sequence[int], forbidden: Collection[int]) -> list[Additions]:
        found = []
        if self._sampling.is_dry:
            found.append(self._dry_penalties(history))
        if forbidden:
            found.append(_forbid(np.array(list(forbidden), np.int64)))
        if self._bad_words:
            found.append(_forbid(self._bad_words.forbidden(history)))
        return found

    def _dry_penalties(self, history: Sequence[int]) -> Additions:
        sampling = self._sampling
        if sampling.dry_penalty_last_n > 0:
            history = history[-sampling.dry_penalty_last_n :]
        found = dry_penalties(
            history,
            self._breakers,
            multiplier=sampling.dry_multiplier,
            base=sampling.dry_base,
            allowed_length=sampling.dry_allowed_length,
        )
        penalties = np.fromiter(found.values(), np.float64, len(found))
        return np.fromiter(found, np.int64, len(found)), -penalties


def _forbid(ids: NDArray[np.int64]) -> Additions:
    return ids, np.full(ids.size, -np.inf)


def _joined(additions: list[Additions]) -> Additions:
    ids = np.concatenate([_NO_IDS, *(ids for ids, _ in additions)])
    return ids, np.concatenate([np.empty(0), *(numbers for _, numbers in additions)])

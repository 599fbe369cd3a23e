"""Random choices that are the same for a seed in every version of Python."""

import random
from collections.abc import Sequence
from typing import TypeVar

__all__ = ["Dice"]

_T = TypeVar("_T")


class Dice:
    """Draws from ``random.Random.random``, the one method whose sequence Python guarantees."""

    def __init__(self, *seed: int | str) -> None:
        """Start the sequence that belongs to *seed*."""
        self._random = random.Random(":".join(map(str, seed))).random

    def below(self, limit: int) -> int:
        """A number in 0 .. limit - 1."""
        return int(self._random() * limit)

    def between(self, low: int, high: int) -> int:
        """A number in low .. high."""
        return low + self.below(high - low + 1)

    def pick(self, items: Sequence[_T]) -> _T:
        """One of *items*."""
        return items[self.below(len(items))]

    def weighted(self, items: Sequence[_T], weights: Sequence[float]) -> _T:
        """One of *items*, each as often as its weight says."""
        point = self._random() * sum(weights)
        for item, weight in zip(items, weights, strict=True):
            point -= weight
            if point < 0:
                return item
        return items[-1]

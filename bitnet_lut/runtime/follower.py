"""One text on its way through a grammar."""

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.text.grammar import Grammar

__all__ = ["Follower"]


class Follower:
    """Says which tokens must come next, and which may. For a decoder."""

    def __init__(self, grammar: Grammar) -> None:
        """Begin a text that follows *grammar*."""
        self._grammar, self._constraint = grammar, grammar.start()
        self._forced: deque[int] = deque()

    def forced(self, most: int) -> list[int]:
        """At most *most* tokens that must come now; they are accepted. An end is the last of them.

        Taken one by one or at once, they are the same.
        """
        found: list[int] = []
        while len(found) < most and self.is_forced:
            found.append(self._forced.popleft())
            self._constraint.accept(found[-1])
        return found

    @property
    def is_forced(self) -> bool:
        """Whether there is nothing to choose: a certain token must come now."""
        if not self._forced and not self._constraint.ended:
            self._forced.extend(self._constraint.forced())
        return bool(self._forced) and not self._constraint.ended

    def allowed(self) -> NDArray[np.bool_]:
        """Which ids may come next, bool (vocab,)."""
        return self._constraint.allowed()

    def accept(self, id: int) -> None:
        """Note that *id* was chosen."""
        self._constraint.accept(id)

    def parse(self, text: str) -> Any:
        """The value of *text*, all that was accepted; None if the grammar wants more."""
        return self._grammar.parse(text) if self._constraint.complete else None

"""Guesses of the next tokens from the text so far, and how many of them are worth checking.

One step checks several guessed tokens in less time than as many steps would take. Rejected guesses
are lost time, so guesses are made only where recent ones and measured times promise a gain, and
never more of them than earlier gains can pay for.
"""

import math
from collections.abc import Sequence
from itertools import count

__all__ = ["Speculation"]

_MOST = 7  # guesses at a time; the step that checks them has one token more
_ORDER = 3  # length of the n-grams in the index
_LEAST_GAIN = 1.05  # expected speed-up worth a draft: the estimates are not better than that

# How often a guess is right, by the bit length of the number of tokens that matched before it.
_FIRST_RATES = (0.3, 0.4, 0.5, 0.7, 0.8, 0.9)
_RATE_MEMORY = 1 / 8

# A further token in a step, as a share of a step of one, until it was measured.
_FIRST_COST = 0.5
_UP, _DOWN = 1 / 4, 1 / 2  # how fast a cost follows: disturbances are upwards
_FORGET = 16  # steps of one token in a row after which costs are measured again
_SURE = 3  # steps of one token before their time is believed
_RISE = 1.05  # by how much that time may grow in a step
_STALE = 48  # steps of several tokens in a row after which that time is measured again
_SHORTEST = 1e-3  # seconds of a step; guessing takes up to a hundredth of that in Python

# In steps of one token: what may be lost at first, and what every token adds to that.
_FIRST_CREDIT = 0.5
_CREDIT = 0.01


class Speculation:
    """Guesses how one growing text goes on, and learns from how it did.

    Guesses continue a place in the text that its end repeats: the one followed so far, which is
    the longest match, or after a miss the last one with the same three tokens. A token costs the
    same time however long the text is.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        """Start from the prompt, *ids*."""
        self._ids = list(ids[:-1])
        self._after = _index(self._ids)
        self._place = -1  # of the next guess in ids; negative for none
        self._matched = 0  # tokens before it that equal the end of ids
        self._rates = list(_FIRST_RATES)
        self._costs = _Costs()
        for id in ids[-1:]:
            self._follow(id)

    def draft(self, most: int) -> list[int]:
        """At most *most* guesses, none where they would not pay."""
        if self._place < 0:
            return []
        length = self._length(min(most, _MOST))
        if length == 0:
            return []
        piece = self._ids[self._place : self._place + length]
        # A place near the end runs into its own guesses, which repeat.
        return (piece * -(-length // len(piece)))[:length]

    def learn(self, ids: Sequence[int]) -> None:
        """Append the tokens that followed."""
        for id in ids:
            if self._place >= 0:
                kind = self._kind(0)
                right = self._ids[self._place] == id
                self._rates[kind] += (right - self._rates[kind]) * _RATE_MEMORY
            self._follow(id)

    def time(self, n: int, gained: int, seconds: float) -> bool:
        """Note that a step of *n* tokens took *seconds* and led to *gained* tokens.

        Returns False once steps are so short that guessing costs more than it saves.
        """
        self._costs.learn(n, gained, seconds)
        return not self._costs.too_short

    def _length(self, most: int) -> int:
        """The number of guesses with the greatest expected speed-up."""
        best, speedup = 0, _LEAST_GAIN
        chance = expected = 1.0
        for length in range(1, most + 1):
            chance *= self._rates[self._kind(length - 1)]
            expected += chance
            cost = self._costs.of(length + 1)
            if cost - 1 > self._costs.credit:
                break
            if expected > speedup * cost:
                best, speedup = length, expected / cost
        return best

    def _kind(self, ahead: int) -> int:
        """Which rate holds for the guess *ahead* right ones from here."""
        return min((self._matched + ahead).bit_length(), len(_FIRST_RATES) - 1)

    def _follow(self, id: int) -> None:
        """Append *id* and find the place that now matches best."""
        ids, place = self._ids, self._place
        if place >= 0:
            hit = ids[place] == id
            # After one miss the place is still the best guess if nothing else matches: many edits
            # replace a word.
            self._place = place + 1 if hit or self._matched else -1
            self._matched = self._matched + 1 if hit else 0
        ids.append(id)
        gram = tuple(ids[-_ORDER:])
        if self._matched < _ORDER and (found := self._after.get(gram)) is not None:
            self._place, self._matched = found, _ORDER
        self._after[gram] = len(ids)


class _Costs:
    """What a step of n tokens costs, in steps of one token, and how many of those may be lost."""

    def __init__(self) -> None:
        self.credit = _FIRST_CREDIT
        self._single = math.inf  # seconds of a step of one token
        self._singles = 0  # how many of those there were
        self._run = 0  # steps since the last one of the other kind, of one token or of several
        self._several = False
        self._forget()

    @property
    def too_short(self) -> bool:
        """Whether, as soon as it can be told, steps are too short to guess in between."""
        return self._singles == _SURE and self._single < _SHORTEST

    def of(self, n: int) -> float:
        """The cost of a step of *n* tokens; infinite while a step of one must be measured."""
        stale = self._several and self._run >= _STALE
        return math.inf if stale or self._singles < _SURE else self._costs[n]

    def learn(self, n: int, gained: int, seconds: float) -> None:
        """Note that a step of *n* tokens took *seconds* and led to *gained* tokens."""
        several = n > 1
        self._run = self._run + 1 if several == self._several else 1
        self._several = several
        if several:
            cost = min(seconds / self._single, 2 * self._costs[n])  # others use the machine too
            self.credit += gained - cost
            self._learn_cost(n, cost)
            return
        self._learn_single(seconds)
        self.credit += _CREDIT
        if self._run % _FORGET == 0:
            self._forget()

    def _learn_single(self, seconds: float) -> None:
        """Follow the shortest times: others only add to them, and long ones flatter drafts."""
        self._singles += 1
        if self._singles <= _SURE:
            self._single = min(self._single, seconds)
        elif seconds < self._single:
            self._single = (self._single + seconds) / 2
        else:
            self._single = min(seconds, self._single * _RISE)

    def _learn_cost(self, n: int, cost: float) -> None:
        change = cost - self._costs[n]
        cost = self._costs[n] + change * (_UP if change > 0 else _DOWN)
        self._costs[n] = cost
        self._measured.add(n)
        for other in range(2, _MOST + 2):
            if other not in self._measured:
                self._costs[other] = 1 + (cost - 1) * (other - 1) / (n - 1)

    def _forget(self) -> None:
        self._costs = [1 + _FIRST_COST * (n - 1) for n in range(_MOST + 2)]
        self._measured: set[int] = set()


def _index(ids: Sequence[int]) -> dict[tuple[int, ...], int]:
    """Where the text goes on after the last occurrence of each n-gram."""
    grams = zip(*(ids[first:] for first in range(_ORDER)), strict=False)
    return dict(zip(grams, count(_ORDER)))

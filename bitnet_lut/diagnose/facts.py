"""Sentences whose ends anybody knows: what a trial asks a model.

The ends of such sentences are sure to a healthy model, even a small one, and nearly impossible to a
broken one. Prose differs far less, since most of its words are a guess for every model. Sums need
attention to single digits, and so feel what words forgive: a wrong base of RoPE, or two layers that
changed places.
"""

from itertools import pairwise

__all__ = ["FACTS", "SUMS", "Fact"]

Fact = tuple[str, str]  # a beginning, and the end that is expected

_CAPITALS = (
    ("France", "Paris"),
    ("Japan", "Tokyo"),
    ("Italy", "Rome"),
    ("Spain", "Madrid"),
    ("Germany", "Berlin"),
    ("Russia", "Moscow"),
    ("Egypt", "Cairo"),
    ("Greece", "Athens"),
    ("Poland", "Warsaw"),
    ("Austria", "Vienna"),
    ("Portugal", "Lisbon"),
    ("China", "Beijing"),
    ("Sweden", "Stockholm"),
    ("Norway", "Oslo"),
    ("Ireland", "Dublin"),
    ("Peru", "Lima"),
    ("Turkey", "Ankara"),
    ("Kenya", "Nairobi"),
)
_OPPOSITES = (
    ("hot", "cold"),
    ("big", "small"),
    ("up", "down"),
    ("old", "young"),
    ("good", "bad"),
    ("fast", "slow"),
    ("open", "closed"),
    ("full", "empty"),
    ("long", "short"),
    ("day", "night"),
)
_YOUNG = (("dog", "puppy"), ("cat", "kitten"), ("cow", "calf"), ("sheep", "lamb"))
_CONTINENTS = (("Germany", "Europe"), ("Japan", "Asia"), ("Egypt", "Africa"), ("Peru", "South"))
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = (
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
)


def _all() -> tuple[Fact, ...]:
    kinds: list[list[Fact]] = [
        [(f"The capital of {a} is", f" {b}.") for a, b in _CAPITALS],
        [(f"The opposite of {a} is", f" {b}.") for a, b in _OPPOSITES],
        [(f"The day after {a} is", f" {b}.") for a, b in pairwise(_DAYS)],
        [(f"The month before {b} is", f" {a}.") for a, b in pairwise(_MONTHS)],
        [(f"{b} is the capital of", f" {a}.") for a, b in _CAPITALS],
        [(f"The day before {b} is", f" {a}.") for a, b in pairwise(_DAYS)],
        [(f"The month after {a} is", f" {b}.") for a, b in pairwise(_MONTHS)],
        [(f"A young {a} is called a", f" {b}") for a, b in _YOUNG],
        [(f"{a} is in", f" {b}") for a, b in _CONTINENTS],
        [("Once upon a", " time there was a"), ("Monday, Tuesday,", " Wednesday, Thursday")],
    ]
    # One of each kind in turn, so that the first few are a fair choice.
    longest = max(map(len, kinds))
    return tuple(kind[i] for i in range(longest) for kind in kinds if i < len(kind))


FACTS = _all()
# Pairs of two digits, most of them with a carry.
SUMS = tuple(
    (f"{a} + {b} =", f" {a + b}")
    for a, b in (((17 * n + 12) % 90 + 10, (41 * n + 31) % 90 + 10) for n in range(48))
)

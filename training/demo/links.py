"""Questions that only make sense after another question and its answer."""

from collections.abc import Mapping
from dataclasses import dataclass

from training.demo.dice import Dice
from training.demo.facts import FAMILIES
from training.demo.family import Family

__all__ = ["LINKS", "Link", "follow"]


@dataclass(frozen=True)
class Link:
    """A question of another kind, or of the same, about what was said last.

    source: the family asked before. target: the one whose fact answers. column, of: the columns of
    the two that are equal. questions: wordings.
    """

    source: str
    target: str
    column: str
    of: str
    questions: tuple[str, ...]


_CONTINENT = (
    "Which continent is that on?",
    "On what continent is it?",
    "And on which continent is it?",
    "What continent is that in?",
    "And its continent?",
    "Which continent is that country part of?",
    "In which part of the world is that?",
    "Which continent does it belong to?",
    "And on what continent does it lie?",
    "On which continent is that country?",
)
_CAPITAL = (
    "What is its capital?",
    "And its capital?",
    "And the capital of that country?",
    "Which city is its capital?",
    "What is the capital there?",
)
_DAYS = (
    "How many days are in it?",
    "How many days does that month have?",
    "How many days does this month have?",
    "How many days has it?",
    "How long is it?",
    "How many days are there in that month?",
    "And how many days are in it?",
    "What is the number of its days?",
)
_BACKWARDS = (
    "And backwards?",
    "And now backwards?",
    "Now spell it backwards.",
    "Can you reverse it?",
    "And in reverse?",
    "Now in reverse, please.",
    "Please spell that backwards.",
    "And from the end?",
    "The same backwards.",
)
_FORWARDS = ("And forwards?", "Now forwards, please.", "And not backwards?", "How is it spelled?")
_AGAIN_OPPOSITE = (
    "And the opposite of that?",
    "And of that?",
    "What is the opposite of that word?",
)


def _next(kind: str, side: str) -> Link:
    verb = "follows" if side == "after" else "precedes"
    near = "next" if side == "after" else "previous"
    questions = (
        f"And what comes {side} that?",
        f"And the {kind} {side} that?",
        f"What about the {kind} {side} that one?",
        f"And what is the {near} one?",
        f"And the {near} {kind}?",
        f"Which {kind} comes {side} that one?",
        f"And {side} it?",
        f"Which {kind} {verb} it?",
        f"And the {near}?",
        f"And {side} this one?",
        f"What comes {side} it?",
        f"And {side} this?",
        f"And which one is {side} that?",
    )
    return Link(f"{kind} {side}", f"{kind} {side}", "b", "a", questions)


LINKS = (
    Link("capital", "continent", "country", "country", _CONTINENT),
    Link("country", "continent", "country", "country", _CONTINENT),
    Link("continent", "capital", "country", "country", _CAPITAL),
    Link("ordinal of a month", "days of a month", "month", "month", _DAYS),
    Link("month after", "days of a month", "b", "month", _DAYS),
    Link("month before", "days of a month", "b", "month", _DAYS),
    Link("spelling", "reversing", "word", "word", _BACKWARDS),
    Link("reversing", "spelling", "word", "word", _FORWARDS),
    Link("opposite", "opposite", "b", "a", _AGAIN_OPPOSITE),
    _next("day", "after"),
    _next("day", "before"),
    _next("month", "after"),
    _next("month", "before"),
)
_FAMILIES: Mapping[str, Family] = {family.name: family for family in FAMILIES}


def follow(
    dice: Dice, family: Family, row: tuple[str, ...]
) -> tuple[str, Family, tuple[str, ...]] | None:
    """A question that follows one about *row*, with the family and the row that answer it.

    None if there is none.
    """
    links = [link for link in LINKS if link.source == family.name]
    if links and (not family.again or dice.below(2)):
        link = dice.pick(links)
        target = _FAMILIES[link.target]
        value, at = row[family.columns.index(link.column)], target.columns.index(link.of)
        return dice.pick(link.questions), target, next(r for r in target.rows if r[at] == value)
    if not family.again:
        return None
    wording, rows = dice.pick(family.again), family.rows
    if family.same and f"{{{family.same}}}" not in wording:
        at = family.columns.index(family.same)
        rows = [other for other in rows if other[at] == row[at]]
    chosen = dice.pick(rows)
    return family.fill(wording, chosen), family, chosen

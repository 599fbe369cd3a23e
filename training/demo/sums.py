"""Calculations: sums in many wordings, some differences, products and comparisons.

What is held out of the training text: one in ten pairs of numbers from 10 on (``is_held_out``) are
never the operands of one expression in it, in either order and for any operation, nor an operand
and the result of a subtraction.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from training.demo.dice import Dice

__all__ = [
    "ASKED",
    "EXPRESSION_ASKED",
    "MORE",
    "TOLD",
    "TOLD_MORE",
    "Exchange",
    "calculation",
    "draw",
    "is_held_out",
    "more",
    "pair",
]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Exchange:
    """A question with its answers, and a statement: *opening* and what follows from it, *rest*.

    answer: a whole sentence. short: the answer in a word. brief: a sentence of that.
    result: of a sum, what can be added to.
    """

    question: str
    answer: str
    short: str
    brief: str
    opening: str = ""
    rest: str = ""
    result: int | None = None


_ONE, _TWO, _BOTH_TWO, _THREE = (0, 9), (0, 99), (10, 99), (0, 999)
_RANGES = {
    (_ONE, _ONE): 1,
    (_TWO, _ONE): 2,
    (_TWO, _TWO): 4,
    (_BOTH_TWO, _BOTH_TWO): 14,
    (_THREE, _THREE): 1,
}
# An expression is written "3 + 4", and some sums also "3+ 4" and "3 +4".
EXPRESSION_ASKED = (
    "What is {}?",
    "What is {}?",
    "{} = ?",
    "Calculate {}.",
    "How much is {}?",
    "Tell me {}.",
    "Compute {}.",
    "Work out {}.",
    "Please work out {}.",
    "Could you work out {}?",
    "Can you calculate {} for me?",
    "Solve this: {}.",
    "Please solve this: {}.",
    "Please compute {}.",
    "{}, please.",
    "{} makes what?",
    "What does {} make?",
    "What does {} come to?",
    "What will {} be?",
    "What number is {}?",
    "I need {}.",
    "{} =",
    "And {}?",
)
ASKED = (
    "{a} plus {b}?",
    "{a} plus {b}",
    "{a} plus {b} makes?",
    "{a} + {b} gives?",
    "Add {a} to {b}.",
    "Add up {a} and {b}.",
    "Add the numbers {a} and {b}.",
    "Add {a} and {b} together.",
    "Add {a} plus {b}.",
    "Please add {a} to {b}.",
    "Please add up {a} and {b}.",
    "Please add the numbers {a} and {b}.",
    "Can you add {a} and {b}?",
    "Can you add {a} to {b}?",
    "Could you add {a} and {b} for me?",
    "Take {a} and add {b}.",
    "What do you get when you add {a} and {b}?",
    "What do you get by adding {a} to {b}?",
    "What do I get if I add {a} to {b}?",
    "What do we have if we add {a} and {b}?",
    "What is the total of {a} and {b}?",
    "What is the sum of the numbers {a} and {b}?",
    "What is the sum when you add {a} and {b}?",
    "Give me the sum of {a} and {b}.",
    "Find the sum of {a} and {b}.",
    "Tell me the sum of {a} and {b}.",
    "Calculate the sum of {a} and {b}.",
    "The sum of the numbers {a} and {b}?",
    "Total of {a} and {b}?",
    "How much do {a} and {b} give?",
    "How much are {a} and {b} together?",
    "How much do you get from {a} and {b}?",
    "How much is {a} and {b} together?",
    "What do {a} and {b} give?",
    "What do {a} and {b} give together?",
    "What do {a} and {b} come to?",
    "What number do {a} and {b} add up to?",
    "What does {a} plus {b} equal?",
    "What does {a} plus {b} add up to?",
    "{a} and {b} are how much together?",
)
TOLD = (
    "{a} + {b} =| {c}",
    "{a} + {b} =| {c}",
    "{a} + {b} =| {c}",
    "{a} + {b}=|{c}",
    "{a} +{b}=|{c}",
    "{a}+ {b} =| {c}",
    "{a} plus {b} makes| {c}.",
    "{a} plus {b} gives| {c}.",
    "{a} plus {b} comes to| {c}.",
    "{a} plus {b} also equals| {c}.",
    "{a} plus {b} will be| {c}.",
    "{a} + {b} makes| {c}.",
    "{a} + {b} gives| {c}.",
    "{a} + {b} also equals| {c}.",
    "{a} + {b} must be| {c}.",
    "{a} + {b} together is| {c}.",
    "{a} plus {b} together is| {c}.",
    "{a} and {b} together equal| {c}.",
    "{a} and {b} together make| {c}.",
    "{a} and {b} together are| {c}.",
    "{a} and {b} give| {c}.",
    "{a} and {b} add up to| {c}.",
    "Together {a} and {b} add up to| {c}.",
    "Together {a} plus {b} are| {c}.",
    "The total of {a} and {b} is| {c}.",
    "The sum of the numbers {a} and {b} is| {c}.",
    "The sum of {a} and {b} comes to| {c}.",
    "The sum {a} + {b} always equals| {c}.",
    "If I add {a} and {b}, the result is| {c}.",
    "If we add {a} to {b}, we get| {c}.",
    "When you add {a} and {b}, you get| {c}.",
    "Adding {a} and {b} gives| {c}.",
    "Adding {a} to {b} makes| {c}.",
    "By adding {a} to {b} one gets| {c}.",
    "Who adds {a} and {b} gets| {c}.",
)
# After a sum, with c as its result.
MORE = (
    "Add {n} to that.",
    "Then add {n}.",
    "Add {n} more.",
    "Add another {n}.",
    "Please add {n} to it.",
    "And with {n} added?",
    "And {n} more than that?",
    "Plus {n}?",
    "And that plus {n}?",
    "What do you get if you add {n} more?",
    "What is it plus {n}?",
    "What is the result plus {n}?",
    "How much is that plus {n}?",
    "And how much is it with {n} more?",
    "Take that and add {n}.",
    "Now add {n} to it.",
    "And if I add {n}?",
)
TOLD_MORE = (
    "{a} + {b} = {c}, and {n} more are| {r}.",
    "{a} + {b} = {c}, plus {n} makes| {r}.",
    "{a} + {b} = {c}, and adding {n} gives| {r}.",
    "{a} + {b} = {c}, and {n} on top makes| {r}.",
    "{a} + {b} = {c}, and with another {n} it is| {r}.",
    "{a} plus {b} makes {c}, and {n} more is| {r}.",
    "{a} and {b} give {c}, and if we add {n} more it makes| {r}.",
)


def draw(dice: Dice, weights: Mapping[_T, float]) -> _T:
    """A key, each as often as its value says."""
    return dice.weighted(list(weights), list(weights.values()))


def is_held_out(a: int, b: int) -> bool:
    """Whether a and b, from 10 on, never stand together in the training text: one pair in ten."""
    low, high = sorted((a, b))
    return low >= 10 and (low * 7919 + high * 104729) % 1009 < 101


def pair(
    dice: Dice, first: tuple[int, int], second: tuple[int, int], *, held_out: bool = False
) -> tuple[int, int]:
    """Numbers of two ranges that do, or do not, belong to the training text."""
    while True:
        a, b = dice.between(*first), dice.between(*second)
        if is_held_out(a, b) == held_out:
            return a, b


def calculation(dice: Dice) -> Exchange:
    """A question about two numbers, most often their sum."""
    match draw(dice, {"sum": 86, "difference": 6, "product": 3, "comparison": 5}):
        case "sum":
            return _sum(dice)
        case "difference":
            return _difference(dice)
        case "product":
            a, b = pair(dice, (0, 12), (0, 12))
            return _arithmetic(dice, f"{a} * {b}", f"{a} times {b}", a * b)
        case _:
            return _comparison(dice)


def more(dice: Dice, result: int) -> Exchange | None:
    """A number added to the result of a sum; None if the result is one that nothing goes with."""
    for _ in range(20):
        n = dice.between(1, 99)
        if not is_held_out(result, n):
            total = result + n
            return Exchange(
                dice.pick(MORE).format(n=n),
                f"{result} + {n} = {total}.",
                str(total),
                f"It is {total}.",
                result=total,
            )
    return None


def _sum(dice: Dice) -> Exchange:
    a, b = pair(dice, *draw(dice, _RANGES))
    if dice.below(5) < 2:
        written = dice.pick(("{} + {}", "{} + {}", "{} + {}", "{}+ {}", "{} +{}", "{} plus {}"))
        question = dice.pick(EXPRESSION_ASKED).format(written.format(a, b))
    else:
        question = dice.pick(ASKED).format(a=a, b=b)
    told, n = dice.pick(TOLD).format(a=a, b=b, c=a + b), dice.between(1, 99)
    if dice.below(6) == 0 and not is_held_out(a + b, n):
        told = dice.pick(TOLD_MORE).format(a=a, b=b, c=a + b, n=n, r=a + b + n)
    opening, rest = told.split("|")
    answer, short = f"{a} + {b} = {a + b}.", str(a + b)
    return Exchange(question, answer, short, f"It is {short}.", opening, rest, a + b)


def _difference(dice: Dice) -> Exchange:
    top = 99 if dice.below(3) else 999
    while True:
        a, b = pair(dice, (0, top), (0, top))
        low, high = sorted((a, b))
        if not is_held_out(low, high - low):
            return _arithmetic(dice, f"{high} - {low}", f"{high} minus {low}", high - low)


def _arithmetic(dice: Dice, expression: str, spoken: str, result: int) -> Exchange:
    asked = dice.pick((expression, expression, expression.replace(" ", ""), spoken))
    question = dice.pick(EXPRESSION_ASKED).format(asked)
    answer, brief = f"{expression} = {result}.", f"It is {result}."
    tight = dice.below(4) == 0
    opening = f"{expression.replace(' ', '')}=" if tight else f"{expression} ="
    return Exchange(
        question, answer, str(result), brief, opening, f"{'' if tight else ' '}{result}"
    )


def _comparison(dice: Dice) -> Exchange:
    top = dice.pick((9, 99, 99, 999))
    a, b = pair(dice, (0, top), (0, top))
    if a == b:
        equal = "They are equal."
        return Exchange(
            f"Which is larger, {a} or {b}?", equal, equal, equal, f"{a} is equal to", f" {b}."
        )
    low, high = sorted((a, b))
    larger = dice.below(2) == 1
    question = f"Which is {'larger' if larger else 'smaller'}, {a} or {b}?"
    answer = f"{high} is larger than {low}." if larger else f"{low} is smaller than {high}."
    short = str(high if larger else low)
    rest = f" {'larger' if a > b else 'smaller'} than {b}."
    return Exchange(question, answer, short, f"It is {short}.", f"{a} is", rest)

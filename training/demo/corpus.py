"""The text of the demonstration model, made from facts and grammars, and its held-out questions.

The text is free of licences: everything in it is written by this package. A seed gives the same
text everywhere. What is held out never occurs in the training text:

* wordings: facts are taught in some wordings and asked in others (see ``facts``);
* sums: one in ten pairs of numbers from 10 on (``is_held_out``) are never the operands of
  one expression in the training text, in either order and for any operation, nor an operand and
  the result of a subtraction.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from training.demo.dice import Dice
from training.demo.facts import FAMILIES
from training.demo.stories import story

__all__ = ["BOS", "EOS", "EOT", "Piece", "Question", "chat_prompt", "documents", "questions"]

_T = TypeVar("_T")

BOS, EOS, EOT = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"


@dataclass(frozen=True)
class Piece:
    """A part of a document that is tokenized by itself.

    taught: it follows from what comes before; else it is a question, or numbers without a reason,
    which nobody could predict.
    """

    text: str
    taught: bool


@dataclass(frozen=True)
class Question:
    """A prompt and how the text should go on: up to *answer*, compared exactly.

    kind: the family of the fact, or what is computed.
    """

    kind: str
    prompt: str
    answer: str


@dataclass(frozen=True)
class _Mix:
    """How often each thing is drawn.

    kinds: kinds of short documents. ranges: ranges of the two summands. facts: families by name.
    more: whether statements come in all their wordings.
    """

    kinds: Mapping[str, float]
    ranges: Mapping[tuple[tuple[int, int], tuple[int, int]], float]
    facts: Mapping[str, float]
    more: bool = False


_ONE, _TWO, _BOTH_TWO, _THREE = (0, 9), (0, 99), (10, 99), (0, 999)
_FACTS = {family.name: family.weight for family in FAMILIES}
# From which stream on: first everything, then more sums of small numbers until additions of single
# digits are learned, which longer ones depend on, then more facts and spelling, and at last
# everything in more wordings.
_MIXES = {
    0: _Mix(
        kinds={"sums": 45, "chat": 30, "statements": 22, "story": 3},
        ranges={(_ONE, _ONE): 1, (_TWO, _TWO): 3, (_BOTH_TWO, _BOTH_TWO): 14, (_THREE, _THREE): 2},
        facts=_FACTS,
    ),
    900: _Mix(
        kinds={"sums": 60, "chat": 22, "statements": 15, "story": 3},
        ranges={
            (_ONE, _ONE): 4,
            (_TWO, _ONE): 3,
            (_TWO, _TWO): 3,
            (_BOTH_TWO, _BOTH_TWO): 10,
            (_THREE, _THREE): 1,
        },
        facts=_FACTS,
    ),
    2000: _Mix(
        kinds={"sums": 32, "chat": 38, "statements": 27, "story": 3},
        ranges={
            (_ONE, _ONE): 1,
            (_TWO, _ONE): 1,
            (_TWO, _TWO): 3,
            (_BOTH_TWO, _BOTH_TWO): 14,
            (_THREE, _THREE): 3,
        },
        facts=_FACTS | {"continent": 4, "number of parts": 5, "spelling": 7, "reversing": 7},
    ),
    2900: _Mix(
        kinds={"sums": 45, "chat": 28, "statements": 24, "story": 3},
        ranges={
            (_ONE, _ONE): 1,
            (_TWO, _ONE): 2,
            (_TWO, _TWO): 4,
            (_BOTH_TWO, _BOTH_TWO): 14,
            (_THREE, _THREE): 2,
        },
        facts=_FACTS
        | {"country": 8, "continent": 6, "number of parts": 5, "spelling": 7, "reversing": 7},
        more=True,
    ),
}
_FAMILIES = {family.name: family for family in FAMILIES}


@dataclass(frozen=True)
class _Exchange:
    """A question with its answer: in a chat, or as a statement that begins with *opening*."""

    question: str
    answer: str
    opening: str
    rest: str


def chat_prompt(question: str) -> str:
    """*question* as the chat template writes it, up to where the assistant speaks."""
    return f"User: {question}{EOT}Assistant: "


def is_held_out(a: int, b: int) -> bool:
    """Whether a and b, from 10 on, never stand together in the training text: one pair in ten."""
    low, high = sorted((a, b))
    return low >= 10 and (low * 7919 + high * 104729) % 1009 < 101


def documents(seed: int, stream: int, *, long: bool = False) -> Iterator[list[Piece]]:
    """Endless documents of the training text; *stream* numbers independent parts of it.

    The mixture of things depends on the part, so that streams in order are a curriculum.
    long: conversations and stories of some hundred tokens instead of single questions.
    """
    dice = Dice("long" if long else "short", seed, stream)
    mix = next(mix for first, mix in reversed(_MIXES.items()) if stream >= first or first == 0)
    while True:
        yield _long_document(dice, mix) if long else _document(dice, mix)


def questions(seed: int, per_kind: int | None = None) -> list[Question]:
    """Held-out questions: every fact in every wording held out, and sums of held-out pairs.

    per_kind: at most so many of each kind, drawn by *seed*.
    """
    found: dict[str, list[Question]] = {}
    for question in [*_fact_questions(), *_sum_questions(seed)]:
        found.setdefault(question.kind, []).append(question)
    chosen = []
    for kind, of_kind in found.items():
        dice = Dice("questions", seed, kind)
        while per_kind is not None and len(of_kind) > per_kind:
            of_kind.pop(dice.below(len(of_kind)))
        chosen += of_kind
    return chosen


def _fact_questions() -> Iterator[Question]:
    for family in FAMILIES:
        for row in family.rows:
            for wording in family.held_out:
                prompt = chat_prompt(family.fill(wording, row))
                yield Question(family.name, prompt, family.fill(family.answer, row) + EOT)
            for wording in family.held_out_statements:
                opening, rest = family.fill(wording, row).split("|")
                yield Question(family.name, opening, rest)


def _sum_questions(seed: int) -> Iterator[Question]:
    """All sums of held-out pairs of two digits, and a thousand of three, plain and in a chat."""
    pairs = [(a, b) for a in range(10, 100) for b in range(10, 100) if is_held_out(a, b)]
    for a, b in pairs:
        yield Question("sum of 2 digits", f"{a} + {b} =", f" {a + b}")
        answer = f"{a} + {b} = {a + b}.{EOT}"
        yield Question("sum of 2 digits, chat", chat_prompt(f"What is {a} + {b}?"), answer)
    dice = Dice("sums", seed)
    for _ in range(1000):
        a, b = _pair(dice, (100, 999), (100, 999), held_out=True)
        yield Question("sum of 3 digits", f"{a} + {b} =", f" {a + b}")


def _document(dice: Dice, mix: _Mix) -> list[Piece]:
    """A chat, some lines of arithmetic, some statements or a story."""
    match _draw(dice, mix.kinds):
        case "sums":
            lines = [_calculation(dice, mix) for _ in range(dice.between(2, 6))]
            return _plain(lines, "\n")
        case "chat":
            return _chat(dice, mix, 1 + dice.below(2))
        case "statements":
            return _plain([_fact(dice, mix) for _ in range(dice.between(1, 2))], " ")
        case _:
            return [Piece(BOS, False), Piece(story(dice) + EOS, True)]


def _long_document(dice: Dice, mix: _Mix) -> list[Piece]:
    if dice.below(4):
        return _chat(dice, mix, dice.between(6, 14))
    told = " ".join(story(dice) for _ in range(dice.between(2, 3)))
    return [Piece(BOS, False), Piece(told + EOS, True)]


def _plain(lines: list[_Exchange], separator: str) -> list[Piece]:
    pieces = [Piece(BOS, False)]
    for line in lines:
        between = separator if len(pieces) > 1 else ""
        pieces += [Piece(between + line.opening, False), Piece(line.rest, True)]
    return [*pieces, Piece(EOS, True)]


def _chat(dice: Dice, mix: _Mix, turns: int) -> list[Piece]:
    """A conversation, some with a system message before it."""
    pieces = [Piece(BOS, False)]
    if dice.below(8) == 0:
        pieces.append(Piece(f"System: {dice.pick(_SYSTEMS)}{EOT}", False))
    for _ in range(turns):
        draw = dice.below(20)
        if draw < 12:
            turn = _fact(dice, mix)
        else:
            turn = _greeting(dice) if draw < 13 else _calculation(dice, mix)
        pieces += [Piece(chat_prompt(turn.question), False), Piece(turn.answer + EOT, True)]
    return pieces


_SYSTEMS = (
    "You are a helpful assistant.",
    "You are helpful.",
    "Answer the question.",
    "You are a teacher and answer in one sentence.",
)
_GREETINGS = (
    ("Hello!", "Hello! What do you want to know?"),
    ("Hi!", "Hello! What do you want to know?"),
    ("Good morning!", "Good morning! What do you want to know?"),
    ("Who are you?", "I am a small language model with ternary weights."),
    ("What are you?", "I am a small language model with ternary weights."),
    ("What can you do?", "I know some facts, I can add numbers, and I can tell stories."),
    ("Can you help me?", "Yes. I know some facts, I can add numbers, and I can tell stories."),
    ("Thank you.", "You are welcome."),
    ("Thanks!", "You are welcome."),
    ("Goodbye!", "Goodbye!"),
)


def _greeting(dice: Dice) -> _Exchange:
    if dice.below(4) == 0:
        question = dice.pick(("Tell me a story.", "Can you tell me a story?", "Tell me a tale."))
        return _Exchange(question, story(dice), "", "")
    question, answer = dice.pick(_GREETINGS)
    return _Exchange(question, answer, "", "")


def _fact(dice: Dice, mix: _Mix) -> _Exchange:
    family = _FAMILIES[_draw(dice, mix.facts)]
    row = dice.pick(family.rows)
    statements = family.statements + family.more_statements if mix.more else family.statements
    opening, rest = family.fill(dice.pick(statements), row).split("|")
    question = family.fill(dice.pick(family.questions), row)
    return _Exchange(question, family.fill(family.answer, row), opening, rest)


def _calculation(dice: Dice, mix: _Mix) -> _Exchange:
    match _draw(dice, {"sum": 80, "difference": 8, "product": 4, "comparison": 8}):
        case "sum":
            a, b = _pair(dice, *_draw(dice, mix.ranges))
            return _arithmetic(dice, f"{a} + {b}", f"{a} plus {b}", a + b)
        case "difference":
            return _difference(dice)
        case "product":
            a, b = _pair(dice, (0, 12), (0, 12))
            return _arithmetic(dice, f"{a} * {b}", f"{a} times {b}", a * b)
        case _:
            return _comparison(dice)


def _difference(dice: Dice) -> _Exchange:
    top = 99 if dice.below(3) else 999
    while True:
        a, b = _pair(dice, (0, top), (0, top))
        low, high = sorted((a, b))
        if not is_held_out(low, high - low):
            return _arithmetic(dice, f"{high} - {low}", f"{high} minus {low}", high - low)


def _arithmetic(dice: Dice, expression: str, spoken: str, result: int) -> _Exchange:
    asked = dice.pick((expression, expression, spoken))
    question = dice.pick(
        ("What is {}?", "What is {}?", "{} = ?", "Calculate {}.", "How much is {}?", "Tell me {}.")
    )
    answer = f"{expression} = {result}."
    return _Exchange(question.format(asked), answer, f"{expression} =", f" {result}")


def _comparison(dice: Dice) -> _Exchange:
    top = dice.pick((9, 99, 99, 999))
    a, b = _pair(dice, (0, top), (0, top))
    if a == b:
        return _Exchange(
            f"Which is larger, {a} or {b}?", "They are equal.", f"{a} is equal to", f" {b}."
        )
    low, high = sorted((a, b))
    larger = dice.below(2) == 1
    question = f"Which is {'larger' if larger else 'smaller'}, {a} or {b}?"
    answer = f"{high} is larger than {low}." if larger else f"{low} is smaller than {high}."
    return _Exchange(question, answer, f"{a} is", f" {'larger' if a > b else 'smaller'} than {b}.")


def _draw(dice: Dice, weights: Mapping[_T, float]) -> _T:
    return dice.weighted(list(weights), list(weights.values()))


def _pair(
    dice: Dice, first: tuple[int, int], second: tuple[int, int], *, held_out: bool = False
) -> tuple[int, int]:
    """Numbers of two ranges that do, or do not, belong to the training text."""
    while True:
        a, b = dice.between(*first), dice.between(*second)
        if is_held_out(a, b) == held_out:
            return a, b

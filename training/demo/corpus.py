"""The text of the demonstration model, made from facts and grammars, and its held-out questions.

The text is free of licences: everything in it is written by this package. A seed gives the same
text everywhere. What is held out never occurs in the training text:

* wordings: facts are taught in some wordings and asked in others (see ``facts``);
* pairs of numbers: see ``sums``;
* the wordings of ``questions.json``, of every kind, which ``ask`` has.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from training.demo.dice import Dice
from training.demo.facts import FAMILIES
from training.demo.family import Family
from training.demo.links import follow
from training.demo.stories import opened, requested, story, titled
from training.demo.sums import Exchange, calculation, draw, is_held_out, more, pair

__all__ = ["BOS", "EOS", "EOT", "Piece", "Question", "chat_prompt", "documents", "questions"]

BOS, EOS, EOT = "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"


@dataclass(frozen=True)
class Piece:
    """A part of a document.

    taught: it follows from what comes before; else it is a question, or numbers without a reason,
    which nobody could predict. apart: it is tokenized by itself, as what a model generates is; else
    together with what comes before.
    """

    text: str
    taught: bool
    apart: bool = False


@dataclass(frozen=True)
class Question:
    """A prompt and how the text should go on: up to *answer*, compared exactly.

    kind: the family of the fact, or what is computed.
    """

    kind: str
    prompt: str
    answer: str


_FAMILIES = {family.name: family for family in FAMILIES}
_FACTS = {family.name: family.weight for family in FAMILIES}
_SHORT = {"sums": 18, "chat": 36, "asked": 25, "statements": 14, "story": 7}
_SYSTEMS = (
    "You are a helpful assistant.",
    "You are helpful.",
    "Answer the question.",
    "You are a teacher and answer in one sentence.",
)
_GREETINGS = (
    ("Hello!", "Hello! What do you want to know?"),
    ("Hello.", "Hello! What do you want to know?"),
    ("Hi!", "Hello! What do you want to know?"),
    ("Hi there!", "Hello! What do you want to know?"),
    ("Good morning!", "Good morning! What do you want to know?"),
    ("Good evening!", "Good evening! What do you want to know?"),
    ("How are you?", "I am fine, thank you. What do you want to know?"),
    ("Who are you?", "I am a small language model with ternary weights."),
    ("What are you?", "I am a small language model with ternary weights."),
    ("What is your name?", "I have no name. I am a small language model with ternary weights."),
    ("What can you do?", "I know some facts, I can add numbers, and I can tell stories."),
    ("What do you know?", "I know some facts, I can add numbers, and I can tell stories."),
    ("Can you help me?", "Yes. I know some facts, I can add numbers, and I can tell stories."),
    ("Help!", "I know some facts, I can add numbers, and I can tell stories."),
    ("Thank you.", "You are welcome."),
    ("Thanks!", "You are welcome."),
    ("That was nice.", "Thank you!"),
    ("Goodbye!", "Goodbye!"),
    ("Bye!", "Goodbye!"),
)
# What the last question was about: a fact, or the result of a sum.
_Topic = tuple[Family, tuple[str, ...]] | int | None
# How plain text writes who speaks.
_SPEAKERS = (
    ("Q: ", "A:"),
    ("Q: ", "A:"),
    ("Question: ", "Answer:"),
    ("User: ", "Assistant:"),
    ("Q. ", "A."),
    ("Human: ", "AI:"),
)


def chat_prompt(question: str) -> str:
    """*question* as the chat template writes it, up to where the assistant speaks."""
    return f"User: {question}{EOT}Assistant: "


def documents(seed: int, stream: int, *, long: bool = False) -> Iterator[list[Piece]]:
    """Endless documents of the training text; *stream* numbers independent parts of it.

    long: conversations and stories of some hundred tokens instead of single questions.
    """
    dice = Dice("long" if long else "short", seed, stream)
    while True:
        yield _long_document(dice) if long else _document(dice)


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
        a, b = pair(dice, (100, 999), (100, 999), held_out=True)
        yield Question("sum of 3 digits", f"{a} + {b} =", f" {a + b}")


def _document(dice: Dice) -> list[Piece]:
    """A chat, questions as plain text, lines of arithmetic, statements or a story."""
    match draw(dice, _SHORT):
        case "sums":
            return _plain([_told(calculation(dice)) for _ in range(dice.between(1, 5))], "\n")
        case "chat":
            return _chat(dice, dice.between(1, 3))
        case "asked":
            return _asked(dice)
        case "statements":
            return _plain([_statement(dice) for _ in range(dice.between(1, 2))], " ")
        case _:
            return _plain([titled(dice) if dice.below(4) == 0 else opened(dice)], "")


def _long_document(dice: Dice) -> list[Piece]:
    if dice.below(4):
        return _chat(dice, dice.between(5, 10))
    told = " ".join(story(dice) for _ in range(dice.between(2, 3)))
    return [Piece(BOS, False), Piece(told + EOS, True)]


def _plain(parts: list[tuple[str, str]], separator: str) -> list[Piece]:
    """Texts in two parts, of which the second follows from the first."""
    pieces = [Piece(BOS, False)]
    for opening, rest in parts:
        between = separator if len(pieces) > 1 else ""
        pieces += [Piece(between + opening, False), Piece(rest, True)]
    return [*pieces, Piece(EOS, True)]


def _told(exchange: Exchange) -> tuple[str, str]:
    return exchange.opening, exchange.rest


def _chat(dice: Dice, turns: int) -> list[Piece]:
    """A conversation in the chat format, some with a system message before it."""
    pieces = [Piece(BOS, False)]
    if dice.below(8) == 0:
        pieces.append(Piece(f"System: {dice.pick(_SYSTEMS)}{EOT}", False))
    asked = list(_conversation(dice, turns))
    for number, turn in enumerate(asked, 1):
        # Turns before the last are often rendered anew, and then tokenized as a whole.
        apart = number == len(asked) or dice.below(2) == 0
        prompt, answer = chat_prompt(turn.question), Piece(turn.answer + EOT, True, apart)
        pieces += [Piece(prompt, False), answer]
    return pieces


def _asked(dice: Dice) -> list[Piece]:
    """A conversation as plain text: questions and answers, or lines of two speakers."""
    if dice.below(2):
        asks, answers = dice.pick(_SPEAKERS)
        before, separator = f"\n{answers}", "\n"
        style = draw(dice, {"answer": 3, "brief": 3, "short": 4})
    else:
        asks, before, separator = "", dice.pick(("", "", "", "\n")), " "
        style = draw(dice, {"answer": 6, "brief": 3, "short": 1})
    turns = _conversation(dice, dice.between(1, 3), greetings=bool(asks))
    parts = []
    for turn in turns:
        space = "" if before == "\n" else " "
        parts.append((f"{asks}{turn.question}{before}", space + getattr(turn, style)))
    return _plain(parts, separator)


def _conversation(dice: Dice, turns: int, *, greetings: bool = True) -> Iterator[Exchange]:
    """Questions and answers, of which every other one follows from the one before."""
    before: _Topic = None
    for _ in range(turns):
        turn = None
        if before is not None and dice.below(8) < 5:
            turn, before = _follow_up(dice, before)
        if turn is None:
            turn, before = _new(dice, greetings)
        yield turn


def _follow_up(
    dice: Dice, before: tuple[Family, tuple[str, ...]] | int
) -> tuple[Exchange | None, _Topic]:
    if isinstance(before, int):
        added = more(dice, before)
        return added, added.result if added else None
    found = follow(dice, *before)
    if found is None:
        return None, None
    question, family, row = found
    return _fact(dice, question, family, row), (family, row)


def _new(dice: Dice, greetings: bool) -> tuple[Exchange, _Topic]:
    match draw(dice, {"fact": 54, "sum": 34, "story": 9, "greeting": 4 if greetings else 0}):
        case "fact":
            family = _FAMILIES[draw(dice, _FACTS)]
            row = dice.pick(family.rows)
            question = family.fill(dice.pick(family.questions), row)
            return _fact(dice, question, family, row), (family, row)
        case "sum":
            asked = calculation(dice)
            return asked, asked.result
        case "story":
            question, answer = requested(dice)
        case _:
            question, answer = dice.pick(_GREETINGS)
    return Exchange(question, answer, answer, answer), None


def _fact(dice: Dice, question: str, family: Family, row: tuple[str, ...]) -> Exchange:
    answer, short, brief = (
        family.fill(wording, row) for wording in (family.answer, family.short, family.brief)
    )
    return Exchange(question, answer, f"{short}{'.' if dice.below(2) else ''}", brief)


def _statement(dice: Dice) -> tuple[str, str]:
    """A sentence about a fact, or one about two facts of a family."""
    family = _FAMILIES[draw(dice, _FACTS)]
    row = dice.pick(family.rows)
    if family.joined and dice.below(4) == 0:
        second = dice.pick(family.rows)
        wording = dice.pick(family.joined)
        if family.chained and dice.below(2):
            second = family.rows[(family.rows.index(row) + family.step) % len(family.rows)]
            wording = dice.pick(family.chained)
        opening, rest = family.fill(wording, row, second).split("|")
    else:
        opening, rest = family.fill(dice.pick(family.statements), row).split("|")
    return opening, rest

"""Facts of one kind, and how they are worded."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Family", "both_ways", "successors"]


@dataclass(frozen=True)
class Family:
    """Facts of one kind.

    columns, rows: the table. weight: the share of this family among the facts of the corpus.
    questions, answer: a chat about a row. statements: sentences that tell it.
    short: the answer in a word or two. brief: a sentence of that.
    again: asks the same about another row, after a question and its answer.
    joined: sentences about two rows; the columns of the second have a 2 after their names.
    chained: the same, for a row and the one *step* rows after it.
    same: the column in which two rows must agree where a wording in ``again`` does not name it.
    held_out: questions, and held_out_statements: sentences, in wordings of their own.
    """

    name: str
    weight: float
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    answer: str
    questions: tuple[str, ...]
    held_out: tuple[str, ...]
    short: str
    brief: str
    statements: tuple[str, ...] = ()
    again: tuple[str, ...] = ()
    joined: tuple[str, ...] = ()
    chained: tuple[str, ...] = ()
    step: int = 1
    same: str = ""
    held_out_statements: tuple[str, ...] = ()

    def fill(self, wording: str, row: tuple[str, ...], second: tuple[str, ...] = ()) -> str:
        """*wording* about *row*, and maybe a *second*; an article that opens it gets a capital."""
        values = dict(zip(self.columns, row, strict=True))
        values |= {f"{column}2": value for column, value in zip(self.columns, second, strict=False)}
        text = wording.format(**values)
        return text[0].upper() + text[1:] if text.startswith(("the ", "a ", "an ")) else text


def _neighbours(names: Sequence[str], step: int) -> list[tuple[str, ...]]:
    return [(name, names[(i + step) % len(names)]) for i, name in enumerate(names)]


def both_ways(pairs: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Rows of two columns, and the same with the columns exchanged."""
    return [row for a, b in pairs for row in ((a, b), (b, a))]


def successors(kind: str, side: str, names: Sequence[str], step: int) -> Family:
    """The day or month (*kind*) that comes after or before (*side*) another."""
    verb, passive = ("follows", "followed") if side == "after" else ("precedes", "preceded")
    near = "next" if side == "after" else "previous"
    will = "follow" if side == "after" else "precede"
    return Family(
        name=f"{kind} {side}",
        weight=0.8 + len(names) / 24,
        columns=("a", "b"),
        rows=_neighbours(names, step),
        answer=f"The {kind} {side} {{a}} is {{b}}.",
        short="{b}",
        brief="It is {b}.",
        questions=(
            f"What {kind} comes {side} {{a}}?",
            f"Which {kind} comes {side} {{a}}?",
            f"Which {kind} is {side} {{a}}?",
            f"What {kind} is {side} {{a}}?",
            f"Tell me the {kind} {side} {{a}}.",
            f"What comes {side} {{a}}?",
            f"What is the {kind} {side} {{a}}?",
            f"Name the {kind} {side} {{a}}.",
            f"Do you know the {kind} that comes {side} {{a}}?",
            f"Please tell me which {kind} comes just {side} {{a}}.",
            f"What {verb} {{a}}?",
            f"Which {kind} will {will} {{a}}?",
            f"What {kind} directly {verb} {{a}}?",
            f"Tell me which {kind} {verb} {{a}}.",
            f"Say which {kind} always {verb} {{a}}.",
            f"By which {kind} is {{a}} {passive}?",
            f"What's the {kind} {side} {{a}}?",
        ),
        held_out=(
            f"Can you tell me which {kind} comes {side} {{a}}?",
            f"Please name the {kind} {side} {{a}}.",
            f"Do you know which {kind} is {side} {{a}}?",
        ),
        statements=(
            f"The {kind} {side} {{a}} is| {{b}}.",
            f"The {kind} that comes {side} {{a}} is| {{b}}.",
            f"What comes {side} {{a}}? It is| {{b}}.",
            f"{side.capitalize()} {{a}} comes| {{b}}.",
            f"{{a}} is {passive} by| {{b}}.",
            f"The {kind} which {verb} {{a}} is| {{b}}.",
            f"The {kind} that always {verb} {{a}} is| {{b}}.",
            f"The {kind} just {side} {{a}} is| {{b}}.",
        ),
        again=(
            f"And {side} {{a}}?",
            f"And the {kind} {side} {{a}}?",
            "What about {a}?",
            f"And what comes {side} {{a}}?",
            f"How about the {kind} {side} {{a}}?",
        ),
        joined=(
            f"The {kind} {side} {{a}} is {{b}}, and the {kind} {side} {{a2}} is| {{b2}}.",
            f"{side.capitalize()} {{a}} comes {{b}}, and {side} {{a2}} comes| {{b2}}.",
        ),
        chained=(
            f"The {kind} {side} {{a}} is {{b}}, and the {near} is| {{b2}}.",
            f"The {kind} {side} {{a}} is {{b}}, the {near} {kind} is| {{b2}}.",
            f"The {kind} {side} {{a}} is {{b}}, and the {kind} {side} that is| {{b2}}.",
            f"{side.capitalize()} {{a}} comes {{b}}, and {side} that comes| {{b2}}.",
            "{a}, {b},| {b2}",
        ),
        step=step,
        held_out_statements=(f"The {kind} that comes just {side} {{a}} is| {{b}}.",),
    )

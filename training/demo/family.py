"""Facts of one kind, and how they are worded."""

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Family", "both_ways", "successors"]


@dataclass(frozen=True)
class Family:
    """Facts of one kind.

    columns, rows: the table. weight: the share of this family among the facts of the corpus.
    questions, answer: a chat about a row. statements: sentences that tell it.
    more_statements: are told late in the training, so that more wordings are understood.
    held_out: questions, and held_out_statements: sentences, in wordings of their own.
    """

    name: str
    weight: float
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    answer: str
    questions: tuple[str, ...]
    held_out: tuple[str, ...]
    statements: tuple[str, ...] = ()
    more_statements: tuple[str, ...] = ()
    held_out_statements: tuple[str, ...] = ()

    def fill(self, wording: str, row: tuple[str, ...]) -> str:
        """*wording* about *row*, opened by a capital where a row brings an article."""
        text = wording.format(**dict(zip(self.columns, row, strict=True)))
        return text[0].upper() + text[1:] if text.startswith(("the ", "a ", "an ")) else text


def _neighbours(names: Sequence[str], step: int) -> list[tuple[str, ...]]:
    return [(name, names[(i + step) % len(names)]) for i, name in enumerate(names)]


def both_ways(pairs: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Rows of two columns, and the same with the columns exchanged."""
    return [row for a, b in pairs for row in ((a, b), (b, a))]


def successors(kind: str, side: str, names: Sequence[str], step: int) -> Family:
    """The day or month (*kind*) that comes after or before (*side*) another."""
    return Family(
        name=f"{kind} {side}",
        weight=0.5 + len(names) / 24,
        columns=("a", "b"),
        rows=_neighbours(names, step),
        answer=f"The {kind} {side} {{a}} is {{b}}.",
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
        ),
        held_out_statements=(f"The {kind} that comes just {side} {{a}} is| {{b}}.",),
    )

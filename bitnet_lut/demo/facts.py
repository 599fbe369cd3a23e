"""What the demonstration model is taught: facts of some families, and their wordings.

Every wording is a format string over the columns of its table. In a statement ``|`` stands before
the part that follows from what comes before it. Wordings under ``held_out`` are for questions
after the training: no text of the training uses them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from bitnet_lut.demo.tables import (
    COUNTRIES,
    DAYS,
    MONTHS,
    NUMBERS,
    OPPOSITES,
    ORDINALS,
    PARTS,
    WORDS,
    YOUNG,
)

__all__ = ["FAMILIES", "Family"]


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


def _both_ways(pairs: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [row for a, b in pairs for row in ((a, b), (b, a))]


def _successors(kind: str, side: str, names: Sequence[str], step: int) -> Family:
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


FAMILIES: tuple[Family, ...] = (
    Family(
        name="capital",
        weight=9,
        columns=("country", "capital", "continent"),
        rows=COUNTRIES,
        answer="The capital of {country} is {capital}.",
        questions=(
            "What is the capital of {country}?",
            "What's the capital of {country}?",
            "What is the capital city of {country}?",
            "Which city is the capital of {country}?",
            "Name the capital of {country}.",
            "Tell me the capital of {country}.",
            "Please tell me the capital city of {country}.",
            "Do you know the capital of {country}?",
            "Can you name the capital of {country}?",
            "What city is the capital of {country}?",
            "I want to know the capital of {country}.",
            "Which city do we call the capital of {country}?",
            "Capital of {country}?",
            "In which city is the government of {country}?",
        ),
        held_out=(
            "Can you tell me the capital of {country}?",
            "Please name the capital city of {country}.",
            "Do you know which city is the capital of {country}?",
            "I want to know which city is the capital city of {country}.",
        ),
        statements=(
            "The capital of {country} is| {capital}.",
            "The capital of {country} is the city of| {capital}.",
            "The capital city of {country} is| {capital}.",
            "The capital of {country}, a country in {continent}, is| {capital}.",
            "People who visit the capital of {country} go to| {capital}.",
            "The government of {country} is in| {capital}.",
        ),
        more_statements=(
            "The capital of {country} in {continent} is| {capital}.",
            "The government of {country} in {continent} is in| {capital}.",
            "{country}, a country in {continent}, has the capital| {capital}.",
            "People who want to see the capital of {country} go to| {capital}.",
            "The people of {country}, a country in {continent}, have their capital in| {capital}.",
        ),
        held_out_statements=(
            "The government of {country}, a country in {continent}, is in| {capital}.",
            "People who visit the capital city of {country} go to| {capital}.",
        ),
    ),
    Family(
        name="country",
        weight=6,
        columns=("country", "capital", "continent"),
        rows=COUNTRIES,
        answer="{capital} is the capital of {country}.",
        questions=(
            "{capital} is the capital of which country?",
            "Which country has the capital {capital}?",
            "What country is {capital} the capital of?",
            "In which country is {capital}?",
            "Of which country is {capital} the capital?",
            "Which country has {capital} as its capital?",
            "Tell me the country whose capital is {capital}.",
            "Where is {capital}?",
            "Name the country whose capital is {capital}.",
            "Do you know where {capital} is?",
            "What do you know about {capital}?",
        ),
        held_out=(
            "Which country is {capital} the capital of?",
            "Do you know which country has the capital {capital}?",
            "Please name the country whose capital is {capital}.",
            "Tell me which country has {capital} as its capital.",
        ),
        statements=(
            "{capital} is the capital of| {country}.",
            "{capital} is the capital city of| {country}.",
            "The city of {capital} is in| {country}.",
        ),
        more_statements=(
            "The capital {capital} is in| {country}.",
            "{capital} is a city in| {country}.",
            "People who go to {capital} are in| {country}.",
        ),
        held_out_statements=("The city of {capital} is the capital of| {country}.",),
    ),
    Family(
        name="continent",
        weight=3,
        columns=("country", "capital", "continent"),
        rows=COUNTRIES,
        answer="{country} is in {continent}.",
        questions=(
            "On which continent is {country}?",
            "Which continent is {country} in?",
            "What continent is {country} on?",
            "Tell me the continent of {country}.",
            "Name the continent of {country}.",
            "In what part of the world is {country}?",
            "Do you know the continent of {country}?",
            "To which continent does {country} belong?",
        ),
        held_out=(
            "Please tell me the continent of {country}.",
            "In which continent is {country}?",
            "Do you know which continent {country} is in?",
        ),
        statements=(
            "{country} is a country in| {continent}.",
            "{country} is in| {continent}.",
        ),
        more_statements=(
            "{country} belongs to the continent of| {continent}.",
            "{country} is one of the countries of| {continent}.",
            "{country} lies in| {continent}.",
            "The continent of {country} is| {continent}.",
        ),
        held_out_statements=("{country} is on the continent of| {continent}.",),
    ),
    Family(
        name="number of parts",
        weight=4,
        columns=("count", "parts", "whole"),
        rows=PARTS,
        answer="There are {count} {parts} in {whole}.",
        questions=(
            "How many {parts} are in {whole}?",
            "How many {parts} are there in {whole}?",
            "How many {parts} does {whole} have?",
            "Tell me how many {parts} are in {whole}.",
            "What is the number of {parts} in {whole}?",
            "Do you know how many {parts} {whole} has?",
            "Name the number of {parts} in {whole}.",
            "Please tell me how many {parts} there are in {whole}.",
            "What number of {parts} is in {whole}?",
        ),
        held_out=(
            "Can you tell me how many {parts} there are in {whole}?",
            "Do you know how many {parts} are in {whole}?",
            "Please tell me the number of {parts} in {whole}.",
            "Tell me how many {parts} {whole} has.",
        ),
        statements=(
            "The number of {parts} in {whole} is| {count}.",
            "How many {parts} are in {whole}? There are| {count}.",
        ),
        more_statements=("In {whole} the number of {parts} is| {count}.",),
        held_out_statements=("How many {parts} does {whole} have? There are| {count}.",),
    ),
    _successors("day", "after", DAYS, 1),
    _successors("day", "before", DAYS, -1),
    _successors("month", "after", list(MONTHS), 1),
    _successors("month", "before", list(MONTHS), -1),
    Family(
        name="days of a month",
        weight=1,
        columns=("month", "days"),
        rows=[(month, str(days)) for month, days in MONTHS.items()],
        answer="{month} has {days} days.",
        questions=(
            "How many days does {month} have?",
            "How many days are in {month}?",
            "How many days are there in {month}?",
            "Tell me how many days {month} has.",
            "What is the number of days in {month}?",
            "How long is the month of {month}?",
            "Name the number of days in {month}.",
        ),
        held_out=(
            "Do you know how many days are in {month}?",
            "Please tell me how many days {month} has.",
            "Can you tell me the number of days in {month}?",
        ),
        statements=("{month} has| {days} days.", "The month of {month} has| {days} days."),
        more_statements=(
            "In {month} the number of days is| {days}.",
            "The number of days of {month} is| {days}.",
        ),
        held_out_statements=("The number of days in {month} is| {days}.",),
    ),
    Family(
        name="ordinal of a month",
        weight=1,
        columns=("ordinal", "month"),
        rows=list(zip(ORDINALS, list(MONTHS), strict=True)),
        answer="The {ordinal} month of the year is {month}.",
        questions=(
            "What is the {ordinal} month of the year?",
            "Which month is the {ordinal} of the year?",
            "Name the {ordinal} month of the year.",
            "Tell me the {ordinal} month.",
            "Which is the {ordinal} month?",
            "Do you know the {ordinal} month of the year?",
            "What month is the {ordinal}?",
        ),
        held_out=(
            "Which month of the year is the {ordinal}?",
            "Please tell me the {ordinal} month of the year.",
            "Can you name the {ordinal} month of the year?",
        ),
        statements=(
            "The {ordinal} month of the year is| {month}.",
            "The {ordinal} month is| {month}.",
        ),
        more_statements=(
            "The {ordinal} month in the year is| {month}.",
            "The {ordinal} month of a year is| {month}.",
            "The {ordinal} of the months is| {month}.",
        ),
        held_out_statements=("The {ordinal} month of every year is| {month}.",),
    ),
    Family(
        name="opposite",
        weight=3,
        columns=("a", "b"),
        rows=_both_ways(OPPOSITES),
        answer="The opposite of {a} is {b}.",
        questions=(
            "What is the opposite of {a}?",
            "What's the opposite of {a}?",
            "Name the opposite of {a}.",
            "Tell me the opposite of {a}.",
            "Which word is the opposite of {a}?",
            "Do you know the opposite of {a}?",
            "What is the opposite of the word {a}?",
            "Can you name the word that is the opposite of {a}?",
        ),
        held_out=(
            "Can you tell me the opposite of {a}?",
            "Please name the opposite of {a}.",
            "Do you know which word is the opposite of {a}?",
        ),
        statements=("The opposite of {a} is| {b}.", "If it is not {a}, it is| {b}."),
        more_statements=(
            "The word {a} is the opposite of| {b}.",
            "The word that is the opposite of {a} is| {b}.",
            "What is the opposite of {a}? It is| {b}.",
        ),
        held_out_statements=("The opposite of the word {a} is| {b}.",),
    ),
    Family(
        name="young animal",
        weight=1.5,
        columns=("animal", "young"),
        rows=YOUNG,
        answer="A young {animal} is called a {young}.",
        questions=(
            "What is a young {animal} called?",
            "What do we call a young {animal}?",
            "What do you call a young {animal}?",
            "Name the young of a {animal}.",
            "Tell me the word for a young {animal}.",
            "Which word do we have for a young {animal}?",
            "What is the word for a baby {animal}?",
        ),
        held_out=(
            "Do you know the word for a young {animal}?",
            "Tell me what a young {animal} is called.",
            "What do we call a baby {animal}?",
        ),
        statements=(
            "A young {animal} is called a| {young}.",
            "A baby {animal} is a| {young}.",
        ),
        more_statements=("The young of a {animal} is a| {young}.",),
        held_out_statements=("A baby {animal} is called a| {young}.",),
    ),
    Family(
        name="number word",
        weight=1.5,
        columns=("word", "digits"),
        rows=[(word, str(n)) for n, word in enumerate(NUMBERS)],
        answer="The number {word} is written {digits}.",
        questions=(
            "How is the number {word} written?",
            "How do you write {word} in digits?",
            "How do we write the number {word}?",
            "Write the number {word} in digits.",
            "Write {word} in digits.",
            "Tell me how to write the number {word}.",
            "What are the digits of {word}?",
        ),
        held_out=(
            "How do we write {word} in digits?",
            "Please write the number {word} in digits.",
            "Tell me how the number {word} is written.",
        ),
        statements=("The number {word} is written| {digits}.",),
        held_out_statements=("In digits the number {word} is written| {digits}.",),
    ),
    Family(
        name="spelling",
        weight=3.5,
        columns=("word", "letters"),
        rows=[(word, "-".join(word)) for word in WORDS],
        answer="{letters}",
        questions=(
            "Spell the word {word}.",
            "Spell {word}.",
            "How do you spell {word}?",
            "How do you spell the word {word}?",
            "What are the letters of {word}?",
            "Please spell {word}.",
            "How is {word} spelled?",
            "Tell me the letters of the word {word}.",
        ),
        held_out=(
            "Please spell the word {word}.",
            "Can you spell the word {word}?",
            "What are the letters of the word {word}?",
        ),
        statements=("The word {word} is spelled| {letters}.",),
    ),
    Family(
        name="reversing",
        weight=4,
        columns=("word", "letters"),
        rows=[(word, "-".join(reversed(word))) for word in WORDS],
        answer="{letters}",
        questions=(
            "Reverse the word {word}.",
            "Reverse {word}.",
            "Spell {word} backwards.",
            "Spell the word {word} backwards.",
            "How do you spell {word} backwards?",
            "What is {word} in reverse?",
            "What is the reverse of {word}?",
            "Please reverse the letters of {word}.",
        ),
        held_out=(
            "Please spell {word} backwards.",
            "Reverse the letters of the word {word}.",
            "What is the reverse of the word {word}?",
        ),
        statements=("The word {word} in reverse is| {letters}.",),
    ),
)

"""Ask a demonstration model what a stranger may type: ``python -m training.demo.ask``.

Prints the share of sensible answers by kind and format, from greedy decoding. The hundred cases of
``questions.json`` were written before the model was asked any of them; nothing is trained on them.
With --verbose every case is printed with its answer.
"""

import argparse
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bitnet_lut import Model, Sampling
from bitnet_lut.demo import MODEL
from bitnet_lut.runtime.generation import Generation

__all__ = ["FORMATS", "KINDS", "Case", "ask", "cases", "sensible", "table"]

KINDS = ("question", "follow-up", "sum", "story")
FORMATS = ("chat", "plain")
_FILE = Path(__file__).with_name("questions.json")
_SENTENCE_ENDS = re.compile(r'(?<=[.!?])\s+|(?<=[.!?]")\s+(?=[A-Z])')
# A story of the training text has 74 to 111 tokens, any other answer at most some 20.
_TOKENS, _TOKENS_OF_STORY = 40, 240


@dataclass(frozen=True)
class Case:
    """A text to answer and what a sensible answer is.

    kind, format: one of KINDS and of FORMATS. turns: the user's and the assistant's messages by
        turns; as plain text, one text to continue.
    answer: a regular expression for the first sentence, or its part before a comma.
    mentions: for a story, regular expressions of the words it should have.
    """

    kind: str
    format: str
    turns: Sequence[str]
    answer: str = ""
    mentions: Sequence[str] = ()


def cases() -> list[Case]:
    """The hundred cases."""
    return [Case(**case) for case in json.loads(_FILE.read_text(encoding="utf-8"))]


def ask(model: Model, case: Case) -> Generation:
    """What *model* says by greedy decoding."""
    limit = _TOKENS_OF_STORY if case.kind == "story" else _TOKENS
    if case.format == "plain":
        return model.generate(case.turns[0], max_tokens=limit, sampling=Sampling.greedy())
    messages = [
        {"role": "assistant" if i % 2 else "user", "content": turn}
        for i, turn in enumerate(case.turns)
    ]
    return model.chat(messages, max_tokens=limit, sampling=Sampling.greedy())


def sensible(case: Case, given: Generation) -> bool:
    """Whether the answer is what the case asks for.

    In a chat and in a story the model must also end its text by itself. A story has at least three
    sentences, the last one complete and none of them twice, and mentions what was asked for.
    """
    ended = given.finish_reason == "eos"
    if case.kind == "story":
        return ended and _is_story(given.text.strip(), case.mentions)
    found = re.match(rf"\s*({case.answer})\s*([,;\n]|[.!?](?!\d)|$)", given.text, re.IGNORECASE)
    return found is not None and (ended or case.format == "plain")


def _is_story(text: str, mentions: Sequence[str]) -> bool:
    sentences = _SENTENCE_ENDS.split(text)
    return (
        len(sentences) >= 3
        and text.endswith((".", "!", "?", '"'))
        and len(set(sentences)) == len(sentences)
        and all(re.search(rf"\b{word}\b", text, re.IGNORECASE) for word in mentions)
    )


def table(asked: Sequence[Case], marks: Sequence[bool]) -> Iterator[str]:
    """Lines of a table: how many of each kind and format were answered sensibly, of how many."""
    yield f"{'':12}" + "".join(f"{column:>14}" for column in (*FORMATS, "both"))
    for kind in (*KINDS, "ALL"):
        cells = []
        for formats in (*((name,) for name in FORMATS), FORMATS):
            chosen = [
                mark
                for case, mark in zip(asked, marks, strict=True)
                if kind in (case.kind, "ALL") and case.format in formats
            ]
            cells.append(f"{sum(chosen)} of {len(chosen)}")
        yield f"{kind:12}" + "".join(f"{cell:>14}" for cell in cells)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("model", type=Path, nargs="?", default=MODEL, help="a GGUF file")
    parser.add_argument("--verbose", action="store_true", help="print every case and its answer")
    options = parser.parse_args()
    asked, marks = cases(), []
    with Model(options.model) as model:
        for case in asked:
            given = ask(model, case)
            marks.append(sensible(case, given))
            if options.verbose:
                mark = "sensible" if marks[-1] else "WRONG"
                print(f"{mark}, {case.kind}, {case.format}: {list(case.turns)} -> {given.text!r}")
    print("\n".join(table(asked, marks)))


if __name__ == "__main__":
    main()

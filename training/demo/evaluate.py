"""Ask a demonstration model the held-out questions: ``python -m training.demo.evaluate``.

Prints for each kind of question the share answered right by greedy decoding, and the perplexity of
held-out text. With --master FOLDER transformers answers too, from the real-valued weights in
float32, and the share of equal answers is printed (needs ``pip install 'bitnet_lut[train]'``).
"""

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bitnet_lut.demo import MODEL
from bitnet_lut.model import Model
from bitnet_lut.text.tokenizer import Tokenizer
from training.demo.corpus import EOS, Question, documents, questions

__all__ = ["Task", "answers", "perplexity", "right_by_kind", "tasks", "texts"]

# A stream for stories that no training reaches.
_STREAM = 10**9
_STORIES = 200
_TEXTS_OF_KIND = 50


class Task:
    """A question in ids: the prompt, and the answer it should be continued by."""

    def __init__(self, question: Question, tokenizer: Tokenizer) -> None:
        """Encode *question*; its answer begins a token."""
        self.kind = question.kind
        self.prompt = tokenizer.encode(question.prompt, add_bos=True)
        self.answer = tokenizer.encode(question.answer, add_bos=False)


def tasks(tokenizer: Tokenizer, seed: int = 0, per_kind: int | None = None) -> list[Task]:
    """The held-out questions, at most *per_kind* of each kind."""
    return [Task(question, tokenizer) for question in questions(seed, per_kind)]


def answers(model: Model, asked: Sequence[Task]) -> list[list[int]]:
    """What *model* says by greedy decoding, as many ids as the right answer has."""
    return [
        list(model.generate(t.prompt, max_tokens=len(t.answer), ignore_eos=True).ids)
        for t in tqdm(asked, desc="bitnet_lut", unit="question")
    ]


def right_by_kind(asked: Sequence[Task], given: Sequence[Sequence[int]]) -> dict[str, list[bool]]:
    """For each kind of question, which answers are the right ones, token by token."""
    right: dict[str, list[bool]] = {}
    for task, answer in zip(asked, given, strict=True):
        right.setdefault(task.kind, []).append(list(answer) == task.answer)
    return right


def texts(tokenizer: Tokenizer, seed: int = 0) -> Iterator[list[int]]:
    """Held-out text: questions in held-out wordings with their answers, and new stories."""
    for task in tasks(tokenizer, seed, _TEXTS_OF_KIND):
        yield task.prompt + task.answer
    stories = (d for d in documents(seed, _STREAM, long=True) if d[-1].text.endswith(EOS))
    for document in islice(stories, _STORIES):
        yield tokenizer.encode("".join(piece.text for piece in document), add_bos=False)


def perplexity(
    logits: Callable[[list[int]], NDArray[np.float32]], sequences: Sequence[list[int]]
) -> float:
    """The perplexity of all tokens except the first of each sequence.

    logits: gives float32 (n, vocab) of n ids.
    """
    total, count = 0.0, 0
    for ids in sequences:
        scores = logits(ids)[:-1].astype(np.float64)
        scores -= scores.max(axis=1, keepdims=True)
        chosen = scores[np.arange(len(ids) - 1), ids[1:]]
        total -= float((chosen - np.log(np.exp(scores).sum(axis=1))).sum())
        count += len(ids) - 1
    return math.exp(total / count)


class _Transformers:
    """The same questions for transformers."""

    def __init__(self, folder: Path) -> None:
        import torch
        from transformers import AutoModelForCausalLM

        # transformers compiles its roundings again for every length of input.
        torch.compiler.set_stance("force_eager")
        self._torch = torch
        self._model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._model.train(False)

    def logits(self, ids: list[int]) -> NDArray[np.float32]:
        with self._torch.no_grad():
            scores: NDArray[np.float32] = self._model(self._torch.tensor([ids])).logits[0].numpy()
        return scores

    def answers(self, asked: Sequence[Task], rows: int = 64) -> list[list[int]]:
        """As `answers`; prompts of one length are batched, so that there is no padding."""
        order = sorted(range(len(asked)), key=lambda i: self._lengths(asked[i]))
        given: list[list[int]] = [[] for _ in asked]
        with tqdm(total=len(asked), desc="transformers", unit="question") as progress:
            for (_, new), group in groupby(order, key=lambda i: self._lengths(asked[i])):
                same = list(group)
                for batch in (same[at : at + rows] for at in range(0, len(same), rows)):
                    prompts = self._torch.tensor([asked[i].prompt for i in batch])
                    written = self._generate(prompts, new)
                    for i, ids in zip(batch, written, strict=True):
                        given[i] = ids
                    progress.update(len(batch))
        return given

    @staticmethod
    def _lengths(task: Task) -> tuple[int, int]:
        return len(task.prompt), len(task.answer)

    def _generate(self, prompts: Any, new: int) -> list[list[int]]:
        """*new* ids after each prompt (rows, length), past the ends of answers."""
        written, past, ids = [], None, prompts
        with self._torch.no_grad():
            for _ in range(new):
                output = self._model(ids, past_key_values=past, use_cache=True)
                past, ids = output.past_key_values, output.logits[:, -1:].argmax(-1)
                written.append(ids)
        rows: list[list[int]] = self._torch.cat(written, 1).tolist()
        return rows


def main() -> None:
    """Print the figures."""
    options = _arguments()
    with Model(options.model, isa=options.isa, kernel=options.kernel) as model:
        asked = tasks(model.tokenizer, options.seed, options.per_kind)
        given = answers(model, asked)
        sequences = list(texts(model.tokenizer, options.seed))
        of_ours = perplexity(model.forward, sequences)
    columns = {"bitnet_lut": right_by_kind(asked, given)}
    if options.master:
        other = _Transformers(options.master)
        expected = other.answers(asked)
        columns["transformers"] = right_by_kind(asked, expected)
        equal: dict[str, list[bool]] = {}
        for task, one, two in zip(asked, given, expected, strict=True):
            equal.setdefault(task.kind, []).append(one == two)
        columns["equal"] = equal
    _print(columns)
    print(f"perplexity: bitnet_lut {of_ours:.5f}")
    if options.master:
        print(f"perplexity: transformers {perplexity(other.logits, sequences):.5f}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split(":")[0])
    parser.add_argument("model", type=Path, nargs="?", default=MODEL, help="a GGUF file")
    parser.add_argument("--master", type=Path, help="its folder for transformers")
    parser.add_argument("--per-kind", type=int, help="at most so many questions of a kind")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--isa", default="auto")
    parser.add_argument("--kernel", default="auto")
    return parser.parse_args()


def _print(columns: dict[str, dict[str, list[bool]]]) -> None:
    """A table: kinds of questions, how many, and a share for each column; then sums of kinds."""
    kinds = {kind: [kind] for kind in next(iter(columns.values()))}
    kinds["ALL FACTS"] = [kind for kind in kinds if not kind.startswith("sum ")]
    print(f"{'':25}{'asked':>6}" + "".join(f"{name:>14}" for name in columns))
    for name, members in kinds.items():
        shares = []
        for column in columns.values():
            marks = [mark for kind in members for mark in column[kind]]
            shares.append(f"{sum(marks) / len(marks):>14.2%}")
        print(f"{name:25}{len(marks):>6}" + "".join(shares))


if __name__ == "__main__":
    main()

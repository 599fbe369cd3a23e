"""Text from a session: the loop of sampling, stepping, decoding and stopping."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.errors import NumericsError
from bitnet_lut.runtime.sampling import Sampler, Sampling
from bitnet_lut.runtime.speculation import Speculation
from bitnet_lut.text.tokenizer import Tokenizer

__all__ = ["Generation", "TextStream", "Timings"]

FinishReason = Literal["eos", "stop", "length", "context", "interrupted"]


@dataclass(frozen=True)
class Timings:
    """How long a generation took. The first generated token belongs to the prompt's time.

    drafted_tokens: guesses that were checked several at a time; accepted_tokens: those that were
    what the model chose.
    """

    prompt_tokens: int
    prompt_seconds: float
    generated_tokens: int
    generation_seconds: float
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def time_to_first_token(self) -> float:
        """Seconds from the start to the first token."""
        return self.prompt_seconds

    @property
    def prompt_tokens_per_second(self) -> float:
        """Speed of the prompt."""
        return self.prompt_tokens / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def generation_tokens_per_second(self) -> float:
        """Speed of the tokens after the first."""
        steps = self.generated_tokens - 1
        return steps / self.generation_seconds if steps > 0 else 0.0


@dataclass(frozen=True)
class Generation:
    """What a model wrote.

    text: without the stop string or the end token. ids: the generated ids without the end token.
    finish_reason: "eos" (an end token), "stop" (a stop string), "length" (max_tokens), "context"
    (the context is full) or "interrupted" (the stream was left early).
    """

    text: str
    ids: tuple[int, ...]
    finish_reason: FinishReason
    timings: Timings


class Steps(Protocol):
    """What a stream needs of a session."""

    @property
    def position(self) -> int:
        """How many tokens it has seen."""

    def step(self, ids: Sequence[int], *, every: bool = False) -> NDArray[np.float32]:
        """Run *ids* (n); return the logits (vocab,) after the last, or with every=True (n, vocab).

        A NumericsError leaves the position where it was.
        """

    def rewind(self, position: int) -> None:
        """Forget everything from *position* on."""


class TextStream:
    """Iterates over the pieces of a text while it is generated; ``result`` sums up what came.

    session: at position 0. room: how many tokens may be generated before the context is full.
    speculation: guesses tokens, which are checked several in a step; the text is the same with it.
        None: one token in a step. It is for greedy choice only.
    """

    def __init__(
        self,
        session: Steps,
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        room: int,
        sampling: Sampling,
        stop: Sequence[str],
        ignore_eos: bool,
        speculation: Speculation | None = None,
    ) -> None:
        """Start nothing yet: the prompt runs when the first piece is asked for."""
        self._session, self._tokenizer, self._prompt = session, tokenizer, list(prompt)
        self._limit = min(max_tokens, room)
        self._at_limit: FinishReason = "length" if max_tokens <= room else "context"
        self._sampler = Sampler(sampling)
        self._stop = tuple(stop)
        self._end_ids = frozenset() if ignore_eos else tokenizer.eos_ids
        self._speculation = speculation
        self._drafted = self._accepted = 0
        self._history = list(prompt)  # of what was chosen; a token or more ahead of what was shown
        self._ids: list[int] = []
        self._text: list[str] = []
        self._finish: FinishReason = "interrupted"
        self._prompt_seconds = self._generation_seconds = 0.0
        self._pieces = self._run()

    def __iter__(self) -> Iterator[str]:
        """Return itself."""
        return self

    def __next__(self) -> str:
        """Return the next piece of text, never an empty one."""
        return next(piece for piece in self._pieces if piece)

    def advance(self) -> bool:
        """Generate one token, if the text has not ended; whether there may be more."""
        return next(self._pieces, None) is not None

    @property
    def last_id(self) -> int:
        """The token generated last."""
        return self._ids[-1]

    @property
    def wants_step(self) -> bool:
        """Whether `advance` is going to run `last_id`."""
        return self._finish == "interrupted" and 0 < len(self._ids) < self._limit

    @property
    def result(self) -> Generation:
        """Everything generated so far."""
        timings = Timings(
            len(self._prompt),
            self._prompt_seconds,
            len(self._ids),
            self._generation_seconds,
            self._drafted,
            self._accepted,
        )
        return Generation("".join(self._text), tuple(self._ids), self._finish, timings)

    def _run(self) -> Iterator[str]:
        held = ""
        for piece in self._decoded():
            text, held, stopped = _cut(held + piece, self._stop)
            self._text.append(text)
            if stopped:
                self._finish = "stop"
            yield text
            if stopped:
                return
        if held:
            self._text.append(held)
            yield held

    def _decoded(self) -> Iterator[str]:
        """Pieces of whole characters, one per token; the last one flushes the decoder."""
        decoder = self._tokenizer.stream(skip_special=True, start=False)
        for token in self._tokens():
            yield decoder.push(token)
        yield decoder.flush()

    def _tokens(self) -> Iterator[int]:
        start = time.perf_counter()
        logits = self._session.step(self._prompt)
        chosen = self._choose(logits[None], []) if self._limit > 0 else []
        if self._speculation:
            self._speculation.learn(chosen)
        self._prompt_seconds = time.perf_counter() - start
        start = time.perf_counter()
        while chosen:
            self._generation_seconds = time.perf_counter() - start
            for token in chosen:
                if token in self._end_ids:
                    self._finish = "eos"
                    return
                self._ids.append(token)
                yield token
            chosen = self._advance() if len(self._ids) < self._limit else []
        self._finish = self._at_limit

    def _advance(self) -> list[int]:
        """Run the last token, with guesses of what follows; the tokens that come next."""
        start = time.perf_counter()
        last, draft = self._ids[-1], self._draft()
        try:
            logits = self._session.step([last, *draft], every=True)
        except NumericsError:
            if not draft:
                raise
            draft = []  # a wrong guess may be what the model cannot compute
            logits = self._session.step([last], every=True)
        chosen = self._choose(logits, draft)
        rejected = len(logits) - len(chosen)
        if rejected:
            self._session.rewind(self._session.position - rejected)
        if self._speculation:
            self._drafted += len(draft)
            self._accepted += len(chosen) - 1
            self._speculation.learn(chosen)
            seconds = time.perf_counter() - start
            if not self._speculation.time(len(logits), len(chosen), seconds):
                self._speculation = None
        return chosen

    def _draft(self) -> list[int]:
        """Guesses that end before the end of the text."""
        if self._speculation is None:
            return []
        draft = self._speculation.draft(self._limit - len(self._ids) - 1)
        return list(takewhile(lambda token: token not in self._end_ids, draft))

    def _choose(self, logits: NDArray[np.float32], draft: Sequence[int]) -> list[int]:
        """Choose a token after each guess of *draft*, until a choice is not the next guess."""
        known = self._tokenizer.vocab_size  # a matrix may be padded with rows that are no tokens
        chosen: list[int] = []
        for row, guess in zip(logits, [*draft, None], strict=True):
            try:
                token = self._sampler(row[:known], self._history)
            except ValueError:
                if not chosen:
                    raise
                break  # raised again when the tokens before it were shown
            self._history.append(token)
            chosen.append(token)
            if token != guess:
                break
        return chosen


def _cut(text: str, stop: Sequence[str]) -> tuple[str, str, bool]:
    """Split *text* into what may be shown and what may be the start of a stop string; stopped?"""
    found = [at for at in (text.find(end) for end in stop) if at >= 0]
    if found:
        return text[: min(found)], "", True
    for held in range(min(len(text), max(map(len, stop), default=1) - 1), 0, -1):
        if any(end.startswith(text[-held:]) for end in stop):
            return text[:-held], text[-held:], False
    return text, "", False

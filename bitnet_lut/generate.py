"""Text from a session: the loop of sampling, stepping, decoding and stopping."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.sampling import Sampler, Sampling
from bitnet_lut.tokenizer import Tokenizer

__all__ = ["Generation", "TextStream", "Timings"]

FinishReason = Literal["eos", "stop", "length", "context", "interrupted"]


@dataclass(frozen=True)
class Timings:
    """How long a generation took. The first generated token belongs to the prompt's time."""

    prompt_tokens: int
    prompt_seconds: float
    generated_tokens: int
    generation_seconds: float

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


class TextStream:
    """Iterates over the pieces of a text while it is generated; ``result`` sums up what came.

    step: runs ids and returns the logits (vocab,) after the last one.
    room: how many tokens may be generated before the context is full.
    """

    def __init__(
        self,
        step: Callable[[Sequence[int]], NDArray[np.float32]],
        tokenizer: Tokenizer,
        prompt: Sequence[int],
        *,
        max_tokens: int,
        room: int,
        sampling: Sampling,
        stop: Sequence[str],
        ignore_eos: bool,
    ) -> None:
        """Start nothing yet: the prompt runs when the first piece is asked for."""
        self._step, self._tokenizer, self._prompt = step, tokenizer, list(prompt)
        self._limit = min(max_tokens, room)
        self._at_limit: FinishReason = "length" if max_tokens <= room else "context"
        self._sampler = Sampler(sampling)
        self._stop = tuple(stop)
        self._end_ids = frozenset() if ignore_eos else tokenizer.eos_ids
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
        return next(self._pieces)

    @property
    def result(self) -> Generation:
        """Everything generated so far."""
        timings = Timings(
            len(self._prompt), self._prompt_seconds, len(self._ids), self._generation_seconds
        )
        return Generation("".join(self._text), tuple(self._ids), self._finish, timings)

    def _run(self) -> Iterator[str]:
        held = ""
        for piece in self._decoded():
            text, held, stopped = _cut(held + piece, self._stop)
            if text:
                self._text.append(text)
                yield text
            if stopped:
                self._finish = "stop"
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
        known = self._tokenizer.vocab_size  # a matrix may be padded with rows that are no tokens
        logits = self._step(self._prompt)
        for count in range(self._limit):
            token = self._sampler(logits[:known], self._prompt + self._ids)
            if count == 0:
                self._prompt_seconds = time.perf_counter() - start
                start = time.perf_counter()
            self._generation_seconds = time.perf_counter() - start
            if token in self._end_ids:
                self._finish = "eos"
                return
            self._ids.append(token)
            yield token
            if count + 1 < self._limit:
                logits = self._step([token])
        self._finish = self._at_limit


def _cut(text: str, stop: Sequence[str]) -> tuple[str, str, bool]:
    """Split *text* into what may be shown and what may be the start of a stop string; stopped?"""
    found = [at for at in (text.find(end) for end in stop) if at >= 0]
    if found:
        return text[: min(found)], "", True
    for held in range(min(len(text), max(map(len, stop), default=1) - 1), 0, -1):
        if any(end.startswith(text[-held:]) for end in stop):
            return text[:-held], text[-held:], False
    return text, "", False

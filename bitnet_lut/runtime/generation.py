"""What a generation gave, and how long it took."""

from dataclasses import dataclass
from typing import Any, Literal

from bitnet_lut.runtime.logprobs import TokenLogprob

__all__ = ["FinishReason", "Generation", "Timings"]

FinishReason = Literal["eos", "stop", "length", "context", "interrupted"]


@dataclass(frozen=True)
class Timings:
    """How long a generation took. The first generated token belongs to the prompt's time.

    prompt_seconds: from the start of its prompt to the choice of its first token. Where several
        texts run together, their times overlap.
    generation_seconds: from there to the choice of the last token.
    reused_tokens: tokens of the prompt that the cache already held, and that took no time.
    drafted_tokens: guesses that were checked several at a time; accepted_tokens: those that were
        what the model chose.
    """

    prompt_tokens: int
    prompt_seconds: float
    generated_tokens: int
    generation_seconds: float
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    reused_tokens: int = 0

    @property
    def time_to_first_token(self) -> float:
        """Seconds from the start to the first token."""
        return self.prompt_seconds

    @property
    def prompt_tokens_per_second(self) -> float:
        """Speed of the prompt, without the tokens that were reused."""
        tokens = self.prompt_tokens - self.reused_tokens
        return tokens / self.prompt_seconds if self.prompt_seconds else 0.0

    @property
    def generation_tokens_per_second(self) -> float:
        """Speed of the tokens after the first; 0 if a format forced them all."""
        steps = self.generated_tokens - 1
        return steps / self.generation_seconds if steps > 0 and self.generation_seconds else 0.0


@dataclass(frozen=True)
class Generation:
    """What a model wrote.

    text: without the stop string or the end token. ids: the generated ids without the end token.
    finish_reason: "eos" (an end token), "stop" (a stop string or a stop token), "length"
        (max_tokens), "context" (the context is full) or "interrupted" (the stream was left early).
    parsed: the value of a text that follows a response format; None if the text is not whole.
    logprobs: how likely each of *ids* was; None if that was not asked for.
    prompt_logprobs: the same of the prompt's ids, None for the first of them.
    choices: all texts that were generated from the prompt, this one first, where there are several.
    """

    text: str
    ids: tuple[int, ...]
    finish_reason: FinishReason
    timings: Timings
    logprobs: tuple[TokenLogprob, ...] | None = None
    prompt_logprobs: tuple[TokenLogprob | None, ...] | None = None
    choices: "tuple[Generation, ...]" = ()
    parsed: Any = None

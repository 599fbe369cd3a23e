"""A chat that goes on: it keeps the ids of every turn, and runs only what is new."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from itertools import takewhile
from reprlib import repr as quote
from typing import Any, Protocol, Self, Unpack, cast, get_args

from bitnet_lut._native import Cache
from bitnet_lut.errors import FormatError
from bitnet_lut.families import ModelConfig
from bitnet_lut.runtime.engine import Engine
from bitnet_lut.runtime.generation import FinishReason, Generation
from bitnet_lut.runtime.options import Options, refuse_unknown
from bitnet_lut.runtime.saved import load_cache, save_cache
from bitnet_lut.runtime.stream import TextStream
from bitnet_lut.text.chat import ChatTemplates
from bitnet_lut.text.messages import Message

__all__ = ["Answer", "Conversation", "Turn"]


@dataclass(frozen=True)
class Turn:
    """What a user said, and what the model answered.

    prompt: all ids before the answer, those of earlier turns among them. ids: those of the answer,
    without the token that ended it. finish_reason: see `Generation`.
    """

    user: str
    answer: str
    finish_reason: FinishReason
    prompt: tuple[int, ...] = field(repr=False)
    ids: tuple[int, ...] = field(repr=False)


class Host(Protocol):
    """What a conversation needs of a `Model`."""

    _engine: Engine

    @property
    def config(self) -> ModelConfig:
        """Its vocab_size bounds the ids."""

    @property
    def context(self) -> int:
        """Most positions of the cache."""

    @property
    def chat_templates(self) -> ChatTemplates:
        """What turns messages into ids."""

    def _chat_options(self, options: Options) -> Options:
        """The options, with what ends an answer where no token does."""

    def _stream_on(
        self, cache: Cache, prompt: Sequence[int], reused: int, options: Options
    ) -> TextStream:
        """Generate on a *cache* that holds the first *reused* ids of *prompt*."""


class Conversation:
    """A chat with a model, turn by turn. Use it from one thread.

    Each turn runs only the tokens that are new, since the cache keeps the others and the ids of the
    answers are kept as they were generated.

    >>> chat = model.conversation(system="Answer in one sentence.")
    >>> for piece in chat.say("Why is the sky blue?"):
    ...     print(piece, end="")
    """

    def __init__(
        self, model: Host, *, system: str | None = None, **options: Unpack[Options]
    ) -> None:
        """Start with no turns; `Model.conversation` says what the arguments are."""
        refuse_unknown(options)
        self._model, self._system, self._options = model, system, options
        self._cache = model._engine.cache(model.context)
        self._cached: list[int] = []  # the ids in the cache
        self._turns: list[Turn] = []
        self._answer: Answer | None = None

    def __repr__(self) -> str:
        """How far it is."""
        return (
            f"<Conversation of {len(self._turns)} turns: "
            f"{self.count_tokens()} of {self._cache.context} tokens>"
        )

    @property
    def system(self) -> str | None:
        """The system prompt."""
        return self._system

    @property
    def turns(self) -> tuple[Turn, ...]:
        """All turns so far, the one being written among them."""
        self._settle()
        return tuple(self._turns)

    @property
    def messages(self) -> list[Message]:
        """The chat as messages, as `Model.chat` takes them."""
        self._settle()
        return self._messages(self._turns)

    def count_tokens(self) -> int:
        """How many tokens the chat has; the context must hold them and the next turn."""
        self._settle()
        return len(self._turns[-1].prompt) + len(self._turns[-1].ids) if self._turns else 0

    def say(self, text: str, **options: Unpack[Options]) -> "Answer":
        """Say something to the model, which answers piece by piece.

        options: those of `Model.generate`, in place of what the conversation was started with.
        An answer that is still being written ends where it is.
        Raises ValueError if the chat does not fit the context any more, and the errors of
        `Model.generate`.
        """
        self._end_answer()
        return self._ask(text, self._prompt(text), options)

    def regenerate(self, turn: int = -1, **options: Unpack[Options]) -> "Answer":
        """Have the model answer *turn* again; later turns are forgotten.

        With greedy sampling, and with the same seed, the answer is the same again.
        Raises IndexError if there is no such turn.
        """
        self._end_answer()
        last = self._turns[turn]
        with self._without(turn):
            return self._ask(last.user, list(last.prompt), options)

    def edit(self, turn: int, text: str, **options: Unpack[Options]) -> "Answer":
        """Say *text* in place of what was said in *turn*; later turns are forgotten.

        Raises IndexError if there is no such turn.
        """
        self._end_answer()
        with self._without(turn):
            return self._ask(text, self._prompt(text), options)

    def undo(self) -> None:
        """Forget the last turn; IndexError if there is none."""
        self._end_answer()
        self._turns.pop()

    def set_system(self, system: str | None) -> None:
        """Change the system prompt and forget all turns, which it came before."""
        self._end_answer()
        self._system = system
        self._turns.clear()

    def fork(self, turns: int | None = None) -> "Conversation":
        """A second conversation that goes on from here, or from after its first *turns*.

        Its cache takes as much memory as this one's.
        """
        self._end_answer()
        other = Conversation.__new__(Conversation)
        other._model, other._system, other._options = self._model, self._system, self._options
        other._cache, other._cached = self._cache.fork(), list(self._cached)
        other._turns, other._answer = self._turns[:turns], None
        return other

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the chat and its cache to a file that only its owner can read.

        The file is replaced when the new one is complete. Raises OSError.
        """
        self._end_answer()
        turns = [asdict(turn) for turn in self._turns]
        more = {"content": "conversation", "system": self._system, "turns": turns}
        save_cache(path, self._model._engine, self._cache, self._cached, more)

    @classmethod
    def load(cls, model: Host, path: str | os.PathLike[str], **options: Unpack[Options]) -> Self:
        """Go on with a chat that `save` wrote, with the same next answers as if it had not ended.

        Raises FormatError for a file that is damaged, of another model or of another kind of cache,
        ValueError if the context of *model* is too short for it, and OSError.
        """
        header, cache, cached = load_cache(path, model._engine, model.context, "conversation")
        system, turns = header.get("system"), header.get("turns")
        if not isinstance(system, str | None) or not isinstance(turns, list):
            raise FormatError(f"{path}: system and turns are {quote(system)}, {quote(turns)}")
        loaded = cls.__new__(cls)
        loaded._model, loaded._system, loaded._options = model, system, options
        loaded._cache, loaded._cached, loaded._answer = cache, cached, None
        loaded._turns = [_turn(entry, model.config.vocab_size, path) for entry in turns]
        return loaded

    def _messages(self, turns: Sequence[Turn]) -> list[Message]:
        messages: list[Message] = []
        if self._system is not None:
            messages.append({"role": "system", "content": self._system})
        for turn in turns:
            messages.append({"role": "user", "content": turn.user})
            messages.append({"role": "assistant", "content": turn.answer})
        return messages

    def _prompt(self, text: str) -> list[int]:
        """All ids before the answer to *text*."""
        templates = self._model.chat_templates
        messages = [*self._messages(self._turns), Message(role="user", content=text)]
        if self._turns:
            last = self._turns[-1]
            after = templates.encode_after(messages, len(messages) - 2)
            if after is not None:
                return [*last.prompt, *last.ids, *after]
        return templates.encode(messages)

    def _ask(self, user: str, prompt: list[int], options: Options) -> "Answer":
        known = min(len(prompt) - 1, len(self._cached))
        pairs = zip(prompt[:known], self._cached, strict=False)
        reused = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))
        chosen = self._model._chat_options({**self._options, **options})
        if chosen.get("prompt_logprobs") is not None:
            reused = 0  # the whole prompt must run
        stream = self._model._stream_on(self._cache, prompt, reused, chosen)
        self._cache.rewind(reused)
        del self._cached[reused:]
        self._answer = Answer(self, stream)
        self._turns.append(Turn(user, "", "interrupted", tuple(prompt), ()))
        return self._answer

    def _settle(self) -> None:
        """Bring the last turn, and what is known of the cache, up to date with its answer."""
        if self._answer is None:
            return
        result = self._answer._stream.result
        turn = replace(
            self._turns[-1],
            answer=result.text,
            ids=result.ids,
            finish_reason=result.finish_reason,
        )
        self._turns[-1] = turn
        ids = [*turn.prompt, *turn.ids]
        # Tokens that were chosen ahead of those shown are in the cache, but not in the answer.
        if self._answer._ended:
            self._cache.rewind(min(len(ids), self._cache.position))
            self._answer = None
        self._cached = ids[: self._cache.position]

    def _end_answer(self) -> None:
        if self._answer is not None:
            self._answer.close()

    @contextmanager
    def _without(self, turn: int) -> Iterator[None]:
        """Forget *turn* and those after it, unless what follows fails."""
        kept = list(self._turns)
        self._turns[turn]  # an IndexError if there is none
        del self._turns[turn:]
        try:
            yield
        except BaseException:
            self._turns = kept
            raise


class Answer:
    """Iterates over the pieces of an answer while it is written; ``result`` sums up what came."""

    def __init__(self, conversation: Conversation, stream: TextStream) -> None:
        """`Conversation.say` makes one."""
        self._conversation, self._stream = conversation, stream
        self._ended = False

    def __iter__(self) -> Iterator[str]:
        """Return itself."""
        return self

    def __next__(self) -> str:
        """Return the next piece, never an empty one; errors are those of `TextStream`."""
        try:
            return next(self._stream)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """End the answer where it is. What has come so far stays in the conversation."""
        if not self._ended:
            self._stream.close()
            self._ended = True
            if self._conversation._answer is self:
                self._conversation._settle()

    @property
    def text(self) -> str:
        """The whole answer; waits for its end."""
        for _ in self:
            pass
        return self._stream.result.text

    @property
    def result(self) -> Generation:
        """Everything that has come so far, with its timings."""
        return self._stream.result


def _turn(entry: Any, vocab_size: int, path: str | os.PathLike[str]) -> Turn:
    """A turn from a file."""
    if not isinstance(entry, dict):
        raise FormatError(f"{path}: a turn is {quote(entry)}")
    user, answer, reason = (entry.get(key) for key in ("user", "answer", "finish_reason"))
    if not isinstance(user, str) or not isinstance(answer, str):
        raise FormatError(f"{path}: a turn says {quote(user)} and {quote(answer)}")
    if reason not in get_args(FinishReason):
        raise FormatError(f"{path}: a turn ended by {quote(reason)}")
    for ids in (entry.get("prompt"), entry.get("ids")):
        if not isinstance(ids, list) or not all(
            type(id) is int and 0 <= id < vocab_size for id in ids
        ):
            raise FormatError(f"{path}: a turn has the ids {quote(ids)}")
    reason = cast(FinishReason, reason)
    return Turn(user, answer, reason, tuple(entry["prompt"]), tuple(entry["ids"]))

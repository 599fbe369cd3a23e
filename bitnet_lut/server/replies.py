"""From a request to prompts and options, and from texts to the answer."""

import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from msgspec import UNSET, Struct

from bitnet_lut.model import Model
from bitnet_lut.runtime.decoder import Decoder
from bitnet_lut.runtime.generation import Generation
from bitnet_lut.runtime.logprobs import TokenLogprob
from bitnet_lut.runtime.options import Options
from bitnet_lut.server.errors import RequestError
from bitnet_lut.server.options import options_of
from bitnet_lut.server.protocol import (
    ChatAnswer,
    ChatChoice,
    ChatChunk,
    ChatDelta,
    ChatMessage,
    ChatRequest,
    ChunkChoice,
    CompletionAnswer,
    CompletionChoice,
    CompletionRequest,
    Generating,
    PromptDetails,
    Usage,
)
from bitnet_lut.server.scores import CompletionScores, ShownTokens, chat_scores
from bitnet_lut.server.texts import Piece
from bitnet_lut.server.tools import choose_tools, find_calls

__all__ = ["ChatReply", "CompletionReply", "Prepared", "Reply"]

_REASONS = {"eos": "stop", "stop": "stop", "length": "length", "context": "length"}
_COMPLETION_TOKENS = 16  # what a completion has by default, as at OpenAI


class Prepared(NamedTuple):
    """Prompts as ids, and how to continue them."""

    prompts: list[list[int]]
    options: Options


class Reply(ABC):
    """The answer to one request."""

    def __init__(self, model: Model, request: Generating, fingerprint: str, kind: str) -> None:
        """*kind* begins its id."""
        self._model, self._tokenizer = model, model.tokenizer
        self.streams = bool(request.stream)
        self.choices = request.n or 1
        options = request.stream_options
        self._usage: None | Any = None if options and options.include_usage else UNSET
        self._head: dict[str, Any] = {
            "id": f"{kind}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": request.model or "",
            "system_fingerprint": fingerprint,
        }
        self._shown: dict[int, ShownTokens] = {}

    @abstractmethod
    def prepare(self) -> Prepared:
        """Work that takes a while: tokenization, templates. Raises what says what is wrong."""

    @abstractmethod
    def whole(self, results: Sequence[Generation], decoders: Sequence[Decoder]) -> Struct:
        """The answer that is no stream."""

    @abstractmethod
    def events(self, piece: Piece, decoders: Sequence[Decoder]) -> Iterator[Struct]:
        """What a stream tells of a *piece*."""

    def end(self, decoders: Sequence[Decoder]) -> Iterator[Struct]:
        """The last events of a stream."""
        if self._usage is None:
            yield self._chunk([], self._sum(decoders))

    @abstractmethod
    def _chunk(self, choices: list[Any], usage: Any) -> Struct:
        """An event."""

    def _shown_tokens(self, piece: Piece, decoder: Decoder) -> list[TokenLogprob]:
        shown = self._shown.setdefault(piece.choice, ShownTokens(self._tokenizer))
        cut = piece.ended and decoder.finish_reason == "stop"
        return shown.take(piece.text, piece.logprobs, ended=piece.ended, cut=cut)

    def _all_shown(self, result: Generation) -> list[TokenLogprob]:
        shown = ShownTokens(self._tokenizer)
        cut = result.finish_reason == "stop"
        return shown.take(result.text, result.logprobs or (), ended=True, cut=cut)

    def _sum(self, decoders: Sequence[Decoder]) -> Usage:
        prompts = decoders[:: self.choices]
        asked = sum(len(decoder.prompt) for decoder in prompts)
        given = sum(len(decoder.ids) for decoder in decoders)
        reused = sum(decoder.reused for decoder in prompts)
        return Usage(asked, given, asked + given, PromptDetails(reused))


class CompletionReply(Reply):
    """The answer of /v1/completions."""

    def __init__(self, model: Model, request: CompletionRequest, fingerprint: str) -> None:
        """Refuse what is not supported."""
        super().__init__(model, request, fingerprint, "cmpl")
        if request.best_of not in (None, self.choices):
            raise RequestError(
                400,
                "best_of is not supported: it hides most of what it computes; ask for n texts with "
                "logprobs and choose",
                "best_of",
            )
        if request.suffix:
            raise RequestError(400, "suffix is not supported: the models have no infill", "suffix")
        self._request = request
        self._scored: dict[int, CompletionScores] = {}  # of texts that have begun

    def prepare(self) -> Prepared:
        """See `Reply`."""
        request, model = self._request, self._model
        limit = _COMPLETION_TOKENS if request.max_tokens is None else request.max_tokens
        options = options_of(request, model.default_sampling, limit)
        options["logprobs"] = request.logprobs
        if request.echo:
            options["prompt_logprobs"] = request.logprobs
        prompts = request.prompts
        self._texts = [one if isinstance(one, str) else None for one in prompts]
        return Prepared([model._prompt_ids(one) for one in prompts], options)

    def whole(self, results: Sequence[Generation], decoders: Sequence[Decoder]) -> Struct:
        """See `Reply`."""
        choices = []
        for index, result in enumerate(results):
            text, scores = self._echo(index, decoders)
            tokens = self._scored_tokens(self._all_shown(result), decoders[index])
            choices.append(
                CompletionChoice(
                    text + result.text,
                    index,
                    self._scores(index, [*scores, *tokens]),
                    _REASONS[result.finish_reason],
                )
            )
        return CompletionAnswer(**self._head, choices=choices, usage=self._sum(decoders))

    def events(self, piece: Piece, decoders: Sequence[Decoder]) -> Iterator[Struct]:
        """See `Reply`."""
        decoder = decoders[piece.choice]
        shown = self._shown_tokens(piece, decoder)
        tokens = self._scored_tokens(shown, decoder if piece.ended else None)
        text = piece.text
        scores: list[tuple[int, TokenLogprob | None]] = []
        if piece.choice not in self._scored:
            echo, scores = self._echo(piece.choice, decoders)
            text = echo + text
        found = self._scores(piece.choice, [*scores, *tokens])
        reason = _REASONS[decoder.finish_reason] if piece.ended else None
        if text or tokens or reason:
            yield self._chunk([CompletionChoice(text, piece.choice, found, reason)], UNSET)

    def _chunk(self, choices: list[Any], usage: Any) -> Struct:
        return CompletionAnswer(**self._head, choices=choices, usage=usage)

    def _scores(
        self, choice: int, tokens: Sequence[tuple[int, TokenLogprob | None]]
    ) -> dict[str, Any] | None:
        if choice not in self._scored:
            self._scored[choice] = CompletionScores(self._tokenizer, echo=bool(self._request.echo))
        return None if self._request.logprobs is None else self._scored[choice].take(tokens)

    def _scored_tokens(
        self, shown: Sequence[TokenLogprob], ended: Decoder | None
    ) -> list[tuple[int, TokenLogprob | None]]:
        """Tokens with their scores, and the token that *ended* the text, as at OpenAI.

        Evaluation harnesses drop the last one: they ask for one token after a prompt.
        """
        end = ended.end_logprob if ended else None
        return [(token.id, token) for token in [*shown, *([end] if end else [])]]

    def _echo(
        self, choice: int, decoders: Sequence[Decoder]
    ) -> tuple[str, list[tuple[int, TokenLogprob | None]]]:
        """The prompt of a text and its scores, where the request wants them back."""
        if not self._request.echo:
            return "", []
        group = choice // self.choices
        first = decoders[group * self.choices]
        text = self._texts[group]
        if text is None:
            text = self._tokenizer.decode(first.prompt, skip_special=True)
        scores = first.prompt_logprobs or ()
        return text, list(zip(first.prompt, scores, strict=False))


class ChatReply(Reply):
    """The answer of /v1/chat/completions."""

    def __init__(self, model: Model, request: ChatRequest, fingerprint: str) -> None:
        """Refuse what is not supported."""
        super().__init__(model, request, fingerprint, "chatcmpl")
        limits = {request.max_tokens, request.max_completion_tokens} - {None}
        if len(limits) > 1:
            raise RequestError(
                400, "max_tokens and max_completion_tokens differ: give one", "max_tokens"
            )
        if request.top_logprobs is not None and not request.logprobs:
            raise RequestError(400, "top_logprobs needs logprobs: true", "top_logprobs")
        if request.store:
            raise RequestError(400, "store is not supported: nothing is kept here", "store")
        if request.tools and request.logprobs and request.stream:
            raise RequestError(400, "logprobs of a stream do not go with tools", "logprobs")
        self._request, self._limit = request, limits.pop() if limits else None
        self._tools = choose_tools(request.tools, request.tool_choice)
        self._held: dict[int, str] = {}  # answers that may be calls
        self._begun: set[int] = set()

    def prepare(self) -> Prepared:
        """See `Reply`."""
        request, model = self._request, self._model
        if self._tools.offered and not model.chat_templates.carries_tools:
            raise RequestError(400, "the chat template of this model does not carry tools", "tools")
        options = options_of(request, model.default_sampling, self._limit)
        if self._tools.schema is not None:
            if options["response_format"] is not None:
                raise RequestError(
                    400, "a required call does not go with a response format", "tool_choice"
                )
            options["response_format"] = self._tools.schema
        options["logprobs"] = (request.top_logprobs or 0) if request.logprobs else None
        ids = model.apply_chat_template(
            [_given(message) for message in request.messages],
            tools=self._tools.offered,
            variables=request.chat_template_kwargs,
        )
        return Prepared([model._prompt_ids(ids)], model._chat_options(options))

    def whole(self, results: Sequence[Generation], decoders: Sequence[Decoder]) -> Struct:
        """See `Reply`."""
        choices = []
        for index, result in enumerate(results):
            text, calls = self._calls(result.text)
            message = ChatMessage(text or None if calls else text)
            if calls:
                message.tool_calls = calls
            scores = None
            if self._request.logprobs:
                scores = chat_scores(self._tokenizer, self._all_shown(result))
            reason = "tool_calls" if calls else _REASONS[result.finish_reason]
            choices.append(ChatChoice(index, message, scores, reason))
        return ChatAnswer(**self._head, choices=choices, usage=self._sum(decoders))

    def events(self, piece: Piece, decoders: Sequence[Decoder]) -> Iterator[Struct]:
        """See `Reply`. What may be a call is told when it is whole."""
        index, decoder = piece.choice, decoders[piece.choice]
        if index not in self._begun:
            self._begun.add(index)
            yield self._delta(index, ChatDelta(role="assistant", content=""))
        text = piece.text
        calls: list[dict[str, Any]] = []
        if self._tools.offered:
            self._held[index] = self._held.get(index, "") + text
            text, calls = self._calls(self._held[index]) if piece.ended else ("", [])
        tokens = self._shown_tokens(piece, decoder) if self._request.logprobs else []
        if text or tokens:
            scores = chat_scores(self._tokenizer, tokens) if self._request.logprobs else None
            yield self._delta(index, ChatDelta(content=text), scores)
        for place, call in enumerate(calls):
            yield self._delta(index, ChatDelta(tool_calls=[{"index": place} | call]))
        if piece.ended:
            reason = "tool_calls" if calls else _REASONS[decoder.finish_reason]
            yield self._delta(index, ChatDelta(), None, reason)

    def _delta(
        self,
        index: int,
        delta: ChatDelta,
        scores: dict[str, Any] | None = None,
        reason: str | None = None,
    ) -> Struct:
        return self._chunk([ChunkChoice(index, delta, scores, reason)], self._usage)

    def _chunk(self, choices: list[Any], usage: Any) -> Struct:
        return ChatChunk(**self._head, choices=choices, usage=usage)

    def _calls(self, text: str) -> tuple[str, list[dict[str, Any]]]:
        return find_calls(text) if self._tools.offered else (text, [])


def _given(message: dict[str, Any]) -> dict[str, Any]:
    """A message without the fields that clients send back empty."""
    return {key: value for key, value in message.items() if value is not None and value != []}

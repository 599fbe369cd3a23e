"""How likely a model finds a text after another; `Model` inherits it."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, overload

from bitnet_lut.runtime.arguments import is_many, named, prompt_ids
from bitnet_lut.runtime.engine import Engine
from bitnet_lut.runtime.scoring import Passage, score
from bitnet_lut.text.tokenizer import Tokenizer

__all__ = ["Likelihood", "Loglikelihood", "encode_text"]

Text = str | Sequence[int]
Texts = list[str] | tuple[str, ...] | list[list[int]] | tuple[list[int], ...]


class Loglikelihood(NamedTuple):
    """How likely a continuation is.

    logprob: natural logarithm of its probability, the sum over its tokens.
    is_greedy: whether greedy decoding would write it: each token is the likeliest.
    """

    logprob: float
    is_greedy: bool


class Likelihood:
    """How likely a model finds texts."""

    if TYPE_CHECKING:
        # What the model has besides, for type checkers.
        _engine: Engine

        @property
        def tokenizer(self) -> Tokenizer: ...  # noqa: D102
        @property
        def context(self) -> int: ...  # noqa: D102

    @overload
    def loglikelihood(self, context: str, continuation: str) -> Loglikelihood: ...
    @overload
    def loglikelihood(
        self, context: Sequence[int], continuation: Sequence[int]
    ) -> Loglikelihood: ...
    @overload
    def loglikelihood(self, context: Text | Texts, continuation: Texts) -> list[Loglikelihood]: ...
    def loglikelihood(
        self, context: Text | Texts, continuation: Text | Texts
    ) -> Loglikelihood | list[Loglikelihood]:
        """How likely *continuation* is after *context*: two texts, or ids of both.

        Many, as lists or tuples of one length, run together, and a beginning that they have in
        common runs once; one context goes with each of many continuations.

        Texts become ids as in lm-eval: spaces at the end of a context belong to the continuation,
        the tokens of which are those of both together that the context alone does not have, and an
        empty context is BOS, or EOS for a model that has none.
        Raises TypeError for what is neither texts nor ids, ValueError for a continuation without a
        token of its own, ids outside the vocabulary and more tokens than the context has room for
        (errors in one of many begin with its number), NumericsError if the model produces NaN or
        Inf, and MemoryError.
        """
        if not is_many(continuation):
            return self._loglikelihoods([(context, continuation)], [""])[0]
        contexts = context if is_many(context) else [context] * len(continuation)
        if len(contexts) != len(continuation):
            raise ValueError(f"{len(contexts)} contexts for {len(continuation)} continuations")
        names = [f"pair {place}: " for place in range(len(contexts))]
        return self._loglikelihoods(list(zip(contexts, continuation, strict=True)), names)

    def _loglikelihoods(
        self, pairs: Sequence[tuple[Any, Any]], names: Sequence[str]
    ) -> list[Loglikelihood]:
        passages = []
        for (context, continuation), name in zip(pairs, names, strict=True):
            try:
                passages.append(self._passage(context, continuation))
            except (TypeError, ValueError) as error:
                raise named(error, name) from None
        return [
            Loglikelihood(float(found.logprobs.sum()), bool(found.greedy.all()))
            for found in score(self._engine, passages)
        ]

    def _passage(self, context: Any, continuation: Any) -> Passage:
        if isinstance(context, str) and isinstance(continuation, str):
            before, after = _encode_pair(self.tokenizer, context, continuation)
        elif isinstance(context, str) or isinstance(continuation, str):
            raise TypeError("context and continuation must both be texts, or both be ids")
        else:
            size = self._engine.config.vocab_size
            before, after = prompt_ids(context, size), prompt_ids(continuation, size)
        if not before or not after:
            what = "context" if after else "continuation"
            raise ValueError(f"the {what} has no tokens of its own: there is nothing to score")
        if len(before) + len(after) - 1 > self.context:
            raise ValueError(
                f"{len(before)} tokens and a continuation of {len(after)} do not fit the context "
                f"of {self.context}: shorten them or open the model with a longer context"
            )
        return Passage([*before, *after], len(before))


def encode_text(tokenizer: Tokenizer, text: str) -> list[int]:
    """The ids of *text* as lm-eval makes them: no EOS, and no BOS before one that is spelled."""
    bos = tokenizer.bos_id
    has_bos = bos is not None and text.startswith(tokenizer.token_text(bos))
    return tokenizer.encode(text, add_bos=False if has_bos else None, add_eos=False)


def _encode_pair(
    tokenizer: Tokenizer, context: str, continuation: str
) -> tuple[list[int], list[int]]:
    """The ids of *context*, and those that *continuation* adds."""
    if not context:
        start = tokenizer.eos_id if tokenizer.bos_id is None else tokenizer.bos_id
        ids = tokenizer.encode(continuation, add_bos=False, add_eos=False)
        if start is None or ids[:1] == [start]:
            return ids[:1], ids[1:]
        return [start], ids
    end = len(context.rstrip())
    before = encode_text(tokenizer, context[:end])
    return before, encode_text(tokenizer, context + continuation)[len(before) :]

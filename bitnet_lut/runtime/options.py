"""The keyword arguments that all ways to generate text share."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Literal, TypedDict

from bitnet_lut.runtime.sampling import LogitsProcessor, Sampling

if TYPE_CHECKING:
    from bitnet_lut.text.grammar import ResponseFormat

__all__ = ["Options", "refuse_unknown"]


class Options(TypedDict, total=False):
    """Keyword arguments of `Model.generate`, which explains them."""

    max_tokens: int
    sampling: Sampling | Literal["model"] | None
    stop: str | Sequence[str]
    stop_token_ids: Collection[int]
    min_tokens: int
    ignore_eos: bool
    logprobs: int | None
    prompt_logprobs: int | None
    n: int
    bad_words: str | Collection[str | Sequence[int]]
    logits_processors: Sequence[LogitsProcessor]
    response_format: "ResponseFormat | None"
    speculate: bool


def refuse_unknown(names: Iterable[str]) -> None:
    """Raise TypeError if one of *names* is not an argument of `Options`."""
    known = Options.__annotations__
    for name in names:
        if name in known:
            continue
        if name in {field.name for field in fields(Sampling)}:
            raise TypeError(f"{name} is part of sampling: sampling=Sampling({name}=...)")
        raise TypeError(f"{name!r} is not one of the arguments {', '.join(known)}")

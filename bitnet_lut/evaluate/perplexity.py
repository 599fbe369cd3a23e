"""Perplexity of a text, by the two definitions that published figures follow."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np

from bitnet_lut.model import Model
from bitnet_lut.runtime.arguments import prompt_ids, whole_number
from bitnet_lut.runtime.scoring import Passage, score
from bitnet_lut.text.tokenizer import Tokenizer

__all__ = ["LIKE", "Like", "Perplexity", "perplexity"]

Like: TypeAlias = Literal["llama.cpp", "transformers"]
LIKE: tuple[Like, ...] = get_args(Like)
_CONTEXT = 512  # llama-perplexity's default
_STRIDE = 512  # that of the example in the documentation of transformers


@dataclass(frozen=True)
class Perplexity:
    """How well a model predicts a text.

    perplexity: by the definition of *like*. error: its standard error, as llama.cpp computes it.
    bits_per_byte: of the scored tokens, each counted once; comparable between vocabularies.
    tokens: how many were scored. text_tokens: how many the text has.
    windows: how many runs they were scored in. context: ids in the longest of them.
    stride: ids from the start of one window to that of the next.
    """

    perplexity: float
    error: float
    bits_per_byte: float
    tokens: int
    text_tokens: int
    windows: int
    context: int
    stride: int
    like: Like


def perplexity(
    model: Model,
    text: str | Sequence[int],
    *,
    like: Like = "llama.cpp",
    context: int | None = None,
    stride: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Perplexity:
    """How well *model* predicts *text*, or ids.

    like: "llama.cpp": windows of *context* ids (512) that do not overlap, BOS in place of the first
        of each where the model begins texts with one; what follows in the second half of each is
        scored, and a rest that fills no window is not. "transformers": as in its documentation on
        the perplexity of models of fixed length: a window of *context* ids (the model's) slides by
        *stride* (512), and what the window before did not hold is scored. Its mean gives all
        windows but the first the weight of one token less than they score, as theirs does.
    progress: called with the ids that were run, and how many there are.

    Raises TypeError or ValueError for arguments out of range and a text that is too short, and what
    `Model.loglikelihood` raises.
    """
    if like not in LIKE:
        raise ValueError(f"like is {like!r}, it must be {' or '.join(map(repr, LIKE))}")
    ids = _ids(model, text)
    if like == "llama.cpp":
        if stride is not None:
            raise ValueError("stride is for like='transformers': llama.cpp's windows do not slide")
        context = min(_CONTEXT, model.context) if context is None else context
        stride = context = whole_number("context", context, 4, model.context)
        windows = list(_halves(ids, context, model.tokenizer))
    else:
        context = model.context if context is None else context
        context = whole_number("context", context, 2, model.context)
        stride = min(_STRIDE, context) if stride is None else stride
        stride = whole_number("stride", stride, 1, context)
        windows = list(_sliding(ids, context, stride))
    found = score(model._engine, [passage for passage, _ in windows], progress)
    means = [-float(one.logprobs.mean()) for one in found]
    figure = math.exp(np.average(means, weights=[weight for _, weight in windows]))
    losses = -np.concatenate([one.logprobs for one in found])
    scored = [id for passage, _ in windows for id in passage.ids[passage.start :]]
    nbytes = max(1, sum(len(model.tokenizer.piece(id)) for id in scored))
    return Perplexity(
        perplexity=figure,
        error=figure * math.sqrt(losses.var() / (len(losses) - 1)),
        bits_per_byte=float(losses.sum()) / math.log(2) / nbytes,
        tokens=len(losses),
        text_tokens=len(ids),
        windows=len(windows),
        context=context,
        stride=stride,
        like=like,
    )


def _ids(model: Model, text: str | Sequence[int]) -> list[int]:
    if isinstance(text, str):
        return model.tokenizer.encode(text, add_eos=False)
    return prompt_ids(text, model.config.vocab_size)


def _halves(ids: list[int], context: int, tokenizer: Tokenizer) -> Iterator[tuple[Passage, int]]:
    """The windows of llama.cpp, and the numbers of ids that they score, which are their weights."""
    if len(ids) < 2 * context:
        raise ValueError(
            f"the text has {len(ids)} tokens, two windows of {context} are the least: give a "
            "longer text or a shorter context"
        )
    scored_from = context // 2 + 1
    for start in range(0, len(ids) - context + 1, context):
        window = ids[start : start + context]
        if tokenizer.add_bos and tokenizer.bos_id is not None:
            window[0] = tokenizer.bos_id
        yield Passage(window, scored_from), context - scored_from


def _sliding(ids: list[int], context: int, stride: int) -> Iterator[tuple[Passage, int]]:
    """The windows of transformers' documentation, and the weights of their means.

    A weight is the number of ids that are new in a window, less one for the shift of the labels. In
    the first window that one is the id nothing comes before; most others score all that is new.
    """
    if len(ids) < 3:
        raise ValueError(f"the text has {len(ids)} tokens, at least three are needed")
    before = 0
    for start in range(0, len(ids), stride):
        end = min(start + context, len(ids))
        if end - start > 1:
            yield Passage(ids[start:end], max(1, before - start)), end - before - 1
        if end == len(ids):
            return
        before = end

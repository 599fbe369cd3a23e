"""What a model does with ordinary text: how well it predicts it, and what it writes."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.diagnose.running import Runner, Variant
from bitnet_lut.diagnose.texts import PROMPTS
from bitnet_lut.errors import NumericsError

__all__ = ["QUICK", "Behavior", "TextScore", "behavior", "log_softmax", "p_of_end", "score_text"]

QUICK = 96  # tokens of each text that a trial runs
_LONG = 256  # and those of the full measurement
_WRITTEN = 32


@dataclass(frozen=True)
class TextScore:
    """How well a model predicts a text.

    bits_per_byte: infinite if the model gave NaN or Inf. uniform: of a model that finds every token
    equally likely. entropy: mean of the predicted distributions, in bits per token.
    agreement: share of the tokens that the model would have chosen. p_end: mean chance that the
    text ends before its next token.
    """

    tokens: int
    bits_per_byte: float
    uniform: float
    entropy: float
    agreement: float
    p_end: float = 0.0


@dataclass(frozen=True)
class Behavior:
    """What a model does with ordinary text.

    scores: by the name of the text. p_end: chance of an end token after each of ``texts.PROMPTS``;
    empty if the model has none. repetition: share of the pairs of tokens, of those it writes
    greedily, that occurred before. written: that text.
    """

    scores: dict[str, TextScore]
    p_end: tuple[float, ...]
    repetition: float
    written: str

    @property
    def best(self) -> TextScore:
        """The score of the text it predicts best."""
        return min(self.scores.values(), key=lambda score: score.bits_per_byte)


def behavior(runner: Runner, variant: Variant, texts: Mapping[str, str]) -> Behavior:
    """Measure a model with some hundred tokens."""
    scores = {name: score_text(runner, variant, text, _LONG) for name, text in texts.items()}
    try:
        p_end = tuple(p_of_end(runner, variant, prompt) for prompt in PROMPTS)
        repetition, written = _write(runner, variant, PROMPTS[1])
    except NumericsError:
        return Behavior(scores, (), 0.0, "")
    return Behavior(scores, p_end if variant.tokenizer.eos_ids else (), repetition, written)


def score_text(runner: Runner, variant: Variant, text: str, tokens: int) -> TextScore:
    """Run the first *tokens* tokens of a text."""
    tokenizer = variant.tokenizer
    ids = tokenizer.encode(text, add_eos=False)[: min(tokens, variant.config.context_length)]
    uniform_nats = (len(ids) - 1) * math.log(variant.config.vocab_size)
    nbytes = max(1, sum(len(tokenizer.piece(id)) for id in ids[1:]))
    uniform = uniform_nats / math.log(2) / nbytes
    try:
        logits = runner.logits(variant, ids)[:-1]
    except NumericsError:
        return TextScore(len(ids) - 1, math.inf, uniform, math.nan, 0.0)
    targets = np.array(ids[1:])
    log_p = log_softmax(logits)
    loss = -float(log_p[np.arange(len(targets)), targets].sum(dtype=np.float64))
    entropy = -float((np.exp(log_p) * log_p).sum(axis=1).mean()) / math.log(2)
    agreement = float((logits.argmax(axis=1) == targets).mean())
    bits = loss / math.log(2) / nbytes
    p_end = float(np.exp(log_p[:, sorted(tokenizer.eos_ids)]).sum(axis=1).mean())
    return TextScore(len(targets), bits, uniform, entropy, agreement, p_end)


def log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Logarithms of the probabilities, over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    found: NDArray[np.float32] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return found


def p_of_end(runner: Runner, variant: Variant, prompt: str) -> float:
    """The chance that the model ends right after *prompt*."""
    tokenizer = variant.tokenizer
    ids = tokenizer.encode(prompt, add_eos=False)
    last = np.exp(log_softmax(runner.logits(variant, ids)[-1]))
    return float(last[sorted(tokenizer.eos_ids)].sum())


def _write(runner: Runner, variant: Variant, prompt: str) -> tuple[float, str]:
    """Write on greedily; returns the share of repeated pairs of tokens, and the text."""
    tokenizer = variant.tokenizer
    ids = tokenizer.encode(prompt, add_eos=False)
    room = min(variant.config.context_length, len(ids) + _WRITTEN)
    if variant.arithmetic == "float":
        return 0.0, ""  # too slow, token by token
    session = runner.session(variant, room)
    written: list[int] = []
    logits = session.step(ids)
    while session.position < room:
        token = int(logits.argmax())
        if token in tokenizer.eos_ids:
            break
        written.append(token)
        logits = session.step([token])
    return _repetition(written), tokenizer.decode(written, start=False)


def _repetition(ids: Sequence[int]) -> float:
    pairs = list(pairwise(ids))
    return 1 - len(set(pairs)) / len(pairs) if pairs else 0.0

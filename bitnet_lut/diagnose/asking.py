"""Asking a model for the ends of sentences, to compare it with a variant of itself."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import _native
from bitnet_lut.diagnose.behavior import log_softmax
from bitnet_lut.diagnose.facts import Fact
from bitnet_lut.diagnose.running import Runner, Variant
from bitnet_lut.runtime.engine import Engine

__all__ = ["Answers", "ask", "gain"]

Floats = NDArray[np.float64]

# A token that is less likely than this counts as if it were this likely. Nothing then weighs more
# than a plain wrong answer: how sure a broken model is of its nonsense says nothing.
_FLOOR = 1e-3
_AT_ONCE = 32  # sentences
# A change that matters saves that many bits of a sentence, and that share of what it held.
_LEAST_BITS, _LEAST_SHARE = 0.02, 0.1
_INFINITE = 100.0  # bits of a sentence that gave NaN or infinity


@dataclass(frozen=True)
class Answers:
    """What a model made of sentences.

    bits: for each group, of each sentence: the information that its end still held, each token no
        more than _FLOOR allows. Infinite if the model gave NaN or Inf.
    bits_per_byte: of all ends, without the floor. known: ends that the model would have written
        itself, of how many: asked.
    """

    bits: Mapping[str, Floats]
    bits_per_byte: float
    known: int
    asked: int

    @property
    def mean(self) -> float:
        """Mean of the bits of all sentences."""
        return float(np.concatenate(list(self.bits.values())).mean())

    def __str__(self) -> str:
        """In words."""
        return f"{self.known} of {self.asked} sentences ended as expected"


def ask(runner: Runner, variant: Variant, groups: Mapping[str, Sequence[Fact]]) -> Answers:
    """Ask for the ends of all sentences, each alone."""
    with np.errstate(over="ignore", invalid="ignore"):
        weights = _native.Weights(
            variant.config, variant.tensors, isa=runner.isa, threads=runner.threads
        )
        engine = Engine(weights, runner.pool, kind="f32", context=64)
        bits: dict[str, Floats] = {}
        total, known, nbytes, asked = 0.0, 0, 0, 0
        for group, facts in groups.items():
            parts = [
                _ask(engine, variant, facts[start : start + _AT_ONCE])
                for start in range(0, len(facts), _AT_ONCE)
            ]
            bits[group] = np.concatenate([floored for floored, _, _ in parts])
            total += sum(plain for _, plain, _ in parts)
            known += sum(right for _, _, right in parts)
            nbytes += sum(len(end.encode()) for _, end in facts)
            asked += len(facts)
    return Answers(bits, total / nbytes, known, asked)


def _ask(engine: Engine, variant: Variant, facts: Sequence[Fact]) -> tuple[Floats, float, int]:
    """The floored bits of each end, the bits of all, and how many ends were known."""
    chunks: list[tuple[_native.Cache, NDArray[np.int32]]] = []
    rows: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    at = 0
    for number, (ids, start) in enumerate(_encoded(variant, facts)):
        chunks.append((engine.cache(len(ids)), np.array(ids, np.int32)))
        rows += range(at + start - 1, at + len(ids) - 1)
        targets += ids[start:]
        owner += [number] * (len(ids) - start)
        at += len(ids)
    logits = np.empty((len(rows), variant.config.vocab_size), np.float32)
    finite = engine.step(chunks, np.array(rows, np.int64), logits)
    if not finite.all():
        return np.full(len(facts), math.inf), math.inf, 0
    wanted = np.array(targets)
    log_p = log_softmax(logits)[np.arange(len(wanted)), wanted].astype(np.float64)
    bits = -np.log2(np.exp(log_p) + _FLOOR)
    floored = np.bincount(owner, bits, len(facts)).astype(np.float64)
    wrong = np.bincount(owner, logits.argmax(axis=1) != wanted, len(facts))
    return floored, -float(log_p.sum()) / math.log(2), int((wrong == 0).sum())


def _encoded(variant: Variant, facts: Sequence[Fact]) -> Iterator[tuple[list[int], int]]:
    """Ids of each sentence, and the first that belongs to its end."""
    encode = variant.tokenizer.encode
    for beginning, end in facts:
        opening = encode(beginning, add_eos=False)
        ids = list(encode(beginning + end, add_eos=False))[: variant.config.context_length]
        same = 0
        while same < min(len(opening), len(ids) - 1) and opening[same] == ids[same]:
            same += 1
        yield ids, max(1, same)


def gain(old: Answers, new: Answers) -> float:
    """How surely *new* knows more than *old*: in standard deviations, of the group that says most.

    0 where it does not, or where the difference is too small to matter.
    """
    if min(new.mean, _INFINITE) > min(old.mean, _INFINITE):
        return 0.0
    return max(_gain(old.bits[group], new.bits[group]) for group in old.bits)


def _gain(old: Floats, new: Floats) -> float:
    """By the mean of what is saved, or by the number of sentences that are better and worse."""
    old = np.minimum(old, _INFINITE)
    saved = old - np.minimum(new, _INFINITE)
    mean = float(saved.mean())
    if mean < max(_LEAST_BITS, _LEAST_SHARE * float(old.mean())):
        return 0.0
    error = float(saved.std()) / math.sqrt(len(saved))
    better, worse = int((saved > _LEAST_BITS).sum()), int((saved < -_LEAST_BITS).sum())
    return max(mean / max(error, 1e-9), (better - worse) / math.sqrt(max(better + worse, 1)))

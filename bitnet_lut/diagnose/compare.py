"""How far two models are apart: their weights, and what they make of a text."""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.diagnose.compare_tensors import TensorComparison, compare_tensors
from bitnet_lut.diagnose.diverge import choose_ids
from bitnet_lut.diagnose.sources import AnySource, Source, open_source
from bitnet_lut.diagnose.texts import TEXTS
from bitnet_lut.text.tokenizer import Tokenizer

__all__ = ["Comparison", "LogitComparison", "TokenDifference", "compare"]

TOKENS = 256
TOP_K = 5
# Nats. Float noise turns some int8 codes over, which moves logits by some percent.
_NOISE = 0.02
_SHOWN = 8  # tokens that differ most

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TokenDifference:
    """A place in the text after which A and B expect different tokens.

    position: of the token in the text, piece: its text. kl: nats. a_top, b_top: the likeliest next
    token of each. a_p, b_p: the chance that each gives to the token that comes; None at the end.
    """

    position: int
    piece: str
    kl: float
    a_top: str
    b_top: str
    a_p: float | None
    b_p: float | None


@dataclass(frozen=True)
class LogitComparison:
    """What A and B make of a text.

    cosine: of all logits, less the mean of each token's. max_difference: of logits. kl: mean of
    KL(A, B) in nats, max_kl: the largest. top_1: share of tokens after which both name the same
    next token; top_k: mean share of the *k* likeliest that both name. a_bits_per_byte,
    b_bits_per_byte: of the text; None where its bytes are not known. a_p_end, b_p_end: mean chance
    of an end token; None without one. tokens: the places where they differ most, the first the
    most. All are infinite or NaN if logits are.
    """

    cosine: float
    max_difference: float
    kl: float
    max_kl: float
    top_1: float
    top_k: float
    k: int
    a_bits_per_byte: float | None
    b_bits_per_byte: float | None
    a_p_end: float | None
    b_p_end: float | None
    tokens: tuple[TokenDifference, ...]


@dataclass(frozen=True)
class Comparison:
    """How far A and B are apart.

    tokens: how many ran. tolerance: the mean KL in nats that counts as none; 0 between exact
    sources, whose logits then have to be the same bits. tensors: None where a source has no weights
    that can be read.
    """

    a: str
    b: str
    tokens: int
    tolerance: float
    logits: LogitComparison
    tensors: TensorComparison | None

    @property
    def same(self) -> bool:
        """Whether logits differ by no more than the tolerance, and tensors by rounding at most."""
        close = self.logits.kl <= self.tolerance
        if self.tolerance == 0:
            close = self.logits.max_difference == 0
        return close and (self.tensors is None or self.tensors.same)

    def to_json(self) -> dict[str, Any]:
        """The comparison as JSON has it; numbers that are not finite are null."""
        found: dict[str, Any] = _finite({"same": self.same, **asdict(self)})
        return found


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(one) for key, one in value.items()}
    return [_finite(one) for one in value] if isinstance(value, list | tuple) else value


def compare(
    a: AnySource,
    b: AnySource,
    *,
    text: str | None = None,
    ids: Sequence[int] | None = None,
    tokens: int = TOKENS,
    k: int = TOP_K,
    tolerance: float | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Compare the weights of two sources, and their logits over a text.

    a, b: see `open_source`. text: default a built-in one; or ids. At most *tokens* of them run.
    k: how many of the likeliest tokens are compared. tolerance: the mean KL that counts as none;
    default: 0 between our engine and the reference, 0.02 to other programs, whose float noise turns
    some int8 codes over. progress: called with the tensors compared so far and in all.

    Raises ValueError for sources that cannot be compared, and what `open_source` raises.
    """
    if k < 1:
        raise ValueError(f"k is {k}: at least one token has to be compared")
    first, second = open_source(a), open_source(b)
    given = TEXTS["prose"] if text is None else text
    chosen = choose_ids(first, second, given, ids, tokens)
    exact = first.exact is not None and first.exact == second.exact
    left, right = (_logits(one, chosen) for one in (first, second))
    if left.shape != right.shape:
        raise ValueError(
            f"{first.name} gives logits {left.shape}, {second.name} {right.shape}: these are not "
            "the same model and text"
        )
    read = first.tokenizer or second.tokenizer
    with np.errstate(all="ignore"):
        found = _compare_logits(left, right, chosen, read() if read else None, k)
    tensors = None
    if first.weights is not None and second.weights is not None:
        tensors = compare_tensors(first.weights(), second.weights(), progress)
    return Comparison(
        a=first.name,
        b=second.name,
        tokens=len(chosen),
        tolerance=tolerance if tolerance is not None else 0.0 if exact else _NOISE,
        logits=found,
        tensors=tensors,
    )


def _logits(source: Source, ids: Sequence[int]) -> NDArray[np.float32]:
    found = source.logits(ids)
    if len(found) != len(ids):
        raise ValueError(f"{source.name} has logits of {len(found)} tokens of {len(ids)}")
    return found


@dataclass
class _Sums:
    """What is summed up over tokens, one at a time, so that memory stays small."""

    products: NDArray[np.float64]
    max_difference: float
    kl: list[float]
    agreed: int
    shared: float
    bits: NDArray[np.float64]
    ends: NDArray[np.float64]


def _compare_logits(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    ids: Sequence[int],
    tokenizer: Tokenizer | None,
    k: int,
) -> LogitComparison:
    ends = sorted(tokenizer.eos_ids) if tokenizer else []
    k = min(k, a.shape[1])
    sums = _Sums(np.zeros(3), 0.0, [], 0, 0.0, np.zeros(2), np.zeros(2))
    for at in range(len(ids)):
        x, y = a[at].astype(np.float64), b[at].astype(np.float64)
        _add(sums, x, y, ids[at + 1] if at + 1 < len(ids) else None, ends, k)
    n = len(ids)
    nbytes = sum(len(tokenizer.piece(id)) for id in ids[1:]) if tokenizer else 0
    bits = (sums.bits / math.log(2) / nbytes).tolist() if nbytes else [None, None]
    p_end = (sums.ends / n).tolist() if ends else [None, None]
    xy, xx, yy = sums.products.tolist()
    return LogitComparison(
        cosine=1.0 if sums.max_difference == 0 else xy / math.sqrt(xx * yy) if xx * yy else 0.0,
        max_difference=sums.max_difference,
        kl=float(np.mean(sums.kl)),
        max_kl=float(np.max(sums.kl)),
        top_1=sums.agreed / n,
        top_k=sums.shared / n,
        k=k,
        a_bits_per_byte=bits[0],
        b_bits_per_byte=bits[1],
        a_p_end=p_end[0],
        b_p_end=p_end[1],
        tokens=_most_different(a, b, sums.kl, ids, tokenizer),
    )


def _add(sums: _Sums, x: Floats, y: Floats, following: int | None, ends: list[int], k: int) -> None:
    """Add the logits after one token; *following* is the token that comes next."""
    difference = float(np.abs(x - y).max())
    sums.max_difference = float(np.maximum(sums.max_difference, difference))  # keeps NaN
    centered = x - x.mean(), y - y.mean()
    sums.products += [float((centered[i] * centered[j]).sum()) for i, j in ((0, 1), (0, 0), (1, 1))]
    p, q = _log_softmax(x), _log_softmax(y)
    sums.kl.append(0.0 if difference == 0 else max(float((np.exp(p) * (p - q)).sum()), 0.0))
    sums.agreed += int(x.argmax() == y.argmax())
    top = [set(np.argpartition(-one, k - 1)[:k].tolist()) for one in (x, y)]
    sums.shared += len(top[0] & top[1]) / k
    if following is not None:
        sums.bits -= [p[following], q[following]]
    if ends:
        sums.ends += [float(np.exp(one[ends]).sum()) for one in (p, q)]


def _log_softmax(logits: Floats) -> Floats:
    shifted = logits - logits.max()
    found: Floats = shifted - np.log(np.exp(shifted).sum())
    return found


def _most_different(
    a: NDArray[np.float32],
    b: NDArray[np.float32],
    kl: Sequence[float],
    ids: Sequence[int],
    tokenizer: Tokenizer | None,
) -> tuple[TokenDifference, ...]:
    """The places with the largest KL, where that is above 0; NaN counts as the largest."""

    def shown(id: int) -> str:
        return tokenizer.piece(id).decode(errors="replace") if tokenizer else str(id)

    order = sorted(range(len(ids)), key=lambda at: (not math.isnan(kl[at]), -kl[at]))
    found = []
    for at in order[:_SHOWN]:
        if kl[at] == 0:
            break
        rows = [one[at].astype(np.float64) for one in (a, b)]
        a_top, b_top = (shown(int(row.argmax())) for row in rows)
        a_p = b_p = None
        if at + 1 < len(ids):
            a_p, b_p = (float(np.exp(_log_softmax(row)[ids[at + 1]])) for row in rows)
        found.append(TokenDifference(at, shown(ids[at]), kl[at], a_top, b_top, a_p, b_p))
    return tuple(found)

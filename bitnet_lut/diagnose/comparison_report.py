"""Showing a comparison as text."""

from collections.abc import Iterator
from textwrap import wrap

from bitnet_lut.diagnose.compare import Comparison, LogitComparison
from bitnet_lut.diagnose.compare_tensors import TensorComparison, TensorDifference

__all__ = ["report_comparison"]

_MOST_TENSORS = 12
_WIDTH = 100


def report_comparison(comparison: Comparison, *, every: bool = False) -> Iterator[str]:
    """Lines of text that begin with one sentence. every: all tensors that differ."""
    yield from wrap(_sentence(comparison), _WIDTH)
    yield ""
    yield f"A: {_printable(comparison.a)}"
    yield f"B: {_printable(comparison.b)}"
    yield ""
    yield f"logits of {comparison.tokens} tokens"
    yield from _logits(comparison.logits)
    if comparison.tensors is not None:
        yield ""
        yield from _tensors(comparison.tensors, every)


def _sentence(comparison: Comparison) -> str:
    logits, tensors = comparison.logits, comparison.tensors
    if logits.max_difference == 0:
        text = "A and B give the same logits in every bit"
    elif comparison.same or logits.kl <= comparison.tolerance:
        text = f"A and B give the same logits, apart from noise (mean KL {logits.kl:.2g} nats)"
    else:
        text = (
            f"A and B differ: mean KL {logits.kl:.3g} nats, the same next token after "
            f"{logits.top_1:.0%} of the tokens"
        )
    if tensors is None:
        return f"{text}."
    if not tensors.differences:
        return f"{text}, from the same weights."
    count = len(tensors.differences)
    what = "only by rounding" if tensors.same else "by more than rounding"
    return f"{text}; {count} tensors differ, {what}."


def _logits(found: LogitComparison) -> Iterator[str]:
    yield f"  cosine              {found.cosine:.6f}"
    yield f"  largest difference  {found.max_difference:.4g}"
    yield f"  KL(A, B)            mean {found.kl:.3g}, largest {found.max_kl:.3g} nats"
    yield f"  same next token     {found.top_1:.1%}"
    yield f"  top {found.k} shared        {found.top_k:.1%}"
    if found.a_bits_per_byte is not None:
        yield f"  bits per byte       A {found.a_bits_per_byte:.4f}, B {found.b_bits_per_byte:.4f}"
    if found.a_p_end is not None:
        yield f"  P(end)              A {found.a_p_end:.2g}, B {found.b_p_end:.2g}"
    if found.tokens:
        yield ""
        yield "tokens after which they differ most"
        for one in found.tokens:
            yield (
                f"  {one.position:4} {one.piece!r:16} KL {one.kl:9.3g}  "
                f"A expects {one.a_top!r}, B {one.b_top!r}{_chances(one.a_p, one.b_p)}"
            )


def _chances(a: float | None, b: float | None) -> str:
    return "" if a is None or b is None else f"; the next has {a:.2g} and {b:.2g}"


def _tensors(found: TensorComparison, every: bool) -> Iterator[str]:
    yield f"{found.count} tensors, {len(found.differences)} of them differ"
    if found.a_sha256 == found.b_sha256:
        yield f"  ternary values are the same: SHA-256 {found.a_sha256 or 'of none'}"
    else:
        yield f"  SHA-256 of ternary values: A {found.a_sha256}"
        yield f"                             B {found.b_sha256}"
    shown = found.differences if every else found.differences[:_MOST_TENSORS]
    for one in shown:
        yield f"  {one.name:28} {_difference(one)}"
    if len(shown) < len(found.differences):
        yield f"  and {len(found.differences) - len(shown)} more: see --all"


def _difference(one: TensorDifference) -> str:
    rounded = ", which rounding explains" if one.rounded else ""
    if one.kind == "ternary":
        return f"{one.share:.1%} of the ternary values differ; scale of B {one.ratio:.6g} times A's"
    if one.kind == "scale":
        return f"scale of B {one.ratio:.6g} times A's{rounded}"
    if one.kind == "values":
        return f"values differ by {one.relative:.1e}{rounded}"
    if one.kind == "kind":
        return f"ternary on one side only; weights differ by {one.relative:.1e}"
    return "has another shape" if one.kind == "shape" else one.kind


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)

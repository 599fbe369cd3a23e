"""Describing an inspection in text."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict

import numpy as np

from bitnet_lut.diagnose.inspection import Inspection, StoredTensor, TernaryStatistics
from bitnet_lut.text.tokenizer import Tokenizer

__all__ = ["report"]

_LONGEST_TEXT = 100
_MOST_ELEMENTS = 4


def report(inspection: Inspection) -> Iterator[str]:
    """Lines of text that describe an inspection."""
    yield f"{inspection.name}: {inspection.container}"
    yield "\nmetadata"
    yield from _table([(key, _brief(value)) for key, value in inspection.metadata.items()])
    if inspection.config:
        yield "\nmodel"
        yield from _table([(key, str(value)) for key, value in asdict(inspection.config).items()])
    if inspection.tokenizer:
        yield "\nvocabulary"
        yield from _table(_vocabulary(inspection.tokenizer))
    if inspection.tensors:
        yield from _tensors(inspection.tensors)
    if inspection.ternary:
        yield "\nternary weights"
        heading = ("tensor", "scale", "-1", "0", "+1")
        yield from _table([heading, *map(_shares, inspection.ternary)], "<>>>>")
        yield f"  SHA-256, the same in every format: {inspection.ternary_sha256}"
    yield "\nodd about this file"
    yield from (f"  - {_printable(oddity)}" for oddity in inspection.odd or ("nothing",))


def _tensors(tensors: Sequence[StoredTensor]) -> Iterator[str]:
    yield "\ntensors"
    heading = ("tensor", "shape", "type", "bytes", "bits/weight")
    rows = [
        (t.name, " x ".join(map(str, t.shape)), t.type, f"{t.nbytes:,}", _bits([t]))
        for t in tensors
    ]
    yield from _table([heading, *rows], "<<<>>")
    groups = {t.type: [other for other in tensors if other.type == t.type] for t in tensors}
    yield "\nsizes"
    sizes = [
        (kind, str(len(group)), f"{sum(t.nbytes for t in group):,}", _bits(group))
        for kind, group in {**groups, "all": tensors}.items()
    ]
    yield from _table([("type", "tensors", "bytes", "bits/weight"), *sizes], "<>>>")


def _bits(tensors: Sequence[StoredTensor]) -> str:
    weights = sum(tensor.weights for tensor in tensors)
    return f"{8 * sum(tensor.nbytes for tensor in tensors) / weights:.2f}"


def _shares(matrix: TernaryStatistics) -> tuple[str, ...]:
    shares = (matrix.negative, matrix.zero, matrix.positive)
    return (matrix.name, f"{matrix.scale:.6g}", *(f"{share:.1%}" for share in shares))


def _vocabulary(tokenizer: Tokenizer) -> list[tuple[str, str]]:
    def named(id: int | None) -> str:
        return "none" if id is None else f"{id} {tokenizer.token_text(id)!r}"

    return [
        ("tokens", str(tokenizer.vocab_size)),
        ("pre-tokenizer", tokenizer.pre or "none"),
        ("BOS", f"{named(tokenizer.bos_id)}{', added to a text' if tokenizer.add_bos else ''}"),
        ("EOS", f"{named(tokenizer.eos_id)}{', added to a text' if tokenizer.add_eos else ''}"),
        ("ends", ", ".join(map(named, sorted(tokenizer.eos_ids))) or "none"),
    ]


def _brief(value: object) -> str:
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, list) and len(value) > _MOST_ELEMENTS:
        return f"{len(value)} elements: {_brief(value[:_MOST_ELEMENTS])[1:-1]}, ..."
    text = repr(value)
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "..."


def _table(rows: Sequence[Sequence[str]], alignment: str = "<<") -> Iterator[str]:
    """Lines of a table with its columns aligned to the left (<) or right (>)."""
    shown = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    for row in shown:
        cells = zip(row, alignment, widths, strict=True)
        yield "  " + "  ".join(f"{cell:{side}{width}}" for cell, side, width in cells).rstrip()


def _printable(text: str) -> str:
    """The text without characters that could control a terminal."""
    return text if text.isprintable() else repr(text)

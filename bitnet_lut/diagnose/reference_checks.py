"""Checks against another source of what should be the same model, which is known to be good."""

from collections.abc import Iterator, Mapping
from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.checkpoint.ternary_hash import permutation, without_dead_rows
from bitnet_lut.diagnose.file_checks import same_value
from bitnet_lut.diagnose.findings import Finding, Verdict, fault, ok
from bitnet_lut.diagnose.inspection import some
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.diagnose.texts import TEXTS
from bitnet_lut.formats.tensors import TernaryMatrix
from bitnet_lut.reference import dense_weights

__all__ = ["CHECKS"]

_LABELS = ("name", "context_length")  # values of a config that change no result
# What differs says what is wrong; the order of q and k follows rope_kind, which is no fault then.
_VERDICTS: Mapping[str, Verdict] = {
    "rope_theta": "rope",
    "rope_dim": "rope",
    "activation": "activation",
    "sub_norms": "norms",
    "rms_eps": "norms",
    "tied_head": "embedding",
    "embedding_scale": "embedding",
    "block_count": "layers",
    "vocab_size": "tokenizer",
}
_ROUNDED = 0.01  # of a scale or norm, by another type
_ROWS = 2048  # of the embedding
_EMBEDDING_ROUNDED = 0.15  # the same, by Q4_0
_FIX = "convert it again from the reference, or use that"


def check_config(subject: Subject) -> Iterator[Finding]:
    """The values of the config."""
    if subject.reference is None:
        return
    ours, theirs = subject.config, subject.reference.config
    check = "reference: config"
    wrong = [
        field.name
        for field in fields(ours)
        if field.name not in (*_LABELS, "architecture", "rope_kind")
        and not same_value(getattr(ours, field.name), getattr(theirs, field.name))
    ]
    if not wrong:
        yield ok(check, "the same values", "those of the reference")
    for name in wrong:
        yield _fault(
            check,
            name,
            f"{name} is {getattr(ours, name)}",
            f"{getattr(theirs, name)}, as in the reference",
            "it computes something else than the reference",
            _VERDICTS.get(name, "unknown"),
        )


def check_ternary(subject: Subject) -> Iterator[Finding]:
    """The ternary weights, and their scales."""
    if subject.reference is None:
        return
    theirs = {name: _digestible(subject.reference, name) for name in subject.reference.ternary}
    different, scales = [], []
    for name in subject.ternary:
        if name not in theirs:
            continue
        ours = _digestible(subject, name)
        if not np.array_equal(ours.packed, theirs[name].packed):
            different.append(name)
        elif not _close(ours.scale, theirs[name].scale, _ROUNDED):
            scales.append(name)
    count = len(subject.ternary.keys() & theirs.keys())
    if not different and not scales:
        yield ok("reference: weights", f"{count} matrices are the same", "those of the reference")
    if different:
        moved = [name for name in different if _elsewhere(subject, name, theirs)]
        everything = len(different) == count
        yield _fault(
            "reference: weights",
            some(different),
            f"{len(different)} of {count} matrices differ, {len(moved)} are those of other layers",
            "the matrices of the reference",
            "all of them: they are read in another code or layout, or those of another model"
            if everything and not moved
            else "layers were exchanged"
            if moved
            else "some of them were damaged or trained on",
            "layers" if moved else "encoding" if everything else "damaged",
        )
    if scales:
        yield _fault(
            "reference: scales",
            some(scales),
            f"{len(scales)} of {count} matrices have another scale",
            f"the scales of the reference, to {_ROUNDED:.0%}",
            "the weights are the same, so only the scales were lost or inverted",
            "scale",
        )


def _digestible(subject: Subject, name: str) -> TernaryMatrix:
    """A matrix with its rows in the order of Hugging Face, whatever the file has."""
    matrix = without_dead_rows(subject.ternary[name])
    order = permutation(name, subject.config)
    if order is None:
        return matrix
    back = np.argsort(order)
    scale = matrix.scale if matrix.scale.size == 1 else matrix.scale[back]
    return TernaryMatrix(matrix.rows, matrix.cols, matrix.packed[back], scale)


def _elsewhere(subject: Subject, name: str, theirs: Mapping[str, TernaryMatrix]) -> bool:
    """Whether the reference has this matrix in another layer."""
    ours, part = _digestible(subject, name), name.split(".")[2]
    return any(
        np.array_equal(ours.packed, matrix.packed)
        for other, matrix in theirs.items()
        if other != name and other.split(".")[2] == part
    )


def check_floats(subject: Subject) -> Iterator[Finding]:
    """Norms and embedding."""
    if subject.reference is None:
        return
    theirs = subject.reference
    norms = [
        name
        for name, vector in subject.vectors.items()
        if name in theirs.vectors and not _close(vector, theirs.vectors[name], _ROUNDED)
    ]
    if norms:
        first = subject.vectors[norms[0]].mean() - theirs.vectors[norms[0]].mean()
        yield _fault(
            "reference: norms",
            some(norms),
            f"{len(norms)} of {len(subject.vectors)} differ, the first by {first:.3g} on average",
            f"those of the reference, to {_ROUNDED:.0%}",
            "stored as w where the other has w + 1, or changed by a conversion",
            "norms",
        )
    else:
        yield ok("reference: norms", f"{len(subject.vectors)} are the same", "the reference's")
    name = "token_embd.weight"
    ours, other = subject.dense[name], theirs.dense[name]
    rows = np.linspace(0, min(ours.rows, other.rows) - 1, _ROWS).astype(np.intp)
    pair = dense_weights(ours, rows), dense_weights(other, rows)
    if pair[0].shape == pair[1].shape and _close(*pair, _EMBEDDING_ROUNDED):
        yield ok("reference: embedding", f"{len(rows)} rows are the same", "the reference's")
        return
    yield _fault(
        "reference: embedding",
        name,
        "its rows differ",
        f"those of the reference, to {_EMBEDDING_ROUNDED:.0%} of their length",
        "it was read in another type or order, or belongs to another vocabulary",
        "embedding",
    )


def check_tokenizer(subject: Subject) -> Iterator[Finding]:
    """The ids of texts."""
    if subject.reference is None:
        return
    different = [
        name
        for name, text in {**TEXTS, **subject.texts}.items()
        if subject.tokenizer.encode(text) != subject.reference.tokenizer.encode(text)
    ]
    if not different:
        yield ok("reference: tokenizer", "the same ids of all texts", "those of the reference")
        return
    yield _fault(
        "reference: tokenizer",
        some(different),
        f"other ids of {len(different)} texts",
        "the ids of the reference",
        "another vocabulary, or other rules of cutting words",
        "tokenizer",
    )


def _close(a: NDArray[np.float32], b: NDArray[np.float32], tolerance: float) -> bool:
    """Whether arrays, of which one may have a single value, differ by a share of their norm."""
    shape = np.broadcast_shapes(a.shape, b.shape)
    left, right = np.broadcast_to(a, shape), np.broadcast_to(b, shape)
    return bool(np.linalg.norm(left - right) <= tolerance * np.linalg.norm(right))


def _fault(
    check: str, where: str, measured: str, expected: str, meaning: str, verdict: Verdict
) -> Finding:
    return fault(
        check,
        measured,
        expected,
        where=where,
        meaning=meaning,
        fix=_FIX,
        verdict=verdict,
        certainty=0.95,
    )


CHECKS = (check_config, check_ternary, check_floats, check_tokenizer)

"""Checks of the weights, without running them: codes, scales, norms, embedding and layers."""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from bitnet_lut.convert.report import by_layer
from bitnet_lut.convert.weights import rounding
from bitnet_lut.diagnose.findings import Finding, fault, ok
from bitnet_lut.diagnose.inspection import INVERSE_GAIN, some
from bitnet_lut.diagnose.subject import Subject
from bitnet_lut.families import is_linear
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tensors import DenseMatrix, TernaryMatrix
from bitnet_lut.reference import dense_weights

__all__ = ["CHECKS", "GAUSSIAN_ZEROS", "dispersion", "gain"]

# Absmean rounds |w| < mean|w| / 2 to 0; of a normal distribution that is this share.
GAUSSIAN_ZEROS = math.erf(math.sqrt(1 / math.pi) / 2)
_LEAST_ZEROS, _MOST_ZEROS = 0.15, 0.75
_ASYMMETRY = 0.02  # more between the shares of -1 and +1 of a whole model has a cause
_ROWS = 512  # of a matrix, which are compared with each other
_RANDOM = 1.3  # variance between rows, in units of what chance gives; trained models have 2 to 30
_ODD_SCALE = 16  # times the median of the same matrix in other layers
_VALUES_AT_ONCE = 2**24


def check_damage(subject: Subject) -> Iterator[Finding]:
    """NaN, infinity, and tensors of nothing but zeros."""
    broken = [name for name, v in subject.vectors.items() if not np.isfinite(v).all()]
    empty = [name for name, v in subject.vectors.items() if not v.any()]
    empty += [
        name
        for name, matrix in subject.ternary.items()
        if subject.statistics[name].zero == 1 or not matrix.scale.any()
    ]
    for name, matrix in subject.dense.items():
        largest = max(float(np.abs(part).max()) for part in _parts(matrix))
        if not math.isfinite(largest):
            broken.append(name)
        elif largest == 0:
            empty.append(name)
    expected = "finite numbers, and not all of them zero"
    if broken:
        yield fault(
            "weights: numbers",
            f"NaN or infinity in {len(broken)} tensors",
            expected,
            where=some(broken),
            meaning="whatever passes through them becomes NaN",
            fix="get the file again; if it was converted or trained here, it failed there",
            verdict="damaged",
            certainty=0.95,
        )
    if empty:
        layers = any(name.startswith("blk.") for name in empty)
        yield fault(
            "weights: numbers",
            f"nothing but zeros in {len(empty)} tensors",
            expected,
            where=some(empty),
            meaning="training leaves no tensor empty: these were never read, or lost by a "
            "conversion",
            fix="convert it again from its original, and look which names the converter did "
            "not find",
            verdict="layers" if layers else "embedding",
            certainty=0.85,
        )
    if not broken and not empty:
        yield ok("weights: numbers", f"all {len(subject.tensors)} tensors are finite", expected)


def check_codes(subject: Subject) -> Iterator[Finding]:
    """Codes that no writer makes."""
    if not subject.ternary:
        return
    bad = {name: s.invalid for name, s in subject.statistics.items() if s.invalid}
    expected = "0, 1 and 2, for -1, 0 and +1: no writer makes code 3"
    if not bad:
        yield ok("weights: codes", "codes 0, 1 and 2 only", expected)
        return
    weights = sum(matrix.rows * matrix.cols for matrix in subject.ternary.values())
    share = sum(bad.values()) / weights
    yield fault(
        "weights: codes",
        f"code 3 in {share:.2%} of the weights",
        expected,
        where=some(bad),
        meaning="the writer used another code, such as 11 for -1, or these bytes are no I2_S"
        if share > 0.01
        else "some bytes of the file are damaged",
        fix="see the trials; or convert it again from its original",
        verdict="encoding" if share > 0.01 else "damaged",
        certainty=0.7,
    )


def check_shares(subject: Subject) -> Iterator[Finding]:
    """The shares of -1, 0 and +1."""
    if not subject.ternary:
        return
    sizes = {name: m.rows * m.cols for name, m in subject.ternary.items()}
    total = sum(sizes.values())
    found = subject.statistics
    negative, zero, positive = (
        sum(getattr(found[name], share) * size for name, size in sizes.items()) / total
        for share in ("negative", "zero", "positive")
    )
    measured = f"-1 {negative:.1%}, 0 {zero:.1%}, +1 {positive:.1%}"
    even = (1 - GAUSSIAN_ZEROS) / 2
    expected = (
        f"as many -1 as +1, and {_LEAST_ZEROS:.0%} to {_MOST_ZEROS:.0%} zeros: absmean of normal "
        f"weights gives {even:.1%}, {GAUSSIAN_ZEROS:.1%}, {even:.1%}"
    )
    if abs(negative - positive) > _ASYMMETRY:
        yield subject.suspicion(
            fault(
                "weights: shares",
                measured,
                expected,
                meaning="nothing in training prefers a sign: the code of the weights was read as "
                "another one",
                fix="see the trials, which try all codes",
                verdict="encoding",
                certainty=0.6,
            )
        )
    elif not _LEAST_ZEROS < zero < _MOST_ZEROS:
        yield subject.suspicion(
            fault(
                "weights: shares",
                measured,
                expected,
                meaning="they were not made by absmean, or read in another code",
                fix="see the trials; if it was converted from real weights, look how they "
                "were rounded",
                verdict="encoding" if zero <= _LEAST_ZEROS else "not-ternary",
                certainty=0.4,
            )
        )
    else:
        yield ok("weights: shares", measured, expected)


def check_training(subject: Subject) -> Iterator[Finding]:
    """Whether training has left its traces in the weights."""
    found = dispersion(subject)
    measured = f"rows differ in their mean square {found:.2f} times as much as by chance"
    expected = f"1.0 for random weights, more than {_RANDOM} after training"
    if found > _RANDOM or (subject.runs and subject.learned):
        yield ok("weights: training", measured, expected)
        return
    yield subject.suspicion(
        fault(
            "weights: training",
            measured,
            expected,
            meaning="all rows look alike, as at the start of a training",
            fix="train it, or look whether the training run saved what it had trained",
            verdict="untrained",
            certainty=0.9,
        )
    )


def dispersion(subject: Subject) -> float:
    """Variance between the rows of a matrix of the mean square weight, relative to that of chance.

    The mean over all linear layers. Training gives some outputs larger weights, or fewer zeros,
    than others; another code or another order of rows, columns or layers changes that little.
    """
    ratios = []
    matrices: dict[str, TernaryMatrix | DenseMatrix] = {**subject.ternary, **subject.dense}
    for name in filter(is_linear, matrices):
        squares = _some_rows(matrices[name]) ** 2
        chance = squares.shape[1] * float(squares.var(dtype=np.float64))
        if chance > 0 and len(squares) > 8:
            ratios.append(float(squares.sum(axis=1, dtype=np.float64).var(ddof=1)) / chance)
    return float(np.mean(ratios)) if ratios else math.inf


def _some_rows(matrix: TernaryMatrix | DenseMatrix) -> NDArray[np.float32]:
    """The first rows of a matrix as float32, without the scale of ternary ones."""
    if isinstance(matrix, TernaryMatrix):
        return i2_s.unpack_rows(matrix.packed[:_ROWS], matrix.cols).astype(np.float32)
    return dense_weights(matrix, np.arange(min(_ROWS, matrix.rows)))


def check_scales(subject: Subject) -> Iterator[Finding]:
    """Scales that were inverted, lost, or are unlike those of the other layers."""
    if not subject.ternary:
        return
    gains = {name: gain(subject, name) for name in subject.ternary}
    scales = {name: float(np.median(m.scale)) for name, m in subject.ternary.items()}
    per_row = sum(matrix.scale.size > 1 for matrix in subject.ternary.values())
    measured = (
        f"{min(scales.values()):.3g} to {max(scales.values()):.3g}, layers multiply the deviation "
        f"of their input by {min(gains.values()):.2g} to {max(gains.values()):.2g}; "
        f"{per_row} of {len(scales)} have a scale for each row"
    )
    expected = (
        "the mean of |w|, one for a matrix in most formats: 0.005 to 5, which multiplies "
        "deviations by 0.1 to 100"
    )
    suspects = [name for name, gain in gains.items() if gain > INVERSE_GAIN]
    if suspects:
        meaning = "scales this large are the inverse of what they should be: 1 / mean|w|"
    elif all(scale == 1 for scale in scales.values()):
        suspects, meaning = list(scales), "a conversion lost them: every scale is exactly 1"
    else:
        suspects = _unlike_other_layers(scales)
        meaning = f"{_ODD_SCALE} times more or less than in the other layers"
    if not suspects:
        yield ok("weights: scales", measured, expected)
        return
    yield subject.suspicion(
        fault(
            "weights: scales",
            measured,
            expected,
            where=some(suspects),
            meaning=meaning,
            fix="see the trials; 'bitlinear' folders store the inverse, 'autobitlinear' ones "
            "the scale",
            verdict="scale",
            certainty=0.7,
        )
    )


def gain(subject: Subject, name: str) -> float:
    """What a ternary layer multiplies the deviation of its input by, if that is random."""
    matrix = subject.ternary[name]
    share = 1 - subject.statistics[name].zero
    return float(np.median(matrix.scale)) * math.sqrt(matrix.cols * share)


def _unlike_other_layers(scales: dict[str, float]) -> list[str]:
    kinds: dict[str, list[str]] = {}
    for name in scales:
        kinds.setdefault(name.split(".")[2], []).append(name)
    odd = []
    for names in kinds.values():
        middle = float(np.median([scales[name] for name in names]))
        if len(names) > 2 and middle > 0:
            ratios = {name: scales[name] / middle for name in names}
            odd += [n for n, ratio in ratios.items() if not 1 / _ODD_SCALE < ratio < _ODD_SCALE]
    return odd


def check_embedding(subject: Subject) -> Iterator[Finding]:
    """Rows of the embedding: empty, far too long, or all the same."""
    parts = _parts(subject.dense["token_embd.weight"])
    norms = np.concatenate([np.linalg.norm(part, axis=1) for part in parts])
    if not np.isfinite(norms).all():
        return  # check_damage says so
    middle, empty = float(np.median(norms)), float((norms == 0).mean())
    longest = float(norms.max())
    measured = (
        f"rows of length {np.quantile(norms, 0.01):.3g} to {np.quantile(norms, 0.99):.3g}, median "
        f"{middle:.3g}, {empty:.1%} of them empty"
    )
    expected = "similar lengths, few empty rows: those of tokens that training never saw"
    if empty > 0.3 or middle == 0 or longest > 1000 * middle:
        yield subject.suspicion(
            fault(
                "weights: embedding",
                measured,
                expected,
                where="token_embd.weight",
                meaning="a part of the embedding is missing, or was read in another type",
                fix="convert it again from its original",
                verdict="embedding",
                certainty=0.6,
            )
        )
    else:
        yield ok("weights: embedding", measured, expected, where="token_embd.weight")


def check_norms(subject: Subject) -> Iterator[Finding]:
    """Norms that look stored as w where w + 1 is meant, or the other way round."""
    norms = {name: t for name, t in subject.vectors.items() if name.endswith("norm.weight")}
    values = np.concatenate(list(norms.values()))
    negative = float((values < 0).mean())
    means = [float(norm.mean()) for norm in norms.values()]
    least = min(float(np.quantile(norm, 0.01)) for norm in norms.values())
    measured = (
        f"means {min(means):.3g} to {max(means):.3g}, {negative:.1%} of the weights negative, "
        f"1 in 100 below {least:.3g}"
    )
    expected = "weights around 1, or smaller, very few of them negative, and some near 0"
    suspect = ""
    if negative > 0.2:
        suspect = "stored as w, where the graph multiplies by 1 + w, and read without the 1"
    elif least > 0.8 and float(np.median(means)) > 1.5:
        suspect = "1 was added to them, or added twice"
    if not suspect:
        yield ok("weights: norms", measured, expected)
        return
    yield subject.suspicion(
        fault(
            "weights: norms",
            measured,
            expected,
            where=some(norms),
            meaning=suspect,
            fix="see the trials; or convert it again with a converter that knows this family",
            verdict="norms",
            certainty=0.6,
        )
    )


def _parts(matrix: DenseMatrix) -> Iterator[NDArray[np.float32]]:
    """A matrix as float32, some rows at a time."""
    for start in range(0, matrix.rows, step := max(1, _VALUES_AT_ONCE // matrix.cols)):
        yield dense_weights(matrix, np.arange(start, min(start + step, matrix.rows)))


def check_masters(subject: Subject) -> Iterator[Finding]:
    """What rounding changes in the real-valued weights of a checkpoint, layer by layer."""
    found = []
    for name, master in subject.masters.items():
        matrix = subject.ternary[name]
        ternary = i2_s.unpack_rows(matrix.packed, matrix.cols)
        found.append(rounding(name, master, (ternary, matrix.scale)))
        subject.checkpoint.release()
    if not found:
        return
    layers = by_layer(found)
    errors = [layer.relative_error for layer in layers.values()]
    edges = [layers[min(layers)], layers[max(layers)]]
    yield ok(
        "weights: masters",
        f"rounding changes the layers by {min(errors):.2f} to {max(errors):.2f} of their norm; "
        + ", ".join(f"{e.name} {e.norm_before:.4g} -> {e.norm_after:.4g}" for e in edges),
        f"{_gaussian_error():.2f} for normal weights, often less after ternary training; whether "
        "the model survives it is seen from the ablation",
    )


def _gaussian_error() -> float:
    """Norm of w - s t for normal weights w that absmean rounds to s t, relative to that of w."""
    mean = math.sqrt(2 / math.pi)
    edge = mean / 2
    kept = 2 * math.exp(-(edge**2) / 2) / math.sqrt(2 * math.pi)  # mean of |w| beyond the edge
    return math.sqrt(1 - 2 * mean * kept + mean**2 * (1 - GAUSSIAN_ZEROS))


CHECKS = (
    check_damage,
    check_codes,
    check_shares,
    check_scales,
    check_embedding,
    check_norms,
    check_training,
    check_masters,
)

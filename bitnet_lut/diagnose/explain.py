"""Why two programs part at an op: known mistakes are made on purpose until one gives the result."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bitnet_lut import reference
from bitnet_lut.checkpoint.ternary_hash import permutation
from bitnet_lut.diagnose.judging import relative, replay
from bitnet_lut.diagnose.ops import Place, key_of
from bitnet_lut.diagnose.running import float_linear
from bitnet_lut.diagnose.sources import Weights
from bitnet_lut.diagnose.trace import Floats, Trace, to_hf_order
from bitnet_lut.families import LINEARS
from bitnet_lut.formats import i2_s
from bitnet_lut.formats.tensors import TernaryMatrix

__all__ = ["explain"]

_FOUND = 2e-3  # what is left of the difference where a mistake explains it; codes on a tie remain
_LAYOUTS: tuple[i2_s.Layout, ...] = ("128x32", "64x16", "1x4", "sequential")
_BASES = (1e4, 5e5, 1e6)


@dataclass(frozen=True)
class _Mistake:
    """A known mistake: what is said of it, and the definition with it. order: of the columns."""

    text: str
    config: Mapping[str, Any] = field(default_factory=dict)
    tensors: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    order: NDArray[np.intp] | None = None


def explain(
    parting: Any,
    ops: Mapping[Place, Any],
    pair: tuple[Trace, Trace],
    judged: Trace | None,
    weights: Weights | None,
    ids: Sequence[int],
) -> list[str]:
    """Sentences on the op that parts first, the surest first.

    parting, ops: `OpDifference` of it and of all. judged: the trace that was judged by *weights*,
    None where no weights are known.
    """
    place = parting.layer, parting.op
    a, b = (trace.results[place] for trace in pair)
    rows = min(len(a), len(b))
    a, b = a[-rows:], b[-rows:]
    if not np.isfinite(a).all() or not np.isfinite(b).all():
        return [_not_finite(a, b)]
    sentences = []
    if weights is not None and judged is not None:
        who = "B" if judged is pair[1] else "A"
        reason = _proven(weights, judged, place, ids, who)
        sentences += [reason] if reason else []
    if not sentences:
        sentences += _by_figures(parting, a, b)
    return [*sentences, *_elsewhere(parting, ops)]


def _not_finite(a: Floats, b: Floats) -> str:
    name, array = ("A", a) if not np.isfinite(a).all() else ("B", b)
    token, column = np.argwhere(~np.isfinite(array))[0]
    return (
        f"{name} has {array[token, column]} at token {token}, column {column}: it computes in a "
        "type that is too small, or its weights or scales are damaged."
    )


# ---- by trying ---------------------------------------------------------------------------------


def _proven(
    weights: Weights, judged: Trace, place: Place, ids: Sequence[int], who: str
) -> str | None:
    """The mistake from which the result follows, if one of those known does it."""
    actual = judged.results[place]
    right = replay(weights, place, judged.results, ids)
    if right is None or right.shape != actual.shape:
        return None
    name = f"{key_of(place)}.bias"
    bias = weights.tensors.get(name) if place[1] in LINEARS else None
    # A wrong scale multiplies the products, to which a bias is added.
    shift = 0.0 if bias is None else to_hf_order(weights.config, place, bias[None])
    actual = actual - shift
    factor, left = _fit(right - shift, actual)
    if left < _FOUND:
        return _scaled(weights, place, who, factor)
    best, best_left = None, _FOUND
    for mistake in _mistakes(weights, place, judged.results):
        candidate = replay(
            weights,
            place,
            judged.results,
            ids,
            config=replace(weights.config, **mistake.config),
            tensors=mistake.tensors,
            **mistake.options,
        )
        if candidate is None or candidate.shape != actual.shape:
            continue
        if mistake.order is not None:
            candidate = candidate[:, mistake.order]
        factor, left = _fit(candidate - shift, actual)
        if left < best_left:
            times = "" if abs(factor - 1) < _FOUND else f", and multiplies by {factor:.4g}"
            best, best_left = f"{mistake.text}{times}", left
    if best is None:
        return None
    return f"{who} {best}: with that, our own arithmetic gives its result to {best_left:.0e}."


def _fit(candidate: Floats, actual: Floats) -> tuple[float, float]:
    """The factor that takes *candidate* nearest to *actual*, and the relative rest."""
    x, y = candidate.astype(np.float64), actual.astype(np.float64)
    square = float((x * x).sum())
    factor = float((x * y).sum()) / square if square > 0 else 0.0
    return factor, relative(factor * x, y)


def _scaled(weights: Weights, place: Place, who: str, factor: float) -> str | None:
    if abs(factor - 1) < 1e-6:
        return None
    text = f"{who}'s result is {factor:.6g} times what it should be, and else right"
    matrix = weights.tensors.get(f"{key_of(place)}.weight")
    if isinstance(matrix, TernaryMatrix) and matrix.scale.size == 1:
        scale = float(matrix.scale[0])
        if abs(factor * scale * scale - 1) < 0.01:
            return f"{text}: it takes the inverse of the weight scale {scale:.6g}."
        if abs(factor * scale - 1) < 0.01:
            return f"{text}: it leaves out the weight scale {scale:.6g}."
        if abs(factor - 1) < 0.005:
            return f"{text}: the weight scale {scale:.6g} is rounded differently."
        return f"{text}: the weight scale, here {scale:.6g}, or that of the activations is wrong."
    return f"{text}."


def _mistakes(weights: Weights, place: Place, given: Mapping[Place, Floats]) -> Iterable[_Mistake]:
    op = place[1]
    if op in LINEARS:
        return _of_linear(weights, place)
    if op.endswith("norm"):
        return _of_norm(weights, place, given)
    if op == "attention":
        return _of_attention(weights)
    if op == "ffn_activation":
        return _of_activation(weights)
    if op == "embedding":
        width = float(np.sqrt(weights.config.embedding_length))
        return [_Mistake("scales the embedding", {"embedding_scale": width})]
    return []


def _of_linear(weights: Weights, place: Place) -> Iterator[_Mistake]:
    name = f"{key_of(place)}.weight"
    matrix = weights.tensors[name]
    bias = f"{key_of(place)}.bias"
    if bias in weights.tensors:
        none = np.zeros_like(weights.tensors[bias])
        yield _Mistake("leaves out the bias", tensors={bias: none})
    if (order := _rope_order(weights, place)) is not None:
        for one in (order, np.argsort(order)):
            yield _Mistake("has the rows of q and k in the order for the other RoPE", order=one)
    if not isinstance(matrix, TernaryMatrix):
        return
    yield _Mistake(
        "leaves out the quantization of activations to int8", options={"multiply": float_linear}
    )
    for width in (256, 32):
        yield _Mistake(
            f"quantizes activations in blocks of {width} columns, not a whole token at once",
            options={"multiply": partial(_blocked, width)},
        )
    masters = weights.masters(name)
    if masters is not None:
        text = "multiplies the masters, not the ternary weights made of them"
        for arithmetic, multiply in (
            ("", float_linear),
            (", with int8 activations", _int8_by_floats),
        ):
            yield _Mistake(
                f"{text}{arithmetic}", tensors={name: masters}, options={"multiply": multiply}
            )
    yield from _misread(name, matrix)


def _misread(name: str, matrix: TernaryMatrix) -> Iterator[_Mistake]:
    """The ways to decode ternary weights wrongly."""
    right = i2_s.unpack_rows(matrix.packed, matrix.cols)

    def repacked(weights: NDArray[np.int8]) -> dict[str, TernaryMatrix]:
        rows, cols = weights.shape
        return {name: TernaryMatrix(rows, cols, i2_s.pack_rows(weights), matrix.scale)}

    for values in permutations((-1, 0, 1)):
        if values in ((-1, 0, 1), (1, 0, -1)):  # the second is the first times -1
            continue
        codes = ", ".join(f"{code:02b}={value:+d}" for code, value in enumerate(values))
        text = f"decodes the ternary weights with {codes}, where I2_S has 00=-1, 01=+0, 10=+1"
        yield _Mistake(text, tensors=repacked(np.array(values, np.int8)[right + 1]))
    if matrix.rows == matrix.cols:
        yield _Mistake("multiplies the transposed matrix", tensors=repacked(right.T.copy()))
    if matrix.rows * matrix.cols % 128 or matrix.cols % 4:
        return
    data = i2_s.pack(right, 1.0)
    for layout in _LAYOUTS[1:]:
        try:
            read, _ = i2_s.unpack(data, matrix.rows, matrix.cols, layout=layout)
        except ValueError:
            continue
        yield _Mistake(
            f"reads I2_S in the layout {layout} instead of 128x32", tensors=repacked(read)
        )


def _blocked(width: int, matrix: Any, x: Floats) -> Floats:
    """A product whose activations have an int8 scale for each block of columns."""
    if not isinstance(matrix, TernaryMatrix):
        return reference.linear(matrix, x)
    blocks = np.zeros((len(x), -(-x.shape[1] // width), width), np.float32)
    blocks.reshape(len(x), -1)[:, : x.shape[1]] = x
    codes, peaks = reference.quantize(blocks)
    rounded = codes * (peaks / np.float32(127))[..., None]
    return float_linear(matrix, rounded.reshape(len(x), -1)[:, : x.shape[1]])


def _int8_by_floats(matrix: Any, x: Floats) -> Floats:
    codes, peaks = reference.quantize(x)
    return float_linear(matrix, codes * (peaks / np.float32(127))[:, None])


def _rope_order(weights: Weights, place: Place) -> NDArray[np.intp] | None:
    """The order of rows of q or k for the RoPE with pairs, by that for halves; None elsewhere."""
    return permutation(f"{key_of(place)}.weight", replace(weights.config, rope_kind="norm"))


def _of_norm(weights: Weights, place: Place, given: Mapping[Place, Floats]) -> Iterator[_Mistake]:
    names = {
        "attn_post_norm": "post_attention_norm",
        "ffn_post_norm": "post_ffw_norm",
    }
    layer, op = place
    name = f"{key_of((layer, names.get(op, op)))}.weight"
    if name not in weights.tensors:
        if op in ("attn_sub_norm", "ffn_sub_norm"):
            yield _Mistake("has a norm here that our graph has not")
        return
    weight = weights.tensors[name]
    yield _Mistake("adds 1 to the weights of the norm", tensors={name: weight + np.float32(1)})
    yield _Mistake("takes 1 from the weights of the norm", tensors={name: weight - np.float32(1)})
    yield _Mistake("leaves out the weights of the norm", tensors={name: np.ones_like(weight)})
    for eps in (1e-6, 1e-5, 1e-12, 1e-8):
        yield _Mistake(
            f"adds {eps:g} in the norm, not {weights.config.rms_eps:g}", {"rms_eps": eps}
        )
    if op in ("attn_sub_norm", "ffn_sub_norm"):
        yield _Mistake("leaves out the sub-norm", {"sub_norms": False})


def _of_attention(weights: Weights) -> Iterator[_Mistake]:
    config = weights.config
    for base in _BASES:
        if not np.isclose(base, config.rope_theta):
            yield _Mistake(
                f"rotates with the base {base:g}, not {config.rope_theta:g}", {"rope_theta": base}
            )
    other = "norm" if config.rope_kind == "neox" else "neox"
    yield _Mistake(f"rotates pairs as RoPE {other!r} does", {"rope_kind": other})
    yield _Mistake("leaves out RoPE", {"rope_theta": float("inf")})
    yield _Mistake("leaves out the scale of attention", {"attention_scale": 1.0})
    for width in (config.embedding_length, config.embedding_length // config.head_count):
        if width != config.head_dim:
            scale = 1 / float(np.sqrt(width))
            yield _Mistake(f"scales attention by 1/sqrt({width})", {"attention_scale": scale})


def _of_activation(weights: Weights) -> Iterator[_Mistake]:
    other = "silu" if weights.config.activation == "relu2" else "relu2"
    yield _Mistake(
        f"has the activation {other}, not {weights.config.activation}", {"activation": other}
    )


# ---- by figures --------------------------------------------------------------------------------


def _by_figures(parting: Any, a: Floats, b: Floats) -> list[str]:
    """What the two results suggest where no weights prove it."""
    factor, left = _fit(a, b)
    if left < _FOUND and abs(factor - 1) > 1e-6:
        return [
            f"B is A times {factor:.6g} in every element: a scale is missing, wrong or inverse."
        ]
    each = np.array([relative(x, y) for x, y in zip(a, b, strict=True)])
    if len(each) > 1 and each[0] <= 1e-4 and each[1:].min() > 1e-4:
        return ["Only tokens after the first differ: RoPE, its base, or the mask of attention."]
    apart = np.flatnonzero(np.abs(a - b).max(axis=0) > 1e-4 * max(float(np.abs(a).max()), 1e-30))
    if 0 < len(apart) <= a.shape[1] // 2 and apart[-1] - apart[0] < a.shape[1] // 2:
        return [f"Only columns {apart[0]} to {apart[-1]} of {a.shape[1]} differ: a tile or a tail."]
    linear = parting.op in LINEARS
    if parting.cosine < 0.3:
        reason = "weights decoded with other codes or in another layout" if linear else "another op"
        return [f"The results have nothing in common (cosine {parting.cosine:.2f}): {reason}."]
    if linear and parting.cosine > 0.98:
        return [
            "The difference has the size of activation quantization: one side leaves out the int8 "
            "rounding of activations, or does it otherwise."
        ]
    return []


def _elsewhere(parting: Any, ops: Mapping[Place, Any]) -> list[str]:
    """Where else ops part by themselves, which needs weights to tell."""
    judged = [op for op in ops.values() if op.step is not None]
    parted = [op for op in judged if op.status == "parts"]
    if not judged:
        return ["Without weights it cannot be told whether ops after it are right."]
    if len(parted) == 1:
        return ["Every other op gives what it should with the inputs that it has."]
    kinds = list(dict.fromkeys(op.op for op in parted))
    layers = {op.layer for op in parted if op.layer >= 0}
    return [
        f"{len(parted)} of {len(judged)} ops part by themselves, in {len(layers)} layers: "
        f"{', '.join(kinds)}."
    ]

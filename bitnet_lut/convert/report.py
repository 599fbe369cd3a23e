"""Describing a conversion in text."""

import math
from collections.abc import Iterator, Sequence

from bitnet_lut.convert import Conversion
from bitnet_lut.convert.weights import Rounded, Ternarized

__all__ = ["by_layer", "report"]


def report(conversion: Conversion) -> Iterator[str]:
    """Lines of text that say what a conversion did, without its warnings."""
    yield f"{conversion.output}: {conversion.nbytes:,} bytes of tensors"
    if conversion.ternary_sha256:
        yield f"ternary weights: sha256 {conversion.ternary_sha256}, the same when read again"
    scales = [tensor for tensor in conversion.rounded if tensor.what == "scale"]
    if conversion.ternary_sha256:
        yield f"scales: {len(scales)} rounded" if scales else "scales: all exact"
        yield from map(_change, scales)
    others = [tensor for tensor in conversion.rounded if tensor.what != "scale"]
    if others:
        yield f"other matrices: {len(others)} rounded"
        yield from map(_change, others)
    if conversion.ternarized:
        yield from _layers(conversion.ternarized)


def _change(tensor: Rounded) -> str:
    return (
        f"  {tensor.name}: {tensor.old} -> {tensor.new}, relative error {tensor.relative_error:.2e}"
    )


def _layers(ternarized: Sequence[Ternarized]) -> Iterator[str]:
    """Errors and norms of each layer, over all its linear layers."""
    yield f"real values: {len(ternarized)} linear layers rounded to ternary weights by absmean"
    yield "  layer  relative error  norm before  norm after"
    for layer, whole in by_layer(ternarized).items():
        before, after = whole.norm_before, whole.norm_after
        yield f"  {layer:5}  {whole.relative_error:14.4f}  {before:11.6g}  {after:10.6g}"


def by_layer(ternarized: Sequence[Ternarized]) -> dict[int, Ternarized]:
    """The errors and norms of each layer, over all its linear layers."""
    layers: dict[int, list[Ternarized]] = {}
    for tensor in ternarized:
        layers.setdefault(int(tensor.name.split(".")[1]), []).append(tensor)
    found = {}
    for layer, parts in sorted(layers.items()):
        before = math.hypot(*(part.norm_before for part in parts))
        after = math.hypot(*(part.norm_after for part in parts))
        error = math.hypot(*(part.relative_error * part.norm_before for part in parts))
        found[layer] = Ternarized(f"blk.{layer}", error / before if before else 0.0, before, after)
    return found

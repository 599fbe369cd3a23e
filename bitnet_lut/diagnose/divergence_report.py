"""Showing a divergence: as text, as a page, as a picture."""

import math
import os
import textwrap
from collections.abc import Iterator
from html import escape

from bitnet_lut.diagnose.diverge import Divergence, OpDifference
from bitnet_lut.diagnose.ops import LAYER_OPS, OPS
from bitnet_lut.formats.output import Output

__all__ = ["draw_plot", "html_page", "report_divergence"]

_WIDTH = 100
_HEADING = ("op", "cosine", "largest difference", "ratio of norms", "relative", "alone", "")
# From no difference to nothing in common: decades of the relative difference.
_SHADES = (-7.0, 0.0)
_STYLE = """
body { font: 14px sans-serif; margin: 2em auto; max-width: 70em; color: #222; }
table { border-collapse: collapse; } td, th { padding: 2px 8px; text-align: right; }
td:first-child, th:first-child { text-align: left; font-family: monospace; }
tr.parts td { font-weight: bold; } th { border-bottom: 1px solid #888; }
caption { text-align: left; padding: 8px 0; }
"""


def report_divergence(divergence: Divergence, *, every: bool = False) -> Iterator[str]:
    """Lines of text: what parts, why, and a table.

    every: all ops, else those outside the layers, of the layer that parts first (or layer 0), and
    the residual stream of the others.
    """
    yield from textwrap.wrap(divergence.summary, _WIDTH)
    for sentence in divergence.explanations:
        yield from textwrap.wrap(sentence, _WIDTH, initial_indent="- ", subsequent_indent="  ")
    yield ""
    yield f"A: {_printable(divergence.a)}"
    yield f"B: {_printable(divergence.b)}"
    yield f"{divergence.tokens} tokens; relative differences to {divergence.tolerance:g} are none"
    yield ""
    rows = [_HEADING, *map(_cells, _shown(divergence, every))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *others = row
        cells = [f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True)]
        yield "  ".join([f"{first:{widths[0]}}", *cells[:-1], row[-1]]).rstrip()
    if not every and len(rows) <= len(divergence.ops):
        yield f"({len(divergence.ops) + 1 - len(rows)} ops are not shown)"


def _shown(divergence: Divergence, every: bool) -> Iterator[OpDifference]:
    first = divergence.first
    whole = {-1, first.layer if first is not None and first.layer >= 0 else 0}
    for op in divergence.ops:
        if every or op.layer in whole or op.op == "residual":
            yield op


def _cells(op: OpDifference) -> tuple[str, ...]:
    if op.relative is None:
        return (op.name, *[""] * 5, op.status)
    return (
        op.name,
        f"{op.cosine:.6f}",
        f"{op.max_difference:.3g}",
        f"{op.ratio:.6g}",
        f"{op.relative:.1e}",
        "" if op.step is None else f"{op.step:.1e}",
        op.status.upper() if op.status == "parts" else op.status,
    )


def _printable(text: str) -> str:
    return text if text.isprintable() else repr(text)


def html_page(divergence: Divergence) -> str:
    """A page that needs nothing else: the sentences, a map of all ops, and the whole table."""
    sentences = "".join(f"<li>{escape(text)}</li>" for text in divergence.explanations)
    heading = "".join(f"<th>{escape(text)}</th>" for text in _HEADING)
    rows = "\n".join(
        f'<tr class="{op.status.replace(" ", "-")}">'
        + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(op))
        + "</tr>"
        for op in divergence.ops
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>bitnet-lut diverge</title>
<style>{_STYLE}</style></head><body>
<h1>{escape(divergence.summary)}</h1>
<ul>{sentences}</ul>
<p>A: <code>{escape(divergence.a)}</code><br>B: <code>{escape(divergence.b)}</code><br>
{divergence.tokens} tokens; relative differences to {divergence.tolerance:g} are none.</p>
{_map(divergence)}
<h2>Every op</h2>
<p>alone: the difference to what the op has to give with the inputs that the other program had.</p>
<table><tr>{heading}</tr>
{rows}
</table></body></html>
"""


def _map(divergence: Divergence) -> str:
    """A table of colored cells, layers downwards and ops to the right."""
    found = {(op.layer, op.op): op for op in divergence.ops}
    columns = [op for op in LAYER_OPS if any(at == op for _, at in found)]
    layers = sorted({layer for layer, _ in found if layer >= 0})
    heading = "".join(f"<th>{op}</th>" for op in columns)
    lines = []
    for layer in layers:
        cells = "".join(_shade(found.get((layer, op))) for op in columns)
        lines.append(f"<tr><td>{layer}</td>{cells}</tr>")
    note = "relative difference of each op: white none, dark red nothing in common; a frame: parts"
    rows = "\n".join(lines)
    return f"<table><caption>{note}</caption><tr><th>layer</th>{heading}</tr>\n{rows}\n</table>"


def _shade(op: OpDifference | None) -> str:
    if op is None or op.relative is None:
        return '<td style="background: #ddd"></td>'
    low, high = _SHADES
    share = (_decade(op) - low) / (high - low)
    color = f"rgb({255 - 90 * share:.0f}, {255 - 240 * share:.0f}, {255 - 240 * share:.0f})"
    frame = "; outline: 2px solid black; outline-offset: -2px" if op.status == "parts" else ""
    return f'<td style="background: {color}{frame}" title="{op.name}: {op.relative:.1e}"></td>'


def _decade(op: OpDifference) -> float:
    """Logarithm of the relative difference, within the shades."""
    low, high = _SHADES
    if not op.relative:
        return low
    return high if math.isinf(op.relative) else min(max(math.log10(op.relative), low), high)


def draw_plot(divergence: Divergence, path: str | os.PathLike[str]) -> None:
    """Draw a map of relative differences, layers by ops, to a file that matplotlib can write.

    Raises ImportError without matplotlib, ValueError for a suffix it does not know, and OSError.
    """
    import numpy as np
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = {(op.layer, op.op): op for op in divergence.ops}
    rows = [op for op in OPS if any(at == op for _, at in found)]
    layers = 1 + max(layer for layer, _ in found)
    grid = np.full((len(rows), max(layers, 1)), np.nan)
    for (layer, op), difference in found.items():
        if difference.relative is not None:
            at = layer if layer >= 0 else 0 if op == "embedding" else layers - 1
            grid[rows.index(op), at] = _decade(difference)
    figure = Figure(figsize=(3.5 + 0.3 * max(layers, 12), 1.8 + 0.3 * len(rows)), dpi=120)
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    low, high = _SHADES
    image = axes.imshow(grid, cmap="Reds", vmin=low, vmax=high, aspect="auto")
    axes.set_facecolor("#dddddd")  # shows where a source has no result
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(0, layers, max(1, layers // 15)))
    axes.set_xlabel("layer")
    first = divergence.first
    axes.set_title("no op parts" if first is None else f"x: ops that part, first {first.name}")
    for (layer, op), difference in found.items():
        if difference.status == "parts":
            at = layer if layer >= 0 else 0 if op == "embedding" else layers - 1
            axes.plot(at, rows.index(op), "kx")
    figure.colorbar(image, label="relative difference, powers of ten")
    figure.tight_layout()
    suffix = os.path.splitext(os.fspath(path))[1].removeprefix(".").lower() or "png"  # noqa: PTH122
    with Output(path) as temporary:
        figure.savefig(temporary, format=suffix)

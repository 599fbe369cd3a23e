"""Pictures of what was measured. Needs matplotlib: ``bitnet_lut[plot]``."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bitnet_lut.bench.kernels import KernelFigure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["check_suffix", "new_figure", "roofline", "save"]

_MARKERS = "osD^v<>Pp*h"
_ROOFS = ("-", "--", ":", "-.")


def new_figure(width: float = 10, height: float = 6) -> "tuple[Figure, Axes]":
    """An empty picture, in inches, that belongs to no window; ImportError without matplotlib."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'bitnet_lut[plot]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def check_suffix(path: Path) -> None:
    """Refuse, before anything is measured, what `save` could not write.

    Raises ValueError for a suffix that matplotlib does not know, ImportError without matplotlib.
    """
    figure, _ = new_figure()
    known = figure.canvas.get_supported_filetypes()
    if path.suffix.lower().removeprefix(".") not in known:
        raise ValueError(f"{path}: the suffix must be one of {', '.join(sorted(known))}")


def save(figure: "Figure", path: Path) -> None:
    """Write a picture in the format that the file's suffix names, such as .png, .svg or .pdf.

    Raises what `check_suffix` raises, and OSError.
    """
    check_suffix(path)
    from matplotlib import rc_context

    with rc_context({"svg.fonttype": "none"}):  # text stays text
        figure.savefig(path, dpi=150)


def roofline(figures: Sequence[KernelFigure], title: str) -> "Figure":
    """Draw the roofs and every figure as a point.

    A color is a kernel on a tier, a marker is a shape, and a filled one was read from memory. Each
    number of tokens stands below the points that share it. What exceeds a roof is circled.
    """
    figure, axes = new_figure(11, 6.5)
    from matplotlib.ticker import LogFormatter

    several = len({one.threads for one in figures}) > 1
    labels = {one: _label(one, several) for one in figures}
    colors = {label: f"C{at % 10}" for at, label in enumerate(dict.fromkeys(labels.values()))}
    shapes = list(dict.fromkeys((one.rows, one.cols, one.cached) for one in figures))
    for one in figures:
        marker = _MARKERS[shapes.index((one.rows, one.cols, one.cached)) % len(_MARKERS)]
        color = colors[labels[one]]
        axes.plot(
            one.intensity,
            one.gmac_s,
            marker=marker,
            color=color,
            markerfacecolor="white" if one.cached else color,
            linestyle="none",
            markersize=7,
        )
        if not one.is_possible:
            axes.plot(one.intensity, one.gmac_s, "o", color="red", mfc="none", markersize=15)
    _draw_roofs(axes, figures)
    _add_legends(axes, figures, colors, shapes)
    axes.set(xscale="log", yscale="log", title=title)
    axes.set_ylim(bottom=min(one.gmac_s for one in figures) / 2)
    _name_tokens(axes, figures)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(LogFormatter(minor_thresholds=(3, 0.5)))
    axes.set_xlabel("multiply-adds per byte of packed weights")
    axes.set_ylabel("G multiply-adds/s")
    axes.grid(which="both", color="#ececec")
    axes.set_axisbelow(True)
    return figure


def _label(one: KernelFigure, several: bool) -> str:
    return f"{one.kernel} on {one.isa}" + (f", threads {one.threads}" if several else "")


def _draw_roofs(axes: "Axes", figures: Sequence[KernelFigure]) -> None:
    """Lines for memory, for the second caches, and where both end, for multiply-adds."""
    low = min(one.intensity for one in figures) / 3
    high = max(one.intensity for one in figures) * 2
    roofs = {(one.isa, one.threads): one for one in figures}
    for at, ((isa, threads), one) in enumerate(roofs.items()):
        style = _ROOFS[at % len(_ROOFS)]
        for read, color in ((one.read_gb_s, "black"), (one.cache_gb_s, "gray")):
            if math.isinf(read):
                continue
            corner = one.integer_gmac_s / read
            xs = sorted({low, high, min(max(corner, low), high)})
            ys = [min(one.integer_gmac_s, read * x) for x in xs]
            where = "memory" if color == "black" else "L2 caches"
            text = f"{where} {read:.0f} GB/s, {isa} {one.integer_gmac_s:.0f} G/s, threads {threads}"
            axes.plot(xs, ys, style, color=color, label=text, linewidth=1.2, zorder=1)


def _name_tokens(axes: "Axes", figures: Sequence[KernelFigure]) -> None:
    """Name each number of tokens at the foot of its points, which lie about one intensity."""
    for tokens in sorted({one.tokens for one in figures}):
        some = [one for one in figures if one.tokens == tokens]
        x = math.exp(sum(math.log(one.intensity) for one in some) / len(some))
        text = f"{tokens} token{'s' if tokens > 1 else ''}"
        axes.text(x, 0.02, text, transform=axes.get_xaxis_transform(), ha="center")


def _add_legends(
    axes: "Axes",
    figures: Sequence[KernelFigure],
    colors: dict[str, str],
    shapes: Sequence[tuple[int, int, bool]],
) -> None:
    """Beside the picture: colors, markers, and lines."""
    from matplotlib.lines import Line2D

    entries: list[Line2D] = [
        Line2D([], [], color=color, marker="o", linestyle="none", label=label)
        for label, color in colors.items()
    ]
    for at, (rows, cols, cached) in enumerate(shapes):
        where = "in the L2 cache" if cached else "from memory"
        entries.append(
            Line2D(
                [],
                [],
                color="black",
                marker=_MARKERS[at % len(_MARKERS)],
                markerfacecolor="white" if cached else "black",
                linestyle="none",
                label=f"{rows} x {cols} {where}",
            )
        )
    if any(not one.is_possible for one in figures):
        entries.append(
            Line2D(
                [],
                [],
                color="red",
                marker="o",
                markerfacecolor="none",
                markersize=12,
                linestyle="none",
                label="above a roof: not possible",
            )
        )
    lines = axes.get_legend_handles_labels()[0]
    axes.legend(handles=[*entries, *lines], loc="upper left", bbox_to_anchor=(1.01, 1), fontsize=8)

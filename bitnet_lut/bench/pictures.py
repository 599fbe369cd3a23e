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
    figure, (axes,) = _new_panels(width, height, 1)
    return figure, axes


def _new_panels(width: float, height: float, count: int) -> "tuple[Figure, list[Axes]]":
    """The same with *count* panels side by side."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ImportError("pictures need matplotlib: pip install 'bitnet_lut[plot]'") from None
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, [*figure.subplots(1, count, squeeze=False)[0]]


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
    """Draw the roofs and every figure as a point, with a panel for each number of threads.

    A color is a kernel on a tier, a marker is a shape, and a filled one was read from memory. Each
    number of tokens stands below the points that share it. What exceeds a roof is circled.
    """
    threads = list(dict.fromkeys(one.threads for one in figures))
    figure, panels = _new_panels(4 + 6.5 * len(threads), 7, len(threads))
    labels = dict.fromkeys(f"{one.kernel} on {one.isa}" for one in figures)
    colors = {label: f"C{at % 10}" for at, label in enumerate(labels)}
    shapes = list(dict.fromkeys((one.rows, one.cols, one.cached) for one in figures))
    for axes, count in zip(panels, threads, strict=True):
        some = [one for one in figures if one.threads == count]
        for one in some:
            _draw_point(axes, one, colors, shapes)
        _draw_roofs(axes, some)
        _scale(axes, figures)
        _name_tokens(axes, some)
        axes.set_title(f"{title}, {count} thread{'s' if count > 1 else ''}")
        axes.set_xlabel("multiply-adds per byte of packed weights")
    panels[0].set_ylabel("G multiply-adds/s")
    _add_legends(figure, figures, colors, shapes)
    return figure


def _draw_point(
    axes: "Axes",
    one: KernelFigure,
    colors: dict[str, str],
    shapes: Sequence[tuple[int, int, bool]],
) -> None:
    color = colors[f"{one.kernel} on {one.isa}"]
    axes.plot(
        one.intensity,
        one.gmac_s,
        marker=_MARKERS[shapes.index((one.rows, one.cols, one.cached)) % len(_MARKERS)],
        color=color,
        markerfacecolor="none" if one.cached else color,
        linestyle="none",
        markersize=7,
        alpha=0.75,  # points may lie on each other
    )
    if not one.is_possible:
        axes.plot(one.intensity, one.gmac_s, "o", color="red", mfc="none", markersize=15)


def _scale(axes: "Axes", figures: Sequence[KernelFigure]) -> None:
    """The same scales, of all figures, for every panel, with numbers in full."""
    from matplotlib.ticker import FuncFormatter, LogFormatter

    least = min(one.gmac_s for one in figures)
    most = max(max(one.gmac_s, one.integer_gmac_s) for one in figures)
    axes.set(xscale="log", yscale="log", ylim=(least / 2, most * 1.5))
    axes.set_xlim(
        min(one.intensity for one in figures) / 4, max(one.intensity for one in figures) * 2
    )
    for axis in (axes.xaxis, axes.yaxis):
        chosen = LogFormatter(minor_thresholds=(3, 0.5))
        chosen.set_axis(axis)
        chosen.set_locs(axis.get_minorticklocs())
        axis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,g}"))
        axis.set_minor_formatter(
            FuncFormatter(lambda x, at, chosen=chosen: f"{x:,g}" if chosen(x, at) else "")
        )
    axes.grid(which="both", color="#ececec")
    axes.set_axisbelow(True)


def _draw_roofs(axes: "Axes", figures: Sequence[KernelFigure]) -> None:
    """Lines for memory, for the second caches, and where both end, for multiply-adds."""
    low = min(one.intensity for one in figures) / 3
    high = max(one.intensity for one in figures) * 2
    roofs = {one.isa: one for one in figures}
    for at, (isa, one) in enumerate(roofs.items()):
        style = _ROOFS[at % len(_ROOFS)]
        for read, color in ((one.cache_gb_s, "gray"), (one.read_gb_s, "black")):
            if math.isinf(read):
                continue
            corner = one.integer_gmac_s / read
            xs = sorted({low, high, min(max(corner, low), high)})
            ys = [min(one.integer_gmac_s, read * x) for x in xs]
            where = "memory" if color == "black" else "L2 caches"
            text = f"{where} {read:.0f} GB/s, {isa} {one.integer_gmac_s:.0f} G/s"
            axes.plot(xs, ys, style, color=color, label=text, linewidth=1.2, zorder=1)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.1), fontsize=8, ncols=2)


def _name_tokens(axes: "Axes", figures: Sequence[KernelFigure]) -> None:
    """Name each number of tokens at the foot of its points, which lie about one intensity."""
    for tokens in sorted({one.tokens for one in figures}):
        some = [one for one in figures if one.tokens == tokens]
        x = math.exp(sum(math.log(one.intensity) for one in some) / len(some))
        text = f"{tokens} token{'s' if tokens > 1 else ''}"
        axes.text(
            x,
            0.02,
            text,
            transform=axes.get_xaxis_transform(),
            ha="center",
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )


def _add_legends(
    figure: "Figure",
    figures: Sequence[KernelFigure],
    colors: dict[str, str],
    shapes: Sequence[tuple[int, int, bool]],
) -> None:
    """Beside the panels: colors and markers."""
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
                markerfacecolor="none" if cached else "black",
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
    figure.legend(handles=entries, loc="outside right upper", fontsize=8)

"""One look for all figures: colours that survive colour blindness and grey print, few lines, large
type, so that a figure at half its size can still be read.

Drawn with Matplotlib's object interface on fixed margins; text is never TeX, which keeps a figure
at a few hundredths of a second and lets any string stand in it.
"""

from __future__ import annotations

import io
import itertools
import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap, to_hex
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedFormatter, FixedLocator, MaxNLocator, NullLocator
from matplotlib.transforms import ScaledTranslation

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.report.listing import LISTED
from chinchilla_jax.scaling.table.runs import Runs

# Okabe & Ito's palette, told apart under every common colour blindness.
BLUE, VERMILION, GREEN, ORANGE = "#0072B2", "#D55E00", "#009E73", "#E69F00"
PURPLE, SKY = "#CC79A7", "#56B4E9"
INK, SOFT, FAINT = "#1a1a1a", "#6b6b6b", "#e4e4e4"
# Ordered quantities (budgets, sizes): lightness falls with the value, so grey print keeps order.
ORDERED = LinearSegmentedColormap.from_list(
    "ordered", ["#f0a63c", "#e0653a", "#b8336a", "#6f2a8c", "#1f2a6b"]
)
APPROACHES = {"surface": VERMILION, "isoflop": BLUE, "envelope": GREEN}

DPI = 160  # of PNGs
_LABEL = 20.5  # points from an axis down to its label
_NARROW = "⁰¹²³⁴⁵⁶⁷⁸⁹⁻."  # letters of two thirds the width of others

_RC: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10.5,
    "axes.labelsize": 10.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.edgecolor": "#9a9a9a",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.8,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelsize": 9.5,
    "ytick.labelsize": 9.5,
    "xtick.major.size": 3.5,
    "ytick.major.size": 3.5,
    "xtick.minor.size": 2,
    "ytick.minor.size": 2,
    "text.color": INK,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "legend.frameon": False,
    "legend.fontsize": 9.5,
    "svg.fonttype": "path",
    "svg.hashsalt": "chinchilla_jax",
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "text.parse_math": False,
    "axes.titley": 1.0,
}


def styled() -> Any:
    """Context in which every figure is made and written."""
    return matplotlib.rc_context(_RC)


def panels(
    count: int, width: float = 7.4, height: float = 4.4, left: float = 0.72, gap: float = 0.78
) -> tuple[Figure, list[Axes]]:
    """A figure of `count` panels side by side; sizes in inches, margins fixed for labels."""
    figure = Figure(figsize=(width, height))
    right, bottom, top = 0.2, 0.62, 0.42
    each = (width - left - right - gap * (count - 1)) / count
    axes = [
        figure.add_axes(
            (
                (left + index * (each + gap)) / width,
                bottom / height,
                each / width,
                (height - bottom - top) / height,
            )
        )
        for index in range(count)
    ]
    for ax in axes:
        ax.grid(True, color=FAINT, linewidth=0.7)
        ax.set_axisbelow(True)
        for axis in (ax.xaxis, ax.yaxis):  # a tick costs a millisecond; a few are read better
            axis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
        # Fixed, since to look for room under the ticks costs a third of drawing them.
        below = ScaledTranslation(0, -_LABEL / 72, figure.dpi_scale_trans)
        ax.xaxis.set_label_coords(0.5, 0.0, ax.transAxes + below)
    return figure, axes


def lower(figure: Figure, axes: Sequence[Axes], rows: int) -> None:
    """Makes the figure taller by the rows of its legend, which stands above the panels."""
    was = figure.get_figheight()
    tall = was + 0.2 * rows
    figure.set_figheight(tall)
    for ax in axes:
        box = ax.get_position()
        ax.set_position((box.x0, box.y0 * was / tall, box.width, box.height * was / tall))


def log_axis(
    axis: Axis, low: float, high: float, write: Callable[[float], str] = numbers.power_of_ten
) -> None:
    """A logarithmic axis from `low` to `high`, few labelled ticks, their text by `write`."""
    name = "x" if axis is axis.axes.xaxis else "y"
    # Limits first: of what lies in the axes, a single point perhaps, none may be taken.
    axis.axes.set(**{f"{name}lim": (low, high), f"{name}scale": "log"})
    decades = math.log10(high / low)
    if decades >= 2.2:
        step = max(1, math.ceil(decades / 5.5))
        first = math.ceil(math.log10(low) - 1e-9)
        ticks = [10.0**k for k in range(first, first + math.ceil(decades) + 1, step)]
    elif decades >= 0.75:
        steps = (1, 3) if decades > 1.3 else (1, 2, 5)
        start = math.floor(math.log10(low))
        ticks = [m * 10.0**k for k in range(start, start + 4) for m in steps]
    else:  # short enough for round numbers at equal distances
        ticks = [float(t) for t in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)]
    ticks = [t for t in ticks if low * 0.999 <= t <= high * 1.001]
    if name == "x":
        ticks = _apart(axis.axes, ticks, write)
    axis.set_major_locator(FixedLocator(ticks))
    axis.set_major_formatter(FixedFormatter([write(t) for t in ticks]))
    axis.set_minor_locator(NullLocator())


def _apart(ax: Axes, ticks: Sequence[float], write: Callable[[float], str]) -> list[float]:
    """All that stay in the figure, else every second and so on, so that no two texts touch."""
    figure = ax.get_figure(root=True)
    assert figure is not None
    points = 72 * figure.get_figwidth()
    left, _, width, _ = ax.get_position().bounds
    ends = []
    for tick in ticks:
        place = points * (left + width * _fraction(tick, *ax.get_xlim(), log=True))
        half = sum(3.8 if letter in _NARROW else 6.3 for letter in write(tick)) / 2
        ends.append((place - half, place + half))
    inside = [i for i, (_, end) in enumerate(ends) if end <= points]
    for step in range(1, len(inside) + 1):
        sets = [inside[first::step] for first in range(step)]
        for kept in sorted(sets, key=lambda kept: min(len(write(ticks[i])) for i in kept)):
            if all(ends[i][1] + 4.0 <= ends[j][0] for i, j in itertools.pairwise(kept)):
                return [ticks[i] for i in kept]  # first those with a power of ten
    return []


def padded(
    values: Sequence[float] | np.ndarray[Any, Any], factor: float = 1.3
) -> tuple[float, float]:
    """Limits of a logarithmic axis around the values that are positive and finite."""
    array = np.asarray(values, float)
    array = array[np.isfinite(array) & (array > 0)]
    return float(array.min()) / factor, float(array.max()) * factor


def limits(
    values: Sequence[float] | np.ndarray[Any, Any], margin: float = 0.06
) -> tuple[float, float]:
    """Limits of a linear axis around the values that are finite, with a margin also around one."""
    array = np.asarray(values, float)
    array = array[np.isfinite(array)]
    low, high = float(array.min()), float(array.max())
    span = high - low
    if span <= 1e-9 * max(abs(low), abs(high)):
        span = 0.1 * max(abs(low), abs(high)) or 1.0
    return low - margin * span, high + margin * span


def key(label: str, marker: str = "", **look: Any) -> Line2D:
    """An entry of a legend; without a line unless `look` has its style `ls`."""
    return Line2D([], [], marker=marker, label=label, **{"ls": "none" if marker else "-"} | look)


def budget_colours(flops: Sequence[float]) -> list[str]:
    """A colour per budget, light to dark in the order of FLOPs."""
    order = np.argsort(np.argsort(flops))
    return [to_hex(ORDERED(i / max(1, len(flops) - 1))) for i in order]


def edge_labels(
    ax: Axes,
    labels: Sequence[tuple[float, float, str, str]],
    least: float = 13.5,
    rows: tuple[str, Sequence[int]] | None = None,
) -> None:
    """Labels (x, y, colour, text) at the right edge, each led to its point by a thin line.

    They keep the order of their points and are moved apart until `least` points lie between two;
    `rows` is the kind and number of each, as of `name_lines`.
    """
    figure = ax.get_figure(root=True)
    assert figure is not None
    height = ax.get_position().height * figure.get_figheight() * 72
    low, high = ax.get_ylim()
    order = sorted(range(len(labels)), key=lambda i: labels[i][1])
    ordered = [labels[i] for i in order]
    wanted = [height * _fraction(y, low, high, ax.get_yscale() == "log") for _, y, _, _ in ordered]
    placed = list(wanted)
    for _ in range(200):
        for i in range(1, len(placed)):
            overlap = least - (placed[i] - placed[i - 1])
            if overlap > 0:
                placed[i - 1] -= overlap / 2
                placed[i] += overlap / 2
        placed = [min(max(p, 5.0), height - 7.0) for p in placed]
    width = ax.get_position().width * figure.get_figwidth() * 72
    starts = [width * _fraction(x, *ax.get_xlim(), ax.get_xscale() == "log") for x, *_ in ordered]
    leaders, written = [], []
    for x, y, end, (_, _, colour, text) in zip(starts, wanted, placed, ordered, strict=True):
        run, rise = 1.025 * width - x, end - y
        gap = 4.0 / max(math.hypot(run, rise), 4.0)  # points between a marker and its line
        begin = ((x + gap * run) / width, (y + gap * rise) / height)
        leaders.append([begin, (1.025, end / height)])
        written.append(
            ax.text(1.03, end / height, text, transform=ax.transAxes, color=colour, fontsize=9.5,
                    va="center")
        )  # fmt: skip
    colours = [colour for *_, colour, _ in ordered]
    lines = LineCollection(leaders, colors=colours, lw=0.7, alpha=0.45, transform=ax.transAxes)
    ax.add_collection(lines, autolim=False)
    lines.set_clip_on(False)
    if rows is not None:
        kind, numbers_of = rows
        name_lines(lines, kind, (numbers_of[i] for i in order))
        for text_of, i in zip(written, order, strict=True):
            name_lines(text_of, kind, [numbers_of[i]])


def _fraction(value: float, low: float, high: float, log: bool) -> float:
    """Where `value` lies between `low` and `high`, 0 to 1."""
    if log:
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def loss_label(runs: Runs) -> str:
    """Only our own tables say their unit."""
    return "loss (nats per token)" if "params_total" in runs.columns else "loss (as in the table)"


def too_many(points: int) -> bool:
    """Whether so many markers are stored as pixels in an SVG; a browser draws shapes slowly."""
    return points > LISTED


def name_points(drawn: Artist, kind: str, numbers: Iterable[int]) -> None:
    """Says which row of the page each point of `drawn` is, by its table's key: `run` and 17.

    In the order of the points; all of them are finite and lie in the figure, or Matplotlib leaves
    some out of the SVG. There it is the attribute data-points of their group.
    """
    drawn.set_gid(" ".join(["points", kind, *map(str, numbers)]))


def name_lines(drawn: Artist, kind: str, numbers: Iterable[int]) -> None:
    """The same of lines, bands and labels that go with a row and are no points of it: data-lines.

    One number is that of all that is drawn.
    """
    drawn.set_gid(" ".join(["lines", kind, *map(str, numbers)]))


def png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    FigureCanvasAgg(figure)
    # Level 1 of zlib: a tenth of the time of the default for a few per cent of size.
    figure.savefig(buffer, format="png", dpi=DPI, pil_kwargs={"compress_level": 1})
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    buffer = io.StringIO()
    FigureCanvasSVG(figure)
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    # Images go by their content, so that two that are equal would have one id; nothing asks for it.
    text = re.sub(r' id="image\w+"', "", buffer.getvalue())
    return text.replace(' id="points ', ' data-points="').replace(' id="lines ', ' data-lines="')

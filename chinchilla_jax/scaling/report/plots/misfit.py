"""What the surface misses, over sizes and tokens."""

from __future__ import annotations

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.analysis import Arrays
from chinchilla_jax.scaling.fits import Fits
from chinchilla_jax.scaling.report.plots import style

_SIGNED = LinearSegmentedColormap.from_list(
    "signed", [style.BLUE, "#9fc6e0", "#ececec", "#f0b48a", style.VERMILION]
)


def misfit(fits: Fits, arrays: Arrays) -> Figure | str:
    """100 ln(predicted / observed) of every run at its N and D; beside it, against N by length."""
    if arrays.residual_R is None:
        return fits.parametric.reason or "no surface was fitted"
    runs, miss = arrays.runs, 100 * arrays.residual_R
    reach = float(max(np.quantile(np.abs(miss), 0.95), 0.1))
    figure, axes = style.panels(2, width=10.2, height=3.9, gap=1.0)
    order = np.argsort(np.abs(miss), kind="stable")  # what is missed most lies on top
    dots = axes[0].scatter(
        runs.tokens[order], runs.params[order], c=miss[order], cmap=_SIGNED, vmin=-reach,
        vmax=reach, s=26, edgecolors=style.SOFT, linewidths=0.3, zorder=3,
        rasterized=style.too_many(len(runs)),
    )  # fmt: skip
    style.name_points(dots, "run", runs.index_R[order])
    style.log_axis(axes[0].xaxis, *style.padded(runs.tokens, 1.4), numbers.count)
    style.log_axis(axes[0].yaxis, *style.padded(runs.params, 1.4), numbers.count)
    axes[0].set_xlabel("training tokens D")
    axes[0].set_ylabel("parameters N")
    axes[0].set_title("every run, by colour (%)")
    bar = figure.colorbar(dots, ax=axes[0], fraction=0.05, pad=0.02)
    bar.outline.set_visible(False)
    ratio = runs.tokens_per_param
    thirds = np.searchsorted(np.quantile(ratio, [1 / 3, 2 / 3]), ratio)
    looks = (
        (style.BLUE, "o", "short"),
        (style.SOFT, "s", "as usual"),
        (style.VERMILION, "D", "long"),
    )
    axes[1].axhline(0, color=style.SOFT, lw=1)
    for third, (colour, marker, name) in enumerate(looks):
        here = thirds == third
        (marks,) = axes[1].plot(
            runs.params[here], np.clip(miss[here], -2 * reach, 2 * reach), marker, ms=3.5,
            color=colour, alpha=0.75, mew=0, label=f"trained {name}",
            rasterized=style.too_many(len(runs)),
        )  # fmt: skip
        style.name_points(marks, "run", runs.index_R[here])
    style.log_axis(axes[1].xaxis, *style.padded(runs.params, 1.4), numbers.count)
    axes[1].set_ylim(-2.1 * reach, 2.1 * reach)
    axes[1].set_xlabel("parameters N")
    axes[1].set_ylabel("predicted over observed (%)")
    axes[1].set_title("by tokens per parameter, in thirds")
    axes[1].legend(loc="best")
    return figure

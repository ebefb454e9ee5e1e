"""The figures of a report, by name, in the order of the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.figure import Figure

from chinchilla_jax.scaling.analysis import Arrays
from chinchilla_jax.scaling.fits import Fits
from chinchilla_jax.scaling.laws.fit import LawFit
from chinchilla_jax.scaling.laws.published import PublishedLaw
from chinchilla_jax.scaling.report.plots import (
    accuracy,
    choice,
    doubts,
    excess,
    frontier,
    gap,
    layout,
    misfit,
    profiles,
)
from chinchilla_jax.scaling.table.runs import Runs

FIGURES: dict[str, Callable[[Fits, Arrays, Sequence[PublishedLaw]], Figure | str]] = {
    "isoflop": lambda fits, arrays, _: profiles.iso_flop(fits, arrays),
    "frontier": frontier.frontier,
    "surface": lambda fits, arrays, _: frontier.surface_contours(fits, arrays),
    "curves": lambda fits, arrays, _: profiles.training_curves(fits, arrays),
    "holdout": lambda fits, arrays, _: doubts.holdout(fits, arrays),
    "residuals": lambda fits, arrays, _: doubts.residuals(fits, arrays),
    "misfit": lambda fits, arrays, _: misfit.misfit(fits, arrays),
    "bootstrap": lambda fits, arrays, _: doubts.bootstrap(fits, arrays),
    "influence": lambda fits, arrays, _: doubts.influence(fits, arrays),
    "conventions": lambda fits, arrays, _: doubts.conventions(fits, arrays),
}
"""Every entry returns a sentence that says why where there is nothing to draw."""


def of_laws(fits: Sequence[LawFit], runs: Runs) -> dict[str, Callable[[], Figure | str]]:
    """The figures of further laws that were fitted to `runs`, by name."""
    return {
        name: drawer
        for each in (layout, choice, excess, gap)
        for name, drawer in each.drawers(fits, runs).items()
    }


def of_tasks(fits: Fits, arrays: Arrays) -> dict[str, Callable[[], Figure | str]]:
    """The figure of accuracies on tasks, where the table has some, by name."""
    return accuracy.drawers(fits, arrays)


def of_tuning(fits: Fits) -> dict[str, Callable[[], Figure | str]]:
    """The figure of laws of hyper-parameters, where some were fitted, by name."""
    from chinchilla_jax.scaling.report.plots import tuning  # few ask for it

    return tuning.drawers(fits.tuning)

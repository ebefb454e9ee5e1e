"""What these runs cannot tell, said in words, with the runs that would tell it.

A `Refusal` stands where a number would be a guess: no number is given. A warning stands beside a
number that is weaker than it looks.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from chinchilla_jax.experiment import numbers
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.doubt.form_error import FormError
from chinchilla_jax.scaling.fits import Check, Forecast, IsoFlop, Parametric
from chinchilla_jax.scaling.fitting.bias import Bias
from chinchilla_jax.scaling.fitting.estimators import METHODS
from chinchilla_jax.scaling.fitting.intervals import LEVEL, Interval, least, open_ends
from chinchilla_jax.scaling.fitting.isoflop import Profile
from chinchilla_jax.scaling.fitting.minima import MinimaFit
from chinchilla_jax.scaling.fitting.optimum import Optimum
from chinchilla_jax.scaling.fitting.outlying import dip
from chinchilla_jax.scaling.fitting.refusal import LEAST_BUDGETS, LEAST_SIZES, Refusal
from chinchilla_jax.scaling.fitting.surface import SurfaceFit
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.runs import Runs

_LEAST_RUNS = {False: 7, True: 6}  # the parameters and two more, tied or not
_COLLINEAR = 0.1  # nats: scatter of ln tokens around a line in ln params (or the reverse)


def distinct(x: Floats) -> int:
    """Values more than 2 % apart."""
    return 1 + int(np.sum(np.diff(np.sort(np.log(x))) > 0.02))


def correlation(runs: Runs) -> float | None:
    """Between ln params and ln tokens; None where one does not vary."""
    n, d = np.log(runs.params), np.log(runs.tokens)
    if np.ptp(n) < 1e-9 or np.ptp(d) < 1e-9:
        return None
    return float(np.corrcoef(n, d)[0, 1])


def surface_refusal(runs: Runs, tied: bool) -> Refusal | None:
    """Why no surface can be fitted to these runs at all."""
    what = "The loss surface E + A/N^alpha + B/D^beta"
    cells = len(np.unique(runs.cell_R()))
    least = _LEAST_RUNS[tied]
    if cells < least:
        return Refusal(
            what,
            f"{cells} different runs for {least - 2} parameters",
            f"train at least {least} runs, better 20, over three budgets and five sizes each",
        )
    sizes, lengths = distinct(runs.params), distinct(runs.tokens)
    if min(sizes, lengths) < LEAST_SIZES:
        short, name = (sizes, "model sizes") if sizes < LEAST_SIZES else (lengths, "token counts")
        return Refusal(
            what,
            f"{short} different {name}, and a curve in them needs three",
            f"train more {name} at the same FLOPs",
        )
    n, d = np.log(runs.params), np.log(runs.tokens)
    slope = float(np.polyfit(n, d, 1)[0])
    r = float(np.corrcoef(n, d)[0, 1])
    scatter = np.sqrt(max(0.0, 1 - r * r)) * min(n.std(), d.std())
    if scatter < _COLLINEAR:
        flops = numbers.flops(float(np.exp(np.median(np.log(runs.flops)))))
        middle = numbers.ratio(float(np.median(runs.tokens_per_param)))
        if slope < 0:
            return Refusal(
                what,
                f"all runs lie on one line, ln tokens = {slope:.2f} ln params + constant "
                "(one budget): what params and tokens do apart cannot be told",
                f"train the same sizes at a second and third budget, 3 and 10 times {flops} FLOPs",
            )
        return Refusal(
            what,
            f"tokens follow params in every run (about {middle} tokens per parameter, correlation "
            f"of the logs {r:.4f}), so alpha and beta cannot be told apart",
            f"at {flops} FLOPs train models of a quarter, half, twice and four times the size",
        )
    return None


def surface_doubts(
    fit: SurfaceFit, runs: Runs, cost: FlopsModel, interval_a: Interval | None
) -> list[str]:
    """Warnings about a surface that could be fitted."""
    said = []
    if fit.starts_agreeing < 0.5:
        said.append(
            f"parametric: only {numbers.percentage(fit.starts_agreeing)} of {fit.starts} starts "
            "reached the best optimum; others are listed as runner-up"
        )
    for other in fit.runner_up[:1]:
        near = fit.identified and other.identified and other.value < 1.02 * fit.value
        a, b = (float(s.exponents(cost)[0]) for s in (fit.surface, other.surface))
        if near and abs(a - b) > 0.02:
            said.append(
                f"parametric: another optimum is {100 * (other.value / fit.value - 1):.2g} % worse "
                f"and has a = {b:.3f} instead of {a:.3f}"
            )
    if runs.budgets_from is not None and len(runs.budget_G) == 2:
        said.append("parametric: two budgets: the exponents rest on a single ratio of FLOPs")
    if interval_a is not None and interval_a[1] - interval_a[0] > 0.3:
        said.append(
            f"parametric: the exponent a is hardly known, 95 % interval {interval_a[0]:.2f} to "
            f"{interval_a[1]:.2f}: more runs, or budgets further apart"
        )
    return said


def surface_limits(fit: SurfaceFit, runs: Runs) -> list[Refusal]:
    """Parameters that the fit put at the edge of what is possible."""
    top = numbers.flops(10 * float(runs.flops.max()))
    remedies = {
        "E": (
            "The irreducible loss E",
            "the fit puts it at zero: the losses are still too far from it",
            f"train a few runs at {top} FLOPs or more",
        ),
        "A": (
            "What params do to the loss",
            "the fit needs no term in params",
            "train smaller models at the same tokens",
        ),
        "B": (
            "What tokens do to the loss",
            "the fit needs no term in tokens",
            "train the same sizes on fewer tokens",
        ),
        "alpha": (
            "The exponent alpha",
            f"it lies at the bound {fit.surface.alpha:.3g} of what is tried",
            "widen the range of params at every budget",
        ),
        "beta": (
            "The exponent beta",
            f"it lies at the bound {fit.surface.beta:.3g} of what is tried",
            "widen the range of tokens at every size",
        ),
    }
    return [Refusal(*remedies[name]) for name in fit.at_bound]


def open_intervals(
    surface: Parametric, isoflop: IsoFlop, forecasts: Sequence[Forecast]
) -> list[str]:
    """Intervals of the headlines that draws leave open."""
    headlines = [("parametric", surface.interval), ("iso-FLOP", isoflop.interval)]
    headlines += [
        (f"forecast at {numbers.flops(row.flops)} FLOPs", row.interval or {}) for row in forecasts
    ]
    return [f"{name}: {said}" for name, found in headlines if (said := open_ends(found))]


def form_doubt(error: FormError, flops: float, best: Optimum) -> str:
    """What the intervals of a forecast hold beside chance, or that they hold nothing else."""
    where = f"forecast at {numbers.flops(flops)} FLOPs"
    if not error.known:
        return (
            f"{where}: no budget could be held out and no other form checks this one: its "
            "intervals are those of chance alone, too narrow to be called 95 %"
        )
    loss, params = (float(np.ravel(x)[0]) for x in error.at(np.array([flops]), best))
    checks = ["the other forms' forecasts"] * bool(error.others)
    if error.held_out is not None:
        several = "" if error.held_out.forecasts == 1 else "s"
        checks = [f"{error.held_out.forecasts} held-out forecast{several}", *checks]
    return (
        f"{where}: beside chance its intervals hold an error of the form, {100 * loss:.2g} % of "
        f"the loss and {100 * params:.2g} % of the size (one standard deviation), as "
        f"{' and '.join(checks)} show{'s' * (len(checks) == 1)} it"
    )


def few_draws(settings: Settings) -> str | None:
    """A warning where draws were asked for and are too few for any interval."""
    if settings.draws == settings.bootstrap:
        return None
    return (
        f"bootstrap: {settings.bootstrap} draws say nothing of {100 * LEVEL:g} % intervals, which "
        f"take {least()} or more: none is given"
    )


def decades_beyond(flops: float, runs: Runs) -> float:
    """Decades between the largest FLOPs fitted and `flops`; negative inside."""
    return float(np.log10(flops / runs.flops.max()))


def extrapolation(flops: float, runs: Runs) -> str | None:
    """A warning where a forecast reaches further than the runs themselves span."""
    beyond = decades_beyond(flops, runs)
    span = float(np.log10(runs.flops.max() / runs.flops.min()))
    if beyond <= span or beyond <= 0.5:
        return None
    return (
        f"forecast: {numbers.flops(flops)} FLOPs lie {beyond:.1f} decades beyond the largest run, "
        f"and the runs span {span:.1f}: nothing here tests the law that far"
    )


def outlying_runs(found: Sequence[Profile], near: Sequence[Profile]) -> list[str]:
    """Budgets whose minimum is not that of all their runs."""
    return [
        f"iso-FLOP: at {numbers.flops(whole.flops)} FLOPs the parabola through all "
        f"{len(whole.loss_S)} runs passes {100 * dip(whole):.1f} % below the lowest ones; the "
        f"minimum is that without the {len(whole.loss_S) - len(part.loss_S)} highest losses"
        for whole, part in zip(found, near, strict=True)
        if len(part.loss_S) < len(whole.loss_S)
    ]


def minima_doubts(
    found: Sequence[Profile], fit: MinimaFit, bias: Mapping[str, Bias | None]
) -> list[str]:
    """Warnings about how the profiles were laid out."""
    said = []
    middle = np.array([profile.log_params_S[[0, -1]].mean() for profile in found])
    drift = (np.log(fit.params_G) - middle)[fit.good_G]  # across the grid
    if len(drift) >= LEAST_BUDGETS and np.ptp(drift) > np.log(2.0):
        said.append(
            "iso-FLOP: minima wander across their grids by a factor "
            f"{float(np.exp(np.ptp(drift))):.2g}; with asymmetric profiles that bends the exponent"
        )
    for method in METHODS:
        expected = bias.get(method)
        if expected is not None and expected.a is not None and abs(expected.a) > 0.01:
            said.append(
                f"iso-FLOP: on the fitted surface the {method} would miss the exponent a by "
                f"{expected.a:+.3f} even without noise"
            )
    return said


def nothing_checked(checked: Sequence[Check] | None, settings: Settings) -> str | None:
    """Why --holdout_above compares nothing."""
    if checked is None or checked:
        return None
    return (
        f"holdout_above: no forecast can be checked at {numbers.flops(settings.holdout_above)} "
        "FLOPs: budgets with a minimum are needed on both sides of it, and runs below that a law "
        "can be fitted to"
    )


def cost_doubt(cost: FlopsModel) -> str | None:
    """A warning where FLOPs are not a power of params times tokens."""
    if cost.spread < 0.1:
        return None
    return (
        f"flops scatter by {100 * cost.spread:.0f} % around {cost.kappa:.3g} "
        f"params^{cost.exponent:.3f} tokens: forecasts of tokens carry that"
    )

"""Which forecast to believe: fit up to a budget, predict the minima and the cells beyond it.

Every fold ends at a budget; what lies beyond is predicted by every form (the surface, or L(C)
through the minima) on every selection of runs. Selections matter because runs far from the optimum
bend a surface of five parameters, and a forecast stands at the optimum.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fitting.isoflop import Profile
from chinchilla_jax.scaling.fitting.minima import MinimaFit, fit_loss_law
from chinchilla_jax.scaling.fitting.surface import SurfaceFit, refit_searched
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.runs import Runs

Mask = npt.NDArray[np.bool_]

LEAST_BUDGETS = 3  # below the cut, for L(C) has three parameters
LEAST_RUNS = 8  # for the surface's five parameters
ALL = "all"
MINIMA = "minima"


def _near_best(runs: Runs, within: float) -> Mask:
    best_R = np.full(len(runs), np.inf)
    for g in range(len(runs.budget_G)):
        here = runs.group_R == g
        if here.any():
            best_R[here] = runs.loss[here].min()
    return np.asarray(runs.loss <= best_R * (1 + within))


# Chosen before any table is seen, so that hold-out picks among few and not among what fits best.
SELECTIONS: dict[str, Callable[[Runs], Mask]] = {
    "within 8 % of the budget's best": lambda runs: _near_best(runs, 0.08),
    "tokens per parameter 2-300": lambda runs: (
        (runs.tokens_per_param >= 2) & (runs.tokens_per_param <= 300)
    ),
    ALL: lambda runs: np.ones(len(runs), bool),
}


# All runs under another form of surface, by what it is called among the selections.
COUPLED = {"all, coupled by beta": "even", "all, coupled by gamma": "gamma"}


@dataclass(frozen=True)
class Forecaster:
    """A form of law and the runs it is fitted on."""

    form: str  # "loss_law" or "surface"
    selection: str

    def as_dict(self) -> dict[str, str]:
        return {"form": self.form, "selection": self.selection}


# In order of preference among those that hold-out cannot tell apart.
FORECASTERS = (
    Forecaster("loss_law", MINIMA),
    *(Forecaster("surface", name) for name in (*SELECTIONS, *COUPLED)),
)


@dataclass(frozen=True)
class HeldOut:
    """One forecaster in one fold; errors are ln(predicted / observed) of the loss."""

    forecaster: Forecaster
    fitted_up_to: float
    runs: int
    flops_H: Floats
    predicted_H: Floats
    observed_H: Floats
    params_error_H: Floats  # ln of params at the optimum, predicted over observed
    cell_error_R: Floats  # of every run beyond; empty for L(C)

    @property
    def minimum_error_H(self) -> Floats:
        return np.asarray(np.log(self.predicted_H / self.observed_H))


def hold_out(
    runs: Runs,
    fit: SurfaceFit | None,
    cost: FlopsModel,
    found: Sequence[Profile],
    head: MinimaFit,
    forms: Mapping[str, SurfaceFit] | None = None,
) -> list[HeldOut]:
    """All folds; `head` holds the minima of `found`, those without one are not used.

    `forms` are other forms of surface on all runs, by name.

    Empty where fewer than three budgets with a minimum lie below every cut.
    """
    flops_G = np.array([profile.flops for profile in found])
    log_params_G, loss_G = np.log(head.params_G), head.loss_G
    usable = np.flatnonzero(head.good_G)
    cuts = flops_G[usable][LEAST_BUDGETS - 1 : -1]
    results: list[HeldOut] = []
    problems: list[tuple[Forecaster, float, Mask]] = []
    for cut in cuts:
        below, beyond = usable[flops_G[usable] <= cut], usable[flops_G[usable] > cut]
        law = fit_loss_law(flops_G[below], loss_G[below][None])
        assert law is not None
        weight = np.sqrt(head.weights_G[below])  # of a residual, as polyfit takes it
        slope, level = np.polyfit(np.log(flops_G[below]), log_params_G[below], 1, w=weight)
        results.append(
            HeldOut(
                FORECASTERS[0],
                float(cut),
                len(below),
                flops_G[beyond],
                law.loss(flops_G[beyond]),
                loss_G[beyond],
                level + slope * np.log(flops_G[beyond]) - log_params_G[beyond],
                np.empty(0),
            )
        )
        early = runs.flops <= cut * 1.1
        for name, select in SELECTIONS.items():
            mask = early & select(runs)
            if mask.sum() >= LEAST_RUNS and fit is not None:
                problems.append((Forecaster("surface", name), float(cut), mask))
    every = [(cut, mask) for forecaster, cut, mask in problems if forecaster.selection == ALL]
    for name, form in COUPLED.items():
        if forms and form in forms and every:
            named = [(Forecaster("surface", name), cut, mask) for cut, mask in every]
            results += _surfaces(runs, forms[form], cost, named, usable, flops_G, head, quick=True)
    if problems and fit is not None:
        results += _surfaces(runs, fit, cost, problems, usable, flops_G, head)
    return results


def _surfaces(
    runs: Runs,
    fit: SurfaceFit,
    cost: FlopsModel,
    problems: Sequence[tuple[Forecaster, float, Mask]],
    usable: npt.NDArray[np.intp],
    flops_G: Floats,
    head: MinimaFit,
    quick: bool = False,
) -> list[HeldOut]:
    """What the form of `fit` says of the minima and the runs beyond each cut."""
    log_params_G, loss_G, results = np.log(head.params_G), head.loss_G, []
    weights = np.stack([mask for _, _, mask in problems]) * fit.weights_R
    refits = refit_searched(fit, weights, quick=quick)
    surface, frontier = refits.surface, refits.frontier
    for i, (forecaster, cut, mask) in enumerate(problems):
        beyond = usable[flops_G[usable] > cut]
        select = SELECTIONS.get(forecaster.selection, SELECTIONS[ALL])
        late = (runs.flops > cut * 1.1) & select(runs)
        params, tokens = frontier[i].optimum(flops_G[beyond], cost)
        predicted = surface[i].loss(runs.params[late], runs.tokens[late])
        results.append(
            HeldOut(
                forecaster,
                cut,
                int(mask.sum()),
                flops_G[beyond],
                surface[i].loss(params, tokens),
                loss_G[beyond],
                np.log(params) - log_params_G[beyond],
                np.log(predicted / runs.loss[late]),
            )
        )
    return results


@dataclass(frozen=True)
class Score:
    """A forecaster over all folds."""

    forecaster: Forecaster
    forecasts: int
    minima_rms: float
    minima_bias: float
    cells_rms: float | None


def scores(results: list[HeldOut]) -> list[Score]:
    """Best first; forecasters that could not take part in every fold come last."""
    found = []
    for forecaster in FORECASTERS:
        folds = [r for r in results if r.forecaster == forecaster]
        if not folds:
            continue
        errors = np.concatenate([r.minimum_error_H for r in folds])
        errors = np.where(np.isfinite(errors), errors, np.inf)
        cells = np.concatenate([r.cell_error_R for r in folds])
        found.append(
            Score(
                forecaster,
                len(errors),
                float(np.sqrt(np.mean(errors**2))),
                float(np.mean(errors)),
                float(np.sqrt(np.mean(cells**2))) if len(cells) else None,
            )
        )
    most = max((score.forecasts for score in found), default=0)
    return sorted(found, key=lambda score: (score.forecasts < most, score.minima_rms))


def best(
    ranking: list[Score], noise_of_minimum: float, available: Sequence[Forecaster]
) -> tuple[Forecaster, str]:
    """The forecaster to use and why; ties within the noise of a minimum go by FORECASTERS.

    Only those `available` count: hold-out may rank one that is refused on all runs, or whose
    selection keeps every run and so is no other than the surface on all.
    """
    ranking = [s for s in ranking if s.forecaster in available and np.isfinite(s.minima_rms)]
    if not ranking:
        everything = Forecaster("surface", ALL)
        if everything in available or not available:
            return everything, "no hold-out was possible: the surface on all runs"
        return available[0], "no hold-out was possible: the only one there is"
    top = ranking[0]
    slack = noise_of_minimum / np.sqrt(top.forecasts)
    close = [
        s.forecaster
        for s in ranking
        if s.forecasts == top.forecasts and s.minima_rms <= top.minima_rms + slack
    ]
    chosen = next(f for f in FORECASTERS if f in close)
    count = f"{top.forecasts} held-out minim{'um' if top.forecasts == 1 else 'a'}"
    reason = f"lowest error of {count}, rms {100 * top.minima_rms:.2f} %"
    if len(close) > 1:
        reason = (
            f"{len(close)} forecasts are within the noise of the best "
            f"(rms {100 * top.minima_rms:.2f} % over {count}); "
            "of these the one that rests on runs nearest the optimum"
        )
    if top.forecasts < 3:
        reason += f"; {top.forecasts} is few, so the choice is weak"
    return chosen, reason

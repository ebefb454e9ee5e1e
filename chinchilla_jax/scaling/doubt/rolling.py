"""Which surface to believe for the loss of a run: every form fitted up to a budget, asked beyond.

Whatever cells there are, they are cut at three quantiles of FLOPs; every form on every selection of
runs is fitted below a cut and predicts all runs beyond it, of which the seeds of a cell count as
one. Forecasts average the forms by the inverse of their mean squared error there, for the best of a
few is chosen by chance where they are close.

Forecasts lie beyond the dearest run, where no form is right all the way up: a run weighs by the
square root of its FLOPs. Gamma is hardly told by runs (a valley of alpha gamma = constant), and
free it extrapolates their noise: forms of a given gamma are averaged beside the free one.

On 44 public tables, fitted to their cheaper 70 % and asked for the rest, the median error of the
average is half that of Chinchilla's form (tests/benchmarks/held_out_surfaces.py, LOG.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats, Ints, silent
from chinchilla_jax.scaling.fitting.chance import resampled_of
from chinchilla_jax.scaling.fitting.forms import FORMS
from chinchilla_jax.scaling.fitting.surface import (
    Surface,
    SurfaceFit,
    fit_surface,
    refit,
    refit_searched,
)
from chinchilla_jax.scaling.table.runs import Runs

ALL = "all"
NEAR = "within 8 % of the best at its FLOPs"
AVERAGED = tuple(form for form in FORMS if form != "kaplan")  # twice the error of the others
CUTS = (0.4, 0.6, 0.8)
LEAST_CELLS = 8  # below a cut, for six parameters
LEAST_BEYOND = 3  # cells
_POWER = 2  # a weight falls with this power of the error
_TOWARDS = 0.5  # power of FLOPs by which a run weighs: forecasts lie beyond the dearest
_WITHIN = 0.08
_NORMAL_90 = 1.645  # of the normal's size, 90 % lie below
_SAME_FLOPS = 0.25  # ln FLOPs apart
_MOST_RUNS = 1024  # of a fit below a cut: no more are needed to tell forms apart
_LEAST_WEIGHT = 0.005  # of a member that is drawn


@dataclass(frozen=True)
class Member:
    """A form on a selection of runs: its surface on all of these, and how it did beyond the cuts.

    `weight_R` is what the form's fit gives each of these beside its own weights. `rms` and `bias`
    are of ln(predicted / observed), None where it was not checked at every cut.
    """

    form: str
    selection: str
    surface: Surface
    weight_R: Floats
    rms: float | None
    bias: float | None
    weight: float


@dataclass(frozen=True)
class Beyond:
    """Errors of the average at runs beyond the cuts: ln loss, and ln FLOPs beyond those fitted."""

    error_H: Floats
    distance_H: Floats
    part_H: Floats  # what a run has of its cell
    folds: int

    @property
    def rms(self) -> float:
        """Of the errors."""
        return _rms(self.error_H, self.part_H)

    @property
    def distance(self) -> float:
        """Root mean square."""
        return _rms(self.distance_H, self.part_H)


@dataclass(frozen=True)
class Mixture:
    """Surfaces that are averaged, by weight; `beyond` is None where nothing could be held out."""

    members: tuple[Member, ...]
    beyond: Beyond | None
    noise: float  # standard deviation of ln loss of a run around the average

    def loss(self, params: Floats | float, tokens: Floats | float) -> Floats:
        """exp of the mean of ln loss."""
        return np.exp(sum(m.weight * np.log(m.surface.loss(params, tokens)) for m in self.members))


def near_best(flops_R: Floats, loss_R: Floats) -> Bools:
    """Runs within 8 % of the lowest loss of those of about their FLOPs."""
    order = np.argsort(flops_R, kind="stable")
    log_flops = np.log(flops_R[order])
    first, last = (np.searchsorted(log_flops, log_flops + x) for x in (-_SAME_FLOPS, _SAME_FLOPS))
    # lowest[k][i] is that of the 2^k runs from i on: two of them cover any window.
    lowest = [loss_R[order]]
    while (step := 1 << (len(lowest) - 1)) < len(order):
        ahead = np.append(lowest[-1][step:], np.full(step, np.inf))
        lowest.append(np.minimum(lowest[-1], ahead))
    level = np.log2(last - first).astype(int)
    table = np.stack(lowest)
    best = np.minimum(table[level, first], table[level, last - (1 << level)])
    near = np.empty(len(order), bool)
    near[order] = loss_R[order] <= best * (1 + _WITHIN)
    return near


@silent()
def rolling(runs: Runs, fits: dict[str, SurfaceFit]) -> Mixture | None:
    """The average of `fits`, the forms fitted to all `runs`; None without any."""
    if not fits:
        return None
    order = np.argsort(runs.flops, kind="stable")
    order = order[:: -(-len(order) // _MOST_RUNS)]
    thin = {form: _of_rows(fit, order) for form, fit in fits.items()}
    loss = runs.loss[order]
    cell_R = np.unique(runs.tried_cell_R()[order], return_inverse=True)[1]
    seeds_C = np.bincount(cell_R)
    flops_C = np.bincount(cell_R, runs.flops[order]) / seeds_C
    flops, part_R = flops_C[cell_R], 1 / seeds_C[cell_R]
    params, tokens = runs.params[order], runs.tokens[order]
    near_R = near_best(runs.flops, runs.loss)
    selections = {ALL: (runs.flops / runs.flops.max()) ** _TOWARDS}
    if near_R[order] @ part_R >= LEAST_CELLS and not near_R.all():
        selections[NEAR] = selections[ALL] * near_R

    below = [flops_C <= edge for edge in np.unique(np.quantile(flops_C, CUTS) * (1 + 1e-9))]
    below = [b for b in below if LEAST_CELLS <= b.sum() <= len(b) - LEAST_BEYOND]
    early = [b[cell_R] for b in below]
    names = [(form, name) for form in fits for name in selections]
    error_MxFxR = np.full((len(names), len(early), len(order)), np.nan)
    surfaces: list[Surface] = []
    for form, fit in thin.items():
        weights = np.stack([e * weight[order] for weight in selections.values() for e in early]
                           + [weight[order] for weight in selections.values()])  # fmt: skip
        enough = ((weights > 0) @ part_R).round() >= LEAST_CELLS
        found = refit_searched(fit, weights * fit.weights_R, count=2, quick=True).surface
        for s, name in enumerate(selections):
            m = names.index((form, name))
            for f in range(len(early)):
                if enough[i := s * len(early) + f]:
                    error_MxFxR[m, f] = np.log(found[i].loss(params, tokens) / loss)
            surfaces.append(found[len(selections) * len(early) + s])

    weight_M, rms_M, bias_M = _weights(names, error_MxFxR, early, part_R)
    members = tuple(
        Member(form, name, surface, selections[name], rms, bias, float(weight))
        for (form, name), surface, rms, bias, weight in zip(
            names, surfaces, rms_M, bias_M, weight_M, strict=True
        )
    )
    mixture = Mixture(members, _beyond(error_MxFxR, weight_M, early, flops, part_R), 0.0)
    residual = np.log(mixture.loss(params, tokens) / loss)
    # By a quantile: a few runs that are far off say nothing of the others.
    ends = _quantile(np.abs(residual), 0.9, part_R)
    return replace(mixture, noise=ends / _NORMAL_90)


def _rms(values: Floats, weights: Floats) -> float:
    return float(np.sqrt(values**2 @ weights / weights.sum()))


def _quantile(values: Floats, level: float, weights: Floats) -> float:
    order = np.argsort(values)
    below = np.cumsum(weights[order])
    return float(np.interp(level * below[-1], below - weights[order] / 2, values[order]))


def _of_rows(fit: SurfaceFit, index: np.ndarray) -> SurfaceFit:
    rows = replace(fit.rows, z_KxR=fit.rows.z_KxR[:, index], loss_R=fit.rows.loss_R[index])
    return replace(fit, rows=rows, weights_R=fit.weights_R[index])


def _weights(
    names: list[tuple[str, str]], error_MxFxR: Floats, early: list[Bools], part_R: Floats
) -> tuple[Floats, list[float | None], list[float | None]]:
    """Of every member its weight, and the rms and the mean of its errors over the cuts.

    `part_R` is what a run has of its cell.
    """
    if early:
        each = [(error_MxFxR[:, f, ~e], part_R[~e]) for f, e in enumerate(early)]
        mean_MxF = np.stack([x @ part / part.sum() for x, part in each], 1)
        square_MxF = np.stack([x**2 @ part / part.sum() for x, part in each], 1)
        rms_M = np.sqrt(square_MxF.mean(axis=1))
        if (known := np.isfinite(rms_M)).any():
            weight = np.nan_to_num((rms_M / np.nanmin(rms_M)) ** -_POWER, posinf=1.0)
            return (
                weight / weight.sum(),
                [float(x) if k else None for x, k in zip(rms_M, known, strict=True)],
                [float(x) if k else None for x, k in zip(mean_MxF.mean(1), known, strict=True)],
            )
    # Unchecked, the form of most parameters is not to be trusted.
    most = max(FORMS[form].parameters for form in AVERAGED)
    plain = np.array([FORMS[form].parameters < most and name == ALL for form, name in names], float)
    return plain / plain.sum(), [None] * len(names), [None] * len(names)


def _beyond(
    error_MxFxR: Floats, weight_M: Floats, early: list[Bools], flops: Floats, part_R: Floats
) -> Beyond | None:
    """Of the average, over the members of which every fold is known."""
    used = weight_M > 0
    errors, distances, parts = [], [], []
    for f, e in enumerate(early):
        error = weight_M[used] @ error_MxFxR[used, f][:, ~e]
        if np.isfinite(error).all():
            errors.append(error)
            distances.append(np.log(flops[~e] / flops[e].max()))
            parts.append(part_R[~e])
    if not errors:
        return None
    error_H, distance_H, part_H = map(np.concatenate, (errors, distances, parts))
    return Beyond(error_H, distance_H, part_H, len(errors))


def mixture_draws(
    mixture: Mixture,
    fits: dict[str, SurfaceFit],
    draws: int,
    rng: np.random.Generator,
    trunk_R: Ints | None = None,
) -> Floats:
    """[draws, 6]: surfaces of resampled runs, or trunks of runs; every member has as many as its
    weight says."""
    kept = [m for m in mixture.members if m.weight >= _LEAST_WEIGHT]
    share = np.array([m.weight for m in kept])
    counts = np.round(np.diff(np.cumsum([0.0, *share]) / share.sum() * draws, prepend=0.0)[1:])
    weights: dict[str, list[Floats]] = {}
    for member, count in zip(kept, counts.astype(int), strict=True):
        if count == 0:
            continue
        drawn = resampled_of(member.weight_R != 0, trunk_R, count, rng)
        drawn = drawn * fits[member.form].weights_R * member.weight_R
        weights.setdefault(member.form, []).append(drawn)
    parts = []
    for form, each in weights.items():
        found = refit(fits[form], np.concatenate(each), quick=True)
        columns = np.stack(list(map(np.asarray, found.surface.columns())), axis=1)
        parts.append(np.where(np.isfinite(found.objective_B)[:, None], columns, np.nan))
    return np.concatenate(parts)


def fit_forms(
    fit: SurfaceFit, runs: Runs, forms: Sequence[str] = AVERAGED
) -> dict[str, SurfaceFit]:
    """Every one of `forms` on all runs; `fit` is Chinchilla's."""
    columns = (runs.params, runs.tokens, runs.loss)
    found = {"surface": fit}
    for form in forms:
        if form != "surface":
            other = fit_surface(
                *columns, fit.weights_R, fit.objective, fit.tied, count=8, form=form
            )
            if np.isfinite(other.value):
                found[form] = other
    return found

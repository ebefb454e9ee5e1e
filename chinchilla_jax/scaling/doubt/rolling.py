"""Which surface to believe for the loss of a run: every form fitted up to a budget, asked beyond.

Whatever cells there are, they are cut at three quantiles of FLOPs; every form on every selection of
runs is fitted below a cut and predicts all runs beyond it, of which the seeds of a cell count as
one. Forecasts average the forms, each by its error there, for the best of a few is chosen by chance
where they are close. On 23 public tables, fitted to their cheaper 70 % and asked for the rest, the
average of forms has two thirds of the error of Chinchilla's form on all runs, the one of lowest
error four fifths (tests/benchmarks/held_out_surfaces.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats, Ints, silent
from chinchilla_jax.scaling.fitting.chance import resampled
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
CUTS = (0.4, 0.6, 0.8)
LEAST_CELLS = 8  # below a cut, for six parameters
LEAST_BEYOND = 3  # cells
_SHARPNESS = 8  # a weight goes with the error to this power: a tenth more error has half of it
_HANDICAP = 1.3  # of the error of a form with a parameter more, which a cut shows less than it has
_UNCHECKED = ("surface", "even")  # what is averaged where nothing could be held out
_WITHIN = 0.08
_NORMAL_90 = 1.645  # of the normal's size, 90 % lie below
_SAME_FLOPS = 0.25  # ln FLOPs apart
_MOST_RUNS = 1024  # of a fit below a cut: no more are needed to tell forms apart
_LEAST_WEIGHT = 0.005  # of a member that is drawn


@dataclass(frozen=True)
class Member:
    """A form on a selection of runs: its surface on all of these, and how it did beyond the cuts.

    `rms` and `bias` are of ln(predicted / observed), None where it was not checked at every cut.
    """

    form: str
    selection: str
    surface: Surface
    keep_R: Bools
    rms: float | None
    bias: float | None
    weight: float


@dataclass(frozen=True)
class Beyond:
    """Errors of the average at runs beyond the cuts: ln loss, and ln FLOPs beyond those fitted."""

    error_H: Floats
    distance_H: Floats
    folds: int


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
    selections = {ALL: np.ones(len(runs), bool)}
    if LEAST_CELLS <= near_R.sum() < len(runs):
        selections[NEAR] = near_R

    below = [flops_C <= edge for edge in np.unique(np.quantile(flops_C, CUTS) * (1 + 1e-9))]
    below = [b for b in below if LEAST_CELLS <= b.sum() <= len(b) - LEAST_BEYOND]
    early = [b[cell_R] for b in below]
    names = [(form, name) for form in fits for name in selections]
    error_MxFxR = np.full((len(names), len(early), len(order)), np.nan)
    surfaces: list[Surface] = []
    for form, fit in thin.items():
        masks = np.stack([e & keep[order] for keep in selections.values() for e in early]
                         + [keep[order] for keep in selections.values()])  # fmt: skip
        enough = (masks @ part_R).round() >= LEAST_CELLS
        found = refit_searched(fit, masks * fit.weights_R, count=4, quick=True).surface
        for s, name in enumerate(selections):
            m = names.index((form, name))
            for f in range(len(early)):
                if enough[i := s * len(early) + f]:
                    error_MxFxR[m, f] = np.log(found[i].loss(params, tokens) / loss)
            last = len(selections) * len(early) + s
            surfaces.append(fits[form].surface if name == ALL else found[last])

    weight_M, rms_M, bias_M = _weights(names, error_MxFxR, early, part_R)
    members = tuple(
        Member(form, name, surface, selections[name], rms, bias, float(weight))
        for (form, name), surface, rms, bias, weight in zip(
            names, surfaces, rms_M, bias_M, weight_M, strict=True
        )
    )
    mixture = Mixture(members, _beyond(error_MxFxR, weight_M, early, flops), 0.0)
    residual = np.log(mixture.loss(runs.params, runs.tokens) / runs.loss)
    # By a quantile: a few runs that are far off say nothing of the others.
    return replace(mixture, noise=float(np.quantile(np.abs(residual), 0.9) / _NORMAL_90))


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
        if np.isfinite(rms_M).any():
            free_M = np.array([FORMS[form].parameters for form, _ in names])
            against_M = rms_M * np.where(free_M > free_M.min(), _HANDICAP, 1.0)
            weight = np.nan_to_num((against_M / np.nanmin(against_M)) ** -_SHARPNESS, posinf=1.0)
            known = np.isfinite(rms_M)
            return (
                weight / weight.sum(),
                [float(x) if k else None for x, k in zip(rms_M, known, strict=True)],
                [float(x) if k else None for x, k in zip(mean_MxF.mean(1), known, strict=True)],
            )
    plain = np.array([form in _UNCHECKED and name == ALL for form, name in names], float)
    plain = plain if plain.any() else np.ones(len(names))
    return plain / plain.sum(), [None] * len(names), [None] * len(names)


def _beyond(
    error_MxFxR: Floats, weight_M: Floats, early: list[Bools], flops: Floats
) -> Beyond | None:
    """Of the average, over the members of which every fold is known."""
    used = weight_M > 0
    errors, distances = [], []
    for f, e in enumerate(early):
        error = weight_M[used] @ error_MxFxR[used, f][:, ~e]
        if np.isfinite(error).all():
            errors.append(error)
            distances.append(np.log(flops[~e] / flops[e].max()))
    if not errors:
        return None
    return Beyond(np.concatenate(errors), np.concatenate(distances), len(errors))


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
    parts = []
    for member, count in zip(kept, counts.astype(int), strict=True):
        fit, used = fits[member.form], np.flatnonzero(member.keep_R)
        if count == 0:
            continue
        trunk_U = None if trunk_R is None else trunk_R[used]
        drawn = resampled(trunk_U, len(used), count, rng)
        weights = np.zeros((count, len(member.keep_R)))
        weights[:, used] = drawn * fit.weights_R[used]
        found = refit(fit, weights, quick=True)
        columns = np.stack(list(map(np.asarray, found.surface.columns())), axis=1)
        parts.append(np.where(np.isfinite(found.objective_B)[:, None], columns, np.nan))
    return np.concatenate(parts)


def fit_forms(fit: SurfaceFit, runs: Runs) -> dict[str, SurfaceFit]:
    """Every form of FORMS on all runs; `fit` is Chinchilla's."""
    columns = (runs.params, runs.tokens, runs.loss)
    found = {"surface": fit}
    for form in FORMS:
        if form != "surface":
            other = fit_surface(
                *columns, fit.weights_R, fit.objective, fit.tied, count=8, form=form
            )
            if np.isfinite(other.value):
                found[form] = other
    return found

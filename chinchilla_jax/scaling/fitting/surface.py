"""Approach 3: the loss surface L(N, D) = E + A / N^alpha + B / D^beta (Hoffmann et al. 2203.15556).

Other forms of surface (`forms`) couple the terms by an outer power gamma, which is 1 here.

`fit_surface` finds the best parameters of one table and certifies them; `refit` fits the same rows
many times over (bootstrap draws, rows left out, other deltas), which costs about .15 ms a fit for
240 runs. `Surface` holds one parameter set or arrays of them: its formulas work on both.
"""

from dataclasses import dataclass, replace

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats
from chinchilla_jax.scaling.fitting.forms import FORMS, Form
from chinchilla_jax.scaling.fitting.newton import ITERATIONS, Objective, Rows, Solutions
from chinchilla_jax.scaling.table.cost import SIX_ND, FlopsModel

CHINCHILLA = ("E", "A", "B", "alpha", "beta")
PARAMETERS = (*CHINCHILLA, "gamma")
STARTS = 32
_MANY_ROWS = 4096
# Of a draw's further starts the best after so many steps goes on, where it may still win. On loose
# tables that ends within 1 % of going on from each in 96 to 99.8 draws of 100, at 40 % of the time.
_FIRST_STEPS = 16
_QUICK_STEPS = 10, 20
_AT_OPTIMUM = 1e-4  # damping where the way is short
_MAY_WIN = 2.0
_FRONTIER = slice(1, 5)  # of PARAMETERS: those that decide where it is
_NO_OPTIMUM = 300.0  # ln params beyond which the optimum is at no size or at infinite size
_SAME_OBJECTIVE = 1e-6  # relative: starts this close have found the same optimum


@dataclass(frozen=True)
class Surface:
    """E + (A / params^alpha + B / tokens^beta)^gamma, in natural units; fields broadcast."""

    E: Floats | float
    A: Floats | float
    B: Floats | float
    alpha: Floats | float
    beta: Floats | float
    gamma: Floats | float = 1.0

    def loss(self, params: Floats | float, tokens: Floats | float) -> Floats:
        n, d = np.log(np.asarray(params)), np.log(np.asarray(tokens))
        size, data = self.A * np.exp(-self.alpha * n), self.B * np.exp(-self.beta * d)
        if np.all(np.asarray(self.gamma) == 1.0):
            return np.asarray(self.E + size + data)
        return np.asarray(self.E + (size + data) ** self.gamma)

    def exponents(self, cost: FlopsModel = SIX_ND) -> tuple[Floats, Floats]:
        """(a, b) of params ~ flops^a, tokens ~ flops^b on the compute-optimal frontier."""
        alpha, beta = np.asarray(self.alpha), np.asarray(self.beta)
        total = alpha + cost.exponent * beta
        return beta / total, alpha / total

    def optimum(self, flops: Floats | float, cost: FlopsModel = SIX_ND) -> tuple[Floats, Floats]:
        """(params, tokens) of lowest loss at `flops` (Hoffmann et al., eq. 4; any cost model).

        With D = C / (kappa N^p): N^(alpha + p beta) = alpha A / (p beta B) * (C / kappa)^beta. The
        bracket decides, so gamma is not in it.
        NaN where one of the terms vanishes and no optimum exists.
        """
        alpha, beta = np.asarray(self.alpha), np.asarray(self.beta)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            log_n = (
                np.log(alpha * self.A / (cost.exponent * beta * self.B))
                + beta * np.log(np.asarray(flops) / cost.kappa)
            ) / (alpha + cost.exponent * beta)
            params = np.where(np.abs(log_n) < _NO_OPTIMUM, np.exp(log_n), np.nan)
        return params, cost.tokens(flops, params)

    def __getitem__(self, index: int) -> "Surface":
        return Surface(*(float(np.asarray(x)[index]) for x in self.columns()))

    def columns(self) -> tuple[Floats | float, ...]:
        return (self.E, self.A, self.B, self.alpha, self.beta, self.gamma)


@dataclass(frozen=True)
class LocalOptimum:
    """A stationary point of the objective: its value, and the part of the starts that end there."""

    value: float
    starts: float
    surface: Surface
    identified: bool


@dataclass(frozen=True)
class SurfaceFit:
    """One table's best surface of a form of FORMS, and the evidence that it is the best.

    `gradient_norm` is that of the objective in (ln E, ln A', ln B', alpha, beta), A' and B' the
    terms' sizes in the middle of the data (other forms: `coupled`). `starts_agreeing` is the share
    of starts that reached the same objective; `runner_up` the other stationary points, the best
    first.
    """

    surface: Surface
    theta_P: Floats
    rows: Rows
    weights_R: Floats
    objective: Objective
    tied: bool
    value: float
    gradient_norm: float
    starts: int
    starts_agreeing: float
    runner_up: tuple[LocalOptimum, ...]
    at_bound: tuple[str, ...]
    form: str = "surface"

    @property
    def fitter(self) -> Form:
        return FORMS[self.form]

    @property
    def identified(self) -> bool:
        """Whether both terms and both exponents lie inside their bounds: a frontier exists."""
        return not set(self.at_bound) & set(PARAMETERS[1:5])

    @property
    def parameters(self) -> int:
        """How many were fitted."""
        return self.fitter.parameters - self.tied

    @property
    def residual_R(self) -> Floats:
        """ln(predicted) - ln(observed) of every row."""
        log_params, log_tokens = self.rows.z_KxR + self.rows.centre_K[:, None]
        predicted = self.surface.loss(np.exp(log_params), np.exp(log_tokens))
        return np.log(predicted) - np.log(self.rows.loss_R)

    @property
    def noise(self) -> float:
        """Standard deviation of the log residuals, corrected for the parameters fitted."""
        used = self.weights_R > 0
        freedom = max(1, int(used.sum()) - self.parameters)
        return float(np.sqrt(np.sum(self.residual_R[used] ** 2) / freedom))


def fit_surface(
    params_R: Floats,
    tokens_R: Floats,
    loss_R: Floats,
    weights_R: Floats | None = None,
    objective: Objective | None = None,
    tied: bool = False,
    count: int = STARTS,
    form: str = "surface",
) -> SurfaceFit:
    """The surface of lowest objective, from `count` starts; weights multiply each run's term."""
    objective = objective or Objective()
    rows = Rows.of(loss_R, params_R, tokens_R)
    weights_R = np.ones_like(loss_R) if weights_R is None else weights_R
    how = FORMS[form]
    begin = how.starts(rows, weights_R[None], objective, tied, count, 32)[0]
    if len(loss_R) > _MANY_ROWS:
        thin, every = _thinned(rows)
        begin = how.polish(thin, weights_R[every], begin, objective, tied).theta_BxP
    found = how.polish(rows, weights_R, begin, objective, tied)
    return _certified(found, rows, weights_R, objective, tied, form)


def _certified(
    found: Solutions,
    rows: Rows,
    weights_R: Floats,
    objective: Objective,
    tied: bool,
    form: str,
) -> SurfaceFit:
    values = np.where(np.isfinite(found.objective_B), found.objective_B, np.inf)
    order = np.argsort(values, kind="stable")
    surfaces = Surface(*FORMS[form].natural(found.theta_BxP, rows))
    groups: list[list[int]] = []
    for i in map(int, order):
        if groups and values[i] <= values[groups[-1][0]] * (1 + _SAME_OBJECTIVE) + 1e-24:
            groups[-1].append(i)
        else:
            groups.append([i])
    # Of starts that agree to rounding, the one that converged furthest.
    exact = [i for i in groups[0] if values[i] <= values[groups[0][0]] * (1 + 1e-13)]
    best = min(exact, key=lambda i: found.gradient_norm_B[i])
    bound_BxP = FORMS[form].at_bound(found.theta_BxP, rows)
    return SurfaceFit(
        surface=surfaces[best],
        theta_P=found.theta_BxP[best],
        rows=rows,
        weights_R=weights_R,
        objective=objective,
        tied=tied,
        value=float(values[best]),
        gradient_norm=float(found.gradient_norm_B[best]),
        starts=len(values),
        starts_agreeing=len(groups[0]) / len(values),
        runner_up=tuple(
            LocalOptimum(
                value=float(values[g[0]]),
                starts=len(g) / len(values),
                surface=surfaces[g[0]],
                identified=not bound_BxP[g[0], _FRONTIER].any(),
            )
            for g in groups[1:4]
        ),
        at_bound=tuple(np.array(PARAMETERS)[bound_BxP[best]].tolist()),
        form=form,
    )


@dataclass(frozen=True)
class Refits:
    """Surfaces of the same rows under B sets of weights."""

    surface: Surface  # arrays of B
    objective_B: Floats
    bound_BxP: Bools  # which of PARAMETERS lie at a bound

    @property
    def identified_B(self) -> Bools:
        """As `SurfaceFit.identified`."""
        return np.asarray(np.isfinite(self.objective_B) & ~self.bound_BxP[:, _FRONTIER].any(axis=1))

    @property
    def frontier(self) -> Surface:
        """The surfaces that have exponents and optima, as a fit's headline gives them; else NaN."""
        identified_B = self.identified_B
        if identified_B.all():
            return self.surface
        return Surface(*(np.where(identified_B, x, np.nan) for x in self.surface.columns()))


def refits(fit: SurfaceFit, theta_BxP: Floats, objective_B: Floats) -> Refits:
    """From parameters as the form of the fit has them."""
    surface = Surface(*fit.fitter.natural(theta_BxP, fit.rows))
    return Refits(surface, objective_B, fit.fitter.at_bound(theta_BxP, fit.rows))


def refit(
    fit: SurfaceFit, weights_BxR: Floats, thorough: bool = False, quick: bool = False
) -> Refits:
    """The same rows under other weights, started from `fit`; `quick` stops after a few steps.

    `thorough` also tries the table's other optima and far ends of the grid: a few steps from each,
    and all the way from the best of them where that may still win.
    """
    delta = draw_delta(fit, len(weights_BxR))
    begin = np.tile(fit.fitter.off_bounds(fit.theta_P, fit.rows), (len(weights_BxR), 1))
    best = fit.fitter.polish(
        fit.rows, weights_BxR, begin, fit.objective, fit.tied, delta,
        iterations=sum(_QUICK_STEPS) if quick else ITERATIONS, damping=_AT_OPTIMUM,
    )  # fmt: skip
    if thorough:
        theta, value = begin.copy(), np.full(len(begin), np.inf)
        others = fit.fitter.starts(fit.rows, fit.weights_R[None], fit.objective, fit.tied, 4, 8)[0]
        for other in others:
            copies = np.tile(other, (len(begin), 1))
            near = fit.fitter.polish(
                fit.rows, weights_BxR, copies, fit.objective, fit.tied, delta,
                iterations=_FIRST_STEPS,
            )  # fmt: skip
            wins = near.objective_B < value
            theta[wins], value[wins] = near.theta_BxP[wins], near.objective_B[wins]
        may = np.flatnonzero(~(value > _MAY_WIN * best.objective_B) & np.isfinite(value))
        if len(may):
            found = fit.fitter.polish(
                fit.rows, weights_BxR[may], theta[may], fit.objective, fit.tied,
                None if delta is None else delta[may],
            )  # fmt: skip
            wins = ~(best.objective_B[may] <= found.objective_B)
            for old, new in zip(best, found, strict=True):
                old[may[wins]] = new[wins]
    return refits(fit, best.theta_BxP, best.objective_B)


def draw_delta(fit: SurfaceFit, count: int) -> Floats | None:
    """Huber's delta for bootstrap draws: least absolute needs no corner to the last digit there.

    A fiftieth of the residuals moves a draw by a thirtieth of a standard error, and saves half.
    """
    if fit.objective.loss != "least_absolute":
        return None
    return np.full(count, max(fit.objective.huber_delta, 0.02 * fit.noise))


def refit_searched(
    fit: SurfaceFit,
    weights_BxR: Floats,
    delta_B: Floats | None = None,
    count: int = 8,
    quick: bool = False,
) -> Refits:
    """`refit` that also starts every problem from `count` points of its own grid.

    For the few fits that are reported by themselves. `quick` takes a few steps from each start and
    goes on from the best, not to the last digit: for fits that are only compared.
    """
    gridded = fit.fitter.starts(fit.rows, weights_BxR, fit.objective, fit.tied, count, 16)
    known = np.broadcast_to(
        fit.fitter.off_bounds(fit.theta_P, fit.rows), (len(gridded), 1, gridded.shape[2])
    )
    begins = np.concatenate([known, gridded], axis=1)
    each = begins.shape[1]
    thin, every = _thinned(fit.rows)
    found = fit.fitter.polish(
        thin,
        np.repeat(weights_BxR[:, every], each, axis=0),
        begins.reshape(-1, begins.shape[2]),
        fit.objective,
        fit.tied,
        None if delta_B is None else np.repeat(delta_B, each),
        iterations=_QUICK_STEPS[0] if quick else ITERATIONS,
    )
    value = np.nan_to_num(found.objective_B, nan=np.inf).reshape(-1, each)
    best = np.arange(len(value)) * each + value.argmin(axis=1)
    theta, objective = found.theta_BxP[best], found.objective_B[best]
    if quick or len(thin.loss_R) < len(fit.rows.loss_R):
        found = fit.fitter.polish(
            fit.rows, weights_BxR, theta, fit.objective, fit.tied, delta_B,
            iterations=_QUICK_STEPS[1] if quick else ITERATIONS,
        )  # fmt: skip
        theta, objective = found.theta_BxP, found.objective_B
    return refits(fit, theta, objective)


def _thinned(rows: Rows) -> tuple[Rows, slice]:
    """At most 4096 rows, evenly taken: the way from the grid to an optimum needs no more."""
    every = slice(None, None, -(-len(rows.loss_R) // _MANY_ROWS))
    return replace(rows, z_KxR=rows.z_KxR[:, every], loss_R=rows.loss_R[every]), every

"""Approach 2: the minimum of every iso-FLOP profile, and power laws through the minima.

Two ways to find a minimum, both vectorised over B sets of losses or weights:

* `parabola`: least squares of loss on ln params (Hoffmann et al. 2203.15556, figure 3). Biased when
  the true profile is not symmetric, i.e. alpha != beta or an off-centre grid.
* `akima`: modified Akima interpolant of ln loss on ln params. Nearly unbiased, follows the noise.

A minimum counts when it lies inside the sizes tried and the profile bends upward there.
Array suffixes: B problems, S sizes of one budget, G budgets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chinchilla_jax.scaling.arrays import Floats, known
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.table.cost import FlopsModel

METHODS = ("parabola", "akima")


@dataclass(frozen=True)
class Profile:
    """Runs of one budget, sorted by params; replicated seeds are separate entries."""

    flops: float
    row_S: npt.NDArray[np.intp]
    log_params_S: Floats
    log_tokens_S: Floats
    loss_S: Floats

    @property
    def sizes(self) -> int:
        return len(np.unique(self.log_params_S))

    @property
    def width(self) -> float:
        """Largest over smallest params."""
        return float(np.exp(np.ptp(self.log_params_S)))

    def tokens_at(self, log_params: Floats) -> Floats:
        """Tokens that this budget buys, straight lines in log-log between the runs."""
        size, first = np.unique(self.log_params_S, return_index=True)
        return np.exp(np.interp(log_params, size, self.log_tokens_S[first]))


def profiles(
    group_R: npt.NDArray[np.int64],
    flops_G: Floats,
    params_R: Floats,
    tokens_R: Floats,
    loss_R: Floats,
) -> list[Profile]:
    """One profile per budget, in ascending order; rows of group -1 belong to none."""
    found = []
    for g in np.argsort(flops_G):
        row = np.flatnonzero(group_R == g)
        row = row[np.argsort(params_R[row], kind="stable")]
        if len(row):
            found.append(
                Profile(
                    float(flops_G[g]),
                    row,
                    np.log(params_R[row]),
                    np.log(tokens_R[row]),
                    loss_R[row],
                )
            )
    return found


@dataclass(frozen=True)
class Minima:
    """Minima of one profile under B sets of losses or weights; `fault_B` is "" where one counts."""

    log_params_B: Floats
    loss_B: Floats
    curvature_B: Floats
    fault_B: npt.NDArray[np.str_]

    @property
    def good_B(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.fault_B == "")


def _faults(
    vertex: Floats, curvature: Floats, loss: Floats, low: Floats | float, high: Floats | float
) -> npt.NDArray[np.str_]:
    flat = 1e-9 * np.abs(loss)  # a bend below rounding is none
    return np.select(
        [~(curvature > flat), vertex <= low, vertex >= high, ~(loss > 0)],
        ["not convex", "below the smallest size", "above the largest size", "below zero"],
        default="",
    )


def parabola_minima(
    log_params_S: Floats, loss_BxS: Floats, weights_BxS: Floats | None = None
) -> Minima:
    """Vertices of weighted least-squares parabolas; needs three sizes of positive weight."""
    centre = 0.5 * (log_params_S.min() + log_params_S.max())
    scale = 0.5 * np.ptp(log_params_S)
    x_S = (log_params_S - centre) / scale
    basis_SxF = np.stack([np.ones_like(x_S), x_S, x_S**2], axis=1)
    low: Floats | float
    high: Floats | float
    if weights_BxS is None:
        c_BxF = loss_BxS @ np.linalg.pinv(basis_SxF).T
        low, high = x_S.min(), x_S.max()
    else:
        pair_SxFxF = basis_SxF[:, :, None] * basis_SxF[:, None, :]
        normal = np.tensordot(weights_BxS, pair_SxFxF, axes=1)
        right = (weights_BxS * loss_BxS) @ basis_SxF
        singular = np.abs(np.linalg.det(normal)) < 1e-9
        normal[singular] = np.eye(3)
        c_BxF = np.linalg.solve(normal, right[..., None])[..., 0]
        c_BxF[singular] = np.nan
        used = weights_BxS > 0
        low = np.where(used, x_S, np.inf).min(axis=1)
        high = np.where(used, x_S, -np.inf).max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = -0.5 * c_BxF[:, 1] / c_BxF[:, 2]
        loss = c_BxF[:, 0] - 0.25 * c_BxF[:, 1] ** 2 / c_BxF[:, 2]
    curvature = 2 * c_BxF[:, 2] / scale**2
    fault = _faults(vertex, curvature, loss, low, high)
    return Minima(centre + scale * vertex, loss, curvature, fault)


def akima_slopes(x_S: Floats, y_BxS: Floats) -> Floats:
    """Derivatives at the knots; needs three.

    Akima (1970), J. ACM 17, with the weights of MATLAB's and SciPy's "makima", which halve the
    original's bias on iso-FLOP profiles and do not jump where slopes are equal.
    """
    m = np.diff(y_BxS) / np.diff(x_S)
    first, last = 2 * m[:, :1] - m[:, 1:2], 2 * m[:, -1:] - m[:, -2:-1]
    m = np.concatenate([2 * first - m[:, :1], first, m, last, 2 * last - m[:, -1:]], axis=1)
    change = np.abs(np.diff(m)) + 0.5 * np.abs(m[:, 1:] + m[:, :-1])
    left, right = change[:, 2:], change[:, :-2]
    total = left + right
    weight = np.where(total > 0, left / np.where(total > 0, total, 1.0), 0.5)
    return weight * m[:, 1:-2] + (1 - weight) * m[:, 2:-1]


def akima(x_S: Floats, y_S: Floats, at: Floats) -> Floats:
    """The interpolant itself, for figures."""
    slope = akima_slopes(x_S, y_S[None])[0]
    i = np.clip(np.searchsorted(x_S, at, side="right") - 1, 0, len(x_S) - 2)
    h = x_S[i + 1] - x_S[i]
    t = (at - x_S[i]) / h
    return np.asarray(
        (1 + 2 * t) * (1 - t) ** 2 * y_S[i]
        + t * (1 - t) ** 2 * h * slope[i]
        + t**2 * (3 - 2 * t) * y_S[i + 1]
        + t**2 * (t - 1) * h * slope[i + 1]
    )


def akima_minima(log_params_S: Floats, loss_BxS: Floats) -> Minima:
    """Lowest points of Akima interpolants of ln loss; replicated sizes are averaged first."""
    x_S, where = np.unique(log_params_S, return_inverse=True)
    mean_SxS = np.zeros((len(where), len(x_S)))
    mean_SxS[np.arange(len(where)), where] = 1.0 / np.bincount(where)[where]
    y = np.log(loss_BxS) @ mean_SxS
    slope, h = akima_slopes(x_S, y), np.diff(x_S)
    secant = np.diff(y) / h
    # On every interval y = y0 + s0 u + c2 u^2 + c3 u^3: where the derivative is 0, bending upward.
    c2 = (3 * secant - 2 * slope[:, :-1] - slope[:, 1:]) / h
    c3 = (slope[:, :-1] + slope[:, 1:] - 2 * secant) / h**2
    root = np.sqrt(np.maximum(c2**2 - 3 * c3 * slope[:, :-1], 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        # Of two forms of that root the one without cancellation.
        u = np.where(c2 > 0, -slope[:, :-1] / (c2 + root), (root - c2) / (3 * c3))
    u = np.clip(np.nan_to_num(u, posinf=0.0, neginf=0.0), 0.0, h)
    value = y[:, :-1] + u * (slope[:, :-1] + u * (c2 + u * c3))
    problem = np.arange(len(y))
    best = value.argmin(axis=1)
    at, lowest = (x_S[:-1] + u)[problem, best], value[problem, best]
    bend = (2 * c2 + 6 * c3 * u)[problem, best]
    knot = y.argmin(axis=1)
    # The ends are no minima: there the profile still falls.
    at = np.where((knot == len(x_S) - 1) & (y[problem, knot] <= lowest), x_S[-1], at)
    at = np.where((knot == 0) & (y[problem, knot] <= lowest), x_S[0], at)
    span = 1e-9 * (x_S[-1] - x_S[0])
    edge = np.select(
        [at <= x_S[0] + span, at >= x_S[-1] - span],
        ["below the smallest size", "above the largest size"],
        default="",
    )
    return Minima(at, np.exp(lowest), bend * np.exp(lowest), edge)


def minima_of(method: str, profile: Profile, loss_BxS: Floats | None = None) -> Minima:
    losses = profile.loss_S[None] if loss_BxS is None else loss_BxS
    find = {"parabola": parabola_minima, "akima": akima_minima}[method]
    return find(profile.log_params_S, losses)


@dataclass(frozen=True)
class PowerLaws:
    """params = exp(log_params_1) flops^a and tokens = exp(log_tokens_1) flops^b; arrays of B."""

    a: Floats
    log_params_1: Floats
    b: Floats
    log_tokens_1: Floats

    def at(self, flops: Floats | float) -> tuple[Floats, Floats]:
        log_c = np.log(np.asarray(flops))
        return np.exp(self.log_params_1 + self.a * log_c), np.exp(
            self.log_tokens_1 + self.b * log_c
        )


def power_laws(
    log_flops_G: Floats, log_params_BxG: Floats, log_tokens_BxG: Floats, weights_BxG: Floats
) -> PowerLaws:
    """Weighted straight lines in log-log; budgets of weight 0 do not count.

    Fewer than two budgets of positive weight give NaN.
    """
    enough = (weights_BxG > 0).sum(axis=1) >= 2
    with np.errstate(divide="ignore", invalid="ignore"):
        fraction_BxG = weights_BxG / weights_BxG.sum(axis=1, keepdims=True)
        middle = fraction_BxG @ log_flops_G
        x = log_flops_G - middle[:, None]
        variance = np.einsum("bg,bg->b", fraction_BxG, x**2)

        def line(y: Floats) -> tuple[Floats, Floats]:
            y = np.where(weights_BxG > 0, y, 0.0)
            mean = np.einsum("bg,bg->b", fraction_BxG, y)
            slope = np.where(
                enough, np.einsum("bg,bg,bg->b", fraction_BxG, x, y) / variance, np.nan
            )
            return slope, mean - slope * middle

        a, log_params_1 = line(log_params_BxG)
        b, log_tokens_1 = line(log_tokens_BxG)
    return PowerLaws(a, log_params_1, b, log_tokens_1)


@dataclass(frozen=True)
class BiasAt:
    """Relative errors of a method at one budget: -.05 is 5 % low."""

    flops: float
    params: float | None
    tokens: float | None


@dataclass(frozen=True)
class Bias:
    """What a method misses without noise: differences of exponents, and errors at budgets."""

    a: float | None
    b: float | None
    at: tuple[BiasAt, ...]


def expected_bias(
    method: str,
    found: Sequence[Profile],
    weights_G: Floats,
    surface: Surface,
    cost: FlopsModel,
    at_flops: Floats,
) -> Bias | None:
    """Errors that `method` makes on noise-free losses of `surface` at the very same runs."""
    log_flops, log_params, log_tokens, weights = [], [], [], []
    for profile, weight in zip(found, weights_G, strict=True):
        loss = surface.loss(np.exp(profile.log_params_S), np.exp(profile.log_tokens_S))
        lowest = minima_of(method, profile, loss[None])
        log_flops.append(np.log(profile.flops))
        log_params.append(lowest.log_params_B[0])
        log_tokens.append(float(np.log(profile.tokens_at(lowest.log_params_B)[0])))
        weights.append(weight if lowest.good_B[0] else 0.0)
    if np.count_nonzero(weights) < 2:
        return None
    laws = power_laws(
        np.array(log_flops), np.array([log_params]), np.array([log_tokens]), np.array([weights])
    )
    true_a, true_b = surface.exponents(cost)
    true_params, true_tokens = surface.optimum(at_flops, cost)
    params, tokens = laws.at(at_flops)
    errors = (params / true_params - 1, tokens / true_tokens - 1)
    return Bias(
        known(laws.a[0] - true_a),
        known(laws.b[0] - true_b),
        tuple(
            BiasAt(float(c), known(n), known(d)) for c, n, d in zip(at_flops, *errors, strict=True)
        ),
    )

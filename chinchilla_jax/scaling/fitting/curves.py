"""Curves through one iso-FLOP profile and their lowest points, vectorised over B sets of losses.

* `parabola`: least squares of loss on ln params (Hoffmann et al. 2203.15556, figure 3). Biased when
  the true profile is not symmetric, i.e. alpha != beta or an off-centre grid.
* `cubic`: the same with a cubic, which follows a lean; scatters more.
* `akima`: modified Akima interpolant of ln loss on ln params. Nearly unbiased, follows the noise.

A minimum counts when it lies inside the sizes tried and the profile bends upward there. The curve
that shares its exponents over budgets is in `valley`. Array suffixes: B sets, S runs of a budget, F
coefficients.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chinchilla_jax.scaling.arrays import Floats, Ints
from chinchilla_jax.scaling.fitting.isoflop import Profile


@dataclass(frozen=True)
class Minima:
    """Minima of one profile under B sets of losses; `fault_B` is "" where one counts."""

    log_params_B: Floats
    loss_B: Floats
    curvature_B: Floats
    fault_B: npt.NDArray[np.str_]

    @property
    def good_B(self) -> npt.NDArray[np.bool_]:
        return np.asarray(self.fault_B == "")


def faults(
    vertex: Floats, curvature: Floats, loss: Floats, low: float, high: float
) -> npt.NDArray[np.str_]:
    """Why a curve's stationary point is no minimum between `low` and `high`; "" where it is."""
    flat = 1e-9 * np.abs(loss)  # a bend below rounding is none
    return np.select(
        [~(curvature > flat), vertex <= low, vertex >= high, ~(loss > 0)],
        ["not convex", "below the smallest size", "above the largest size", "below zero"],
        default="",
    )


@dataclass(frozen=True)
class Polynomial:
    """Least squares of loss on ln params through the runs of one budget; degree 2 or 3.

    `factor_FxF` times standard normal numbers is what noise of 1 in ln loss does to the
    coefficients, which are those of ln params centred and scaled to -1 .. 1.
    """

    centre: float
    scale: float
    coefficients_F: Floats
    factor_FxF: Floats
    frame_SxF: Floats  # the directions of the runs' noise that these numbers are along

    @classmethod
    def of(cls, degree: int, log_params_S: Floats, loss_S: Floats) -> "Polynomial":
        basis_SxF, centre, scale = _powers(degree, log_params_S)
        inverse = np.linalg.pinv(basis_SxF)
        frame, factor = np.linalg.qr((inverse * loss_S).T)
        return cls(centre, scale, inverse @ loss_S, factor.T, frame)

    def minima(self, noise_BxF: Floats | None = None) -> Minima:
        """The lowest point, or those of B draws of noise in the coefficients."""
        c = self.coefficients_F[None]
        if noise_BxF is not None:
            c = c + noise_BxF @ self.factor_FxF.T
        c0, c1, c2 = c.T[:3]
        c3 = c[:, 3] if c.shape[1] == 4 else np.zeros_like(c0)
        with np.errstate(divide="ignore", invalid="ignore"):
            root = np.sqrt(np.maximum(c2**2 - 3 * c1 * c3, 0.0))
            # Of two forms of that root the one without cancellation.
            at = np.where((c2 > 0) | (c3 == 0), -c1 / (c2 + root), (root - c2) / (3 * c3))
            at = np.where((c2 < 0) & (c3 == 0), -0.5 * c1 / c2, at)
            loss = c0 + at * (c1 + at * (c2 + at * c3))
            bend = (2 * c2 + 6 * c3 * at) / self.scale**2
            return Minima(
                self.centre + self.scale * at, loss, bend, faults(at, bend, loss, -1.0, 1.0)
            )

    def curve(self, log_params: Floats) -> Floats:
        """Loss at any sizes."""
        x = (log_params - self.centre) / self.scale
        return np.asarray(np.polyval(self.coefficients_F[::-1], x), float)

    def errors(self, noise: float) -> tuple[float, float]:
        """Standard errors of ln params and of ln loss at the minimum, to first order."""
        lowest = self.minima()
        at = (lowest.log_params_B[0] - self.centre) / self.scale
        powers = np.arange(len(self.coefficients_F))
        with np.errstate(divide="ignore", invalid="ignore"):  # a flat profile has no minimum
            value = at**powers @ self.factor_FxF
            slope = (powers * at ** np.maximum(powers - 1, 0)) @ self.factor_FxF / self.scale
            shift = np.linalg.norm(slope / lowest.curvature_B[0])
            rise = np.linalg.norm(value) / abs(lowest.loss_B[0])
        return noise * float(shift), noise * float(rise)


def polynomial_left_out(degree: int, log_params_S: Floats, loss_S: Floats) -> Floats:
    """ln(predicted / observed) of every run by the curve without its size; NaN where it has none.

    From residuals and leverage, to first order in the logarithm.
    """
    q, _ = np.linalg.qr(_powers(degree, log_params_S)[0])
    return left_out(log_params_S, 1 - q @ (q.T @ loss_S) / loss_S, np.sum(q**2, axis=1))


def left_out(log_params_S: Floats, residual_S: Floats, leverage_S: Floats) -> Floats:
    """Of every run the residual that it would have without its size; NaN where nothing is left."""
    _, where, count = np.unique(log_params_S, return_inverse=True, return_counts=True)
    mean, lever = (np.bincount(where, x) / count for x in (residual_S, leverage_S))
    free = 1 - count * lever
    return np.asarray((-mean / np.where(free > 1e-7, free, np.nan))[where])


def at_sizes(
    found: Sequence[Profile], value_GxS: Sequence[Floats], near_G: Sequence[Floats]
) -> Floats:
    """[K]: the values of every budget's runs at some of its sizes."""
    each = zip(found, value_GxS, near_G, strict=True)
    return np.concatenate([v[np.searchsorted(p.log_params_S, sizes)] for p, v, sizes in each])


def _powers(degree: int, log_params_S: Floats) -> tuple[Floats, float, float]:
    """Powers [S, degree + 1] of ln params, centred and scaled to -1 .. 1; centre and scale."""
    centre = 0.5 * (log_params_S.min() + log_params_S.max())
    scale = 0.5 * np.ptp(log_params_S)
    x_S = (log_params_S - centre) / scale
    return x_S[:, None] ** np.arange(degree + 1), float(centre), float(scale)


def akima_slopes(x_S: Floats, y_BxS: Floats) -> Floats:
    """Derivatives at the knots, of which there are three or more; x may differ by problem, too.

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


def akima(x_S: Floats, y_S: Floats, at: Floats | float) -> Floats:
    """The interpolant itself."""
    slope = akima_slopes(x_S, y_S[None])[0]
    i = np.clip(np.searchsorted(x_S, at, side="right") - 1, 0, len(x_S) - 2)
    ends = np.stack([i, i + 1])
    return _hermite(at, x_S[ends], y_S[ends], slope[ends])


def _hermite(at: Floats | float, x: Floats, y: Floats, slope: Floats) -> Floats:
    """The cubic between two points, first axis, that has these slopes there."""
    h = x[1] - x[0]
    t = (at - x[0]) / h
    return np.asarray(
        (1 + 2 * t) * (1 - t) ** 2 * y[0]
        + t * (1 - t) ** 2 * h * slope[0]
        + t**2 * (3 - 2 * t) * y[1]
        + t**2 * (t - 1) * h * slope[1]
    )


def akima_left_out(x_S: Floats, y_S: Floats, index_K: Ints) -> Floats:
    """[K]: at some of the points the interpolants that lack that point.

    Three neighbours on either side are all that counts there.
    """
    inner_K = (index_K >= 3) & (index_K < len(x_S) - 3)
    found_K = np.empty(len(index_K))
    around = index_K[inner_K, None] + np.array([-3, -2, -1, 1, 2, 3])
    x, y, at = x_S[around], y_S[around], x_S[index_K[inner_K]]
    slope = akima_slopes(x, y)
    found_K[inner_K] = _hermite(at, x[:, 2:4].T, y[:, 2:4].T, slope[:, 2:4].T)
    for k in np.flatnonzero(~inner_K):
        keep = np.arange(len(x_S)) != index_K[k]
        found_K[k] = akima(x_S[keep], y_S[keep], x_S[index_K[k]])
    return found_K


def akima_minima(log_params_S: Floats, loss_BxS: Floats) -> Minima:
    """Lowest points of Akima interpolants of ln loss; replicated sizes are averaged first."""
    x_S, where, count = np.unique(log_params_S, return_inverse=True, return_counts=True)
    y = np.log(loss_BxS)[:, np.argsort(where, kind="stable")]
    if len(x_S) < len(where):
        y = np.add.reduceat(y, np.cumsum(count) - count, axis=1) / count
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

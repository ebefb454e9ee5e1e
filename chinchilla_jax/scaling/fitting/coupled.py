"""Fits of `loss = E + (A / N^alpha + B / D^beta)^gamma`, many at a time.

The family of Busbridge et al. (2502.08606, equation 1; Videau et al. 2608.07222). Its members fix a
parameter or tie two: `BASES`. With logs centred on the data it is written as

    E + S (exp(-alpha z_n) / (1 + r) + r exp(-beta z_d) / (1 + r))^gamma,  r = exp(rho)

so that S is the reducible loss in the middle of the data and r what tokens weigh in the bracket
against parameters. Given (alpha, beta, gamma, rho) the model is linear in (E, S): starts come from
a grid of those four whose linear part is solved exactly (variable projection), and `newton`
polishes all. The exponents are fitted in their logs, in which the direction that runs hardly tell,
alpha gamma = constant, is a straight line.

Array suffixes: B problems, G grid points, R rows, P = 6 parameters (E, S, rho, ln alpha, ln beta,
ln gamma), F free ones.
"""

import functools

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats
from chinchilla_jax.scaling.fitting import newton
from chinchilla_jax.scaling.fitting.newton import DAMPING, ITERATIONS, Objective, Rows, Solutions

EXPONENTS = (0.01, 10.0)  # alpha and beta
GAMMAS = (0.05, 5.0)
FIXED_GAMMAS = (0.7, 0.5, 0.35)  # of forms with one less to fit: runs hardly tell gamma
_RHO = 30.0
_NEGLIGIBLE = 1e-6  # part of the bracket in every run below which a term counts as absent
_GRID_ROWS = 512  # a start needs no more rows than these
_GAMMAS_TRIED = (0.15, 0.25, 0.4, 0.65, 1.0, 1.6, 3.0)
_SLOPES_TRIED = (0.05, 1.5)  # of ln of the reducible loss: gamma times an exponent
_RHOS_TRIED = np.linspace(-3.0, 3.0, 7)


class Coupled:
    """The model, as `newton.Model` wants it."""

    low_P = np.array([0.0, 0.0, -_RHO, *np.log([EXPONENTS[0]] * 2), np.log(GAMMAS[0])])
    high_P = np.array([np.inf, np.inf, _RHO, *np.log([EXPONENTS[1]] * 2), np.log(GAMMAS[1])])
    scaled_P = np.array([True, True, False, False, False, False])

    def predict(self, z_KxR: Floats, theta_BxP: Floats) -> tuple[Floats, Floats]:
        """Kept are ln of the bracket, what tokens have of it, and its power."""
        E, S, rho, log_alpha, log_beta, log_gamma = theta_BxP.T[:, :, None]
        size = np.exp(-np.exp(log_alpha) * z_KxR[0])
        data = np.exp(rho - np.exp(log_beta) * z_KxR[1])
        both = size + data
        kept = np.empty((len(both), 3, both.shape[1]))
        kept[:, 0] = np.log(both) - np.log1p(np.exp(rho))
        np.divide(data, both, out=kept[:, 1])
        np.exp(np.exp(log_gamma) * kept[:, 0], out=kept[:, 2])
        return E + S * kept[:, 2], kept

    def slopes(
        self, z_KxR: Floats, theta_BxP: Floats, kept: Floats, factor: Floats
    ) -> tuple[Floats, Floats]:
        """Kept are the derivatives of ln(bracket^gamma) by rho and the logs of exponents."""
        _, S, rho, log_alpha, log_beta, log_gamma = theta_BxP.T[:, :, None]
        log_bracket, tokens, power = kept[:, 0], kept[:, 1], kept[:, 2]
        gamma = np.exp(log_gamma)
        g = np.empty((len(kept), 4, kept.shape[2]))
        g[:, 0] = gamma * (tokens - 1 / (1 + np.exp(-rho)))
        g[:, 1] = (gamma * np.exp(log_alpha)) * (tokens - 1) * z_KxR[0]
        g[:, 2] = (-gamma * np.exp(log_beta)) * tokens * z_KxR[1]
        np.multiply(gamma, log_bracket, out=g[:, 3])
        jacobian = np.empty((len(kept), 6, kept.shape[2]))
        jacobian[:, 0] = factor
        np.multiply(power, factor, out=jacobian[:, 1])
        np.multiply((S * jacobian[:, 1])[:, None], g, out=jacobian[:, 2:])
        # What tokens have of the bracket times what params have: of all second derivatives.
        curve = gamma * tokens * (1 - tokens)
        return jacobian, np.concatenate([g, curve[:, None]], axis=1)

    def bend(
        self, z_KxR: Floats, theta_BxP: Floats, jacobian: Floats, kept: Floats, pull: Floats,
        hessian: Floats,
    ) -> None:  # fmt: skip
        g, curve = kept[:, :4], kept[:, 4]
        _, S, rho, log_alpha, log_beta, log_gamma = theta_BxP.T[:, :, None]
        hessian[:, 2:, 2:] += (jacobian[:, 2:] * pull[:, None]) @ g.transpose(0, 2, 1)
        mixed = (g @ (pull * jacobian[:, 1])[..., None])[..., 0]  # of S and each
        hessian[:, 1, 2:] += mixed
        hessian[:, 2:, 1] += mixed
        twice = S * mixed  # of ln gamma and each, and of each log exponent with itself
        hessian[:, 2:5, 5] += twice[:, :3]
        hessian[:, 5, 2:] += twice
        hessian[:, 3, 3] += twice[:, 1]
        hessian[:, 4, 4] += twice[:, 2]
        # Of the log of a sum: tokens' part times params' times how their logs differ.
        m = S * jacobian[:, 1] * pull
        moved = np.empty((len(m), 3, m.shape[1]))
        moved[:, 0] = 1.0
        np.multiply(np.exp(log_alpha), z_KxR[0], out=moved[:, 1])
        np.multiply(-np.exp(log_beta), z_KxR[1], out=moved[:, 2])
        hessian[:, 2:5, 2:5] += (moved * (m * curve)[:, None]) @ moved.transpose(0, 2, 1)
        at_0 = 1 / (1 + np.exp(-rho[:, 0]))
        hessian[:, 2, 2] -= np.exp(log_gamma[:, 0]) * at_0 * (1 - at_0) * m.sum(axis=1)


_COUPLED = Coupled()
_FREE = np.eye(6)
# name -> a column of P for each free parameter
BASES: dict[str, Floats] = {
    "chinchilla": _FREE[:, :5],  # gamma = 1
    "kaplan": _FREE[:, [0, 1, 2, 3, 5]],  # beta = 1
    "even": _FREE[:, :5] + np.outer(_FREE[5], _FREE[4, :5]),  # gamma = beta
    "gamma": _FREE,
    **{f"gamma_{gamma}": _FREE[:, :5] for gamma in FIXED_GAMMAS},
}
_FIXED = {"chinchilla": 1.0, **{f"gamma_{gamma}": gamma for gamma in FIXED_GAMMAS}}


@functools.cache
def basis(form: str, tied: bool) -> Floats:
    """[P, F]; with `tied` alpha = beta."""
    free = BASES[form]
    if not tied:
        return free
    both = free[3] != 0, free[4] != 0
    if not both[1].any():  # beta is fixed, so is alpha
        return free[:, ~both[0]]
    joined = free[:, ~both[0]].copy()
    joined[3] = joined[4]
    return joined


def polish(
    form: str,
    rows: Rows,
    weights_BxR: Floats,
    theta_BxP: Floats,
    objective: Objective,
    tied: bool = False,
    delta_B: Floats | None = None,
    iterations: int = ITERATIONS,
    damping: float = DAMPING,
) -> Solutions:
    """`newton.polish` of one form of the family."""
    return newton.polish(
        _COUPLED, rows, weights_BxR, theta_BxP, objective, basis_PxF=basis(form, tied),
        delta_B=delta_B, iterations=iterations, damping=damping,
    )  # fmt: skip


def model_of(form: str, tied: bool) -> tuple[Coupled, Floats]:
    """The model, and the columns of its free parameters."""
    return _COUPLED, basis(form, tied)


@functools.cache
def grid(form: str, tied: bool, size: int) -> Floats:
    """[G, 4]: every (alpha, beta, gamma, rho) that a fit of the form tries.

    `size` as the exponents of `starts.exponent_grid`, of which four axes take fewer.
    """
    slopes = np.geomspace(*_SLOPES_TRIED, 2 * int(np.log2(size)) - 1)
    points = []
    fixed = {name: (gamma,) for name, gamma in _FIXED.items()}
    for gamma in {"gamma": _GAMMAS_TRIED, **fixed}.get(form, slopes):
        betas = {"kaplan": np.ones(1), "even": np.sqrt(gamma) * np.ones(1)}.get(
            form, slopes / gamma
        )
        power = float(betas[0]) if form == "even" else float(gamma)
        # The steeper the terms, the further their ratio in the middle may lie from 1.
        rhos = _RHOS_TRIED / power**0.7
        each = np.meshgrid(slopes / power, betas, [power], rhos, indexing="ij")
        points.append(np.stack(each, axis=-1).reshape(-1, 4))
    found = np.concatenate(points)
    if tied:
        found[:, 0] = found[:, 1]
        found = np.unique(found, axis=0)
    return found


def starts(
    form: str,
    rows: Rows,
    weights_BxR: Floats,
    objective: Objective,
    tied: bool,
    count: int,
    size: int = 32,
) -> Floats:
    """`count` starting points a problem [B, count, P]: the best of each outer power, then the best.

    The linear part of every grid point is solved by weighted least squares, none negative; on logs
    the residuals are relative, as in `starts.grid_solutions`.
    """
    every = slice(None, None, 1 + len(rows.loss_R) // _GRID_ROWS)
    z_KxR, loss = rows.z_KxR[:, every], rows.loss_R[every]
    weights = weights_BxR[:, every] / (loss**2 if objective.on_logs else 1.0)
    points = grid(form, tied, size)
    alpha, beta, gamma, rho = points.T[:, :, None]
    bracket = np.exp(-alpha * z_KxR[0]) + np.exp(rho - beta * z_KxR[1])
    power_GxR = (bracket / (1 + np.exp(rho))) ** gamma

    total = weights.sum(axis=1, keepdims=True)
    first, second = weights @ power_GxR.T, weights @ (power_GxR**2).T
    level = (weights @ loss)[:, None]
    product = (weights * loss) @ power_GxR.T
    constant = (weights @ loss**2)[:, None]
    slope = (product - first * level / total) / np.maximum(second - first**2 / total, 1e-300)
    floor = (level - slope * first) / total
    alone = product / second  # without a floor, where that would be negative
    S, E = np.where(floor < 0, alone, slope), np.maximum(floor, 0.0)
    squares = (
        constant + S**2 * second + E**2 * total - 2 * (S * product + E * level) + 2 * E * S * first
    )
    squares = np.where(S > 0, squares, np.inf)

    region = np.unique(points[:, 2], return_inverse=True)[1]
    if form in _FIXED:  # one outer power: what tokens weigh keeps starts apart
        region = np.unique(points[:, 3], return_inverse=True)[1]
    best = np.stack(
        [
            (members := np.flatnonzero(region == r))[squares[:, members].argmin(axis=1)]
            for r in range(region.max() + 1)
        ],
        axis=1,
    )
    order = np.argsort(squares, axis=1, kind="stable")[:, : max(1, count - best.shape[1])]
    index = np.concatenate([order, best], axis=1)[:, :count]
    smallest = 1e-3 * float(loss.min())  # a start must not sit on the bound
    linear = (np.maximum(np.take_along_axis(x, index, axis=1), smallest) for x in (E, S))
    alpha, beta, gamma, rho = np.moveaxis(points[index], -1, 0)
    return np.stack([*linear, rho, np.log(alpha), np.log(beta), np.log(gamma)], axis=-1)


def natural(theta_BxP: Floats, rows: Rows) -> tuple[Floats, ...]:
    """(E, A, B, alpha, beta, gamma) in natural units; arrays of B."""
    E, S, rho, *logs = theta_BxP.T
    # exp(ln 10) is a little more than 10.
    alpha, beta = np.clip(np.exp(logs[:2]), *EXPONENTS)
    gamma = np.clip(np.exp(logs[2]), *GAMMAS)
    n, d = rows.centre_K
    with np.errstate(divide="ignore"):  # without a reducible loss both terms are 0
        log_level = np.log(S) / gamma - np.logaddexp(0.0, rho)
    return E, np.exp(log_level + alpha * n), np.exp(log_level + rho + beta * d), alpha, beta, gamma


def at_bound(theta_BxP: Floats, rows: Rows) -> Bools:
    """[B, 6]: which of E, A, B, alpha, beta, gamma lie at the edge of what is tried."""
    _, kept = _COUPLED.predict(rows.z_KxR, theta_BxP)
    tokens = kept[:, 1]
    none = theta_BxP[:, 1] <= 1e-9 * rows.loss_R.min()
    low, high = _COUPLED.low_P[3:] + 1e-3, _COUPLED.high_P[3:] - 1e-3
    exponents = theta_BxP[:, 3:]
    return np.column_stack(
        [
            theta_BxP[:, 0] <= 1e-9 * rows.loss_R.min(),
            none | (tokens.min(axis=1) > 1 - _NEGLIGIBLE),
            none | (tokens.max(axis=1) < _NEGLIGIBLE),
            (exponents <= low) | (exponents >= high),
        ]
    )


def off_bounds(theta_P: Floats, rows: Rows) -> Floats:
    """The optimum as a start: on a bound, a start could not leave when other weights pull away."""
    begin = theta_P.copy()
    begin[:2] = np.maximum(begin[:2], 1e-6 * rows.loss_R.min())
    begin[2] = np.clip(begin[2], -10.0, 10.0)
    return begin

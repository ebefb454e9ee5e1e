"""A valley per budget, E + A N^-alpha + B D^-beta, whose exponents all budgets share.

Given the exponents a valley is least squares with three coefficients, as a parabola is, and it has
the lean that a profile has whose two sides fall differently: grids off the optimum, or drifting
across it, bend the exponents of a parabola's minima and not a valley's. The exponents are found by
variable projection (Golub & Pereyra 1973, with Kaufman's Jacobian). Where the runs hardly tell
them, those of published laws hold them: a normal prior on their logarithms, which vanishes with the
noise.

Array suffixes: B draws, S runs of a budget, R runs of all budgets, F coefficients.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.fitting.chance import Chance
from chinchilla_jax.scaling.fitting.curves import Minima, at_sizes, faults, left_out
from chinchilla_jax.scaling.fitting.isoflop import Profile

_USUAL = np.log([0.35, 0.35])  # of published laws: .3 to .5, Kaplan's .08
_SPREAD = 0.7  # of the logarithms: a factor of two
_BOUNDS = np.log([0.02, 3.0])
_GRID = np.log(np.geomspace(0.06, 1.5, 7))
_MOST_GRID = 256  # runs of a budget
_STEPS = 60
_LEAST_NOISE = 1e-9  # of ln loss: below it the prior is nothing


@dataclass(frozen=True)
class Valley:
    """One budget in centred logs: u of params, v of minus tokens, so that both rise with size."""

    u_S: Floats
    v_S: Floats
    loss_S: Floats
    centre: float
    slope: float  # v = slope u + shift along the budget
    shift: float

    @classmethod
    def of(cls, profile: Profile) -> Valley:
        centre = 0.5 * float(profile.log_params_S[0] + profile.log_params_S[-1])
        u, v = profile.log_params_S - centre, profile.log_tokens_S.mean() - profile.log_tokens_S
        about = u - u.mean()
        slope = float(about @ v / (about @ about)) if about.any() else 1.0
        return cls(u, v, profile.loss_S, centre, slope, float(v.mean() - slope * u.mean()))

    def thinned(self) -> Valley:
        """At most _MOST_GRID runs, evenly taken."""
        every = slice(None, None, -(-len(self.u_S) // _MOST_GRID))
        return replace(self, u_S=self.u_S[every], v_S=self.v_S[every], loss_S=self.loss_S[every])

    def sides(self, theta: Floats) -> tuple[Floats, Floats]:
        """exp(-alpha u) - 1 and exp(beta v) - 1 [..., S] under ln exponents [..., 2]."""
        exponents = np.exp(theta)
        left, right = -exponents[..., :1] * self.u_S, exponents[..., 1:] * self.v_S
        return np.expm1(left), np.expm1(right)

    def basis(self, theta: Floats) -> Floats:
        """[..., S, F], relative to the losses: 1, a leaning line and a leaning square.

        They span the valleys. For small exponents they are 1, u and u^2, where exponentials would
        coincide.
        """
        left, right = self.sides(theta)
        alpha, beta = np.exp(theta[..., :1]), np.exp(theta[..., 1:])
        line = (right - left) / (alpha + beta)
        square = 2 * (alpha * right + beta * left) / (alpha * beta * (alpha + beta))
        return np.stack([np.ones_like(line), line, square], axis=-1) / self.loss_S[:, None]

    def solved(self, theta: Floats, noise_BxF: Floats | None = None) -> Floats:
        """Coefficients [..., F] by least squares of relative residuals, or draws of them.

        NaN where sizes are too few to tell three.
        """
        basis = self.basis(theta)
        turned = np.swapaxes(basis, -1, -2)
        normal, right = turned @ basis, turned.sum(axis=-1)
        scale = np.sqrt(np.einsum("...ff->...f", normal))
        normal = normal / scale[..., None] / scale[..., None, :]
        flat = np.abs(np.linalg.det(normal)) < 1e-13
        normal[flat] = np.eye(3)
        found = np.linalg.solve(normal, (right / scale)[..., None])[..., 0]
        if noise_BxF is not None:
            root = np.linalg.cholesky(normal)
            found = found + np.linalg.solve(np.swapaxes(root, -1, -2), noise_BxF[..., None])[..., 0]
        found[flat] = np.nan
        return np.asarray(found / scale)

    def solved_near(self, begin: Floats, theta: Floats, noise_BxF: Floats | None) -> Floats:
        """`solved`; of many runs by how the coefficients through some of them move from `begin`."""
        few = self.thinned()
        if len(few.u_S) == len(self.u_S):
            return self.solved(theta, noise_BxF)
        if noise_BxF is not None:
            noise_BxF = noise_BxF * np.sqrt(len(few.u_S) / len(self.u_S))
        move = few.solved(theta, noise_BxF) - few.solved(begin[None])
        return np.asarray(self.solved(begin[None]) + move)

    def frame_SxF(self, theta: Floats) -> Floats:
        """The directions of the runs' noise that the draws of `solved` are along."""
        basis = self.basis(theta)
        scaled = basis / np.sqrt(np.sum(basis**2, axis=0))
        normal = scaled.T @ scaled
        if abs(np.linalg.det(normal)) < 1e-13:
            normal = np.eye(3)
        return np.asarray(np.linalg.solve(np.linalg.cholesky(normal), scaled.T).T)

    def minima(
        self, theta_Bx2: Floats, noise_BxF: Floats | None = None, begin: Floats | None = None
    ) -> Minima:
        """In closed form: alpha a exp(-alpha u) = slope beta b exp(beta v) along the budget.

        `begin` are exponents near which all those of `theta_Bx2` lie.
        """
        begin = theta_Bx2[0] if begin is None else begin
        level, line, square = self.solved_near(begin, theta_Bx2, noise_BxF).T
        alpha, beta = np.exp(theta_Bx2).T
        total, rate = alpha + beta, self.slope * beta
        left, right = (2 * square / alpha - line) / total, (2 * square / beta + line) / total
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            u = (np.log(alpha * left / (rate * right)) - beta * self.shift) / (alpha + rate)
            falling, rising = np.exp(-alpha * u), np.exp(beta * (self.slope * u + self.shift))
            loss = level + left * (falling - 1) + right * (rising - 1)
            bend = alpha**2 * left * falling + rate**2 * right * rising
        # Without one of its sides a valley falls to an end; without both it bends down.
        one_side = [(left <= 0) & (right > 0), (right <= 0) & (left > 0)]
        u = np.select(one_side, [-np.inf, np.inf], u)
        bend, loss = (np.where(np.isinf(u), x, y) for x, y in ((np.inf, bend), (level, loss)))
        fault = faults(u, bend, loss, self.u_S[0], self.u_S[-1])
        return Minima(self.centre + u, loss, bend, fault)


@dataclass(frozen=True)
class Valleys:
    """Valleys through every budget of a table.

    `theta` are ln alpha and ln beta; `pull_2xR` is what a relative change of every loss does to
    them, to first order.
    """

    theta: Floats
    pull_2xR: Floats
    found: tuple[Profile, ...]
    budgets: tuple[Valley, ...]
    left_out_GxS: tuple[Floats, ...]  # ln(predicted / observed) of a run without its size

    def minima(self) -> list[Minima]:
        return [budget.minima(self.theta[None]) for budget in self.budgets]

    def drawn(self, noise_G: Floats, scale_B: Floats, chance: Chance) -> list[Minima]:
        """Under noise in the losses. That of independent runs moves exponents and coefficients
        independently."""
        frame, factor = self._theta_factor(noise_G)
        noise = chance.along(np.concatenate([p.row_S for p in self.found]), frame) @ factor.T
        theta = np.clip(self.theta + scale_B[:, None] * noise, *_BOUNDS)
        return [
            budget.minima(
                theta,
                size * scale_B[:, None] * chance.along(p.row_S, budget.frame_SxF(self.theta)),
                self.theta,
            )
            for budget, p, size in zip(self.budgets, self.found, noise_G, strict=True)
        ]

    def errors(self, noise_G: Floats) -> list[tuple[float, float]]:
        """Standard errors of ln params and ln loss at every minimum, to first order."""
        step, (_, factor) = 1e-4, self._theta_factor(noise_G)
        theta = self.theta + step * np.concatenate([np.zeros((4, 2)), factor.T])
        found = []
        for budget, size in zip(self.budgets, noise_G, strict=True):
            noise = np.zeros((6, 3))
            noise[1:4] = step * size * np.eye(3)
            lowest = budget.minima(theta, noise)
            with np.errstate(invalid="ignore"):
                shift = np.linalg.norm(lowest.log_params_B[1:] - lowest.log_params_B[0]) / step
                rise = np.linalg.norm(lowest.loss_B[1:] - lowest.loss_B[0]) / step
            found.append((float(shift), float(rise / abs(lowest.loss_B[0]))))
        return found

    def left_out(self, near_G: Sequence[Floats]) -> Floats:
        return at_sizes(self.found, self.left_out_GxS, near_G)

    def _theta_factor(self, noise_G: Floats) -> tuple[Floats, Floats]:
        """Two directions of the runs' noise [R, 2], and what noise along them does to theta."""
        sizes = [len(budget.u_S) for budget in self.budgets]
        frame, root = np.linalg.qr((self.pull_2xR * np.repeat(noise_G, sizes)).T)
        return frame, root.T

    def curve(self, g: int, log_params: Floats) -> Floats:
        """Loss of a budget at further sizes, for figures."""
        b = self.budgets[g]
        u = log_params - b.centre
        along = Valley(u, b.slope * u + b.shift, np.ones_like(u), b.centre, b.slope, b.shift)
        return np.asarray(along.basis(self.theta) @ b.solved(self.theta))


def fit_valleys(found: Sequence[Profile]) -> Valleys:
    """Exponents by least squares of relative residuals over all budgets, held by the prior."""
    budgets = tuple(map(Valley.of, found))
    if not budgets:
        return Valleys(_USUAL, np.zeros((2, 0)), (), (), ())
    runs = sum(len(b.u_S) for b in budgets)
    freedom = runs - 3 * len(budgets) - 2
    if freedom < 1:
        now = _Step.of(budgets, _USUAL)
        return _valleys(found, budgets, _USUAL, np.zeros((2, runs)), now)
    grid = np.stack(np.meshgrid(_GRID, _GRID, indexing="ij"), -1).reshape(-1, 2)
    thin = [b.thinned() for b in budgets]  # the grid only tells where to begin
    squares = np.sum(
        [
            _squares(few, grid) * (len(b.u_S) / len(few.u_S))
            for b, few in zip(budgets, thin, strict=True)
        ],
        axis=0,
    )
    variance = max(float(np.min(squares)) / freedom, _LEAST_NOISE**2)
    theta = grid[np.argmin(squares + variance * _prior(grid))].copy()
    damping, now = 1e-3, _Step.of(budgets, theta)
    for _ in range(_STEPS):
        hold = variance / _SPREAD**2
        hessian = now.jacobian_Rx2.T @ now.jacobian_Rx2 + hold * np.eye(2)
        gradient = now.jacobian_Rx2.T @ now.residual_R - hold * (theta - _USUAL)
        step = np.linalg.solve(hessian + damping * np.diag(np.diag(hessian)), gradient)
        trial = np.clip(theta + step, *_BOUNDS)
        then = _Step.of(budgets, trial)
        if then.squares + variance * _prior(trial) <= now.squares + variance * _prior(theta):
            theta, now, damping = trial, then, damping / 10
            variance = max(now.squares / freedom, _LEAST_NOISE**2)
        else:
            damping *= 10
        if damping > 1e8 or np.abs(step).max() < 1e-5:
            break
    hessian = now.jacobian_Rx2.T @ now.jacobian_Rx2 + variance / _SPREAD**2 * np.eye(2)
    pull = np.asarray(np.linalg.solve(hessian, now.jacobian_Rx2.T), float)
    return _valleys(found, budgets, theta, pull, now)


def _prior(theta: Floats) -> Floats:
    return np.asarray(np.sum(((theta - _USUAL) / _SPREAD) ** 2, axis=-1))


def _squares(b: Valley, theta_Px2: Floats) -> Floats:
    """Sums of squared relative residuals of one budget under P pairs of exponents.

    0 where its sizes nearly coincide: it tells no exponents.
    """
    fitted = (b.basis(theta_Px2) @ b.solved(theta_Px2)[..., None])[..., 0]
    squares = np.sum((fitted - 1) ** 2, axis=1)
    return np.asarray(np.nan_to_num(squares, nan=0.0))


@dataclass(frozen=True)
class _Step:
    """Where the exponents stand: relative residuals, what the exponents do to the fit, leverage."""

    residual_R: Floats
    jacobian_Rx2: Floats
    leverage_R: Floats

    @property
    def squares(self) -> float:
        return float(self.residual_R @ self.residual_R)

    @classmethod
    def of(cls, budgets: Sequence[Valley], theta: Floats) -> _Step:
        parts = []
        alpha, beta = np.exp(theta)
        for b in budgets:
            q, r = np.linalg.qr(b.basis(theta))
            inner = q.sum(axis=0)
            _, line, square = np.linalg.lstsq(r, inner, rcond=None)[0]
            left = (2 * square / alpha - line) / (alpha + beta)
            right = (2 * square / beta + line) / (alpha + beta)
            falling, rising = b.sides(theta)
            slopes = np.stack(
                [-alpha * left * b.u_S * (falling + 1), beta * right * b.v_S * (rising + 1)], axis=1
            ) / b.loss_S[:, None]  # fmt: skip
            parts.append((1 - q @ inner, slopes - q @ (q.T @ slopes), np.sum(q**2, axis=1)))
        return cls(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _valleys(
    found: Sequence[Profile], budgets: tuple[Valley, ...], theta: Floats, pull: Floats, at: _Step
) -> Valleys:
    leverage_R = at.leverage_R + np.einsum("rk,kr->r", at.jacobian_Rx2, pull)
    ends = np.cumsum([len(p.loss_S) for p in found])[:-1]
    residuals, leverages = (np.split(x, ends) for x in (at.residual_R, leverage_R))
    each = zip(found, residuals, leverages, strict=True)
    errors = tuple(left_out(p.log_params_S, *further) for p, *further in each)
    return Valleys(theta, pull, tuple(found), budgets, errors)

"""Approach 2 from profiles to exponents: minima, weights, laws of N*, D* and L*, draws, bias.

The draws perturb every loss by the noise model: a budget of six runs does not survive resampling
as a profile. Where sizes left out cannot tell estimators apart, each draws for the votes it got, so
that intervals hold the choice. In simulation nominal 95 % covers 92-98 % for 4 to 12 budgets
(tests/scaling/doubt/test_uncertainty.py, the slow one).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chinchilla_jax.scaling.arrays import Bools, Floats
from chinchilla_jax.scaling.fitting.bias import Bias, expected_bias
from chinchilla_jax.scaling.fitting.chance import Chance
from chinchilla_jax.scaling.fitting.curves import Minima
from chinchilla_jax.scaling.fitting.estimators import LEAST_SIZES, Curves, Estimator, Trial
from chinchilla_jax.scaling.fitting.isoflop import PowerLaws, Profile, power_laws
from chinchilla_jax.scaling.fitting.newton import Objective, Rows
from chinchilla_jax.scaling.fitting.noise import Noise
from chinchilla_jax.scaling.fitting.outlying import allowed_dip, dip
from chinchilla_jax.scaling.fitting.refusal import (
    LEAST_BUDGETS,
    Refusal,
    Tried,
    minima_refusal,
    minimum_reason,
)
from chinchilla_jax.scaling.fitting.separable import polish
from chinchilla_jax.scaling.fitting.starts import starts
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.table.cost import FlopsModel

_SQUARED = Objective("squared")


@dataclass(frozen=True)
class LossLaw:
    """E + A / flops^exponent; fields are floats or arrays of B."""

    E: Floats
    A: Floats
    exponent: Floats

    def loss(self, flops: Floats | float) -> Floats:
        return np.asarray(self.E + self.A * np.exp(-self.exponent * np.log(np.asarray(flops))))


def fit_loss_law(
    flops_G: Floats, loss_BxG: Floats, weights_BxG: Floats | None = None
) -> LossLaw | None:
    """Weighted least squares of log residuals; arrays of B. None with fewer than three budgets.

    Every set of losses starts at the best of its own grid of exponents, E = 0 among them.
    """
    if len(flops_G) < 3:
        return None
    weights = np.ones_like(loss_BxG) if weights_BxG is None else weights_BxG
    rows = Rows.of(loss_BxG[0], flops_G)
    begin = starts(rows, weights, _SQUARED, tied=False, count=1, loss_BxR=loss_BxG)[:, 0]
    found = polish(rows, weights, begin, _SQUARED, loss_BxR=loss_BxG)
    E, c, exponent = found.theta_BxP.T
    return LossLaw(E, c * np.exp(exponent * rows.centre_K[0]), exponent)


@dataclass(frozen=True)
class MinimaErrors:
    """Standard errors of each budget's minimum: of ln params and of ln loss there."""

    log_params_G: Floats
    log_loss_G: Floats


@dataclass(frozen=True)
class MinimaDraws:
    """Power laws and loss laws of perturbed minima; NaN where a draw has none."""

    laws: PowerLaws
    loss_law: LossLaw | None
    log_params_BxG: Floats
    loss_BxG: Floats
    good_BxG: npt.NDArray[np.bool_]


def minima_draws(
    voters: Sequence[Trial],
    found: Sequence[Profile],
    loss_G: Floats,
    weights_G: Floats,
    noise: Noise,
    draws: int,
    rng: np.random.Generator,
) -> tuple[MinimaDraws, LossLaw | None]:
    """Minima of perturbed losses, of every estimator as many as its share of the votes.

    The noise's size is drawn too, as few runs tell it. Budgets of weight 0 have no draws. L(C)
    through the observed minima `loss_G` comes beside, being fitted in one go with those of draws.
    """
    scale = np.ones(draws)
    if noise.freedom:
        scale = np.sqrt(noise.freedom / rng.chisquare(noise.freedom, draws))
    used = np.flatnonzero(weights_G > 0).tolist()
    log_params, log_tokens, loss = (np.full((draws, len(used)), np.nan) for _ in range(3))
    good = np.zeros((draws, len(used)), bool)
    votes = np.cumsum([0.0, *(voter.votes for voter in voters)])
    ends = np.round(draws * votes / votes[-1]).astype(int)
    for voter, begin, end in zip(voters, ends, ends[1:], strict=False):
        rows, at = slice(begin, end), _enough(voter.estimator, found)
        if begin == end or not at:
            continue
        chance = Chance.of(rng, int(end - begin), noise.trunk_R, noise.shared)
        drawn = voter.curves.drawn(noise.log_loss_G[at], scale[rows], chance)
        for g, lowest in zip(at, drawn, strict=True):
            if g in used:
                k = used.index(g)
                log_params[rows, k], loss[rows, k] = lowest.log_params_B, lowest.loss_B
                log_tokens[rows, k] = np.log(found[g].tokens_at(lowest.log_params_B))
                good[rows, k] = lowest.good_B
    weights = np.where(good, weights_G[used], 0.0)
    log_flops = np.log(np.array([found[g].flops for g in used]))
    laws = power_laws(log_flops, log_params, log_tokens, weights)
    usable = good & (loss > 0)
    losses = np.concatenate([loss_G[None, used], np.where(usable, loss, 1.0)])
    counted = np.concatenate([np.ones((1, len(used))), usable])
    both = fit_loss_law(np.exp(log_flops), losses, counted)
    if both is None:
        return MinimaDraws(laws, None, log_params, loss, good), None
    few = usable.sum(axis=1) < LEAST_BUDGETS  # two minima fit any law of three parameters
    observed, law = (
        LossLaw(both.E[part], both.A[part], both.exponent[part])
        for part in (slice(1), slice(1, None))
    )
    law = LossLaw(*(np.where(few, np.nan, x) for x in (law.E, law.A, law.exponent)))
    return MinimaDraws(laws, law, log_params, loss, good), observed


def _enough(estimator: Estimator, found: Sequence[Profile]) -> list[int]:
    """The budgets that have sizes enough for a curve."""
    least = LEAST_SIZES[estimator.method]
    return [g for g, profile in enumerate(found) if profile.sizes >= least]


@dataclass(frozen=True)
class MinimaFit:
    """One estimator over all budgets; arrays over G budgets, NaN where there is no minimum.

    `laws` (of one entry) and `loss_law` are None where fewer than three budgets have a minimum,
    `loss_law` where it was not asked for too.
    `weights_G` are 0 for budgets that do not count.
    """

    estimator: Estimator
    reason_G: tuple[str | None, ...]
    params_G: Floats
    tokens_G: Floats
    loss_G: Floats
    curvature_G: Floats
    errors: MinimaErrors
    weights_G: Floats
    laws: PowerLaws | None
    loss_law: LossLaw | None
    draws: MinimaDraws | None
    refusal: Refusal | None

    @property
    def method(self) -> str:
        return self.estimator.method

    @property
    def good_G(self) -> Bools:
        return self.weights_G > 0

    @property
    def weighted_by(self) -> str:
        good = self.weights_G[self.good_G]
        return "equal" if len(good) == 0 or np.ptp(good) == 0 else "noise"


def fit_minima(
    estimator: Estimator,
    found: Sequence[Profile],
    noise: Noise,
    draws: int,
    rng: np.random.Generator,
    tried: Tried = (),
    voters: Sequence[Trial] = (),
    fitted: Curves | None = None,
    loss_law: bool = True,
) -> MinimaFit:
    """Minima of every budget and the laws through them; `tried` are runs not to be asked for.

    Budgets weigh by the standard error of their minimum where seeds tell the noise, else equally.
    `voters` are the estimators that draw; by default this one alone does. `fitted` are its curves
    where they are known.
    """
    nan = np.full(len(found), np.nan)
    params, tokens, loss, curvature = nan.copy(), nan.copy(), nan.copy(), nan.copy()
    errors = MinimaErrors(nan.copy(), nan.copy())
    lowest_G: list[Minima | None] = [None] * len(found)
    at = _enough(estimator, found)
    fitted = estimator.curves(found) if fitted is None else fitted
    if at:
        for g, lowest, error in zip(
            at, fitted.minima(), fitted.errors(noise.log_loss_G[at]), strict=True
        ):
            lowest_G[g] = lowest
            errors.log_params_G[g], errors.log_loss_G[g] = error
    reasons: list[str | None] = []
    allowed = allowed_dip(found)
    for g, (profile, minimum) in enumerate(zip(found, lowest_G, strict=True)):
        reasons.append(minimum_reason(estimator.method, profile, minimum))
        plain = estimator == Estimator("parabola")
        if reasons[-1] is None and plain and (low := dip(profile)) > allowed:
            reasons[-1] = f"the parabola passes {100 * low:.1f} % below every run"
        if minimum is not None and reasons[-1] is None:
            params[g] = np.exp(minimum.log_params_B[0])
            tokens[g] = profile.tokens_at(minimum.log_params_B)[0]
            loss[g], curvature[g] = minimum.loss_B[0], minimum.curvature_B[0]
    good = np.array([reason is None for reason in reasons], bool)
    weights = good.astype(float)
    if noise.source == "seeds" and noise.log_loss > 0:
        weights[good] = 1.0 / errors.log_params_G[good] ** 2
        weights /= weights[good].mean() if good.any() else 1.0
    refusal = minima_refusal(found, good, estimator.method, tried)
    laws = law = drawn = None
    if refusal is None:
        flops = np.array([profile.flops for profile in found])[good]
        log_params, log_tokens = np.log(params[good])[None], np.log(tokens[good])[None]
        laws = power_laws(np.log(flops), log_params, log_tokens, weights[good][None])
        if draws:
            alone = (Trial(estimator, None, 1.0, fitted),)
            drawn, law = minima_draws(voters or alone, found, loss, weights, noise, draws, rng)
        elif loss_law:
            law = fit_loss_law(flops, loss[good][None])
    return MinimaFit(
        estimator, tuple(reasons), params, tokens, loss, curvature, errors, weights, laws, law,
        drawn, refusal,
    )  # fmt: skip


def bias_of(
    fit: MinimaFit, found: Sequence[Profile], surface: Surface, cost: FlopsModel, at: Floats
) -> Bias | None:
    """What the estimator would miss on noise-free losses of `surface` at these very runs."""
    if fit.laws is None:
        return None
    part = [p for p, good in zip(found, fit.good_G, strict=True) if good]
    weights = fit.weights_G[fit.good_G]
    return expected_bias(
        fit.estimator.method, fit.estimator.selected(part), weights, surface, cost, at
    )

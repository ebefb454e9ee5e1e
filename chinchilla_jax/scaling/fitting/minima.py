"""Approach 2 from profiles to exponents: minima, weights, laws of N*, D* and L*, draws, bias.

The draws perturb every loss by the noise model: a budget of six runs does not survive resampling
as a profile. In simulation nominal 95 % covers 92-98 % for 4 to 12 budgets
(tests/scaling/doubt/test_uncertainty.py, the slow one).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from chinchilla_jax.scaling.arrays import Bools, Floats
from chinchilla_jax.scaling.fitting.isoflop import (
    Bias,
    Minima,
    PowerLaws,
    Profile,
    expected_bias,
    minima_of,
    power_laws,
)
from chinchilla_jax.scaling.fitting.newton import Objective, Rows
from chinchilla_jax.scaling.fitting.noise import MinimaErrors, Noise, minima_errors
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
class MinimaDraws:
    """Power laws and loss laws of perturbed minima; NaN where a draw has none."""

    laws: PowerLaws
    loss_law: LossLaw | None
    log_params_BxG: Floats
    loss_BxG: Floats
    good_BxG: npt.NDArray[np.bool_]


def minima_draws(
    method: str,
    found: Sequence[Profile],
    weights_G: Floats,
    noise: Noise,
    size_G: Floats,
    draws: int,
    rng: np.random.Generator,
) -> MinimaDraws:
    """Minima of perturbed losses; the noise's size is drawn too, as few runs tell it.

    Akima's interpolant follows the noise that is in the losses already: shocks are put on the
    parabola instead, so that they come in once, and the minima shifted back to the observed ones.
    """
    scale = np.ones((draws, 1))
    if noise.freedom:
        scale = np.sqrt(noise.freedom / rng.chisquare(noise.freedom, (draws, 1)))
    minima: list[Minima] = []
    tokens = []
    for profile, size in zip(found, size_G, strict=True):
        shock = size * scale * rng.standard_normal((draws, len(profile.loss_S)))
        lowest = minima_of(method, profile, profile.loss_S * np.exp(shock))
        if method == "akima":
            lowest = _once(profile, shock, lowest)
        minima.append(lowest)
        tokens.append(np.log(profile.tokens_at(lowest.log_params_B)))
    good = np.stack([m.good_B for m in minima], axis=1)
    log_params = np.stack([m.log_params_B for m in minima], axis=1)
    loss = np.stack([m.loss_B for m in minima], axis=1)
    weights = np.where(good, weights_G, 0.0)
    log_flops = np.log(np.array([p.flops for p in found]))
    laws = power_laws(log_flops, log_params, np.stack(tokens, axis=1), weights)
    usable = good & (loss > 0)
    law = fit_loss_law(np.exp(log_flops), np.where(usable, loss, 1.0), usable.astype(float))
    if law is not None:  # two minima fit any law of three parameters
        few = usable.sum(axis=1) < LEAST_BUDGETS
        law = LossLaw(*(np.where(few, np.nan, x) for x in (law.E, law.A, law.exponent)))
    return MinimaDraws(laws, law, log_params, loss, good)


def _once(profile: Profile, shock_BxS: Floats, fallback: Minima) -> Minima:
    x = profile.log_params_S - profile.log_params_S.mean()
    smooth_S = np.asarray(np.polyval(np.polyfit(x, profile.loss_S, 2), x), float)
    observed, base = (minima_of("akima", profile, y[None]) for y in (profile.loss_S, smooth_S))
    if not base.good_B[0]:
        return fallback
    moved = minima_of("akima", profile, smooth_S * np.exp(shock_BxS))
    return replace(
        moved,
        log_params_B=moved.log_params_B + observed.log_params_B - base.log_params_B,
        loss_B=moved.loss_B * observed.loss_B / base.loss_B,
    )


@dataclass(frozen=True)
class MinimaFit:
    """One method over all budgets; arrays over G budgets, NaN where there is no minimum.

    `laws` (of one entry) and `loss_law` are None where fewer than three budgets have a minimum.
    `weights_G` are 0 for budgets that do not count.
    """

    method: str
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
    def good_G(self) -> Bools:
        return self.weights_G > 0

    @property
    def weighted_by(self) -> str:
        good = self.weights_G[self.good_G]
        return "equal" if len(good) == 0 or np.ptp(good) == 0 else "noise"


def fit_minima(
    method: str,
    found: Sequence[Profile],
    noise: Noise,
    draws: int,
    rng: np.random.Generator,
    tried: Tried = (),
) -> MinimaFit:
    """Minima of every budget and the laws through them; `tried` are runs not to be asked for.

    Budgets weigh by the standard error of their vertex where seeds tell the noise, else equally.
    """
    nan = np.full(len(found), np.nan)
    params, tokens, loss, curvature = nan.copy(), nan.copy(), nan.copy(), nan.copy()
    reasons: list[str | None] = []
    allowed = allowed_dip(found)
    for g, profile in enumerate(found):
        lowest: Minima | None = minima_of(method, profile) if profile.sizes >= 3 else None
        reasons.append(minimum_reason(method, profile, lowest))
        if reasons[-1] is None and method == "parabola" and (low := dip(profile)) > allowed:
            reasons[-1] = f"the parabola passes {100 * low:.1f} % below every run"
        if lowest is not None and reasons[-1] is None:
            params[g] = np.exp(lowest.log_params_B[0])
            tokens[g] = profile.tokens_at(lowest.log_params_B)[0]
            loss[g], curvature[g] = lowest.loss_B[0], lowest.curvature_B[0]
    good = np.array([reason is None for reason in reasons], bool)
    errors = minima_errors(found, noise)
    weights = good.astype(float)
    if noise.source == "seeds" and noise.log_loss > 0:
        weights[good] = 1.0 / errors.log_params_G[good] ** 2
        weights /= weights[good].mean() if good.any() else 1.0
    refusal = minima_refusal(found, good, method, tried)
    laws = loss_law = drawn = None
    if refusal is None:
        flops = np.array([profile.flops for profile in found])[good]
        log_params, log_tokens = np.log(params[good])[None], np.log(tokens[good])[None]
        laws = power_laws(np.log(flops), log_params, log_tokens, weights[good][None])
        loss_law = fit_loss_law(flops, loss[good][None])
        if draws:
            counted = [p for p, fine in zip(found, good, strict=True) if fine]
            sizes = noise.log_loss_G[good]
            drawn = minima_draws(method, counted, weights[good], noise, sizes, draws, rng)
    return MinimaFit(
        method, tuple(reasons), params, tokens, loss, curvature, errors, weights, laws, loss_law,
        drawn, refusal,
    )  # fmt: skip


def bias_of(
    fit: MinimaFit, found: Sequence[Profile], surface: Surface, cost: FlopsModel, at: Floats
) -> Bias | None:
    """What the method would miss on noise-free losses of `surface` at these very runs."""
    if fit.laws is None:
        return None
    pairs = [(p, w) for p, w in zip(found, fit.weights_G, strict=True) if w > 0]
    weights = np.array([w for _, w in pairs])
    return expected_bias(fit.method, [p for p, _ in pairs], weights, surface, cost, at)

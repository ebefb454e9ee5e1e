"""How the minima of a table are found, chosen by what every way predicts of sizes it has not seen.

An estimator is a curve (`METHODS`) through all sizes of every budget, or through those whose loss
lies within some share of the budget's lowest. One is chosen for the whole table: each size near a
minimum is left out and predicted by the curve through the others. A budget's own runs far from the
optimum so decide whether a parabola may use them.

Array suffixes: B sets of losses, G budgets, S runs of a budget, K sizes left out, M estimators.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats
from chinchilla_jax.scaling.fitting.chance import Chance
from chinchilla_jax.scaling.fitting.curves import (
    Minima,
    Polynomial,
    akima,
    akima_left_out,
    akima_minima,
    at_sizes,
    polynomial_left_out,
)
from chinchilla_jax.scaling.fitting.isoflop import Profile
from chinchilla_jax.scaling.fitting.valley import fit_valleys

METHODS = ("valley", "parabola", "cubic", "akima")
TITLES = {**dict(zip(METHODS, METHODS, strict=True)), "akima": "Akima"}
LEAST_SIZES = {"valley": 3, "parabola": 3, "cubic": 4, "akima": 4}
ALL_SIZES = "all sizes"
_DEGREES = {"parabola": 2, "cubic": 3}
_WITHIN = (None, 0.16, 0.08, 0.04)  # of the lowest loss
_NEAR = 0.03  # sizes that are left out, each in turn
_LEAST_WITHIN, _LEAST_NEAR = 5, 3  # sizes, of a budget that has them


@dataclass(frozen=True)
class Estimator:
    """A curve, and how far above a budget's lowest loss the sizes lie that it goes through."""

    method: str
    within: float | None = None

    @property
    def title(self) -> str:
        return TITLES[self.method] + ("" if self.within is None else f", {self.sizes}")

    @property
    def sizes(self) -> str:
        if self.within is None:
            return ALL_SIZES
        return f"sizes within {100 * self.within:g} % of the lowest"

    def selected(self, found: Sequence[Profile]) -> list[Profile]:
        """The runs of every budget that the curve goes through."""
        if self.within is None:
            return list(found)
        return [p.only(_near(p, self.within, _LEAST_WITHIN)) for p in found]

    def curves(self, found: Sequence[Profile]) -> Curves:
        """Fitted through the budgets that have LEAST_SIZES sizes."""
        enough = [p for p in found if p.sizes >= LEAST_SIZES[self.method]]
        return curves(self.method, self.selected(enough))


# In order of preference among those that sizes left out cannot tell apart.
ESTIMATORS = (
    *(Estimator(m, w) for m in ("valley", "parabola", "cubic") for w in _WITHIN),
    Estimator("akima"),
)


def _near(profile: Profile, within: float, least: int) -> Bools:
    """The sizes from the first to the last below a loss, and the `least` about the lowest."""
    size, where = np.unique(profile.log_params_S, return_inverse=True)
    mean = np.bincount(where, profile.loss_S) / np.bincount(where)
    lowest = int(mean.argmin())
    inside = np.flatnonzero(mean <= (1 + within) * mean[lowest])
    nearest = np.argsort(np.abs(size - size[lowest]), kind="stable")[:least]
    low, high = min(inside[0], nearest.min()), max(inside[-1], nearest.max())
    return np.asarray((where >= low) & (where <= high))


class Curves(Protocol):
    """The curves of one method through the budgets of a table."""

    def minima(self) -> list[Minima]:
        """The minimum of every budget."""

    def drawn(self, noise_G: Floats, scale_B: Floats, chance: Chance) -> list[Minima]:
        """B minima of every budget under noise in ln loss of size noise_G scale_B."""

    def errors(self, noise_G: Floats) -> list[tuple[float, float]]:
        """Standard errors of ln params and of ln loss at every minimum, to first order."""

    def left_out(self, near_G: Sequence[Floats]) -> Floats:
        """ln(predicted / observed) [K] of the sizes `near_G`, each by the curve without it."""

    def curve(self, g: int, log_params: Floats) -> Floats:
        """Loss of a budget at any sizes between its own, for figures."""


def curves(method: str, found: Sequence[Profile]) -> Curves:
    """Fitted; every budget has LEAST_SIZES sizes."""
    if method == "valley":
        return fit_valleys(found)
    return Akimas(tuple(found)) if method == "akima" else Polynomials.of(_DEGREES[method], found)


@dataclass(frozen=True)
class Polynomials:
    """Least-squares parabolas or cubics."""

    degree: int
    found: tuple[Profile, ...]
    each: tuple[Polynomial, ...]

    @classmethod
    def of(cls, degree: int, found: Sequence[Profile]) -> Polynomials:
        each = [Polynomial.of(degree, p.log_params_S, p.loss_S) for p in found]
        return cls(degree, tuple(found), tuple(each))

    def minima(self) -> list[Minima]:
        return [one.minima() for one in self.each]

    def drawn(self, noise_G: Floats, scale_B: Floats, chance: Chance) -> list[Minima]:
        return [
            one.minima(size * scale_B[:, None] * chance.along(p.row_S, one.frame_SxF))
            for one, p, size in zip(self.each, self.found, noise_G, strict=True)
        ]

    def errors(self, noise_G: Floats) -> list[tuple[float, float]]:
        return [one.errors(float(size)) for one, size in zip(self.each, noise_G, strict=True)]

    def left_out(self, near_G: Sequence[Floats]) -> Floats:
        found = [polynomial_left_out(self.degree, p.log_params_S, p.loss_S) for p in self.found]
        return at_sizes(self.found, found, near_G)

    def curve(self, g: int, log_params: Floats) -> Floats:
        return self.each[g].curve(log_params)


@dataclass(frozen=True)
class Akimas:
    """Interpolants of ln loss.

    They follow the noise that is in the losses already: draws put theirs on a parabola, so that it
    comes in once, and shift the minima back to the observed ones. Nor have they errors to first
    order, since they bend at every run: the parabola's are given.
    """

    found: tuple[Profile, ...]

    def minima(self) -> list[Minima]:
        return [akima_minima(p.log_params_S, p.loss_S[None]) for p in self.found]

    def drawn(self, noise_G: Floats, scale_B: Floats, chance: Chance) -> list[Minima]:
        drawn = []
        for p, size in zip(self.found, noise_G, strict=True):
            factor = np.exp(size * scale_B[:, None] * chance.along(p.row_S))
            x = p.log_params_S - p.log_params_S.mean()
            smooth_S = np.asarray(np.polyval(np.polyfit(x, p.loss_S, 2), x), float)
            observed, base = (akima_minima(p.log_params_S, y[None]) for y in (p.loss_S, smooth_S))
            if not base.good_B[0]:
                drawn.append(akima_minima(p.log_params_S, p.loss_S * factor))
                continue
            moved = akima_minima(p.log_params_S, smooth_S * factor)
            drawn.append(
                replace(
                    moved,
                    log_params_B=moved.log_params_B + observed.log_params_B - base.log_params_B,
                    loss_B=moved.loss_B * observed.loss_B / base.loss_B,
                )
            )
        return drawn

    def errors(self, noise_G: Floats) -> list[tuple[float, float]]:
        return Polynomials.of(2, self.found).errors(noise_G)

    def left_out(self, near_G: Sequence[Floats]) -> Floats:
        errors = []
        for p, near in zip(self.found, near_G, strict=True):
            size, loss = _log_means(p)
            index = np.searchsorted(size, near)
            errors.append(akima_left_out(size, loss, index) - loss[index])
        return np.concatenate([np.empty(0), *errors])

    def curve(self, g: int, log_params: Floats) -> Floats:
        size, loss = _log_means(self.found[g])
        return np.exp(akima(size, loss, log_params))


def _log_means(profile: Profile) -> tuple[Floats, Floats]:
    """ln params and the mean ln loss of every size."""
    size, where = np.unique(profile.log_params_S, return_inverse=True)
    return size, np.bincount(where, np.log(profile.loss_S)) / np.bincount(where)


@dataclass(frozen=True)
class Trial:
    """An estimator tried on a table: rms error of ln loss of sizes left out; None where none was.

    `votes` is the share of resamples of these errors that would choose it. `curves` go through the
    budgets of LEAST_SIZES sizes.
    """

    estimator: Estimator
    error: float | None
    votes: float
    curves: Curves


@dataclass(frozen=True)
class Choice:
    """The estimator of a table and why; all that was tried, in order of preference."""

    estimator: Estimator
    reason: str
    left_out: int  # sizes
    trials: tuple[Trial, ...]

    @classmethod
    def only(cls, method: str, found: Sequence[Profile], reason: str, left_out: int = 0) -> Choice:
        """A method through all sizes, of which nothing was compared."""
        one = Estimator(method)
        return cls(one, reason, left_out, (Trial(one, None, 1.0, one.curves(found)),))


_RESAMPLES = 200
_SIGMAS = 3.0  # of a difference of mean squared errors: below it two estimators are as good
_WILD = 9.0  # times the best one's: a few wild errors widen that slack, and are no excuse
_ROUNDING = 1e-7  # of ln loss
_WHY = (
    "lowest error of {count} sizes near the minima, each left out in turn, rms {rms}",
    "of {close} estimators within the noise of the best (rms {rms} of {count} sizes near the "
    "minima, each left out in turn) the first in order of preference",
)


def choose(found: Sequence[Profile]) -> Choice:
    """The estimator that predicts sizes near the minima best when it has not seen them.

    Those whose squared errors exceed the best one's by no more than three standard errors of the
    difference, and are no more than nine times as large, are as good, and the first of them in the
    order of ESTIMATORS is taken. An estimator that finds fewer minima than another takes no part.
    """
    near = _left_out_sizes(found)
    count = sum(map(len, near))
    if count < _LEAST_NEAR:
        return Choice.only("parabola", found, "too few sizes to leave any out")
    tried, squares, minima = [], [], []
    for estimator in _different(found):
        enough = [p.sizes >= LEAST_SIZES[estimator.method] for p in found]
        fitted = estimator.curves(found)
        tried.append((estimator, fitted))
        squares.append(fitted.left_out([*itertools.compress(near, enough)]) ** 2 + _ROUNDING**2)
        minima.append(sum(m.good_B[0] for m in fitted.minima()))
    error_MxK, most = np.array(squares), max(minima)
    error_MxK[np.array(minima) < most] = np.inf
    error_MxK[~np.isfinite(error_MxK).all(axis=1)] = np.inf
    if not np.isfinite(error_MxK).any():
        return Choice.only("parabola", found, "no estimator finds a minimum", count)
    taken = np.isfinite(error_MxK[:, 0])
    tried, error_MxK = [*itertools.compress(tried, taken)], error_MxK[taken]
    slack_MxM = _SIGMAS * np.std(error_MxK[:, None] - error_MxK[None], axis=2)
    slack_MxM /= np.sqrt(count)
    counts = np.random.default_rng(count).multinomial(count, [1 / count] * count, _RESAMPLES)
    first = [
        _first(mean_M, slack_MxM)
        for mean_M in (error_MxK.mean(axis=1), *(counts @ error_MxK.T / count))
    ]
    votes = np.bincount(first[1:], minlength=len(tried)) / _RESAMPLES
    rms_M = np.sqrt(error_MxK.mean(axis=1))
    close = int(_close(error_MxK.mean(axis=1), slack_MxM).sum())
    why = _WHY[close > 1].format(count=count, close=close, rms=f"{100 * rms_M.min():.2g} %")
    trials = [
        Trial(estimator, error, share, fitted)
        for (estimator, fitted), error, share in zip(
            tried, rms_M.tolist(), votes.tolist(), strict=True
        )
    ]
    return Choice(tried[first[0]][0], why, count, tuple(trials))


def _close(mean_M: Floats, slack_MxM: Floats) -> Bools:
    best = int(mean_M.argmin())
    inside = mean_M <= mean_M[best] * (1 + 1e-9) + slack_MxM[best]
    return np.asarray(inside & (mean_M <= _WILD * mean_M[best]))


def _first(mean_M: Floats, slack_MxM: Floats) -> int:
    return int(_close(mean_M, slack_MxM).argmax())


def _different(found: Sequence[Profile]) -> list[Estimator]:
    """Those that do not go through the same runs as another."""
    different, seen = [], set()
    for estimator in ESTIMATORS:
        part = estimator.selected(found)
        key = (estimator.method, *(len(p.loss_S) for p in part))
        if key not in seen:
            seen.add(key)
            different.append(estimator)
    return different


def _left_out_sizes(found: Sequence[Profile]) -> list[Floats]:
    """ln params of the sizes near each budget's lowest, its ends never, that are left out."""
    least = 5 if sum(p.sizes >= 5 for p in found) >= 3 else 4
    sizes = []
    for p in found:
        inner = np.unique(p.log_params_S)[1:-1]
        near = np.unique(p.log_params_S[_near(p, _NEAR, _LEAST_NEAR)])
        sizes.append(np.intersect1d(near, inner) if p.sizes >= least else np.empty(0))
    return sizes

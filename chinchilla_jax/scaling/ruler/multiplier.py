"""One multiplier with its interval and its trends, from the paired runs of one technique.

The loss of run i, less the share rho of what the dense law misses of its dense partner, is that of
the law moved by u_i = ln m (`yardstick`); u is fitted by least squares over all runs. rho is their
regression on the partners' misses, drawn towards 1 as by `_PRIOR` more pairs: then only what a
technique changes of its dense partner counts.

Interval: percentiles over draws that weigh the cells of the dense runs anew and, by themselves, the
cells of the technique (runs, where there are few cells). Draws of few things scatter too little:
the part of a draw that is due to the technique's own is widened to Student's t, as in Hesterberg
2015, arXiv 1411.5279, section 4.3 (expanded percentile intervals).

Array suffixes: B draws, the first the fit to all runs; R rows; K unknowns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats, known
from chinchilla_jax.scaling.fitting.intervals import LEVEL
from chinchilla_jax.scaling.ruler.records import Multiplier, Trend
from chinchilla_jax.scaling.ruler.solve import BEYOND, infinite, searched, solve
from chinchilla_jax.scaling.ruler.yardstick import Moved
from chinchilla_jax.scaling.table.kinds import Codes

LEAST_CELLS = 5  # of which a bootstrap over cells says something
_TREND_CELLS = 4
_TREND_SPAN = math.log(1.5)  # of what a trend is over
_PRIOR = 4.0
TRENDS = ("N", "D", "D/N")


@dataclass(frozen=True)
class Cells:
    """The runs of one technique, and what is resampled of them.

    `weights_BxR` counts how often a draw has each row, all ones in the first.
    """

    log_loss_R: Floats
    partner_BxR: Floats  # what the dense law misses of the dense partner; 0 where there is none
    paired_R: Bools
    cluster_R: Codes
    weights_BxR: Floats
    params_R: Floats  # of the dense partner
    tokens_R: Floats
    cells: int

    @property
    def clusters(self) -> int:
        return int(self.cluster_R.max()) + 1


@dataclass(frozen=True)
class Measured:
    """A multiplier and what it was read from."""

    record: Multiplier
    log_m_B: Floats
    correlation: float
    scatter: float | None
    middle: tuple[float, float]  # ln params and ln tokens at which it holds


def measured(
    law: Moved, known_B: Bools, cells: Cells, measure: str, ratio: float | None
) -> Measured:
    """The multiplier by which `law` moves to the losses of `cells`."""
    first = law.draws(slice(0, 1))
    ones = np.ones((len(cells.log_loss_R), 1))
    rho, theta, miss_R = correlated(first, cells)
    slope_R = np.broadcast_to(first.at(theta)[1][0], miss_R.shape)
    freedom = len(miss_R) - 1
    scatter = float(np.sqrt(np.sum(miss_R**2) / freedom)) if freedom else None
    weight_R = slope_R**2 if np.any(slope_R) else np.ones_like(slope_R)
    axes = {"N": np.log(cells.params_R), "D": np.log(cells.tokens_R)}
    axes["D/N"] = axes["D"] - axes["N"]
    middle = {name: float(np.average(x, weights=weight_R)) for name, x in axes.items()}

    target = cells.log_loss_R - rho * cells.partner_BxR
    constant = _draws(law, known_B, target, cells, ones, np.array([theta]))
    trends, best = [], (0.0, constant)
    for name in TRENDS:
        x_R = axes[name] - middle[name]
        why = _no_trend(x_R, cells, name, bool(abs(theta) < BEYOND))
        if why is not None:
            trends.append(Trend(name, None, None, None, False, why))
            continue
        drawn = _draws(law, known_B, target, cells, np.stack([ones[:, 0], x_R], 1),
                       np.array([theta, 0.0]))  # fmt: skip
        slope_B = drawn[:, 1]
        low, high = ends(slope_B, LEVEL)
        sure = ends(slope_B, 1 - (1 - LEVEL) / len(TRENDS))
        told = bool(sure[0] > 0 or sure[1] < 0)
        trends.append(Trend(name, known(slope_B[0]), known(low), known(high), told, None))
        size = abs(slope_B[0]) / max(high - low, 1e-12)
        if told and size > best[0]:
            best = (size, drawn)
    log_m_B = best[1][:, 0]
    telling = int(np.sum(np.abs(slope_R) * math.log(2.0) > (scatter or 0.0)))
    record = _record(log_m_B, cells, measure, ratio, telling, tuple(trends))
    return Measured(record, log_m_B, rho, scatter, (middle["N"], middle["D"]))


def correlated(law: Moved, cells: Cells) -> tuple[float, float, Floats]:
    """rho, ln m and the misses in ln loss that both leave, of the fit to all runs."""
    ones = np.ones((len(cells.log_loss_R), 1))
    partner_R = cells.partner_BxR[0]
    squares = float(partner_R @ partner_R)
    pairs = max(1, int(cells.paired_R.sum()))
    rho, theta, miss_R = 1.0, 0.0, np.zeros(len(partner_R))
    for _ in range(8):
        theta = float(searched(law, cells.log_loss_R - rho * partner_R, ones)[0])
        whole_R = cells.log_loss_R - np.broadcast_to(law.at(theta)[0][0], partner_R.shape)
        miss_R = whole_R - rho * partner_R
        if squares <= 0 or not cells.paired_R.any():
            return 1.0, theta, miss_R
        prior = _PRIOR * squares / pairs
        was, rho = rho, float((whole_R @ partner_R + prior) / (squares + prior))
        rho = min(max(rho, 0.0), 1.0)
        if abs(rho - was) < 1e-4:
            break
    return rho, theta, miss_R


def _draws(
    law: Moved, known_B: Bools, target: Floats, cells: Cells, design_RxK: Floats, start_K: Floats
) -> Floats:
    """theta_BxK; infinite where it runs away, NaN where the dense law of a draw is not known."""
    begin = searched(law.draws(slice(0, 1)), target[0], design_RxK)
    start = np.tile(begin, (len(target), 1))
    both = solve(law, target, cells.weights_BxR, design_RxK, start)
    alone = solve(law, target, np.ones_like(cells.weights_BxR), design_RxK, start)
    both, alone = infinite(both), infinite(alone)
    with np.errstate(invalid="ignore"):
        found = alone + _expansion(cells, design_RxK.shape[1]) * (both - alone)
    found = np.where(np.isinf(both), both, found)
    found[~known_B] = np.nan
    found[0] = both[0]
    return found


def _expansion(cells: Cells, unknowns: int) -> float:
    """From the scatter of draws of so few things to Student's t; rho is an unknown, too.

    A Dirichlet's weights scatter a mean by the variance over n + 1, not over the freedom.
    """
    from scipy import special  # a tenth of a second that other evaluations need not wait for

    clusters = cells.clusters
    freedom = max(1, clusters - unknowns - bool(cells.paired_R.any()))
    normal = special.ndtri((1 + LEVEL) / 2)
    return float(
        math.sqrt((clusters + 1) / freedom) * special.stdtrit(freedom, (1 + LEVEL) / 2) / normal
    )


def ends(draws_B: Floats, level: float = LEVEL) -> tuple[float, float]:
    """The interval of draws behind the first; those without a value stand beyond either end."""
    drawn = draws_B[1:]
    if not len(drawn):
        return -math.inf, math.inf
    low = np.quantile(np.nan_to_num(drawn, nan=-np.inf, posinf=np.inf, neginf=-np.inf),
                      (1 - level) / 2, method="lower")  # fmt: skip
    high = np.quantile(np.where(np.isnan(drawn), np.inf, drawn), (1 + level) / 2, method="higher")
    # What most draws put beyond all bounds is at least as far as they look.
    return min(float(low), BEYOND), max(float(high), -BEYOND)


def _no_trend(x_R: Floats, cells: Cells, name: str, finite: bool) -> str | None:
    """Why these runs tell no trend over x."""
    if not finite:
        return "the multiplier itself has no bound"
    if cells.cells < _TREND_CELLS:
        return f"{cells.cells} cell{'s' * (cells.cells != 1)}, a trend needs {_TREND_CELLS}"
    if np.ptp(x_R) < _TREND_SPAN:
        return f"all runs have nearly the same {name}"
    return None


def _record(
    log_m_B: Floats,
    cells: Cells,
    measure: str,
    ratio: float | None,
    telling: int,
    trends: tuple[Trend, ...],
) -> Multiplier:
    low, high = ends(log_m_B)
    reason, value = None, float(log_m_B[0])
    if value == np.inf:
        reason = "its losses lie below what the dense law reaches with any amount"
    elif value == -np.inf:
        reason = "its losses lie above what the dense law has with the least amount"
    elif np.isnan(value):
        reason = "the dense law does not tell size and tokens apart"
    elif cells.clusters < 2:
        reason = "one run: nothing tells its scatter, so there is no interval"
        low, high = -math.inf, math.inf
    elif len(log_m_B) > 1 and not (np.isfinite(low) and np.isfinite(high)):
        side = "upper" if np.isfinite(low) else "lower" if np.isfinite(high) else "either"
        reason = f"{side} end open: these runs do not bound it"
    number, least, most = (times(x) for x in (value, low, high))
    return Multiplier(measure, number, least, most, reason, ratio, telling, trends)


def times(log_m: float) -> float | None:
    """The multiplier of ln m; None where it has no bound or is not known."""
    return float(np.exp(log_m)) if np.isfinite(log_m) else None

"""Approach 2: iso-FLOP profiles, power laws through their minima, and what a method would miss.

How a minimum is found: `curves`, `valley`; which way is taken: `estimators`.
Array suffixes: B problems, S runs of one budget, G budgets.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from chinchilla_jax.scaling.arrays import Bools, Floats

_ONE_SIZE = 0.01  # ln params apart: a profile moves by less than its noise between them
_NEARBY = 0.2  # of the span of a budget's sizes


@dataclass(frozen=True)
class Profile:
    """Runs of one budget, sorted by params; replicated seeds are separate entries.

    As `profiles` makes them, runs whose params differ by up to 1 % have one size. Their own are
    those of the rows.
    """

    flops: float
    row_S: npt.NDArray[np.intp]
    log_params_S: Floats
    log_tokens_S: Floats
    loss_S: Floats

    def only(self, keep_S: Bools) -> "Profile":
        """The same budget with these runs alone."""
        return Profile(
            self.flops,
            self.row_S[keep_S],
            self.log_params_S[keep_S],
            self.log_tokens_S[keep_S],
            self.loss_S[keep_S],
        )

    @property
    def sizes(self) -> int:
        return len(np.unique(self.log_params_S))

    @property
    def width(self) -> float:
        """Largest over smallest params."""
        return float(np.exp(np.ptp(self.log_params_S)))

    def tokens_at(self, log_params: Floats) -> Floats:
        """Tokens that this budget buys for sizes between its own; beyond them as at the ends.

        ln tokens by a straight line through the sizes nearby (local linear regression, Cleveland
        1979, with normal weights). D = C / (k N^e) is met exactly, and runs of one budget whose
        FLOPs differ by a few per cent make no steps.
        """
        size, where = np.unique(self.log_params_S, return_inverse=True)
        log_tokens = np.bincount(where, self.log_tokens_S) / np.bincount(where)
        if len(size) == 1:
            return np.asarray(np.exp(np.full(np.shape(log_params), log_tokens[0])))
        x = size - np.clip(log_params, size[0], size[-1])[..., None]
        weight = np.exp(-0.5 * (x / (_NEARBY * np.ptp(size))) ** 2)
        weight /= weight.sum(axis=-1, keepdims=True)
        middle = np.sum(weight * x, axis=-1)
        pull = weight * (x - middle[..., None])
        slope = pull @ log_tokens / np.sum(pull * x, axis=-1)
        return np.asarray(np.exp(weight @ log_tokens - slope * middle))


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
                    _sizes(np.log(params_R[row])),
                    np.log(tokens_R[row]),
                    loss_R[row],
                )
            )
    return found


def _sizes(log_params_S: Floats) -> Floats:
    """Ascending ln params, those that lie within 1 % of a first one in the middle of these.

    Digitised points of one model differ by a millionth: an interpolant would follow their noise up
    a cliff, and a size left out would be told by its twin.
    """
    sizes, begin = log_params_S.copy(), 0
    while begin < len(sizes):
        end = int(np.searchsorted(log_params_S, log_params_S[begin] + _ONE_SIZE, side="right"))
        sizes[begin:end] = 0.5 * (log_params_S[begin] + log_params_S[end - 1])
        begin = end
    return sizes


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

"""Two conditions, or two tables, against each other: the compute-equivalent speed-up.

Each side has a law of its own: at C FLOPs the second has a loss that the first has at s C. s(C) is
read off both frontiers (Hoffmann et al. 2022, equation 4), L*(C) = E + K C^-gamma; beside it
stands the one s for all runs, by the first side's law and the pairs of runs (`multiplier`). Both
sides are resampled together, cell by cell, so that what they share stays shared.

Array suffixes: B draws, the first the fit to all runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment import numbers
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import Floats, known, silent
from chinchilla_jax.scaling.doubt.diagnosis import surface_refusal
from chinchilla_jax.scaling.ruler.league import DRAWS
from chinchilla_jax.scaling.ruler.multiplier import LEAST_CELLS, Cells, ends, measured, times
from chinchilla_jax.scaling.ruler.pairs import clusters, joined, pairs, trunks_of
from chinchilla_jax.scaling.ruler.records import Fitness, Multiplier, SpeedUp, Versus
from chinchilla_jax.scaling.ruler.yardstick import Yardstick, cell_draws, cell_weights, yardstick
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.cells import cell_index
from chinchilla_jax.scaling.table.conditions import Condition
from chinchilla_jax.scaling.table.conventions import in_print, under
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.metrics import metric_in
from chinchilla_jax.scaling.table.runs import Runs

_POINTS = 5  # budgets at which s(C) is told
_ODD_COST = 1.5  # FLOPs per parameter and token of the sides that differ by more are said
_SURE = 0.01  # of lack of fit
# Losses per token of two of these are not of one unit.
_UNITS = ("tokenizer_fingerprint", "tokenizer", "vocab_size", "data_vocab_size", "data_tokenizer")
_TEXTS = ("data_fingerprint", "corpus", "dataset", "data")


@silent()
def versus(first: Condition, second: Condition, settings: Settings) -> Versus:
    """What the second is worth in FLOPs of the first.

    Raises:
      UserError: the losses or the FLOPs of the two are not of one unit.
    """
    said = _units(first, second)
    a, b = (under(one.runs.best(), settings.params, settings.flops) for one in (first, second))
    said += _costs(first, second, a, b)
    titles = first.title, second.title
    for one, runs in ((first, a), (second, b)):
        refusal = surface_refusal(runs, settings.tied)
        if refusal is not None:
            why = f"{one.title}: {refusal.sentence}"
            return Versus(*titles, why, None, (), (), _seconds(a, b), tuple(said))
    rng = np.random.default_rng([settings.seed, 12])
    both_R = cell_index(np.r_[a.params, b.params], np.r_[a.tokens, b.tokens])
    both_R = joined(both_R, trunks_of(a, b))
    weights = cell_draws(int(both_R.max()) + 1, min(settings.draws, DRAWS), rng)
    laws = [
        yardstick(runs, runs.params, settings, weights[:, index_R])
        for runs, index_R in ((a, both_R[: len(a)]), (b, both_R[len(a) :]))
    ]
    fitness = tuple(map(_fitness, titles, (a, b), laws))
    said += [text for text in map(_lack, fitness) if text]
    return Versus(
        *titles,
        refusal=None,
        overall=_overall(a, b, laws[0], settings, rng),
        at=_along(a, b, laws),
        fitness=fitness,
        seconds=_seconds(a, b),
        warnings=tuple(said),
    )


@dataclass(frozen=True)
class _Frontier:
    """E + K C^-slope, arrays of B."""

    E: Floats
    K: Floats
    slope: Floats

    @classmethod
    def of(cls, law: Yardstick, cost: FlopsModel) -> _Frontier:
        in_units = FlopsModel(cost.kappa * law.unit**cost.exponent, cost.exponent)
        s = law.surface
        params, tokens = s.optimum(1.0, in_units)
        reducible = np.asarray(s.loss(params, tokens)) - s.E
        slope = np.asarray(s.alpha) * s.beta / (s.alpha + cost.exponent * np.asarray(s.beta))
        known_B = law.known_B
        return cls(*(np.where(known_B, x, np.nan) for x in (s.E, reducible, slope * s.gamma)))

    def loss(self, flops: float) -> Floats:
        return np.asarray(self.E + self.K * flops**-self.slope)

    def flops(self, loss_B: Floats) -> Floats:
        """Infinite for a loss under the floor."""
        above = loss_B - self.E
        found = (np.maximum(above, 1e-300) / self.K) ** (-1 / self.slope)
        return np.asarray(np.where(above > 0, found, np.where(np.isnan(above), np.nan, np.inf)))


def _along(a: Runs, b: Runs, laws: Sequence[Yardstick]) -> tuple[SpeedUp, ...]:
    """s(C) over the FLOPs that both sides have."""
    costs = [FlopsModel.of(runs.params, runs.tokens, runs.flops) for runs in (a, b)]
    one, other = (_Frontier.of(law, cost) for law, cost in zip(laws, costs, strict=True))
    low, high = (edge(f(runs.flops) for runs in (a, b))
                 for edge, f in ((max, np.min), (min, np.max)))  # fmt: skip
    found = []
    for flops in np.geomspace(low, high, _POINTS) if high > low else (np.sqrt(low * high),):
        loss_B = other.loss(float(flops))
        log_s = np.log(one.flops(loss_B) / flops)
        least, most = map(times, ends(log_s))
        found.append(SpeedUp(float(flops), times(log_s[0]), least, most, known(loss_B[0])))
    return tuple(found)


def _overall(
    a: Runs, b: Runs, law: Yardstick, settings: Settings, rng: np.random.Generator
) -> Multiplier:
    """The one s of all runs of the second side, by the law of the first."""
    found = pairs(b, a)
    cluster_R = clusters(found.cell_R, LEAST_CELLS, b.trunk_R())
    weights = cell_weights(int(cluster_R.max()) + 1, len(law.known_B) - 1, rng)[:, cluster_R]
    cost = FlopsModel.of(a.params, a.tokens, a.flops)
    dense_law = law.moved("size", a.params, a.tokens, cost)
    ratio_R = b.flops / found.flops_R
    cells = Cells(
        log_loss_R=np.log(b.loss),
        partner_BxR=(np.log(a.loss) - dense_law.at(0.0)[0]) @ found.share_RxS.T,
        paired_R=found.paired_R,
        cluster_R=cluster_R,
        weights_BxR=weights,
        params_R=found.params_R,
        tokens_R=b.tokens,
        cells=len(np.unique(found.cell_R)),
    )
    moved = law.moved("compute", found.params_R, b.tokens, cost).shifted(np.log(ratio_R))
    ratio = known(float(np.exp(np.log(ratio_R).mean())))
    return measured(moved, law.known_B, cells, "training", ratio).record


def _fitness(title: str, runs: Runs, law: Yardstick) -> Fitness:
    """How far the law misses its runs, beside how far runs of one cell miss each other."""
    from scipy import special  # a tenth of a second that other evaluations need not wait for

    cell_R = runs.cell_R()
    log_loss = np.log(runs.loss)
    mean = np.bincount(cell_R, log_loss) / np.bincount(cell_R)
    within, freedom = float(np.sum((log_loss - mean[cell_R]) ** 2)), len(runs) - len(mean)
    residual = law.fit.residual_R
    lack, lack_freedom = float(residual @ residual) - within, len(mean) - law.fit.parameters
    p = None
    if freedom >= 3 and lack_freedom >= 1 and within > 0:
        ratio = (max(lack, 0.0) / lack_freedom) / (within / freedom)
        p = float(special.fdtrc(lack_freedom, freedom, ratio))
    seeds = float(np.sqrt(within / freedom)) if freedom else None
    return Fitness(title, len(runs), float(law.fit.noise), seeds, p)


def _lack(one: Fitness) -> str | None:
    if one.lack_of_fit is None:
        return f"{one.title}: no cell has two runs or too few do, so lack of fit cannot be told"
    if one.lack_of_fit >= _SURE:
        return None
    return (
        f"{one.title}: lack of fit: its law misses runs by {100 * one.noise:.2g} % where runs of "
        f"one cell differ by {100 * (one.seeds or 0):.2g} % (p = {one.lack_of_fit:.1g})"
    )


def _units(first: Condition, second: Condition) -> list[str]:
    """Raises UserError for losses that are not of one unit."""
    a, b = first.runs, second.runs
    metrics = [metric_in(r.title.get("loss", ""), r.scale.get("loss", 1.0)) for r in (a, b)]
    if all(metrics) and len(set(metrics)) > 1:
        raise UserError(
            f"--compare: losses are in {metrics[0]} in {first.title} and in {metrics[1]} in "
            f"{second.title}, which are no units of one another; --columns=loss=... names another"
        )
    per_byte = all(metric is not None and "byte" in metric for metric in metrics)
    said = []
    for name in (*_UNITS, *_TEXTS):
        if name not in a.labels or name not in b.labels:
            continue
        one, other = (", ".join(sorted(set(runs.labels[name]))[:2]) for runs in (a, b))
        if one == other:
            continue
        if name in _UNITS and not per_byte:
            raise UserError(
                f"--compare: {name} is {one or 'empty'} in {first.title} and {other or 'empty'} "
                f"in {second.title}: losses per token of two tokenizers are not of one unit; "
                "compare --columns=loss=bits_per_byte"
            )
        if name in _TEXTS:
            said.append(
                f"{name} is {one or 'empty'} in {first.title} and {other or 'empty'} in "
                f"{second.title}: the losses compare only where both are of one held-out text"
            )
    counts = [
        ", ".join(map(in_print, sorted(set(runs.labels.get("flops_convention", ())))))
        for runs in (a, b)
    ]
    if counts[0] != counts[1] and all(counts):
        raise UserError(
            f"--compare: FLOPs are counted as {counts[0]} in {first.title} and as {counts[1]} in "
            f"{second.title}; make one count of them"
        )
    return said


def _costs(first: Condition, second: Condition, a: Runs, b: Runs) -> list[str]:
    """FLOPs per parameter and token that differ between the sides."""
    one, other = (float(np.median(r.flops / r.params / r.tokens)) for r in (a, b))
    if max(one / other, other / one) < _ODD_COST:
        return []
    return [
        f"a parameter and token cost {numbers.ratio(one)} FLOPs in {first.title} and "
        f"{numbers.ratio(other)} in {second.title}: is one of them counted otherwise, or in "
        "another unit? The speed-up is in FLOPs as they are given"
    ]


def _seconds(a: Runs, b: Runs) -> float | None:
    """FLOPs a second of the second side over the first, where both were timed on one device."""
    rates = []
    for runs in (a, b):
        seconds = runs.columns.get("wall_seconds")
        devices = {*runs.labels.get("device_kind", ()), *runs.labels.get("device_count", ())}
        if seconds is None or not np.all(seconds > 0) or not devices:
            return None
        rates.append((float(np.exp(np.mean(np.log(runs.flops / seconds)))), devices))
    return rates[1][0] / rates[0][0] if rates[0][1] == rates[1][1] else None

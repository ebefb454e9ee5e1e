"""The league table: every technique of a table measured by its dense runs, in every currency.

found, arrays = league(panel(read_runs("runs/techniques")), Settings())
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from chinchilla_jax import techniques
from chinchilla_jax.scaling.arrays import Bools, Floats, known, silent
from chinchilla_jax.scaling.doubt.diagnosis import surface_refusal
from chinchilla_jax.scaling.fitting.intervals import LEVEL, Interval
from chinchilla_jax.scaling.ruler.measures import (
    CURRENCIES,
    UNPRICED,
    Currency,
    available,
    charged,
    left_out,
    proportional,
    unpriced,
)
from chinchilla_jax.scaling.ruler.multiplier import (
    LEAST_CELLS,
    Cells,
    Measured,
    ends,
    measured,
    times,
)
from chinchilla_jax.scaling.ruler.pairs import (
    Pairs,
    cells_apart,
    clusters,
    joined,
    pairs,
    places,
)
from chinchilla_jax.scaling.ruler.panel import Panel, parts_of
from chinchilla_jax.scaling.ruler.records import League, Measure, Multiplier, Stack, Standing, Trend
from chinchilla_jax.scaling.ruler.yardstick import Yardstick, cell_weights, yardstick
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import Condition
from chinchilla_jax.scaling.table.conventions import in_print, under
from chinchilla_jax.scaling.table.cost import FlopsModel, of_teacher
from chinchilla_jax.scaling.table.runs import Runs

DRAWS = 1000  # at most: a percentile of 95 % stands on the 25 draws beyond it


@dataclass(frozen=True)
class Counted:
    """A currency in the dense runs, and the law of the dense runs in it."""

    currency: Currency
    dense_S: Floats
    others: tuple[Floats, ...]  # of each other condition
    law: Yardstick


@dataclass(frozen=True)
class Ruler:
    """What figures draw besides the record."""

    dense: Runs
    others: tuple[Runs, ...]  # in the order of the standings
    cost: FlopsModel
    counted: tuple[Counted, ...]  # currencies of size
    size: Counted  # parameters as chosen
    spent: tuple[Floats, ...]  # training FLOPs as charged, of each of the others; NaN: not told
    pairs: tuple[Pairs, ...]


@silent()
def league(
    found: Panel, settings: Settings | None = None, charge: str = "teacher_forward"
) -> tuple[League, Ruler | None]:
    """Measures every condition of a panel; no ruler where the dense runs give none.

    Args:
      charge: how much of a teacher training FLOPs hold, of measures.CHARGES.

    Raises:
      UserError: the table lacks a column for the conventions or the charge asked for.
    """
    settings = settings or Settings()
    dense, *others = (
        under(one.runs, settings.params, settings.flops) for one in (found.dense, *found.others)
    )
    changed = [[n for n, v in one.values.items() if v != found.dense.values[n]]
               for one in found.others]  # fmt: skip
    free = [unpriced(*both, settings.flops) for both in zip(others, changed, strict=True)]
    spent = tuple(
        np.full(len(runs), np.nan) if no else charged(runs, charge)
        for runs, no in zip(others, free, strict=True)
    )
    paired = tuple(pairs(runs, dense) for runs in others)
    refusal = surface_refusal(dense, settings.tied)
    label = _label(found.dense.values)
    ruler = None if refusal else _ruler(dense, others, spent, paired, settings)
    why = f"the dense runs, {label}: {refusal.sentence}" if refusal else None
    if ruler is not None and not ruler.size.law.fit.identified:
        edges = ", ".join(ruler.size.law.fit.at_bound)
        why = f"the law of the dense runs puts {edges} at the edge of what is possible"
    rng = np.random.default_rng([settings.seed, 11])
    standings: list[Standing] = []
    log_m: list[dict[str, Floats]] = []
    for i, one in enumerate(found.others):
        drawn: dict[str, Measured] = {}
        if ruler is not None and why is None:
            drawn = _measured(ruler, i, settings, rng)
        log_m.append({name: m.log_m_B for name, m in drawn.items()})
        change = _change(dense, others[i], paired[i])
        standings.append(_standing(found, one, paired[i], change, drawn))
    conditions = [one.values for one in found.others]
    for i, one in enumerate(found.others):
        parts = parts_of(one.values, conditions, found.dense.values)
        if parts:
            over = _in_cells(ruler, [i, *parts], log_m, settings) if log_m[i] and ruler else log_m
            standings[i] = _stacked(standings, over, i, parts)
    record = League(
        dense=dict(found.dense.values),
        label=label,
        dense_runs=len(dense),
        dense_noise=known(ruler.size.law.fit.noise) if ruler else None,
        charge=charge,
        refusal=why,
        measures=_measures(ruler, dense, others),
        standings=tuple(standings),
        warnings=(
            *found.warnings,
            *cells_apart([one.label for one in standings], paired),
            *left_out([dense, *others], settings.params),
            *_costs(dense, others),
        ),
    )
    return record, ruler


def _label(dense: Mapping[str, str]) -> str:
    """What the dense condition is called; of our columns it has no technique's."""
    foreign = {n: v for n, v in dense.items() if n not in techniques.dense_columns()}
    named = ", ".join(f"{n}={v or 'none'}" for n, v in foreign.items())
    return named or "without any technique"


def _costs(dense: Runs, others: list[Runs]) -> Iterator[str]:
    """Of training FLOPs that are counted in two ways."""
    taught = any(np.any(of_teacher(runs.columns, len(runs)) > 0) for runs in others)
    if taught and dense.flops_convention in ("chinchilla", "six_nd"):
        yield (
            f"training FLOPs are counted as {in_print(dense.flops_convention)}, those of teachers "
            "by matmul"
        )


def _ruler(
    dense: Runs,
    others: list[Runs],
    spent: tuple[Floats, ...],
    paired: tuple[Pairs, ...],
    settings: Settings,
) -> Ruler:
    """The law of the dense runs in every currency, drawn alike in all of them."""
    rng = np.random.default_rng([settings.seed, 10])
    cell_R = joined(dense.cell_R(), dense.trunk_R())
    weights = cell_weights(int(cell_R.max()) + 1, min(settings.draws, DRAWS), rng)[:, cell_R]
    size = Counted(
        Currency("size", "parameters", "size"),
        dense.params,
        tuple(runs.params for runs in others),
        yardstick(dense, dense.params, settings, weights),
    )
    counted: list[Counted] = []
    for currency, (dense_S, *amounts) in available([dense, *others], settings.params):
        law = next(
            (
                _rescaled(other, dense_S)
                for other in (size, *counted)
                if proportional([other.dense_S], [dense_S])
            ),
            None,
        )
        law = law or yardstick(dense, dense_S, settings, weights)
        counted.append(Counted(currency, dense_S, tuple(amounts), law))
    cost = FlopsModel.of(dense.params, dense.tokens, dense.flops)
    return Ruler(dense, tuple(others), cost, tuple(counted), size, spent, paired)


def _rescaled(other: Counted, dense_S: Floats) -> Yardstick:
    """The law of a currency that counts the dense runs alike, up to a constant."""
    factor = float(np.exp(np.mean(np.log(dense_S / other.dense_S))))
    return replace(other.law, unit=other.law.unit * factor)


def _distinct(ruler: Ruler) -> list[tuple[Counted, tuple[str, ...]]]:
    """Currencies that differ in some run, each with the names of those that are the same."""
    kept: list[tuple[Counted, list[str]]] = []
    for counted in ruler.counted:
        mine = [counted.dense_S, *counted.others]
        same = next((also for c, also in kept if proportional([c.dense_S, *c.others], mine)), None)
        if same is None:
            kept.append((counted, []))
        else:
            same.append(counted.currency.name)
    return [(counted, tuple(also)) for counted, also in kept]


def _measures(ruler: Ruler | None, dense: Runs, others: list[Runs]) -> tuple[Measure, ...]:
    if ruler is None:
        return ()
    sizes = [
        Measure(
            c.currency.name, c.currency.title, "size", also,
            known(float(np.exp(np.mean(np.log(c.dense_S / dense.params))))),
        )
        for c, also in _distinct(ruler)
    ]  # fmt: skip
    rest = [Measure(c.name, c.title, c.axis, (), None) for c in CURRENCIES if c.axis != "size"]
    return (*sizes, *rest)


def _measured(
    ruler: Ruler, i: int, settings: Settings, rng: np.random.Generator
) -> dict[str, Measured]:
    """Every multiplier of one condition by its measure, all by the same draws."""
    runs, found = ruler.others[i], ruler.pairs[i]
    cluster_R = clusters(found.cell_R, LEAST_CELLS, runs.trunk_R())
    size = int(cluster_R.max()) + 1
    weights = cell_weights(size, len(ruler.size.law.known_B) - 1, rng)[:, cluster_R]
    result: dict[str, Measured] = {}
    jobs: list[tuple[Currency, Counted, Floats, Floats | None]]
    jobs = [(c.currency, c, c.others[i], c.others[i] / (found.share_RxS @ c.dense_S))
            for c, _ in _distinct(ruler)]  # fmt: skip
    ratio_R: Floats = ruler.spent[i] / found.flops_R
    jobs += [
        (c, ruler.size, found.params_R, ratio_R if c.axis == "compute" else None)
        for c in CURRENCIES
        if c.axis != "size"
    ]
    for currency, counted, amount_R, over_R in jobs:
        law = counted.law
        if currency.axis == "compute" and np.isnan(ratio_R).any():
            result[currency.name] = _untold(currency.name, next(iter(result.values())))
            continue
        at_R = found.tokens_R if currency.axis == "compute" else runs.tokens
        moved = law.moved(currency.axis, amount_R, at_R, ruler.cost)
        if currency.axis == "compute" and over_R is not None:
            moved = moved.shifted(np.log(over_R))
        dense_law = law.moved("size", counted.dense_S, ruler.dense.tokens, ruler.cost)
        miss_BxS = np.log(ruler.dense.loss) - dense_law.at(0.0)[0]
        cells = Cells(
            log_loss_R=np.log(runs.loss),
            partner_BxR=miss_BxS @ found.share_RxS.T,
            paired_R=found.paired_R,
            cluster_R=cluster_R,
            weights_BxR=weights,
            params_R=found.params_R,
            tokens_R=runs.tokens,
            cells=len(np.unique(found.cell_R)),
        )
        result[currency.name] = measured(
            moved, law.known_B, cells, currency.name, _mean_ratio(over_R, found)
        )
    return result


def _in_cells(
    ruler: Ruler, members: Sequence[int], log_m: list[dict[str, Floats]], settings: Settings
) -> list[dict[str, Floats]]:
    """The draws of a stack and its parts over the cells that all of them have; none, no draws."""
    place_R = {i: places(ruler.pairs[i]) for i in members}
    common = set.intersection(*(set(places) for places in place_R.values()))
    over = list(log_m)
    for i in members:
        keep_R = np.array([place in common for place in place_R[i]])
        if keep_R.all():
            continue
        rng = np.random.default_rng([settings.seed, 13, i])
        drawn = _measured(_picked(ruler, i, keep_R), i, settings, rng) if common else {}
        over[i] = {name: m.log_m_B for name, m in drawn.items()}
    return over


def _picked(ruler: Ruler, i: int, keep_R: Bools) -> Ruler:
    """The ruler with some of the runs of one condition."""

    def kept(each: tuple[Any, ...], one: Any) -> tuple[Any, ...]:
        return (*each[:i], one, *each[i + 1 :])

    counted = tuple(replace(c, others=kept(c.others, c.others[i][keep_R])) for c in ruler.counted)
    found = ruler.pairs[i]
    rows = {name: column[keep_R] for name, column in vars(found).items()}
    return replace(
        ruler,
        counted=counted,
        others=kept(ruler.others, ruler.others[i].select(keep_R)),
        spent=kept(ruler.spent, ruler.spent[i][keep_R]),
        pairs=kept(ruler.pairs, replace(found, **rows)),
    )


def _untold(measure: str, other: Measured) -> Measured:
    """No multiplier of training FLOPs; `other` is that of another measure."""
    trends = tuple(
        Trend(t.over, None, None, None, False, "no multiplier") for t in other.record.trends
    )
    record = Multiplier(measure, None, None, None, UNPRICED, None, 0, trends)
    return replace(other, record=record, log_m_B=np.full_like(other.log_m_B, np.nan))


def _mean_ratio(over_R: Floats | None, found: Pairs) -> float | None:
    """Geometric mean over the runs that have a partner."""
    if over_R is None or not found.paired_R.any():
        return None
    return known(float(np.exp(np.log(over_R[found.paired_R]).mean())))


def _standing(
    panel: Panel,
    one: Condition,
    found: Pairs,
    changed: tuple[float | None, Interval | None],
    drawn: Mapping[str, Measured],
) -> Standing:
    first = next(iter(drawn.values()), None)
    change, interval = changed
    return Standing(
        condition=dict(one.values),
        label=panel.label(one.values),
        runs=len(one.runs),
        cells=len(np.unique(one.runs.cell_R())),
        paired=int(found.seeded_R.sum()),
        params=known(float(np.exp(first.middle[0]))) if first else None,
        tokens=known(float(np.exp(first.middle[1]))) if first else None,
        change=change,
        change_interval=interval,
        correlation=known(first.correlation) if first else None,
        scatter=first.scatter if first else None,
        multipliers=tuple(m.record for m in drawn.values()),
        parts=(),
        stacks=(),
        told=techniques.told(_means(one.runs)),
    )


def _means(runs: Runs) -> dict[str, float]:
    """The mean of each column that techniques measure, over the runs that have it."""
    values = {
        name: [float(text) for text in runs.labels[name] if text]
        for name in techniques.measured_columns()
        if name in runs.labels
    }
    return {name: float(np.mean(numbers)) for name, numbers in values.items() if numbers}


def _change(dense: Runs, runs: Runs, found: Pairs) -> tuple[float | None, Interval | None]:
    """Mean of ln(loss / loss of the dense partner), with Student's interval over pairs."""
    from scipy import special  # a tenth of a second that other evaluations need not wait for

    if not found.paired_R.any():
        return None, None
    change_R = np.log(runs.loss) - found.share_RxS @ np.log(dense.loss)
    change_R = change_R[found.paired_R]
    mean = float(change_R.mean())
    if len(change_R) < 2:
        return mean, None
    half = special.stdtrit(len(change_R) - 1, (1 + LEVEL) / 2)
    half *= change_R.std(ddof=1) / np.sqrt(len(change_R))
    return mean, (mean - float(half), mean + float(half))


def _stacked(
    standings: list[Standing], log_m: list[dict[str, Floats]], i: int, parts: list[int]
) -> Standing:
    """A stack with the product of its parts in its cells: draws of one dense law multiply."""
    stacks = []
    for name, whole_B in log_m[i].items():
        if any(name not in log_m[part] for part in parts):
            continue
        product_B = np.sum([log_m[part][name] for part in parts], axis=0)
        with np.errstate(invalid="ignore"):
            excess_B = whole_B - product_B
        numbers = [times(x) for draws in (product_B, excess_B) for x in (draws[0], *ends(draws))]
        stacks.append(Stack(name, *numbers))
    labels = tuple(standings[part].label for part in parts)
    return replace(standings[i], parts=labels, stacks=tuple(stacks))

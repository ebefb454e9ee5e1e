"""Counting conventions as data: the same runs under other counts of parameters and FLOPs.

Kaplan's exponent of .73 against Chinchilla's .50 is mostly such a difference (Pearce & Song
2406.12907, Porian et al. 2406.19146), so every exponent names the convention it is under.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.table.cells import group_flops
from chinchilla_jax.scaling.table.cost import SIX_ND, of_teacher
from chinchilla_jax.scaling.table.curves import Curve
from chinchilla_jax.scaling.table.runs import Runs

PARAMS = (
    "total", "non_embedding", "matmul", "nonzero", "nonzero_non_embedding", "active",
    "active_non_embedding",
)  # fmt: skip
FLOPS = ("as_given", "matmul", "chinchilla", "six_nd")
# As they are called in print.
_IN_PRINT = {"as_given": "as given", "six_nd": "6ND", "non_embedding": "non-embedding",
             "chinchilla": "Chinchilla"}  # fmt: skip
_SAME_BUDGET = 1.15  # runs of one budget may differ by this much in another count


def in_print(convention: str) -> str:
    """What a convention is called in a sentence or a figure."""
    return _IN_PRINT.get(convention, convention)


def params_of(runs: Runs, convention: str) -> Floats | None:
    """The count of parameters, None where the table has none under that name."""
    if convention in (runs.params_convention, "as_given"):
        return runs.params
    column = runs.columns.get(f"params_{convention}")
    if column is None and convention == "total" and runs.params_convention == "as_given":
        return runs.params  # a table that says no more is taken at its word
    embedding = runs.columns.get("params_embedding")
    if column is None and convention == "non_embedding" and embedding is not None:
        column = runs.params - embedding
    if column is None or np.any(np.isnan(column)) or np.any(column <= 0):
        return None
    return column


def flops_of(runs: Runs, convention: str, params: Floats) -> Floats | None:
    """FLOPs of the runs; six_nd is 6 x the chosen params x tokens, as Kaplan et al. count.

    A teacher's are added to it, as they are counted; so a student has them in every convention.
    """
    if convention in (runs.flops_convention, "as_given"):
        return runs.flops
    if convention == "six_nd":
        return SIX_ND.flops(params, runs.tokens) + of_teacher(runs.columns, len(runs))
    column = runs.columns.get(f"flops_{convention}")
    if column is None or np.any(np.isnan(column)):
        return None
    return column if convention == "matmul" else column + _lacking(runs)


def _lacking(runs: Runs) -> Floats:
    """FLOPs of a teacher that the totals of a row lack.

    Where only flops_matmul has them, as in results of early versions, flops_six_nd is 6 N D.
    """
    teacher = of_teacher(runs.columns, len(runs))
    total, active = (runs.columns.get(name) for name in ("flops_six_nd", "params_active"))
    if total is None or active is None:
        return np.zeros(len(runs))
    own = SIX_ND.flops(active, runs.tokens)
    return np.where(np.abs(total - own) < 0.5 * teacher, teacher, 0.0)


def under(runs: Runs, params: str, flops: str) -> Runs:
    """The same runs counted otherwise; UserError where the table lacks a column for it."""
    if params not in PARAMS:
        raise UserError(f"--params={params} is none of {', '.join(PARAMS)}")
    if flops not in FLOPS:
        raise UserError(f"--flops={flops} is none of {', '.join(FLOPS)}")
    count = params_of(runs, params)
    if count is None:
        raise UserError(
            f"{runs.source}: --params={params} needs a column params_{params}"
            + (" or params_embedding" if params == "non_embedding" else "")
        )
    cost = flops_of(runs, flops, count)
    if cost is None:
        raise UserError(f"{runs.source}: --flops={flops} needs a column flops_{flops}")
    name = runs.params_convention if count is runs.params else params
    counted = replace(runs, params=count, params_convention=name)
    row_of = {run_id: row for row, run_id in reversed([*enumerate(runs.run_id_R)])}
    curves = tuple(_recount(c, counted, cost, row_of.get(c.run_id)) for c in runs.curves)
    counted = replace(counted, curves=curves)
    if cost is runs.flops or np.allclose(cost, runs.flops, rtol=1e-9):
        return counted
    return _regrouped(replace(counted, flops=cost, flops_convention=flops))


def available(runs: Runs) -> Iterator[tuple[str, str, Runs]]:
    """(params, flops, runs) under every convention that the table allows and that differs."""
    seen: list[Runs] = []
    for params in PARAMS:
        for flops in FLOPS:
            count = params_of(runs, params)
            if count is None or flops_of(runs, flops, count) is None:
                continue
            counted = under(runs, params, flops)
            if any(
                np.allclose(counted.params, other.params, rtol=1e-9)
                and np.allclose(counted.flops, other.flops, rtol=1e-9)
                for other in seen
            ):
                continue
            seen.append(counted)
            yield params, flops, counted


def _recount(curve: Curve, runs: Runs, flops_R: Floats, row: int | None) -> Curve:
    """The curve with the params of its run's row, its FLOPs scaled to what the run costs."""
    if row is None:
        return curve
    factor = float(flops_R[row] / runs.flops[row])
    return replace(curve, params=float(runs.params[row]), flops_S=curve.flops_S * factor)


def _regrouped(runs: Runs) -> Runs:
    """Budgets after a recount: the old groups where their FLOPs stay close, else new ones."""
    log_flops, groups = np.log(runs.flops), range(len(runs.budget_G))
    spread = [np.ptp(log_flops[runs.group_R == g]) for g in groups if np.any(runs.group_R == g)]
    if spread and max(spread) <= np.log(_SAME_BUDGET):
        middle = [np.exp(log_flops[runs.group_R == g].mean()) for g in groups]
        return replace(runs, budget_G=np.array(middle))
    group_R, budget_G = group_flops(runs.flops)
    said = (
        f"under {runs.flops_convention} FLOPs the runs of a budget differ by up to "
        f"{np.exp(max(spread)):.2g} times: they were grouped anew into {len(budget_G)} budgets"
        if spread
        else "",
    )
    return replace(
        runs,
        group_R=group_R,
        budget_G=budget_G,
        budgets_from="grouped" if len(budget_G) else None,
        notes=runs.notes + tuple(x for x in said if x),
    )

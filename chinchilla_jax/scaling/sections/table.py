"""What was read."""

from collections import Counter

import numpy as np

from chinchilla_jax.scaling.fits import Ranges, RunTable, Trunks
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.runs import Runs

_ASIDE_SHOWN = 200


def run_table(tried: Runs, runs: Runs, given: Runs, cost: FlopsModel) -> RunTable:
    """Of all that was tried, of the runs fitted, and of these as the file counts them."""
    columns = ("params", "tokens", "flops", "loss", "tokens_per_param")
    ends = {c: (float(getattr(runs, c).min()), float(getattr(runs, c).max())) for c in columns}
    return RunTable(
        source=runs.source,
        rows=len(tried) + len(runs.aside),
        fitted=len(runs),
        beaten=len(tried) - len(runs),
        aside=dict(Counter(aside.status for aside in runs.aside)),
        aside_rows=runs.aside[:_ASIDE_SHOWN],
        params_convention=runs.params_convention,
        flops_convention=runs.flops_convention,
        budgets_from=runs.budgets_from,
        axes=tuple(
            name
            for name, column in given.columns.items()
            if name not in columns and len(np.unique(column[~np.isnan(column)])) > 1
        ),
        range=Ranges(**ends),
        vocab_size=_vocab_size(given),
        columns=tuple(runs.kinds.values()),
        condition=dict(runs.picked),
        flops_model=cost,
        trunks=_trunks(given),
        scale=dict(given.scale),
    )


def _trunks(runs: Runs) -> Trunks | None:
    trunk_R = runs.trunk_R()
    if trunk_R is None:
        return None
    size_T = np.bincount(trunk_R)
    several_T = size_T > 1
    spent = runs.columns.get("marginal_flops")
    if spent is not None and not np.isfinite(spent).all():
        spent = None
    return Trunks(
        trunks=int(several_T.sum()),
        branches=int((size_T[several_T] - 1).sum()),
        flops=None if spent is None else float(spent.sum()),
        flops_apart=float(runs.flops.sum()),
    )


def _vocab_size(runs: Runs) -> int | None:
    """The vocabulary that all runs share: their embedding tables over their widths."""
    tables, widths = (runs.columns.get(name) for name in ("params_embedding", "width"))
    if tables is None or widths is None:
        return None
    sizes = np.unique(tables / widths)
    return int(sizes[0]) if len(sizes) == 1 and np.isfinite(sizes[0]) else None

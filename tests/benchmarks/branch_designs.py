"""How well a grid of trunks and branches tells the exponent a, by simulation, for its FLOPs.

    python -m tests.benchmarks.branch_designs

Losses are those of a surface fitted to 41 dense runs at this scale, with noise of .85 % of which
the branches of a trunk share three quarters, as the first sweep of configs/branches.py had it. The
scatter is that of tables: of a through the minima of valleys, and of ln N* at 1e13 FLOPs.
"""

import dataclasses

import numpy as np

from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.trunks import marginal_flops
from chinchilla_jax.scaling.fitting.estimators import Estimator
from chinchilla_jax.scaling.fitting.isoflop import power_laws, profiles
from configs.branches import get_config as branches
from configs.quickstart import get_config as quickstart

TABLES, NOISE, SHARED, AT = 200, 0.0085, 0.75, 1e13
BUDGETS = (3e10, 5.5e10, 1e11, 1.7e11, 3e11, 5.5e11, 1e12, 1.7e12, 3e12)


def loss(params, tokens):
    return 0.975 + 0.359 * (params / 1e5) ** -0.437 + 0.455 * (tokens / 1e6) ** -0.439


def design(budgets, further, cooldown=0.2):
    """Cells of the quickstart's sizes on trunks, with a further seed up to each of `further`."""
    source = branches()
    return planned(
        dataclasses.replace(
            source,
            budgets=budgets,
            ladder=dataclasses.replace(source.ladder, replicates_up_to=further),
            recipe=dataclasses.replace(source.recipe, cooldown_fraction=cooldown),
        )
    )


def planned(source):
    return [cell for cell in plan(source) if cell.status == "planned"]


def scatter(cells, shared):
    """Standard deviations of a and of ln N* over tables."""
    params, tokens, budget = np.array([(c.params, c.tokens, c.run.budget) for c in cells]).T
    names = [c.run.parent.run if c.run.parent else c.run.run_id for c in cells]
    trunk = np.unique(names, return_inverse=True)[1]
    flops, group = np.unique(budget, return_inverse=True)
    random, found = np.random.default_rng(0), []
    for _ in range(TABLES):
        of_trunk, own = (
            random.standard_normal(trunk.max() + 1)[trunk],
            random.standard_normal(len(cells)),
        )
        noise = NOISE * (np.sqrt(shared) * of_trunk + np.sqrt(1 - shared) * own)
        table = profiles(group, flops, params, tokens, loss(params, tokens) * np.exp(noise))
        minima = Estimator("valley").curves(table).minima()
        size = np.array([lowest.log_params_B[0] for lowest in minima])
        text = np.log([p.tokens_at(x) for p, x in zip(table, size, strict=True)])
        good = np.array([[float(lowest.good_B[0]) for lowest in minima]])
        laws = power_laws(np.log(flops), size[None], text[None], good)
        found.append((laws.a[0], np.log(laws.at(AT)[0][0])))
    return np.nanstd(found, axis=0)


if __name__ == "__main__":
    apart = planned(quickstart())
    whole = sum(cell.flops for cell in apart)
    designs = {"quickstart, separate runs": apart}
    for low, high, further, cooldown in (
        (0, 7, (1e12, 1e12), 0.25),
        (0, 7, (1e12, 3e11, 1e11), 0.25),
        (0, 7, (1e12, 1e11, 1e11, 1e11, 1e11), 0.2),
        (0, 7, (1e12, 1.7e11, 1e11, 1e11), 0.2),
        (0, 8, (3e11, 3e11, 1e11, 1e11), 0.2),
    ):
        ends = f"{BUDGETS[low]:.2g} to {BUDGETS[high - 1]:.2g}"
        seeds = ", ".join(f"{most:.2g}" for most in further)
        designs[f"{ends}, further seeds up to {seeds}"] = design(
            BUDGETS[low:high], further, cooldown
        )
    for name, cells in designs.items():
        spent = sum(marginal_flops(cell.run) for cell in cells) / whole
        a, size = scatter(cells, 0.0 if cells is apart else SHARED)
        print(f"{name}: {len(cells)} cells, {spent:.2f} of the FLOPs; a {a:.4f}, ln N* {size:.3f}")

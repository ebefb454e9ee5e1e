"""Small sizes as trunks with branches: seven budgets and three seeds.

    python -m chinchilla_jax.sweep --config=configs/branches.py --workdir=runs/branches
    python -m chinchilla_jax.evaluate --runs=runs/branches --out=runs/branches/report

One trunk per size and seed under a constant rate, from which each budget cools down
(experiment/trunks.py): 126 runs, 2.49e13 FLOPs, for 63 % of what they would cost apart.

Run once (2026-11-28, heads of 12 and 16 at widths 24 to 48) beside 24 separate runs of these
sizes at 1e11 to 3e12, 2.64e13 FLOPs, the quickstart of that day: a = .501 (.477 to .529) from the
minima against .497 (.439 to .547), half as wide; branches end .6 +- .2 % below the separate runs
of the same size and budget (18 of them, mean of three seeds; at 1e12 they end level); noise is
.85 % of loss, of whose variance the branches of a trunk share 73 %. So seeds of trunks tell more
than further budgets (tests/benchmarks/LOG.md, 2026-11-28). The largest budget is a third of
theirs: a loss is forecast from further away.
"""

from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig


def get_config() -> Experiment:
    return Experiment(
        name="branches",
        budgets=(3e10, 5.5e10, 1e11, 1.7e11, 3e11, 5.5e11, 1e12),
        order="smallest",
        ladder=LadderConfig(
            widths=(8, 12, 16, 24, 32, 48, 64, 96, 128, 160),
            min_tokens_per_param=0.3,
            branches=True,
        ),
        recipe=RecipeConfig(schedule="wsd", cooldown_fraction=0.25, decay_timescale=0.0),
        vary={"seed": (0, 1, 2)},
    )

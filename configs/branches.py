"""Small sizes as trunks with branches: seven budgets, and seeds where they cost little.

    python -m chinchilla_jax.sweep --config=configs/branches.py --workdir=runs/branches
    python -m chinchilla_jax.evaluate --runs=runs/branches --out=runs/branches/report

One trunk per size and seed under a constant rate, from which each budget cools down
(experiment/trunks.py): two seeds at every budget, six up to 1e11; 156 runs, 1.87e13 FLOPs, for 61 %
of what they would cost apart.

Run three times (2026-11-28, seeds from 0, 10 and 20) beside as many quickstarts of 1.85e13 FLOPs up
to 3e12, on the same text: a = .491 (.464 to .523), .483 (.464 to .503), .470 (.447 to .493) from
the minima against .495 (.471 to .519), .486 (.442 to .526), .473 (.446 to .497): intervals .79 as
wide on average; by simulation a scatters .52 as much (tests/benchmarks/branch_designs.py). Branches
end .34 +- .09 % below the separate runs of the same size and budget (22 cells; .2, .8, .2 and .2 %
below at 3e10, 1e11, 3e11 and 1e12). The largest budget is a third of the quickstart's: a loss is
forecast from further away.
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
            replicates_up_to=(1e12, 1e11, 1e11, 1e11, 1e11),
        ),
        recipe=RecipeConfig(schedule="wsd", cooldown_fraction=0.2, decay_timescale=0.0),
    )

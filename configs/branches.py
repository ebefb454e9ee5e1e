"""Small sizes as trunks with branches: seven budgets, and seeds where they cost little.

    python -m chinchilla_jax.sweep --config=configs/branches.py --workdir=runs/branches
    python -m chinchilla_jax.evaluate --runs=runs/branches --out=runs/branches/report

One trunk per size and seed under a constant rate, from which each budget cools down
(experiment/trunks.py): two seeds at every budget, six up to 1e11; 156 runs, 1.87e13 FLOPs, for 61 %
of what they would cost apart.

Run once (2026-11-28) beside the quickstart's 28 separate runs, 1.90e13 FLOPs up to 3e12, on the
same text: a = .498 (.480 to .520) from the minima against .511 (.477 to .551), an interval .54 as
wide; every minimum is inside. Branches end .36 +- .18 % below the separate runs of the same size
and budget (14 of them; .8 and .6 % below at 1e11 and 3e11, .4 % above at 1e12); noise is .68 % of
loss. The largest budget is a third of the quickstart's: a loss is forecast from further away.
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

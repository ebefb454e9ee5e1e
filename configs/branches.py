"""Small sizes as trunks with branches: seven budgets and three seeds for a quickstart's FLOPs.

    python -m chinchilla_jax.sweep --config=configs/branches.py --workdir=runs/branches
    python -m chinchilla_jax.evaluate --runs=runs/branches --out=runs/branches/report

One trunk per size and seed under a constant rate, from which each budget cools down
(experiment/trunks.py): 126 runs for 63 % of what they would cost apart.
"""

from dataclasses import replace

from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig
from configs.quickstart import get_config as quickstart


def get_config() -> Experiment:
    base = quickstart()
    return replace(
        base,
        name="branches",
        budgets=(3e10, 5.5e10, 1e11, 1.7e11, 3e11, 5.5e11, 1e12),
        order="smallest",
        ladder=LadderConfig(
            widths=(8, 12, 16, 24, 32, 48, 64, 96, 128, 160),
            min_tokens_per_param=0.3,
            branches=True,
        ),
        recipe=RecipeConfig(schedule="wsd", cooldown_fraction=0.25, decay_timescale=0.0),
        # Branches of a trunk scatter together: seeds tell more than further budgets.
        vary={"seed": (0, 1, 2)},
    )

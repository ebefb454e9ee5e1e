"""Iso-FLOP curves on a laptop: four budgets, six sizes each, on the Python source around you.

    python -m chinchilla_jax.sweep --config=configs/quickstart.py --workdir=runs/quickstart
    python -m chinchilla_jax.evaluate --runs=runs/quickstart --out=runs/quickstart/report

Bytes of the standard library and the installed packages, 64-byte windows, the tuned recipe for
tiny budgets (experiment/recipe.py).
"""

from chinchilla_jax.experiment.config import Experiment, LadderConfig


def get_config() -> Experiment:
    return Experiment(
        name="quickstart",
        budgets=(1e11, 3e11, 1e12, 3e12),
        ladder=LadderConfig(
            widths=(8, 12, 16, 24, 32, 48, 64, 96, 128, 160),
            min_tokens_per_param=0.3,
        ),
    )

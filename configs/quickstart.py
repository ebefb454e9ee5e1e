"""Iso-FLOP curves on a laptop: 33 models at five budgets, on the Python source around you.

    python -m chinchilla_jax.sweep --config=configs/quickstart.py --workdir=runs/quickstart
    python -m chinchilla_jax.evaluate --runs=runs/quickstart --out=runs/quickstart/report

Bytes of the standard library and the installed packages, 64-byte windows, the tuned recipe for
tiny budgets (experiment/recipe.py). The smallest budget is trained from three seeds, which takes
a tenth of the time: the exponent hangs on it as much as on the largest.
"""

from chinchilla_jax.experiment.config import Experiment, LadderConfig


def get_config() -> Experiment:
    return Experiment(
        name="quickstart",
        budgets=(3e10, 1e11, 3e11, 1e12, 3e12),
        order="planned",  # seeds last, when their programs are compiled
        ladder=LadderConfig(
            widths=(8, 12, 16, 24, 32, 48, 64, 96),
            min_tokens_per_param=0.7,
            max_tokens_per_param=400.0,
            replicates_up_to=(3e10, 3e10),
        ),
    )

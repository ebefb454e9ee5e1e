"""The quickstart's curves, two budgets further: 1e11 to 3e13 FLOPs, 36 runs.

    ./launch/local.sh --config=configs/cpu_serious.py

Ten times the quickstart's FLOPs. For the noise between seeds add `--config.seeds=0,1,2`.
"""

from chinchilla_jax.experiment.config import Experiment, LadderConfig


def get_config() -> Experiment:
    return Experiment(
        name="cpu_serious",
        budgets=(1e11, 3e11, 1e12, 3e12, 1e13, 3e13),
        ladder=LadderConfig(
            widths=(8, 12, 16, 24, 32, 48, 64, 96, 128, 160, 192, 256),
            min_tokens_per_param=0.3,
        ),
    )

"""Iso-FLOP curves a decade beyond the quickstart's: 1e11 to 3e13 FLOPs, 36 runs.

    ./launch/local.sh --config=configs/cpu_serious.py

Fourteen times the quickstart's FLOPs. For the noise between seeds add `--config.vary.seed=0,1,2`.

On two cores it took 45 minutes (2026-11-21) and found, by parabola, N* ~ C^0.467 (.443 to .487):

    FLOPs       1e11   3e11   1e12   3e12   1e13   3e13
    params N*  30.8k  54.7k  98.2k   166k   283k   441k
    loss       2.121  1.874  1.652  1.499  1.363  1.267
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

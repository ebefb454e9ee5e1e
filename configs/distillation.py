"""Students of a finished run: taught by its distributions, begun from its layers, and both.

    python -m chinchilla_jax.sweep --config=configs/distillation.py --workdir=runs/distillation
    python -m chinchilla_jax.evaluate --runs=runs/distillation --by=technique

The teacher is the one run at the larger budget, four layers of width 48; each student has the size,
the tokens and the order of the text of a dense run. Width 48 may begin from every second
layer of the teacher, as DistilBERT does, or from all of them.
"""

from dataclasses import replace

from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.experiment.recipe import shape_for_width


def get_config() -> Experiment:
    small, middle, wide = (shape_for_width(width, RecipeConfig(), 256) for width in (24, 32, 48))
    teacher = {"techniques.distillation.teacher": "1e12-48x4"}
    layers = {"techniques.distillation.start": "teacher"}
    alone = {"techniques.distillation.weight": 0.0}
    return Experiment(
        name="distillation",
        budgets=(1e11, 1e12),
        ladder=LadderConfig(
            shapes=(small, middle, replace(wide, depth=2), replace(wide, depth=4)),
            sizes_per_budget=(0, 1),
            tokens_per_param=7.0,  # of the teacher
            min_tokens_per_param=0.5,
        ),
        panel={
            "taught": Setting(values=teacher, budgets=(1e11,)),
            "begun": Setting(values=teacher | layers | alone, budgets=(1e11,), widths=(48,)),
            "both": Setting(values=teacher | layers, budgets=(1e11,), widths=(48,)),
        },
    )

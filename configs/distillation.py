"""Students of a finished run: taught by its distributions, begun from its layers, and both.

    python -m chinchilla_jax.sweep --config=configs/distillation.py --workdir=runs/distillation
    python -m chinchilla_jax.evaluate --runs=runs/distillation --by=technique

The teacher is the one run at the larger budget, four layers of width 48; each student has the size,
the tokens and the order of the text of a dense run. Width 48 may begin from every second layer of
the teacher, as DistilBERT does (Sanh et al. 2019, arXiv 1910.01108), or from all of them. What to
expect of each is in the columns `distillation_quality`, `_size` and `_time` of results.csv; a
multiplier takes more dense runs, as the panel of techniques has.

Run once (2026-11-27; 4.6 minutes at low priority on two busy cores; one seed, whose
noise is about 1 %). Loss against the dense run of equal tokens, the teacher at 1.7257:

    24x3  2.2066 dense   taught -6.9 %
    32x3  2.2034         taught -8.3 %
    48x2  2.2445         taught -9.7 %    begun -11.9 %   both -16.3 %
    48x4  2.4194         taught -11.8 %   begun -22.0 %   both -26.8 %

Two of its four layers, begun from it and taught, have 96 % of the teacher's quality (nats saved
against a uniform guess) at 59 % of its size and 61 % of its time per token, and 92 % taught alone.
They cost 1.6 times the FLOPs of the dense run with the teacher's forward pass, and ten times more
with its training.
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

"""Students of finished runs: taught by their distributions, begun from their layers, and both.

    python -m chinchilla_jax.sweep --config=configs/distillation.py --workdir=runs/distillation
    python -m chinchilla_jax.evaluate --runs=runs/distillation --by=technique --laws=students

Each student has the size, the tokens and the order of the text of a dense run. Three teachers of
falling quality teach the students of two budgets, so that the law of students (Busbridge et al.
2025, arXiv 2502.08606) has 21 runs for its nine parameters and its figure shows whether a better
teacher still helps: the larger two are trained for this, the third is itself one of the students'
dense runs. Width 48 may begin from every second layer of the best one, as DistilBERT does (Sanh et
al. 2019, arXiv 1910.01108), or from all of them. What to expect of each is in the columns
`distillation_quality`, `_size` and `_time` of results.csv; a multiplier takes more dense runs, as
the panel of techniques has.

Run once on 2026-11-27 (34 runs, 4.5e12 FLOPs, beside other work; one seed, whose noise is about 1
%). A better teacher helps until it is too good for its student: taught at 3e10 FLOPs, 24x3, 32x3
and 48x2 end 6.6, 8.9 and 7.8 % under their dense runs with the best teacher (loss 1.7257), 8.0,
10.2 and 10.0 % with the second (1.9192), 7.2, 9.9 and 10.0 % with the third (2.2066). By the law of
students the best teacher has .74 (136 thousand parameters) to .84 (33 thousand) of the loss that
the student reaches alone; of its nine parameters the runs bound all but three (`distillation.png`).
At 1e11, against the dense run of equal tokens:

            dense    best    second   third    begun     both
    24x3    2.2066   -6.9    -5.5     +0.1
    32x3    2.2034   -8.3    -6.9     +0.1
    48x2    2.2445   -9.7    -9.7     -1.5     -11.9 %   -16.3 %
    48x4    2.4194   -11.8   -12.7    -7.7     -22.0 %   -26.8 %

A teacher no better than its student teaches it nothing. Two of the best one's four layers, begun
from it and taught, have 96 % of its quality (nats saved against a uniform guess) at 59 % of its
size and 61 % of its time per token, and 92 % taught alone. They cost 1.6 times the FLOPs of the
dense run with the teacher's forward pass, and ten times more with its training.
"""

from dataclasses import replace

from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.experiment.recipe import shape_for_width


def get_config() -> Experiment:
    small, middle, wide = (shape_for_width(width, RecipeConfig(), 256) for width in (24, 32, 48))
    layers = {"techniques.distillation.start": "teacher"}
    alone = {"techniques.distillation.weight": 0.0}
    students, larger = (3e10, 1e11), (1e11,)
    return Experiment(
        name="distillation",
        budgets=(3e10, 1e11, 3e11, 1e12),
        ladder=LadderConfig(
            shapes=(small, middle, replace(wide, depth=2), replace(wide, depth=4)),
            sizes_per_budget=(0, 0, 1, 1),
            tokens_per_param=7.0,  # of the teachers
            min_tokens_per_param=0.5,
        ),
        panel={
            "taught": Setting(values=_by("1e12-48x4"), budgets=students),
            "taught_by_second": Setting(values=_by("3e11-48x2"), budgets=students),
            "taught_by_third": Setting(values=_by("1e11-24x3"), budgets=students),
            "begun": Setting(
                values=_by("1e12-48x4") | layers | alone, budgets=larger, widths=(48,)
            ),
            "both": Setting(values=_by("1e12-48x4") | layers, budgets=larger, widths=(48,)),
        },
    )


def _by(teacher: str) -> dict[str, object]:
    return {"techniques.distillation.teacher": teacher}

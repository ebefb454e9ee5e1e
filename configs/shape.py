"""Wider or deeper at equal parameters: two budgets, three sizes each, in four shapes.

    python -m chinchilla_jax.sweep --config=configs/shape.py --workdir=runs/shape
    python -m chinchilla_jax.evaluate --runs=runs/shape --laws=width_depth

Half, once, twice and four times the recipe's layers, with the width that keeps the parameters (to 2
%). Above 10M parameters depth is worth more than width until some 32 layers (Tay et al. 2021, arXiv
2109.10686), and aspects of 4 to 30 differ by 2 % at most (Kaplan et al. 2020, figure 5); small
models were expected to care less.

Run once on 2026-11-27 (eleven minutes beside other work; one seed, whose noise is about 1 %): they
do care, the other way. At equal FLOPs and parameters half the layers end 1.4 % lower on average
(-3.4 to -.1 % of the loss), as the tokens explain that their lighter layers leave over; twice the
layers end 2.6 % higher (1.5 to 4.2) and four times 7.9 % (5.4 to 9.7), of which fewer tokens
explain less than half. The law of width and depth has .53 (.14 to 1.55) for the exponent of the
width and cannot tell that of the depth (0 to 20): beyond two layers it adds nothing that these runs
can see.
"""

from chinchilla_jax.experiment.config import Experiment, LadderConfig


def get_config() -> Experiment:
    return Experiment(
        name="shape",
        budgets=(1e11, 3e11),
        ladder=LadderConfig(
            widths=(24, 32, 48),
            sizes_per_budget=(0,),
        ),
        vary={"techniques.shape.depth_multiplier": (0.5, 1.0, 2.0, 4.0)},
    )

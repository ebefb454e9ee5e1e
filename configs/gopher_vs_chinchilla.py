"""Two models at one budget: the size Kaplan et al. would pick and the one Hoffmann et al. would.

    python -m chinchilla_jax.sweep --config=configs/gopher_vs_chinchilla.py --workdir=runs/gopher

At 1e21 FLOPs the two laws picked 4.68B and 2.86B parameters; trained, the smaller model won
(Hoffmann et al. 2022, D.4), and at Gopher's budget the 70B Chinchilla beat the 280B Gopher. This
is that duel on a CPU. What separates the laws is the exponent of N_opt ~ C^a, .73 (Kaplan et al.
2020) against .50, so both go through one point, the minimum that the quickstart finds at 1e11
FLOPs, and are followed over two decades: to 287 thousand parameters on 5.5 million bytes, and
927 thousand on 1.7 million. (The printed constant of Kaplan et al. cannot be used: carried down
to 1e13 FLOPs, C^.73 would ask for 11 thousand parameters.) Three seeds each, so that a win can be
told from luck:

    params    D/N   nats per byte, seeds 0, 1, 2   mean
    287 k    19.1   1.383  1.388  1.389            1.387
    927 k    1.85   1.459  1.470  1.476            1.468

The smaller model wins by 0.082 nats, 5.6 %, and its worst seed beats the larger one's best by
0.070; seeds move a loss by 0.003 and 0.009 (standard deviation). All runs are scored on the same
text, so the standard error over that text, 0.02, is common to both. The six runs, 6e13 FLOPs, took
16 minutes on two cores beside other work (2026-11-27).
"""

from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.recipe import nearest_shape
from chinchilla_jax.scaling.laws.published import law_named

BUDGET = 1e13
AGREED = (1e11, 30e3)  # FLOPs and parameters: a budget of the quickstart and its minimum
RIVALS = ("kaplan_frontier", "hoffmann_1")


def pick(law: str) -> float:
    """Parameters at BUDGET of a law whose frontier goes through AGREED."""
    flops, params = AGREED
    return params * (BUDGET / flops) ** float(law_named(law).parameters["a"])


def get_config() -> Experiment:
    recipe = RecipeConfig()
    return Experiment(
        name="gopher_vs_chinchilla",
        budgets=(BUDGET,),
        vary={"seed": (0, 1, 2)},
        ladder=LadderConfig(
            shapes=tuple(nearest_shape(pick(law), recipe, 256) for law in RIVALS),
            sizes_per_budget=(0,),
        ),
        recipe=recipe,
    )

"""Few bits after training and in it: three budgets, four sizes, and four settings of few bits.

    python -m chinchilla_jax.sweep --config=configs/quantisation.py --workdir=runs/quantisation
    python -m chinchilla_jax.evaluate --runs=runs/quantisation --laws=post_training
    python -m chinchilla_jax.evaluate --runs=runs/quantisation --by=technique

Every dense run is measured at 8 to 2 bits at its end, without another run. What that costs was
expected to grow with tokens per parameter, about as their root (Kumar et al. 2024, arXiv
2411.04330), and to be multiplied by about five with every bit less. Trained with few bits, hidden
matrices of 4 bits were expected 1 % above the dense loss, and less where the last quarter of
training alone has them (Dremov et al. 2025, arXiv 2509.22935); of 2 bits 5 to 10 %.

Run once, on 2026-11-27 (18 minutes on two cores that eight other jobs shared; one seed): the loss
rises by .1, .4, 1.6, 7 and 27 % on average at 6, 5, 4, 3 and 2 bits after training, at 8 by less
than evaluation can tell; fourfold with every bit less, and as D^.68 (.64 to .76) / N^.20 (.07 to
.29): faster than the root of D/N. At 3 bits that is .5 % of the loss at 1.4 tokens per parameter
and 26 % at 830. Trained with 4 bits 1.9 % (.8 to 3.8), in the last quarter alone 1.0 % (.2 to 2.1),
2 bits there 8 % and three levels throughout 12 %. Counted in bytes of the dense run's float32, 4
bits after training are worth 4.3 (4.1 to 4.5) and in the last quarter 4.8 (3.9 to 7.4), 8 bits 3.6,
2 bits after training 1.4.
"""

from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.quantisation import Quantisation


def few_bits(bits: float, start: float = 0.0) -> Setting:
    values = {"techniques.quantisation.bits": bits, "techniques.quantisation.start": start}
    return Setting(values=values, budgets=(3e11, 1e12), widths=(24, 48))


def get_config() -> Experiment:
    return Experiment(
        name="quantisation",
        budgets=(1e11, 3e11, 1e12),
        ladder=LadderConfig(
            widths=(16, 24, 32, 48),
            sizes_per_budget=(0,),
        ),
        techniques=Techniques(quantisation=Quantisation(after=(8, 6, 5, 4, 3, 2))),
        panel={
            "w4": few_bits(4),
            "w4_late": few_bits(4, start=0.75),
            "w2_late": few_bits(2, start=0.75),
            "ternary": few_bits(1.58),
        },
    )

"""Half, three quarters and seven eighths of the hidden weights pruned, beside the dense runs.

    python -m chinchilla_jax.sweep --config=configs/sparsity.py --workdir=runs/sparsity
    python -m chinchilla_jax.evaluate --runs=runs/sparsity --laws=sparsity,average_size

Each sparse run has the size, the tokens and the order of the text of a dense one; the vocabulary's
tables stay dense. Frantar et al. 2023 (arXiv 2309.08520) find that a model half of whose weights
are pruned is worth a dense one of 1.6 times its non-zeros, and that the best sparsity rises with
training. Jin et al. 2025 (arXiv 2501.12486) put dense and sparse runs on one law of the average
size.

Run once (2026-11-27; ten minutes at low priority on two busy cores, one seed, whose noise is about
1 %): against the dense run of the same size 50 % cost 1.9 % of the loss on average (1.5 to 2.6),
75 % 4.3 (3.0 to 6.1) and 87.5 % 7.8 (5.0 to 11.4); the longer a size is trained, the more. At equal
non-zeros that is a gain: Frantar's law, which misses .75 % (rms), has a dense model 1.2, 1.3 and
1.3 times as large for the three. Its best sparsity rises from .09 at the compute-optimal length to
.20, .30, .41 and .63 at 2, 4, 10 and 100 times that, with no closed intervals by these 24 runs. The
law of the average size misses twice as much, 1.5 %.
"""

from chinchilla_jax.experiment.config import Experiment, LadderConfig


def get_config() -> Experiment:
    return Experiment(
        name="sparsity",
        budgets=(1e11, 3e11),
        ladder=LadderConfig(
            widths=(24, 32, 48),
            sizes_per_budget=(0,),
        ),
        vary={"techniques.sparsity.level": (0.0, 0.5, 0.75, 0.875)},
    )

"""Rates and batches at four sizes and three horizons each: a recipe for this text, with evidence.

    python -m chinchilla_jax.sweep --config=configs/tuning.py --workdir=runs/tuning
    python -m chinchilla_jax.evaluate --runs=runs/tuning --laws=learning_rate,batch
    python -m chinchilla_jax.plan --config=configs/quickstart.py \\
      --config.recipe.source=runs/tuning/report/recipe.json

Four rates, a factor 2 apart, and three batches, a factor 4 apart, around what the recipe of this
package takes for every size and length. Weight decay has a law too, by its timescale, where it
varies: `--config.vary.recipe.decay_timescale=0.5,1.5,4.5 --laws=weight_decay`.

Expected: a best rate that muP keeps the same at every width (Yang et al. 2022, arXiv 2203.03466)
and that follows the root of the batch (Malladi et al. 2022, arXiv 2205.10287); a best batch that
grows with tokens alone, as D^.38 to D^.6 (Bergsma et al. 2025, arXiv 2505.13738; Li et al. 2025,
arXiv 2503.04715); and a best rate that falls with D at a given batch (Bjorck et al. 2024, arXiv
2409.19913) where it rises with D if the batch is tuned beside it (Li et al.).

Run once (2026-11-28; 136 runs, 1.3e13 FLOPs, an hour at low priority on two busy cores; one seed;
one head at width 16, where the recipe has two since):

    B*  = D^.93 (.72 to 1.25)                   missing it by 4x costs .6 % (.4 to .9)
    lr* = N^.11 (-.04 to .23) D^-.16 (-.30 to -.06) B^.52 (.47 to .59)       2.8 % (1.9 to 3.8)
    at the best batch lr* = N^.11 D^.32 (.16 to .51)

So the sign of D turns with the policy of the batch. The batch grows faster than published, whose
models are ten thousand times as large; the widest model would rather have a smaller one than the
others (63 tokens of 570 thousand, where the law says 174), which a law of D alone misses by a
factor 2.7 if it has not seen that width, at a cost of .45 % of the loss. By these curvatures the
default recipe loses .5 % on average (1.7 % at most), Step Law, carried over five decades, 3 %.
"""

from chinchilla_jax.experiment.config import Experiment, LadderConfig


def get_config() -> Experiment:
    return Experiment(
        name="tuning",
        budgets=(2e10, 6e10, 2e11),
        ladder=LadderConfig(
            widths=(8, 16, 24, 32),
            sizes_per_budget=(0,),
            min_tokens_per_param=0.5,
        ),
        vary={
            "recipe.lr_multiplier": (0.35, 0.7, 1.4, 2.8),
            "recipe.base_batch_tokens": (128.0, 512.0, 2048.0),
        },
    )

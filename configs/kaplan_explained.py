"""Why Kaplan et al. found N* ~ C^.73 and more: their way of training, corrected a step at a time.

    python -m chinchilla_jax.sweep --config=configs/kaplan_explained.py --workdir=runs/kaplan
    python -m chinchilla_jax.evaluate --runs=runs/kaplan --by=panel --params=non_embedding
    python -m chinchilla_jax.evaluate --runs=runs/kaplan --by=panel

Porian et al. 2024 (arXiv 2406.19146) retrain the experiment of Kaplan et al. 2020 (arXiv
2001.08361) and correct it: an exponent of .835 becomes .706 when the last layer is counted, .602
with a warm-up that grows with the size, .571 with a decay to the end of each run, .497 with the
rate, the batch and beta2 tuned for each size. Here four sets of the same runs: `as_kaplan` has one
batch (1,024 tokens), one rate, a warm-up of 100 thousand tokens for all and no decay; `warm_up` a
warm-up of a fifth of each run instead; `decay` a decay to zero as well; the plain runs the recipe's
batch and rate too. The first correction needs no run: it is the count of the first command against
that of the second.

Expected: the exponent falls with each correction, most with the count, since 23 to 85 % of the
parameters of models as small as these are embeddings. The others come to a tenth or less each, and
one seed at four budgets leaves an interval of .15 to either side: their sum may show, hardly each.

Run once (2026-11-28; 96 runs, 9.5e12 FLOPs, 40 minutes at low priority on two busy cores; one head
at width 16, where the recipe has two since). The exponent of the iso-FLOP minima, and their N* in
thousands and loss at 1e10 and 3e11 FLOPs:

    as_kaplan, without embeddings   .69 (.49 to .94)
    counted                         .47 (.37 to .64)    8.4  41   2.710  2.099
    warm_up                         .44 (.28 to .61)    9.7  42   2.689  2.101
    decay                           .50 (.36 to .69)    7.6  41   2.682  1.964
    plain                           .45 (.20 to .65)   12.0  54   2.596  1.947

The count alone explains it here, .22 of .24. The warm-up goes the published way, by less than its
noise; the decay does not; tuning does. What the corrections do change is the level: the right size
is a third to a half larger with a tuned rate and batch, and the loss 4 to 7 % lower.
"""

from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.panel import Setting

_BATCH = 1024.0  # tokens
_FIXED = {
    "recipe.base_batch_tokens": _BATCH,
    "recipe.batch_exponent": 0.0,
    "recipe.lr_batch_tokens": _BATCH,
}
_CONSTANT = {"recipe.schedule": "wsd", "recipe.cooldown_fraction": 0.0}
_LONG = {"recipe.warmup_tokens": 1e5}


def get_config() -> Experiment:
    return Experiment(
        name="kaplan_explained",
        budgets=(1e10, 3e10, 1e11, 3e11),
        ladder=LadderConfig(
            widths=(4, 6, 8, 12, 16, 24, 32, 48),
            sizes_per_budget=(0,),
            min_tokens_per_param=0.7,
            min_steps=20,
        ),
        panel={
            "as_kaplan": Setting(values={**_FIXED, **_CONSTANT, **_LONG}),
            "warm_up": Setting(values={**_FIXED, **_CONSTANT}),
            "decay": Setting(values=_FIXED),
        },
    )

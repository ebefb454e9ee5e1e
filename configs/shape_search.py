r"""Which shape is the best at one cost of serving: 32 candidates, by successive halving.

    python -m chinchilla_jax.sweep --config=configs/shape_search.py --workdir=runs/shape_search \
      --halving=3
    python -m chinchilla_jax.sweep --config=configs/shape_search.py --workdir=runs/shape_search

Width, depth, heads, key-value heads and feed-forward size of every candidate differ, its forward
FLOPs for a token do not (2 %). The first command trains all at 3.3e10 FLOPs, the best third at
1e11, a third of these at 3e11, and picks one, for a third of the FLOPs that all of them take at
3e11. The second trains the rest of the grid, and the first then says what the search lost.

Run once (2026-11-28, one seed, whose noise is about 1 %; half an hour on two busy cores): for .31
of the FLOPs it picked 64x1 (4 heads of 16, two of them of keys and values, feed-forward 112) with
1.921 nats, 1.3 % above the lowest of the grid, 48x2 with 1.896; the other 31 of 32 end from 1.907
to 1.989. But the lowest of 32 noisy losses is low by chance. Trained again with three other seeds:
what was picked 1.932 (1.930 to 1.934), the grid's lowest 1.950 (1.921 to 1.977), its second, 48x1
with a feed-forward size of 228, 1.926 (1.919 to 1.938). So by fresh seeds of the same text what was
picked lies .95 +- .82 % below the shape that the whole grid picks, and .31 +- .33 % above the best
of the three. One or two wide layers are best here, as in `shape.py`.

Early rungs tell little here: over the 32 shapes losses at 3e11 go with those at 1e11 by a
correlation of .33, with those at 3.3e10 by -.29, where a parameter has seen 1.6 tokens and few wide
heads learn fastest. Ten shapes at random, at 3e11 alone, come within 1 % of the grid's lowest in 80
of 100 draws, for as many FLOPs (`tests/benchmarks/LOG.md`).
"""

from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.recipe import shape_for_width
from chinchilla_jax.experiment.shapes import of_equal_cost


def get_config() -> Experiment:
    recipe = RecipeConfig()
    shapes = of_equal_cost(
        shape_for_width(32, recipe, 256),
        recipe.sequence_length,
        widths=(24, 32, 40, 48, 64),
        depths=(1, 2, 3, 4),
        head_sizes=(8, 16, 32),
        heads_per_kv_head=(1, 2),
    )
    return Experiment(
        name="shape_search",
        budgets=(3.3e10, 1e11, 3e11),
        ladder=LadderConfig(shapes=tuple(shapes), sizes_per_budget=(0,), min_tokens_per_param=0.5),
        recipe=recipe,
    )

"""From a size and a number of tokens to a shape, a batch and a learning rate.

Each rule names its source. The constants live in `RecipeConfig`; the defaults are a recipe tuned
at 1e11 to 3e13 FLOPs on bytes with 64-token sequences (about 325 runs; mean excess over the tuned
surface 0.21 % in loss, worst 0.9 %; `mup.py` tells what was tuned since). Far from there
they are an extrapolation: vary `recipe.lr_multiplier` first.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from chinchilla_jax.experiment.config import OptimizerConfig, RecipeConfig
from chinchilla_jax.experiment.counting import count_params
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.model import ModelConfig

if TYPE_CHECKING:
    from chinchilla_jax.experiment.fitted_recipe import FittedRecipe

# (width, depth), interpolated in ln width. Up to 160: the tuned ladder, in which three layers
# from width 24 up gave smoother curves than two. From 512: the trend of Table A9 in Hoffmann et
# al. 2022. Kaplan et al. 2020 (figure 5): the loss moves little over a factor 40 of aspect ratio.
_DEPTHS = (
    (16, 2), (24, 3), (48, 3), (64, 4), (96, 4), (128, 5), (160, 6), (512, 8), (1024, 16),
    (1536, 22), (2048, 26), (2560, 32), (3584, 40), (5120, 47), (8192, 80),
)  # fmt: skip

# (from width, largest head size). From 512: Table A9.
_HEAD_SIZES = ((0, 32), (512, 64), (1280, 128))

_SMALL_HEAD, _SMALL_FROM = 8, 32  # heads under it are nobody's choice from that width on

_MOST_WARMUP = 0.9  # of a run, of a warm-up that is given in tokens


def depth_for_width(width: int) -> int:
    """Layers of a model of `width`."""
    widths, depths = zip(*_DEPTHS, strict=True)
    return round(float(np.interp(math.log(width), np.log(widths), depths)))


def head_size_for_width(width: int) -> int:
    """The largest even divisor of `width` up to the rule's head size, from width 16 of two heads.

    Two train best at 16 to 32: one head ends 1 to 2 % higher, three and four .4 to .9 %, paired by
    seed; at 12 one and two end alike (tests/benchmarks/LOG.md). A width that is no multiple of 4
    has no two even heads.

    Raises:
      UserError: an odd width, which no even head size divides.
    """
    if width < 2 or width % 2:
        raise UserError(f"ladder.widths: {width}: must be positive and even, to split in heads")
    most = max(size for start, size in _HEAD_SIZES if width >= start)
    if width >= 16 and width % 4 == 0:
        most = min(most, width // 2)
    return max(k for k in range(2, most + 1, 2) if width % k == 0)


def of_small_heads(shapes: Iterable[ModelConfig]) -> str | None:
    """A sentence about widths that the rule splits into tiny heads, as 34 in 17; None without."""
    found = {(m.width, m.heads, m.head_size) for m in shapes
             if m.head_size < _SMALL_HEAD and m.width >= _SMALL_FROM and m.width % 2 == 0
             and m.head_size == head_size_for_width(m.width)}  # fmt: skip
    if not found:
        return None
    said = [f"{width} in {heads} heads of {size}" for width, heads, size in sorted(found)]
    near = {8 * (width // 8 + more) for width, *_ in found for more in (0, 1)}
    return (
        f"ladder.widths: {', '.join(said)}: so small a head tells little apart; near widths that "
        f"split well are {', '.join(map(str, sorted(near)))}"
    )


def ff_size_for_width(width: int, definition: str) -> int:
    """4 D for GELU; 8/3 D for SwiGLU, equal in parameters (Shazeer 2020), to a multiple of 8."""
    return 4 * width if definition == "chinchilla" else 8 * max(1, round(width / 3))


def shape_for_width(width: int, recipe: RecipeConfig, vocab_size: int) -> ModelConfig:
    """The recipe's model of `width`.

    Raises:
      UserError: a width that cannot be split into heads or key-value groups.
    """
    head_size = head_size_for_width(width)  # also checks the width
    heads = width // head_size
    if heads % recipe.heads_per_kv_head:
        raise UserError(
            f"recipe.heads_per_kv_head = {recipe.heads_per_kv_head}: does not divide the "
            f"{heads} heads of width {width}"
        )
    return ModelConfig(
        definition=recipe.definition,
        vocab_size=vocab_size,
        width=width,
        depth=depth_for_width(width),
        heads=heads,
        kv_heads=heads // recipe.heads_per_kv_head,
        head_size=head_size,
        ff_size=ff_size_for_width(width, recipe.definition),
    )


def nearest_shape(params: float, recipe: RecipeConfig, vocab_size: int) -> ModelConfig:
    """The recipe's shape whose total parameters are nearest to `params`, in ratio."""

    def distance(width: int) -> float:
        total = count_params(shape_for_width(width, recipe, vocab_size)).total
        return abs(math.log(total / params))

    return shape_for_width(min(widths(recipe), key=distance), recipe, vocab_size)


def widths(recipe: RecipeConfig) -> list[int]:
    """The widths to search for a size: multiples of 8 below 512, of 64 below 4096, else of 128."""
    all_widths = (*range(8, 512, 8), *range(512, 4096, 64), *range(4096, 65537, 128))
    step = recipe.heads_per_kv_head
    return [w for w in all_widths if (w // head_size_for_width(w)) % step == 0]


def batch_size(tokens: float, recipe: RecipeConfig, params: float = 1.0) -> int:
    """Sequences a step for a run of `tokens`: the power law of D, to 2^k or 3 x 2^k.

    Batch follows from the tokens of the run and not from the model: best B ~ D^(.86 +- .23) in
    the tuned runs, clearly not a function of compute alone; .6 is the cautious end, close to
    Bergsma et al. 2025 (arXiv 2505.13738, B ~ D^.5). A fitted recipe has its own law.
    """
    fitted = _fitted(recipe)
    if fitted is not None and fitted.batch is not None:
        wanted = fitted.batch.at(params, tokens)
    else:
        ratio = tokens / recipe.batch_data_tokens
        wanted = recipe.base_batch_tokens * ratio**recipe.batch_exponent
    sequences = min(wanted, recipe.max_batch_tokens) / recipe.sequence_length
    if sequences <= 1:
        return 1
    power = math.floor(math.log2(sequences))
    steps = (2**power, 3 * 2 ** (power - 1), 2 ** (power + 1))
    nearest = min(steps, key=lambda b: abs(math.log(b / sequences)))
    return max(1, int(nearest))


def learning_rate(
    batch: int, recipe: RecipeConfig, params: float = 1.0, tokens: float = 1.0
) -> float:
    """Peak rate at base width: base_lr sqrt(B / base) lr_multiplier.

    The tuned runs gave lr ~ B^(.45 +- .07); the square root is Adam's rule (Malladi et al. 2022,
    arXiv 2205.10287). Width is muP's business (arXiv 2203.03466), not this rule's. A fitted recipe
    has its own law, of the size and the tokens too.
    """
    of_batch = batch * recipe.sequence_length
    fitted = _fitted(recipe)
    if fitted is not None and fitted.learning_rate is not None:
        return fitted.learning_rate.at(params, tokens, of_batch) * recipe.lr_multiplier
    ratio = of_batch / recipe.lr_batch_tokens
    return float(recipe.base_lr * ratio**recipe.lr_batch_exponent) * recipe.lr_multiplier


def _fitted(recipe: RecipeConfig) -> FittedRecipe | None:
    if not recipe.source:
        return None
    from chinchilla_jax.experiment import fitted_recipe  # few have one

    return fitted_recipe.read(recipe.source)


def warmup_fraction(tokens: float, recipe: RecipeConfig) -> float:
    """The share of a run of `tokens` over which the rate rises."""
    if recipe.warmup_tokens is None:
        return recipe.warmup_fraction
    left = 1 - recipe.cooldown_fraction if recipe.schedule == "wsd" else 1.0
    return min(recipe.warmup_tokens / tokens, _MOST_WARMUP, left)


def optimizer_for(
    steps: int,
    rate: float,
    recipe: RecipeConfig,
    params: float = 1.0,
    tokens: float | None = None,
) -> OptimizerConfig:
    """The optimizer of a run of `steps` at peak `rate`.

    A warm-up in tokens and a fitted timescale of weight decay need the run's size and tokens.

    Weight decay is decay_timescale / (lr steps): a fixed number of decay times per run (Wang &
    Aitchison 2024, arXiv 2405.13698); the tuned runs were flat until lr x wd x steps = 4.
    """
    times, fitted = recipe.decay_timescale, _fitted(recipe)
    if fitted is not None and fitted.weight_decay is not None and tokens is not None:
        times = 1 / fitted.weight_decay.at(params, tokens)
    return OptimizerConfig(
        learning_rate=rate,
        weight_decay=times / (rate * steps),
        beta1=recipe.beta1,
        beta2=recipe.beta2,
        eps=recipe.eps,
        clip_norm=recipe.clip_norm,
        schedule=recipe.schedule,
        warmup_fraction=recipe.warmup_fraction
        if tokens is None
        else warmup_fraction(tokens, recipe),
        final_fraction=recipe.final_fraction,
        cooldown_fraction=recipe.cooldown_fraction,
        parametrization=recipe.parametrization,
        base_width=recipe.base_width,
        name=recipe.optimizer,
    )

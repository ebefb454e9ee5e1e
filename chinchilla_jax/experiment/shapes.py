"""Shapes that cost the same to serve: the candidates of a search for the best one.

    shapes = of_equal_cost(shape_for_width(32, recipe, 256), 64, widths=(16, 24, 32), depths=(1, 2))

Width, depth, heads and key-value heads are chosen, and the feed-forward size takes up what they
leave of the cost, as in a search over networks of one latency (Tan et al. 2019, MnasNet, arXiv
1807.11626; Howard et al. 2017, arXiv 1704.04861, for its width multiplier).
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

from chinchilla_jax.experiment.counting import forward_flops
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.model import ModelConfig

_FF_STEP = 4  # feed-forward sizes are multiples of it
MOST_APART = 0.02  # of the cost, either way


def of_equal_cost(
    like: ModelConfig,
    sequence: int,
    widths: Sequence[int],
    depths: Sequence[int],
    head_sizes: Sequence[int] = (),
    heads_per_kv_head: Sequence[int] = (1,),
    ff_ratios: tuple[float, float] = (0.5, 8.0),
) -> list[ModelConfig]:
    """Every shape of these whose forward FLOPs for a token are those of `like`, to 2 %.

    Args:
      like: also gives the definition and the vocabulary.
      sequence: tokens of a sequence, whose attention counts.
      head_sizes: by default that of `like`.
      heads_per_kv_head: query heads that share a key and value head.
      ff_ratios: the least and the largest feed-forward size, in widths.
    Raises:
      UserError: there is none.
    """
    cost = forward_flops(like, 1, sequence)
    found = []
    for width, depth, head_size, shared in itertools.product(
        widths, depths, head_sizes or (like.head_size,), heads_per_kv_head
    ):
        heads = width // head_size
        if width % head_size or heads % shared:
            continue
        shape = replace(
            like, width=width, depth=depth, head_size=head_size, heads=heads,
            kv_heads=heads // shared, ff_size=_FF_STEP,
        )  # fmt: skip
        one, two = (
            forward_flops(replace(shape, ff_size=n * _FF_STEP), 1, sequence) for n in (1, 2)
        )
        shape = replace(shape, ff_size=_FF_STEP * max(1, 1 + round((cost - one) / (two - one))))
        near = abs(forward_flops(shape, 1, sequence) / cost - 1) <= MOST_APART
        if near and ff_ratios[0] <= shape.ff_size / width <= ff_ratios[1]:
            found.append(shape)
    if not found:
        raise UserError(
            f"no shape of widths {', '.join(map(str, widths))} and depths "
            f"{', '.join(map(str, depths))} costs the {cost // sequence:,} FLOPs for a token of "
            f"{like.width}x{like.depth}; give widths and depths on both sides of it"
        )
    return found

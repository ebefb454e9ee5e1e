"""How the next token is drawn from its logits.

Noise is a function of (seed, row, number of the token), so that a text is the same beside other
prompts, on other devices and with or without a cache, but for logits that rounding makes change
places.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.experiment.sampling import Sampling

_GREEDY = 1e-4  # temperatures below are 0


def noise(
    first: jax.Array, count: int, shape: tuple[int, int], sampling: Sampling, scalars: Any
) -> jax.Array:
    """For `draw`, of `count` numbers from `first` on, [N, B, V]; of all at once, since on a CPU
    each call of the generator is a loop of many small steps.

    Args:
      first: a token's number in its text, [].
      shape: B, V.
    """
    rows, vocabulary = shape
    if sampling.temperature < _GREEDY:
        return jnp.zeros((count, 1, 1))
    seed = scalars[-1]

    def of_row(number: jax.Array, row: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), row), number)
        return jax.random.gumbel(key, (vocabulary,))

    of_number = jax.vmap(of_row, (None, 0))
    return jax.vmap(of_number, (0, None))(first + jnp.arange(count), jnp.arange(rows))


def draw(
    logits_BxV: jax.Array, noise_BxV: jax.Array, sampling: Sampling, scalars: Any
) -> jax.Array:
    """Tokens [B].

    At the temperature, of the `top_k` likeliest, the fewest that have `top_p` of their probability
    (Fan et al. 2018; Holtzman et al. 2020), by the Gumbel-max trick. Equal ones stay together.

    Args:
      noise_BxV: of `noise`.
      sampling: decides which program this is.
      scalars: `values` of it, so that their numbers do not.
    """
    if sampling.temperature < _GREEDY:
        return jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
    temperature, top_k, top_p, _ = scalars
    logits_BxV = (logits_BxV - jnp.max(logits_BxV, axis=-1, keepdims=True)) / temperature
    if sampling.top_k or sampling.top_p < 1:
        ordered = -jnp.sort(-logits_BxV, axis=-1)
        among = jnp.arange(ordered.shape[1])[None] < top_k
        share = jax.nn.softmax(jnp.where(among, ordered, -jnp.inf), axis=-1)
        before = jnp.cumsum(share, axis=-1) - share
        least = jnp.where(among & (before < top_p), ordered, jnp.inf)
        smallest = jnp.min(least, axis=-1, keepdims=True)
        logits_BxV = jnp.where(logits_BxV >= smallest, logits_BxV, -jnp.inf)

    return jnp.argmax(logits_BxV + noise_BxV, axis=-1).astype(jnp.int32)


def values(sampling: Sampling, vocab_size: int) -> tuple[np.generic, ...]:
    """The numbers that `draw` takes as arrays."""
    return (
        np.float32(sampling.temperature),
        np.int32(min(sampling.top_k, vocab_size) or vocab_size),
        np.float32(sampling.top_p),
        np.uint32(sampling.seed),
    )

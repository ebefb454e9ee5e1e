"""How the next token is drawn from its logits.

Noise is a function of (seed, row, number of the token), so that a text is the same beside other
prompts, on other devices and with or without a cache, but for logits that rounding makes change
places.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.experiment.schema import require

_GREEDY = 1e-4  # temperatures below are 0


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What is drawn from: the likeliest tokens, at a temperature."""

    temperature: float = 0.8  # 0: the likeliest token always
    top_k: int = 0  # tokens that are drawn from; 0: all
    top_p: float = 1.0  # of the others, the likeliest that have this much of the probability
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.temperature < np.inf, "--temperature", self.temperature,
                "must be 0 (the likeliest token) or more")  # fmt: skip
        require(self.top_k >= 0, "--top_k", self.top_k, "must be 0 (all tokens) or more")
        require(0 < self.top_p <= 1, "--top_p", self.top_p, "must lie in (0, 1]")
        require(0 <= self.seed < 2**32, "--seed", self.seed, "must lie in [0, 2^32)")


def draw(
    logits_BxV: jax.Array, number: jax.Array, sampling: Sampling, scalars: tuple[jax.Array, ...]
) -> jax.Array:
    """Tokens [B].

    At the temperature, of the `top_k` likeliest, the fewest that have `top_p` of their probability
    (Fan et al. 2018; Holtzman et al. 2020), by the Gumbel-max trick. Equal ones stay together.

    Args:
      number: of the token in its text, [].
      sampling: decides which program this is.
      scalars: `values` of it, so that their numbers do not.
    """
    if sampling.temperature < _GREEDY:
        return jnp.argmax(logits_BxV, axis=-1).astype(jnp.int32)
    temperature, top_k, top_p, seed = scalars
    logits_BxV = (logits_BxV - jnp.max(logits_BxV, axis=-1, keepdims=True)) / temperature
    if sampling.top_k or sampling.top_p < 1:
        ordered = -jnp.sort(-logits_BxV, axis=-1)
        among = jnp.arange(ordered.shape[1])[None] < top_k
        share = jax.nn.softmax(jnp.where(among, ordered, -jnp.inf), axis=-1)
        before = jnp.cumsum(share, axis=-1) - share
        least = jnp.where(among & (before < top_p), ordered, jnp.inf)
        smallest = jnp.min(least, axis=-1, keepdims=True)
        logits_BxV = jnp.where(logits_BxV >= smallest, logits_BxV, -jnp.inf)

    def noise(row: jax.Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), row), number)
        return jax.random.gumbel(key, logits_BxV.shape[1:])

    noisy = logits_BxV + jax.vmap(noise)(jnp.arange(logits_BxV.shape[0]))
    return jnp.argmax(noisy, axis=-1).astype(jnp.int32)


def values(sampling: Sampling, vocab_size: int) -> tuple[np.generic, ...]:
    """The numbers that `draw` takes as arrays."""
    return (
        np.float32(sampling.temperature),
        np.int32(min(sampling.top_k, vocab_size) or vocab_size),
        np.float32(sampling.top_p),
        np.uint32(sampling.seed),
    )

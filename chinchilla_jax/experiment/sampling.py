"""How the next token of a text is to be drawn; `training/sampling.py` draws it."""

import math
from dataclasses import dataclass

from chinchilla_jax.experiment.schema import require


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """What is drawn from: the likeliest tokens, at a temperature."""

    temperature: float = 0.8  # 0: the likeliest token always
    top_k: int = 0  # tokens that are drawn from; 0: all
    top_p: float = 1.0  # of the others, the likeliest that have this much of the probability
    seed: int = 0

    def __post_init__(self) -> None:
        require(0 <= self.temperature < math.inf, "--temperature", self.temperature,
                "must be 0 (the likeliest token) or more")  # fmt: skip
        require(self.top_k >= 0, "--top_k", self.top_k, "must be 0 (all tokens) or more")
        require(0 < self.top_p <= 1, "--top_p", self.top_p, "must lie in (0, 1]")
        require(0 <= self.seed < 2**32, "--seed", self.seed, "must lie in [0, 2^32)")

"""The shape of a model: what every other wing knows of it without the rest of a run."""

import math
from dataclasses import dataclass, field
from typing import Any

from chinchilla_jax.experiment.schema import UNLESS_DEFAULT, one_of, positive, require

DEFINITIONS = ("chinchilla", "modern")

# Of fields that a technique sets, whose own configuration is what is told of a run.
_BY_TECHNIQUE: Any = {**UNLESS_DEFAULT, "decides": "operation"}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The shape of one decoder.

    `chinchilla`: RMSNorm, Transformer-XL relative positions, GELU, tied embedding (Hoffmann et
    al. 2022, after Gopher). `modern`: RMSNorm, rotary positions, QK-norm, SwiGLU, untied readout,
    grouped-query attention where `kv_heads < heads`.
    """

    definition: str = "modern"
    vocab_size: int = 256  # V
    width: int  # D, the residual stream
    depth: int  # L, layers
    heads: int  # H, query heads
    kv_heads: int  # G, key and value heads; H unless queries share them
    head_size: int  # K; H K need not equal D (six rows of Table A9 differ)
    ff_size: int  # F; 0 where a token meets experts only
    # Feed-forward networks of which each token meets some, beside the one of ff_size.
    experts: int = field(default=0, metadata=_BY_TECHNIQUE)  # E
    expert_picks: int = field(default=0, metadata=_BY_TECHNIQUE)
    expert_size: int = field(default=0, metadata=_BY_TECHNIQUE)  # X
    # Tokens of a sequence that an expert takes, over an equal split; 0: all that choose it.
    expert_capacity: float = field(default=0.0, metadata=_BY_TECHNIQUE)

    def __post_init__(self) -> None:
        where = "model"
        one_of(f"{where}.definition", self.definition, DEFINITIONS)
        positive(
            where,
            vocab_size=self.vocab_size,
            width=self.width,
            depth=self.depth,
            heads=self.heads,
            kv_heads=self.kv_heads,
            head_size=self.head_size,
            **({} if self.experts else {"ff_size": self.ff_size}),
        )
        require(
            self.ff_size >= 0 and 0 <= self.expert_picks <= self.experts,
            f"{where}.expert_picks",
            self.expert_picks,
            f"must lie between 0 and experts = {self.experts}",
        )
        require(
            self.heads % self.kv_heads == 0,
            f"{where}.kv_heads",
            self.kv_heads,
            f"must divide heads = {self.heads}",
        )
        if self.definition == "chinchilla":
            require(
                self.kv_heads == self.heads,
                f"{where}.kv_heads",
                self.kv_heads,
                f"the chinchilla definition has as many as heads = {self.heads}",
            )
            require(
                self.width % 2 == 0,
                f"{where}.width",
                self.width,
                "must be even for the sines and cosines of relative positions",
            )
        else:
            require(
                self.head_size % 2 == 0,
                f"{where}.head_size",
                self.head_size,
                "must be even, since rotary positions turn pairs",
            )

    def expert_places(self, sequence: int) -> int:
        """Picks of the tokens of one sequence that each expert has places for; 0: for all."""
        even = sequence * self.expert_picks / max(1, self.experts)
        return math.ceil(self.expert_capacity * even)

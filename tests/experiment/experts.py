"""A model of experts, of which a token meets two of four beside the dense network."""

import dataclasses

from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.parameters import PARAMETERS

DENSE = ModelConfig(width=64, depth=3, heads=4, kv_heads=4, head_size=16, ff_size=192)
MODEL = dataclasses.replace(DENSE, experts=4, expert_picks=2, expert_size=128)
EXPERT, ROUTER = PARAMETERS["expert_up"], PARAMETERS["router"]

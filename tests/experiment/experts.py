"""A kind of parameter that no wing has heard of: experts, of which a token meets two of four."""

import dataclasses

import pytest

from chinchilla_jax.experiment import counting, ledger
from chinchilla_jax.experiment import parameters as table
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.parameters import Dimension, Parameter


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithExperts(ModelConfig):
    experts: int = 4
    experts_per_token: int = 2


MODEL = WithExperts(width=64, depth=3, heads=4, kv_heads=4, head_size=16, ff_size=192)
EXPERT = Parameter("expert", "EDF", "D", "hidden", "feed_forward", ("modern",), chosen="E")
ROUTER = Parameter("router", "DE", "D", "hidden", "feed_forward", ("modern",))


def add_experts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two rows and one size."""
    monkeypatch.setitem(table.DIMENSIONS, "E", Dimension("experts", met="experts_per_token"))
    for row in (EXPERT, ROUTER):
        monkeypatch.setitem(table.PARAMETERS, row.name, row)
    for cached in (
        table.parameters, table.products, counting.count_params, counting.flops_per_step,
        counting.forward_flops, ledger._all_weights,
    ):  # fmt: skip
        cached.cache_clear()

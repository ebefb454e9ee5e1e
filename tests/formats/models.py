"""Models drawn at random, as they are exported."""

import numpy as np

from chinchilla_jax.experiment.exported import Exported
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.parameters import shape
from chinchilla_jax.formats.names import places

SHAPE = {
    "width": 24, "depth": 2, "heads": 4, "kv_heads": 2, "head_size": 10, "ff_size": 40,
}  # fmt: skip
EXPERTS = {"ff_size": 0, "experts": 5, "expert_picks": 2, "expert_size": 12}


def drawn(dtype="float32", base_width=24, **model):
    """(an Exported, its arrays by our paths); a base that is no square is folded with rounding."""
    of = Exported(
        run="drawn", fingerprint="0" * 16, dtype=dtype, step=10, model=ModelConfig(**SHAPE | model),
        parametrization="mup", base_width=base_width, sequence_length=16, tokens=1000,
        flops=10**9, data="d", tokenizer="t", model_version=3,
    )  # fmt: skip
    random = np.random.default_rng(0)
    return of, {
        path: random.normal(size=shape(place.parameter.dims, of.model)).astype(np.float32) / 3
        for path, place in places(of.model).items()
    }


def tree(arrays):
    """Arrays by path as the nested parameters of a Decoder."""
    found = {}
    for path, array in arrays.items():
        *parents, name = path.split("/")
        inner = found
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = array
    return found

"""Parameters by group, and FLOPs by named convention.

Every count is an exact integer of the shape; nothing is measured or rounded. A number of FLOPs
means nothing without the name of its convention:

* `matmul`, the ledger's default: every matrix product that is carried out, with the full S x S
  attention (no causal discount), forward and backward. Within 2 % of XLA's own count.
* `chinchilla`: Hoffmann et al. 2022, appendix F, which charges the embedding as a matrix product
  and the softmax, and leaves out the products of relative positions.
* `six_nd`: 6 N D, with N all parameters that a token meets (Kaplan et al. 2020, equation 2.2, but
  for its N).

None counts what picks experts: who puts experts in a model adds that.
"""

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.parameters import (
    BODY,
    GROUPS,
    Parameter,
    active,
    parameters,
    products,
    stored,
)

# Training FLOPs of a parameter and a token in 6 N D: a multiplication and an addition, in the
# forward pass and twice in the backward pass.
SIX = 6


@dataclass(frozen=True)
class ParamCount:
    """Parameters by group; they add up to `total`."""

    embedding: int  # the input table; also the readout where it is tied
    readout: int  # 0 where it is tied
    attention: int
    feed_forward: int
    norms: int
    positions: int  # learned relative positions
    matmul: int  # those that take part in matrix products: matrices and readout, tied or not
    active: int  # those that one token meets: all of them in a dense model

    @property
    def non_embedding(self) -> int:
        """All but the vocabulary tables (Kaplan et al. 2020)."""
        return sum(getattr(self, group) for group in BODY)

    @property
    def total(self) -> int:
        """Every parameter, once."""
        return self.embedding + self.readout + self.non_embedding


@functools.lru_cache(maxsize=1024)
def count_params(model: ModelConfig) -> ParamCount:
    """Parameters of `model` by group, equal to the Flax definition's.

    With norms and biases left out, the chinchilla definition is V D + L (5 D H K + 2 D F), the
    count behind Table A9 of Hoffmann et al. 2022.
    """
    rows, groups = parameters(model), dict.fromkeys(GROUPS, 0)
    for p in rows:
        groups[p.group] += stored(p, model)
    return ParamCount(**groups, matmul=_active(products(model), model), active=_active(rows, model))


def _active(rows: Iterable[Parameter], model: ModelConfig) -> int:
    return sum(active(p, model) for p in rows)


def attention_flops(model: ModelConfig, context: int) -> int:
    """Forward FLOPs of one token's attention over `context` positions: products without weights.

    Scores and weighted values, and with relative positions the scores of distances besides.
    """
    scores = 1 + sum(p.product == "distance" for p in products(model))
    return 2 * (scores + 1) * model.depth * context * model.heads * model.head_size


def product_flops(p: Parameter, model: ModelConfig) -> int:
    """Forward FLOPs of the product of `p` with one token, or one distance."""
    return 2 * active(p, model)


def _weights_flops(model: ModelConfig, product: str) -> int:
    rows = (p for p in products(model) if p.product == product and p.kind != "router")
    return sum(product_flops(p, model) for p in rows)


@functools.lru_cache(maxsize=4096)
def forward_flops(model: ModelConfig, batch: int, sequence: int) -> int:
    """FLOPs of one forward pass over `batch` sequences, under `matmul`.

    Distances are projected once, whatever the batch.
    """
    token = _weights_flops(model, "token") + attention_flops(model, sequence)
    return batch * sequence * token + sequence * _weights_flops(model, "distance")


def backward_flops(model: ModelConfig, batch: int, sequence: int) -> int:
    """FLOPs of the backward pass, under `matmul`: two products for each of the forward pass.

    Being constants, distances need no gradient of their own.
    """
    distances = sequence * _weights_flops(model, "distance")
    return 2 * forward_flops(model, batch, sequence) - distances


def _matmul_step(model: ModelConfig, batch: int, sequence: int) -> int:
    return forward_flops(model, batch, sequence) + backward_flops(model, batch, sequence)


def chinchilla_forward(model: ModelConfig, sequence: int) -> dict[str, int]:
    """Forward FLOPs of one sequence by part (Hoffmann et al. 2022, appendix F)."""
    s, width = sequence, model.heads * model.head_size

    def products_of(group: str, out: bool = False) -> int:
        rows = (p for p in parameters(model) if p.group == group and p.writes_residual == out)
        return 2 * s * _active((p for p in rows if p.kind != "router"), model)

    table = products_of("embedding")
    return {
        "embedding": table,
        "query_key_value": products_of("attention"),
        "attention_logits": model.depth * 2 * s * s * width,
        "softmax": model.depth * 3 * model.heads * s * s,
        "softmax_values": model.depth * 2 * s * s * width,
        "attention_out": products_of("attention", out=True),
        "feed_forward": products_of("feed_forward") + products_of("feed_forward", out=True),
        "logits": table,
    }


def _chinchilla_step(model: ModelConfig, batch: int, sequence: int) -> int:
    return 3 * batch * sum(chinchilla_forward(model, sequence).values())


def _six_nd_step(model: ModelConfig, batch: int, sequence: int) -> int:
    met = _active((p for p in parameters(model) if p.kind != "router"), model)
    return SIX * met * batch * sequence


_STEP: dict[str, Callable[[ModelConfig, int, int], int]] = {
    "matmul": _matmul_step,
    "chinchilla": _chinchilla_step,
    "six_nd": _six_nd_step,
}


@functools.lru_cache(maxsize=4096)
def flops_per_step(model: ModelConfig, batch: int, sequence: int, convention: str) -> int:
    """Training FLOPs of one step on `batch` sequences of `sequence` tokens, exactly.

    Args:
      convention: `matmul`, `chinchilla` or `six_nd` (the module's docstring defines them).
    """
    return _STEP[convention](model, batch, sequence)


def flops_per_token(model: ModelConfig, sequence: int, convention: str) -> float:
    """Training FLOPs of one more token: what remains when the batch is large."""
    step = _STEP[convention]
    return (step(model, 2, sequence) - step(model, 1, sequence)) / sequence

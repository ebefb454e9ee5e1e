"""Parameters by group, and training FLOPs by named convention.

Every count is an exact integer of the shape; nothing is measured or rounded. A number of FLOPs
means nothing without the name of its convention:

* `matmul`, the ledger's default: every matrix product that is carried out, with the full S x S
  attention (no causal discount), forward and backward. Within 2 % of XLA's own count.
* `chinchilla`: Hoffmann et al. 2022, appendix F, which charges the embedding as a matrix product
  and the softmax, and leaves out the products of relative positions.
* `six_nd`: 6 N D, with N all parameters (Kaplan et al. 2020, equation 2.2, but for its N).
"""

from collections.abc import Callable
from dataclasses import dataclass

from chinchilla_jax.experiment.model import ModelConfig


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

    @property
    def non_embedding(self) -> int:
        """All but the vocabulary tables (Kaplan et al. 2020)."""
        return self.attention + self.feed_forward + self.norms + self.positions

    @property
    def total(self) -> int:
        """Every parameter, once."""
        return self.embedding + self.readout + self.non_embedding

    @property
    def active(self) -> int:
        """Parameters that one token passes through: all of them in a dense model."""
        return self.total


def is_tied(model: ModelConfig) -> bool:
    """Whether the readout is the embedding."""
    return model.definition == "chinchilla"


def count_params(model: ModelConfig) -> ParamCount:
    """Parameters of `model` by group, equal to the Flax definition's.

    With norms and biases left out, the chinchilla definition is V D + L (5 D H K + 2 D F), the
    count behind Table A9 of Hoffmann et al. 2022.
    """
    d, depth, f = model.width, model.depth, model.ff_size
    query, key_value = model.heads * model.head_size, model.kv_heads * model.head_size
    table = model.vocab_size * d
    attention = depth * (2 * d * query + 2 * d * key_value)
    chinchilla = model.definition == "chinchilla"
    feed_forward = depth * (2 if chinchilla else 3) * d * f
    position_matrices = depth * d * query if chinchilla else 0
    return ParamCount(
        embedding=table,
        readout=0 if is_tied(model) else table,
        attention=attention,
        feed_forward=feed_forward,
        # two a layer and the last; a gain for queries and for keys where these are normed
        norms=(2 * depth + 1) * d + (0 if chinchilla else 2 * depth * model.head_size),
        # the projection of distances and Transformer-XL's two biases u and v
        positions=position_matrices + (2 * depth * query if chinchilla else 0),
        matmul=attention + feed_forward + position_matrices + table,
    )


def _matmul_step(model: ModelConfig, batch: int, sequence: int) -> int:
    """Training FLOPs of one step: 3 x forward."""
    params = count_params(model)
    attention_width = model.heads * model.head_size
    chinchilla = model.definition == "chinchilla"
    projection = model.depth * model.width * attention_width if chinchilla else 0
    # scores and weighted values, and with relative positions the scores of distances
    products = 6 if chinchilla else 4
    per_sequence = (
        2 * sequence * (params.matmul - projection)
        + products * model.depth * sequence * sequence * attention_width
    )
    # Distances are projected once a step, and being constants they need no gradient of their own.
    return 3 * batch * per_sequence + 2 * (2 * sequence * projection)


def chinchilla_forward(model: ModelConfig, sequence: int) -> dict[str, int]:
    """Forward FLOPs of one sequence by part (Hoffmann et al. 2022, appendix F)."""
    params = count_params(model)
    s, d, width = sequence, model.width, model.heads * model.head_size
    key_value = model.kv_heads * model.head_size
    return {
        "embedding": 2 * s * model.vocab_size * d,
        "query_key_value": model.depth * 2 * s * d * (width + 2 * key_value),
        "attention_logits": model.depth * 2 * s * s * width,
        "softmax": model.depth * 3 * model.heads * s * s,
        "softmax_values": model.depth * 2 * s * s * width,
        "attention_out": model.depth * 2 * s * width * d,
        "feed_forward": 2 * s * params.feed_forward,
        "logits": 2 * s * d * model.vocab_size,
    }


def _chinchilla_step(model: ModelConfig, batch: int, sequence: int) -> int:
    return 3 * batch * sum(chinchilla_forward(model, sequence).values())


def _six_nd_step(model: ModelConfig, batch: int, sequence: int) -> int:
    return 6 * count_params(model).total * batch * sequence


_STEP: dict[str, Callable[[ModelConfig, int, int], int]] = {
    "matmul": _matmul_step,
    "chinchilla": _chinchilla_step,
    "six_nd": _six_nd_step,
}


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

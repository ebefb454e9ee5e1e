"""Transfer: a run starts from the weights of another one, which was trained on another text.

What that is worth is told in data (Hernandez et al. 2021, arXiv 2102.01293, equation 1.1): the
effective data transferred, D_T, is what a run from scratch would need besides its own D_F to end as
low, and where data are few (under a tenth of what brings a model to 99 % of its best) it is
k D_F^alpha N^beta. They count characters, and parameters without embedding. The other run's cost is
`needs_flops` and `needs_tokens`, to be charged as asked.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.techniques.law import Array, Law, Values, power_terms
from chinchilla_jax.techniques.technique import Facts, Technique, listed

_WHERE = "techniques.transfer"
# Hernandez et al., table 1: from text to Python, and from half text, half other code.
TEXT = {"k": 1.9e4, "alpha_T": 0.18, "beta_T": 0.38}
TEXT_AND_CODE = {"k": 2.1e5, "alpha_T": 0.096, "beta_T": 0.38}


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """What a run starts from."""

    # Another run of the same shape, as a teacher is named: a run id, or the path of a run's folder
    # or of one of its checkpoints. Its text may be another. Empty: random weights.
    start: str = field(default="", metadata={"short": "F"})


def _needs(config: Transfer) -> Mapping[str, str]:
    return {"start": config.start}


def _misfit(config: Transfer, facts: Facts) -> str:
    """Why the run cannot start so.

    Raises:
      UserError: a run of another vocabulary.
    """
    other = facts.other(config.start)
    if other is None:
        return ""
    if other.model.vocab_size != facts.model.vocab_size:
        raise UserError(
            f"{_WHERE}.start: {other.run} has a vocabulary of {other.model.vocab_size}, and this "
            f"experiment {facts.model.vocab_size}; a run starts from one of its own tokenizer"
        )
    if other.model != facts.model:
        ours, theirs = (f"{m.width}x{m.depth}" for m in (facts.model, other.model))
        what = f"{theirs}, not {ours}" if ours != theirs else f"another {ours}"
        return f"cannot start from {other.run}: it is of another shape ({what})"
    return ""


def words(fields: Mapping[str, str]) -> str:
    """`begun from 3e12-48x3-s0`."""
    return f"begun from {fields['start']}" if "start" in fields else f"transfer {listed(fields)}"


def transferred(tokens: Array, params: Array, p: Mapping[str, Array | float]) -> Array:
    """D_T, in the unit of `tokens`: k D_F^alpha N^beta."""
    return np.asarray(p["k"] * tokens ** p["alpha_T"] * params ** p["beta_T"])


def _effective(p: Values, x: Values) -> Array:
    """Own and transferred data of the runs that were pretrained."""
    gained = transferred(x["tokens"], x["params"], p)
    return np.asarray(x["tokens"] + np.where(x["pretrained_tokens"] > 0, gained, 0.0))


def _form(p: Values, x: Values) -> Array:
    size, data = x["params"] ** -p["alpha"], _effective(p, x) ** -p["beta"]
    return p["E"] + p["A"] * size + p["B"] * data


def _linear(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    size, data = x["params"] ** -p["alpha"], _effective(p, x) ** -p["beta"]
    return (np.ones_like(data), size, data), np.ones(())


TRANSFER = Law(
    name="transfer",
    formula="L = E + A/N^alpha + B/(D + D_T)^beta, D_T = k D^alpha_T N^beta_T of pretrained runs",
    source="Hernandez et al. 2021, arXiv 2102.01293, equation 1.1, in a loss surface",
    columns=("params", "tokens", "pretrained_tokens"),
    parameters=("E", "A", "B", "alpha", "beta", "k", "alpha_T", "beta_T"),
    form=_form,
    ranges={
        "alpha": (0.1, 0.8), "beta": (0.1, 0.8), "k": (1.0, 1e6), "alpha_T": (0.03, 0.9),
        "beta_T": (0.05, 0.9),
    },
    linear=_linear,
    natural=power_terms("E", "A", "B"),
    aliases={"pretrained_tokens": ("needs_tokens",)},
    ordinary={"pretrained_tokens": 0.0},
)  # fmt: skip

TECHNIQUE = Technique(
    name="transfer",
    off=Transfer(),
    needs=_needs,
    other_text=("start",),
    misfit=_misfit,
    laws=(TRANSFER,),
    words=words,
)

"""What runs can differ in besides size and tokens: a file each, a field and a row of a table each.

Nothing outside names a technique: configurations hold `Techniques`, and whoever plans, counts or
records a run folds over TECHNIQUES. How they are trained stands in `training/techniques`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.schema import UNLESS_DEFAULT
from chinchilla_jax.techniques.data import TECHNIQUE as DATA
from chinchilla_jax.techniques.data import Data
from chinchilla_jax.techniques.distillation import TECHNIQUE as DISTILLATION
from chinchilla_jax.techniques.distillation import Distillation
from chinchilla_jax.techniques.experts import TECHNIQUE as EXPERTS
from chinchilla_jax.techniques.experts import Experts
from chinchilla_jax.techniques.law import Law
from chinchilla_jax.techniques.quantisation import TECHNIQUE as QUANTISATION
from chinchilla_jax.techniques.quantisation import Quantisation
from chinchilla_jax.techniques.shape import TECHNIQUE as SHAPE
from chinchilla_jax.techniques.shape import Shape
from chinchilla_jax.techniques.sparsity import TECHNIQUE as SPARSITY
from chinchilla_jax.techniques.sparsity import Sparsity
from chinchilla_jax.techniques.technique import Facts, Ledger, Technique
from chinchilla_jax.techniques.transfer import TECHNIQUE as TRANSFER
from chinchilla_jax.techniques.transfer import Transfer


@dataclass(frozen=True, kw_only=True)
class Techniques:
    """The configuration of every technique; all are off by default."""

    shape: Shape = field(default_factory=Shape, metadata=UNLESS_DEFAULT)
    sparsity: Sparsity = field(default_factory=Sparsity, metadata=UNLESS_DEFAULT)
    distillation: Distillation = field(default_factory=Distillation, metadata=UNLESS_DEFAULT)
    quantisation: Quantisation = field(default_factory=Quantisation, metadata=UNLESS_DEFAULT)
    experts: Experts = field(default_factory=Experts, metadata=UNLESS_DEFAULT)
    data: Data = field(default_factory=Data, metadata=UNLESS_DEFAULT)
    transfer: Transfer = field(default_factory=Transfer, metadata=UNLESS_DEFAULT)


TECHNIQUES: tuple[Technique, ...] = (
    SHAPE,
    SPARSITY,
    DISTILLATION,
    QUANTISATION,
    EXPERTS,
    DATA,
    TRANSFER,
)


def reduced(techniques: Techniques) -> Techniques:
    """The same, without what has no effect."""
    for technique in TECHNIQUES:
        config = technique.reduced(getattr(techniques, technique.name))
        if config != getattr(techniques, technique.name):
            techniques = replace(techniques, **{technique.name: config})
    return techniques


def active(techniques: Techniques) -> list[tuple[Technique, Any]]:
    """The techniques that are on, each with its configuration."""
    configs = [(technique, getattr(techniques, technique.name)) for technique in TECHNIQUES]
    return [(technique, config) for technique, config in configs if config != technique.off]


def trained_shape(planned: ModelConfig, techniques: Techniques) -> ModelConfig:
    """What becomes of a shape of the ladder.

    Raises:
      UserError: a technique that this shape cannot have.
    """
    on = active(techniques)
    trained = planned
    for technique, config in on:
        trained = technique.model(trained, config)
    for technique, config in on:
        if technique.model(planned, config) == planned:  # which checks, and now what it will have
            technique.model(trained, config)
    return trained


def needs(techniques: Techniques) -> dict[str, str]:
    """The other runs that are asked for, by the path of the field that asks for each."""
    return {
        f"techniques.{technique.name}.{name}": asked
        for technique, config in active(techniques)
        for name, asked in technique.needs(config).items()
    }


def may_be_of_another_text(techniques: Techniques, asked: str) -> bool:
    """Whether all that ask for the run of this name take it of any text."""
    asking = [
        name in technique.other_text
        for technique, config in active(techniques)
        for name, other in technique.needs(config).items()
        if other == asked
    ]
    return bool(asking) and all(asking)


def misfit(techniques: Techniques, facts: Facts) -> str:
    """Why a run cannot have one of its techniques; empty where it can have all."""
    reasons = (technique.misfit(config, facts) for technique, config in active(techniques))
    return next(filter(None, reasons), "")


def changed_ledger(ledger: Ledger, techniques: Techniques, facts: Facts) -> Ledger:
    """What becomes of the ledger of a dense run."""
    for technique, config in active(techniques):
        ledger = technique.ledger(ledger, config, facts)
    return ledger


def trained_text(train_tokens: int, techniques: Techniques) -> int:
    """How many tokens of a training text of so many a run is trained on, an epoch each time."""
    for technique, config in active(techniques):
        train_tokens = technique.text(train_tokens, config)
    return train_tokens


def by_length(techniques: Techniques) -> bool:
    """Whether one of them trains a step by the length of the whole run."""
    return any(technique.by_length(config) for technique, config in active(techniques))


def carried_bytes(techniques: Techniques, facts: Facts) -> int:
    """Bytes that training keeps beside parameters and moments, of all devices together."""
    return sum(technique.carried(config, facts) for technique, config in active(techniques))


def dense_columns() -> dict[str, Any]:
    """Every column that a technique may have, with its value in a run without that technique."""
    return {name: value for technique in TECHNIQUES for name, value in technique.known.items()}


def measured_columns() -> tuple[str, ...]:
    """Every column that a technique may measure."""
    return tuple(name for technique in TECHNIQUES for name in technique.measures)


def determined() -> dict[str, tuple[str, ...]]:
    """The columns that follow from those of a technique, and its columns."""
    return {
        name: tuple(technique.columns(technique.off))
        for technique in TECHNIQUES
        for name in technique.determines
    }


def asked(techniques: Techniques) -> tuple[str, ...]:
    """The columns that are to be measured at the end of a run."""
    return tuple(
        name for technique, config in active(techniques) for name in technique.asked(config)
    )


def told(means: Mapping[str, float]) -> tuple[str, ...]:
    """What the means of measured columns say, a clause of each technique that has something."""
    return tuple(filter(None, (technique.told(means) for technique in TECHNIQUES)))


def derived(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The further rows that finished runs stand for, in the order of theirs."""
    return [more for row in rows for technique in TECHNIQUES for more in technique.derived(row)]


def without(law: str) -> dict[str, Any]:
    """The columns of the technique that has the law of this name, as in a run without it."""
    return {
        name: value
        for technique in TECHNIQUES
        if any(its.name == law for its in technique.laws)
        for name, value in technique.columns(technique.off).items()
    }


def explained(law: str) -> tuple[str, ...]:
    """The columns that the law of this name explains, of its technique; none of other laws."""
    apart = {name for its in laws() if its.name == law for name in its.apart}
    return tuple(name for name in without(law) if name not in apart)


def laws() -> tuple[Law, ...]:
    """The laws of all of them."""
    return tuple(law for technique in TECHNIQUES for law in technique.laws)

"""A technique that exists in tests alone and touches everything that a technique may touch."""

import dataclasses
import functools
from dataclasses import dataclass, field

import pytest

from chinchilla_jax import techniques
from chinchilla_jax.experiment import schema
from chinchilla_jax.experiment.config import Experiment, RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.technique import Technique


@dataclass(frozen=True, kw_only=True)
class Toy:
    """`level` of a penalty; `kind` changes nothing."""

    level: float = 0.0
    kind: str = "plain"


def _model(planned, config):
    if config.level > planned.depth:
        raise UserError(f"techniques.toy.level = {config.level:g}: over {planned.depth} layers")
    return planned


def _ledger(ledger, config, facts):
    halved = ledger.change("hidden", lambda w: dataclasses.replace(w, nonzero=w.nonzero // 2))
    return halved.add("toy", 10 * facts.tokens)


def _text(train_tokens, config):
    return train_tokens // 2 if config.kind == "half" else train_tokens


def _carried(config, facts):
    return 1000 * facts.model.depth


def _derived(row):
    if row.get("toy_twice") is None:
        return ()
    return (
        {**row, "run_id": f"{row['run_id']}-twice", "toy_level": 2.0, "loss": row["toy_twice"]},
    )


TOY = Technique(
    name="toy",
    off=Toy(),
    model=_model,
    ledger=_ledger,
    text=_text,
    carried=_carried,
    derived=_derived,
)


@dataclass(frozen=True, kw_only=True, eq=False)
class WithToy(Techniques):
    """As `Techniques` would be with another field: equal to one without where that is off."""

    toy: Toy = field(default_factory=Toy, metadata=schema.UNLESS_DEFAULT)

    def __eq__(self, other):
        return (self.shape, self.toy) == (other.shape, other.toy)

    def __hash__(self):
        return hash((self.shape, self.toy))


def _init(self, init, **fields):
    init(self, **({"techniques": WithToy()} | fields))


def forget():
    """How JSON of the classes looks, which changes with the field."""
    schema._hints.cache_clear()
    schema._form.cache_clear()


@pytest.fixture
def toy(monkeypatch):
    """Registers it, by its field and its row."""
    monkeypatch.setattr(techniques, "TECHNIQUES", (*techniques.TECHNIQUES, TOY))
    monkeypatch.setattr(Techniques, "toy", TOY.off, raising=False)  # of those without the field
    for cls in (RunConfig, Experiment):
        monkeypatch.setitem(cls.__annotations__, "techniques", WithToy)
        plain = functools.partialmethod(_init, cls.__init__)
        monkeypatch.setattr(cls, "__init__", plain)
    forget()
    yield TOY
    forget()


def with_toy(config, **values):
    """A run or an experiment under it."""
    return dataclasses.replace(config, techniques=WithToy(toy=Toy(**values)))

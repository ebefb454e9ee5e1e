"""A recipe fitted to tuning runs, in a file with its evidence: `recipe.source=FILE` uses it.

`evaluate --laws=learning_rate,batch` writes `recipe.json` beside a report of a tuning sweep. Its
laws then give the rate, the batch and, where it was tuned, the weight decay of a run, in the place
of the recipe's own rules. It holds for the vocabulary, the optimizer and the shapes that it was
tuned with, is refused for others, and says how far runs lie outside what it was fitted to.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from chinchilla_jax.experiment import json_data, storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.numbers import count
from chinchilla_jax.experiment.schema import UNLESS_DEFAULT, from_json, require, to_json, within

if TYPE_CHECKING:
    from chinchilla_jax.experiment.config import Experiment

VERSION = 1
_STEEPEST = 4.0  # exponent: far beyond any that was measured
_OUTSIDE = 1.02  # times beyond a range: rounding to whole steps is none
_FACTORS = ("params", "tokens", "batch", "tokens_per_param")
# By law the fields of `RecipeConfig` in whose place it stands.
_REPLACED = {
    "learning_rate": ("base_lr", "lr_batch_tokens", "lr_batch_exponent"),
    "batch": ("base_batch_tokens", "batch_data_tokens", "batch_exponent"),
    "weight_decay": ("decay_timescale",),
}


@dataclass(frozen=True, kw_only=True)
class SettingRule:
    """coefficient x the product of powers of params, tokens, batch (tokens) and tokens_per_param.

    `interval` has those of the coefficient, the exponents and the curvature, None where an end is
    open: ln loss rises by curvature x ln(value / best)^2.
    """

    coefficient: float
    exponents: Mapping[str, float]
    curvature: float
    interval: Mapping[str, tuple[float, float] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(
            1e-100 < self.coefficient < 1e100, "coefficient", self.coefficient, "must be positive"
        )
        require(0 < self.curvature < 1e3, "curvature", self.curvature, "must be positive")
        for of, power in self.exponents.items():
            require(of in _FACTORS, "exponents", of, f"expected {' or '.join(_FACTORS)}")
            within("exponents", -_STEEPEST, _STEEPEST, **{of: power})

    def at(self, params: float, tokens: float, batch: float = 1.0) -> float:
        """The best value for a run of a size and length, at a batch in tokens."""
        known = {
            "params": params, "tokens": tokens, "batch": batch, "tokens_per_param": tokens / params
        }  # fmt: skip
        log = sum(power * math.log(known[of]) for of, power in self.exponents.items())
        return self.coefficient * math.exp(log)

    @property
    def undetermined(self) -> list[str]:
        """Its exponents whose intervals are open, and then its coefficient; none without draws."""
        of = (*self.exponents, "coefficient")
        return [name for name in of if self.interval.get(name, ()) is None]


@dataclass(frozen=True, kw_only=True)
class MadeFor:
    """What must be the same in a config that uses the recipe."""

    tokenizer: str
    vocab_size: int
    optimizer: str
    parametrization: str
    base_width: int
    definition: str
    sequence_length: int


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """The runs behind a recipe: told, not checked; that a corpus is another one is said."""

    source: str  # table or folder
    runs: int  # fitted
    cells: int  # of equal params and tokens
    noise: float  # standard deviation of ln loss around the fit
    near: float  # within which share of the lowest loss of their cell
    rows: str  # digest of what was fitted
    data_fingerprint: str
    code_version: str
    schedule: str


@dataclass(frozen=True, kw_only=True)
class FittedRecipe:
    """Laws of rate, batch and timescale of weight decay; a law that was not tuned is None."""

    version: int
    made_for: MadeFor
    params: tuple[float, float]  # smallest and largest of the runs
    tokens: tuple[float, float]
    evidence: Evidence
    learning_rate: SettingRule | None = None
    batch: SettingRule | None = None  # in tokens
    weight_decay: SettingRule | None = field(default=None, metadata=UNLESS_DEFAULT)  # timescale

    def __post_init__(self) -> None:
        if self.learning_rate is None and self.batch is None:
            raise UserError("has neither a rate nor a batch")
        for name in ("params", "tokens"):
            low, high = getattr(self, name)
            require(0 < low <= high, name, [low, high], "must be two positive numbers in order")

    @property
    def laws(self) -> dict[str, SettingRule]:
        """Those that it has, by setting."""
        return {name: law for name in _REPLACED if (law := getattr(self, name)) is not None}

    def decades_outside(self, params: float, tokens: float) -> float:
        """How many decades a run lies outside the runs of the recipe; 0 inside."""
        beyond = [1.0]
        for value, (low, high) in ((params, self.params), (tokens, self.tokens)):
            beyond += [low / value, value / high]
        return math.log10(max(beyond)) if max(beyond) > _OUTSIDE else 0.0


def text(recipe: FittedRecipe) -> str:
    """The file's content, with a digest of all of it."""
    data = to_json(recipe)
    return json.dumps({"digest": _digest(data), **data}, indent=1, allow_nan=False) + "\n"


def read(source: str) -> FittedRecipe:
    """The recipe of a file.

    Raises:
      UserError: there is none, it was changed or damaged, or is of another version.
    """
    place = storage.path(source)
    try:
        content = storage.read_bytes(place)
    except FileNotFoundError:
        raise UserError(f"recipe.source = {source}: no such file") from None
    return _parsed(source, content)


@functools.lru_cache(maxsize=16)  # a grid asks for every cell
def _parsed(source: str, content: bytes) -> FittedRecipe:
    data = json_data.parse_json(storage.path(source), content)
    where = f"recipe.source = {source}"
    if not isinstance(data, dict) or "made_for" not in data:
        raise UserError(f"{where}: is no recipe that evaluate --laws=learning_rate,batch wrote")
    if data.get("version") != VERSION:
        found = data.get("version")
        raise UserError(
            f"{where}: is of version {found!r:.20}, {VERSION} is needed: evaluate again"
        )
    digest = data.pop("digest", None)
    if digest != _digest(data):
        raise UserError(f"{where}: was changed after it was written; evaluate again")
    try:
        return from_json(FittedRecipe, data, "recipe")
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def check(experiment: Experiment) -> FittedRecipe | None:
    """The fitted recipe of an experiment that has one, if it was made for such.

    Raises:
      UserError: as `read`, or it was tuned with another vocabulary, optimizer, ...
    """
    recipe, data = experiment.recipe, experiment.data
    if not recipe.source:
        return None
    fitted = read(recipe.source)
    ours = MadeFor(
        tokenizer=data.tokenizer,
        vocab_size=data.vocab_size,
        optimizer=recipe.optimizer,
        parametrization=recipe.parametrization,
        base_width=recipe.base_width,
        definition=recipe.definition,
        sequence_length=recipe.sequence_length,
    )
    for name in (f.name for f in dataclasses.fields(MadeFor)):
        theirs, mine = getattr(fitted.made_for, name), getattr(ours, name)
        if theirs != mine:
            raise UserError(
                f"recipe.source = {recipe.source}: was tuned with {name} {theirs}, and this "
                f"experiment has {mine}; tune anew (configs/tuning.py) or leave it out"
            )
    return fitted


def undetermined(fitted: FittedRecipe) -> str | None:
    """A sentence about laws that its runs do not determine; None where they determine all."""
    said = [f"{n} ({', '.join(open_)})" for n, law in fitted.laws.items()
            if (open_ := law.undetermined)]  # fmt: skip
    if not said:
        return None
    return (
        f"its runs do not determine {' and '.join(said)}: an end of the interval is open; more "
        "sizes and budgets would, each with values tried on both sides of the best "
        "(configs/tuning.py)"
    )


def replaced(fitted: FittedRecipe, experiment: Experiment) -> str | None:
    """A sentence about fields that were set, or vary, and that its laws stand in the place of."""
    default = type(experiment.recipe)()
    varied = {*experiment.vary}.union(*(s.values for s in experiment.panel.values()))
    said = [
        f"recipe.{name}"
        for law in fitted.laws
        for name in _REPLACED[law]
        if getattr(experiment.recipe, name) != getattr(default, name) or f"recipe.{name}" in varied
    ]
    if not said:
        return None
    return (
        f"its laws stand in the place of {', '.join(said)}, which "
        f"{'change' if len(said) > 1 else 'changes'} nothing; recipe.lr_multiplier moves its rate"
    )


def of_other_text(fitted: FittedRecipe, data_fingerprint: str) -> str | None:
    """A sentence about a corpus that it was not tuned on; None where it was, or does not say."""
    known = fitted.evidence.data_fingerprint.split()
    if not known or data_fingerprint in known:
        return None
    return (
        f"was tuned on other text ({fitted.evidence.source}, data fingerprint {' '.join(known)}) "
        f"than this ({data_fingerprint}): its rates and batches are carried over; "
        "configs/tuning.py tunes on your own"
    )


def outside(fitted: FittedRecipe, runs: Sequence[tuple[float, float]]) -> str | None:
    """A sentence about runs, (params, tokens), that lie outside what it was fitted to."""
    far = [beyond for run in runs if (beyond := fitted.decades_outside(*run))]
    if not far:
        return None
    ranges = ", ".join(
        f"{name} {count(low)} to {count(high)}"
        for name, (low, high) in (("params", fitted.params), ("tokens", fitted.tokens))
    )
    return (
        f"{len(far)} of {len(runs)} cells lie outside the runs that it was fitted to ({ranges}), "
        f"up to {10 ** max(far):.2g} times: their rate and batch are extrapolated"
    )

"""What a technique is, what it knows of a run, and the ledger that it may change.

`experiment/ledger.py` makes the ledger of a dense run, what it holds and costs; a technique takes
it and returns its own. How a technique is trained stands in `training/techniques`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.other_run import OtherRun
from chinchilla_jax.experiment.parameters import BODY, FLOAT32, GROUPS
from chinchilla_jax.techniques.law import Law


@dataclass(frozen=True, kw_only=True)
class Facts:
    """What a technique may know of a run."""

    model: ModelConfig
    batch_size: int  # sequences
    sequence_length: int  # tokens
    steps: int
    needs: tuple[OtherRun, ...] = ()

    def other(self, asked: str) -> OtherRun | None:
        """The run it needs that the configuration calls so; none in a run that is rejected."""
        return next((other for other in self.needs if other.asked == asked), None)

    @property
    def tokens(self) -> int:
        """Training tokens, exactly."""
        return self.batch_size * self.sequence_length * self.steps


@dataclass(frozen=True, kw_only=True)
class Weights:
    """One kind of parameter, all layers of it: a row of `experiment/parameters.py` in numbers."""

    name: str
    group: str
    kind: str  # input, hidden, output, vector
    stored: int  # numbers kept at the end of training
    nonzero: int  # of them
    average: float  # of them that are not 0, over the steps of training
    active: int  # of them, those that one token meets
    bytes_at_rest: int
    prefill: int  # FLOPs of its product for each token of a prompt; 0 where it has none
    decode: int  # and for each generated token
    position_bits: int = 0  # at rest, that say which are not 0; 0: all are kept

    def pruned(self, nonzero: int, position_bits: int = 0) -> Weights:
        """With so many that are not 0, and products that skip the others.

        With `position_bits` only they are at rest, and these bits besides.
        """
        pruned = dataclasses.replace(
            self,
            nonzero=nonzero,
            prefill=self.prefill * nonzero // self.nonzero,
            decode=self.decode * nonzero // self.nonzero,
            position_bits=position_bits,
        )
        return pruned.of_bits(8 * FLOAT32) if position_bits else pruned

    def of_bits(self, bits: int) -> Weights:
        """With numbers of so many bits at rest, to the whole byte.

        All of them, or the non-zeros and their positions where that is less.
        """
        total = self.stored * bits
        if self.position_bits:
            total = min(total, self.nonzero * bits + self.position_bits)
        return dataclasses.replace(self, bytes_at_rest=-(-total // 8))


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """What a run holds and costs: exact counts, each a column of its result row.

    Training FLOPs are those of the whole run, by term, under the `matmul` convention of
    `experiment/counting.py`; the other two conventions are totals. What a technique adds is counted
    by `matmul` in all three, and so are the runs that it needs: a total less its terms is the dense
    run's. Inference FLOPs are per token,
    under the same convention (full attention, no causal discount): `prefill` a token of a prompt
    as long as the context, with logits at each, `decode` the next token after a context whose
    keys, values and projected distances are kept.
    """

    weights: tuple[Weights, ...]
    training: Mapping[str, int]  # FLOPs by term: forward, backward, and what techniques add
    flops_chinchilla: int
    flops_six_nd: int
    attention: int  # FLOPs of one token's products without weights, over the context
    context: int  # tokens
    needs: tuple[OtherRun, ...] = ()  # what they cost is no part of the FLOPs here

    def total(self, quantity: str, groups: Collection[str] = GROUPS) -> int:
        """The sum of a field of the weights, over some groups of them."""
        return sum(getattr(w, quantity) for w in self.weights if w.group in groups)

    def average(self, groups: Collection[str] = GROUPS) -> float:
        """Non-zero numbers, over the steps of training (Jin et al. 2025, arXiv 2501.12486)."""
        return sum(w.average for w in self.weights if w.group in groups)

    @property
    def flops_matmul(self) -> int:
        """Training FLOPs, all terms."""
        return sum(self.training.values())

    def training_flops(self, convention: str) -> int:
        """Training FLOPs of the run by the name of their convention."""
        return int(getattr(self, f"flops_{convention}"))

    @property
    def prefill(self) -> int:
        """FLOPs per token of a prompt."""
        return self.attention + self.total("prefill")

    @property
    def decode(self) -> int:
        """FLOPs per generated token."""
        return self.attention + self.total("decode")

    def change(self, kind: str, change: Callable[[Weights], Weights]) -> Ledger:
        """With other weights of a kind: `ledger.change("hidden", lambda w: w.of_bits(4))`."""
        weights = tuple(change(w) if w.kind == kind else w for w in self.weights)
        return dataclasses.replace(self, weights=weights)

    def add(self, term: str, flops: int) -> Ledger:
        """With another term of training FLOPs, or more of one: `ledger.add("teacher", flops)`."""
        return dataclasses.replace(
            self,
            training={**self.training, term: self.training.get(term, 0) + flops},
            flops_chinchilla=self.flops_chinchilla + flops,
            flops_six_nd=self.flops_six_nd + flops,
        )

    def columns(self) -> dict[str, int | float | str]:
        """Its columns of a result row, by name: parameters, bytes, FLOPs."""
        return {
            "flops_matmul": self.flops_matmul,
            "flops_chinchilla": self.flops_chinchilla,
            "flops_six_nd": self.flops_six_nd,
            **{f"flops_{term}": flops for term, flops in self.training.items()},
            "params_total": self.total("stored"),
            **{f"params_{group}": self.total("stored", (group,)) for group in GROUPS},
            "params_non_embedding": self.total("stored", BODY),
            "params_matmul": sum(w.active for w in self.weights if w.prefill),
            "params_nonzero": self.total("nonzero"),
            "params_nonzero_non_embedding": self.total("nonzero", BODY),
            "params_average": self.average(),
            "params_average_non_embedding": self.average(BODY),
            "params_average_density": self.average() / self.total("stored"),
            "params_active": self.total("active"),
            "params_active_non_embedding": self.total("active", BODY),
            "bytes_at_rest": self.total("bytes_at_rest"),
            "inference_flops_prefill": self.prefill,
            "inference_flops_decode": self.decode,
            "inference_context": self.context,
            **(self._needed() if self.needs else {}),
        }

    def _needed(self) -> dict[str, int]:
        """Training FLOPs (matmul) and tokens of the runs that it takes weights from."""
        return {
            "needs_flops": sum(other.flops for other in self.needs),
            "needs_tokens": sum(other.tokens for other in self.needs),
        }


def _same_model(model: ModelConfig, config: Any) -> ModelConfig:
    return model


def _same_config(config: Any) -> Any:
    return config


def _same_ledger(ledger: Ledger, config: Any, facts: Facts) -> Ledger:
    return ledger


def _no_needs(config: Any) -> dict[str, str]:
    return {}


def _fits(config: Any, facts: Facts) -> str:
    return ""


def _whole_text(train_tokens: int, config: Any) -> int:
    return train_tokens


def _nothing_carried(config: Any, facts: Facts) -> int:
    return 0


def _nothing_asked(config: Any) -> tuple[str, ...]:
    return ()


def _nothing_told(means: Mapping[str, float]) -> str:
    return ""


def _of_steps_so_far(config: Any) -> bool:
    return False


def _no_rows(row: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
    return ()


@dataclass(frozen=True, kw_only=True)
class Technique:
    """What runs can differ in besides size and tokens.

    Its functions take its configuration, a frozen dataclass of plain values.

    Attributes:
      name: of its field in `Techniques`, of its hooks in `training/techniques` and of its part of
        a train state; its columns of a result row begin with it.
      off: the configuration under which a run is the dense run, to the bit.
      reduced: config -> without the fields that have no effect: `off` where none has any.
      model: (planned shape, config) -> the shape that is trained. UserError for one that cannot be.
      needs: config -> the other runs whose weights it takes, by the field that asks for each, as
        `experiment/needs.py` reads them.
      other_text: the fields of those that may be runs of another text than its own.
      misfit: (config, facts of the run) -> why it cannot go with this shape, or with the runs that
        it needs, so that the run is left out of the plan; empty where it can.
      ledger: (ledger, config, facts of the run) -> the ledger with what it adds or saves.
      text: (tokens of the training text, config) -> those that runs are trained on, where it caps
        them; as `Hooks.corpus` does when they are trained.
      carried: (config, facts of the run) -> bytes that training keeps beside parameters and
        moments, which are split over devices like parameters: masks, a teacher's weights.
      by_length: config -> whether a step is trained by the length of the whole run, so that runs
        of several lengths begin differently and share no trunk (`experiment/trunks.py`).
      asked: config -> the columns that it asks to be measured at the end of a run, which decide no
        number of it, so that a run may be over without them.
      measures: columns that its training measures at the end of a run.
      told: their means over some runs, by name, as far as they are known -> what they say, in a
        clause; empty where they say nothing.
      beside: columns of a result row that fields outside its configuration give and that are of it
        too, with their values in a run without them.
      determines: columns of a result row that follow from its own, from size and from tokens, and
        so tell no conditions apart beside them.
      laws: the loss under it, in the forms that have been published.
      words: of those of its fields that differ from a dense run's, as texts by name -> the setting
        in a few words, for tables and figures.
      derived: result row of a run -> the further rows that it stands for, where the technique has
        measured several things of it at its end: each with its own run id, columns and loss.
    """

    name: str
    off: Any
    reduced: Callable[[Any], Any] = _same_config
    model: Callable[[ModelConfig, Any], ModelConfig] = _same_model
    needs: Callable[[Any], Mapping[str, str]] = _no_needs
    other_text: tuple[str, ...] = ()
    misfit: Callable[[Any, Facts], str] = _fits
    ledger: Callable[[Ledger, Any, Facts], Ledger] = _same_ledger
    text: Callable[[int, Any], int] = _whole_text
    carried: Callable[[Any, Facts], int] = _nothing_carried
    by_length: Callable[[Any], bool] = _of_steps_so_far
    asked: Callable[[Any], tuple[str, ...]] = _nothing_asked
    measures: tuple[str, ...] = ()
    told: Callable[[Mapping[str, float]], str] = _nothing_told
    beside: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    determines: tuple[str, ...] = ()
    laws: tuple[Law, ...] = ()
    words: Callable[[Mapping[str, str]], str] | None = None
    derived: Callable[[Mapping[str, Any]], tuple[dict[str, Any], ...]] = _no_rows

    def columns(self, config: Any) -> dict[str, Any]:
        """Its columns of a result row: they make the condition."""
        fields = dataclasses.fields(config)
        return {
            f"{self.name}_{field.name}": getattr(config, field.name)
            for field in fields
            if field.metadata.get("decides") != "operation"
        }

    @property
    def known(self) -> dict[str, Any]:
        """Its columns and those beside them, as in a run without it."""
        return {**self.columns(self.off), **self.beside}

    def described(self, fields: Mapping[str, str]) -> str:
        """Its setting in words: `shape width multiplier 2` where it has none of its own."""
        if self.words is not None:
            return self.words(fields)
        return f"{self.name} {listed(fields)}"


def listed(fields: Mapping[str, str]) -> str:
    """Fields and their values: `width multiplier 2, ff multiplier 0.5`."""
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in fields.items())

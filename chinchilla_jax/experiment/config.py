"""What is to be run: the schema of an experiment and of each of its runs.

An `Experiment` is what a person writes in `configs/*.py`. The planner resolves it into one
`RunConfig` per cell, in which nothing is left to derive. Both are frozen, validated when built
and convertible to and from JSON (`schema.to_json`, `schema.from_json`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from chinchilla_jax.experiment import points, vary
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.fingerprint import LABEL, OPERATION
from chinchilla_jax.experiment.model import DEFINITIONS, ModelConfig
from chinchilla_jax.experiment.other_run import Branch, OtherRun, Parent
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.experiment.points import Point
from chinchilla_jax.experiment.schema import (
    BY_PATH,
    UNLESS_DEFAULT,
    check_types,
    one_of,
    positive,
    require,
    within,
)
from chinchilla_jax.techniques import Techniques

CONVENTIONS = ("matmul", "chinchilla", "six_nd")
EMBEDDED = ("python_source", "c_source")  # text that every machine has, without a path
BUILDERS = (*EMBEDDED, "local_text", "array_record")
PACKAGES = ("required", "installed")
TOKENIZERS = ("bytes", "sentencepiece")
SCHEDULES = ("cosine", "linear", "wsd")
OPTIMIZERS = ("adamw", "muon")
PARAMETRIZATIONS = ("mup", "standard")
DTYPES = ("auto", "float32", "bfloat16")
REMAT_POLICIES = ("auto", "none", "attention", "dots", "full")
LAYER_LOOPS = ("auto", "scan", "unrolled")
ORDERS = ("smallest", "largest", "planned")

_MOST_TOKENS = 2**30  # of the steps of a dispatch: four gigabytes


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The corpus, its tokens and its held-out part."""

    builder: str = "python_source"
    packages: str = "required"  # of embedded text: what this package requires, or all installed
    path: str = ""  # local_text: files, folders or globs, comma-separated; array_record: folder
    text_field: str = "text"  # the field that holds the text in jsonl, parquet, array_record
    tokenizer: str = "bytes"
    vocab_size: int = 256
    validation_fraction: float = 0.01  # of the text, by a hash of the document
    # Of a planned run; up to 4 repetition costs almost nothing (Muennighoff et al. 2023).
    max_epochs: float = field(default=4.0, metadata=OPERATION)
    max_megabytes: float | None = None  # of training text; less is a subset of more
    # Further corpora to train on: paths as above, a prepared folder too, or embedded text by its
    # builder. The text held out is of the corpus itself.
    mixed_with: tuple[str, ...] = field(default=(), metadata=UNLESS_DEFAULT)
    # Of the examples, how many parts are of the corpus and of each that it is mixed with.
    weights: tuple[float, ...] = field(default=(), metadata=UNLESS_DEFAULT)
    # Data fingerprint of the text that is to be found; where it is another, nothing is planned.
    fingerprint: str = field(default="", metadata={**OPERATION, **UNLESS_DEFAULT})
    # Folder of prepared corpora; default: $CHINCHILLA_JAX_CACHE, ~/.cache/...
    cache: str = field(default="", metadata=OPERATION)

    def __post_init__(self) -> None:
        where = "data"
        one_of(f"{where}.builder", self.builder, BUILDERS)
        one_of(f"{where}.packages", self.packages, PACKAGES)
        one_of(f"{where}.tokenizer", self.tokenizer, TOKENIZERS)
        positive(where, max_epochs=self.max_epochs, vocab_size=self.vocab_size)
        require(
            0 < self.validation_fraction < 1,
            f"{where}.validation_fraction",
            self.validation_fraction,
            "must lie between 0 and 1",
        )
        require(
            self.tokenizer != "bytes" or self.vocab_size == 256,
            f"{where}.vocab_size",
            self.vocab_size,
            "the bytes tokenizer has 256",
        )
        require(
            self.builder in EMBEDDED or bool(self.path),
            f"{where}.path",
            self.path,
            f"{self.builder} needs the path of its files",
        )
        if self.max_megabytes is not None:
            positive(where, max_megabytes=self.max_megabytes)
        parts = 1 + len(self.mixed_with) if self.mixed_with else 0
        require(
            len(self.weights) == parts,
            f"{where}.weights",
            self.weights,
            f"give {parts}, of the corpus and of each of data.mixed_with"
            if parts
            else "is of corpora that data.mixed_with names",
        )
        for weight in self.weights:
            positive(where, weights=weight)


@dataclass(frozen=True, kw_only=True)
class LadderConfig:
    """The sizes of models to choose from, and which of them each budget trains.

    Exactly one of `widths` (shapes by the recipe's rule), `shapes` (a list of ModelConfig) and
    `table` (a table of third_party, for example chinchilla_table_a9) is given.
    """

    widths: tuple[int, ...] = ()
    shapes: tuple[ModelConfig, ...] = ()
    table: str = ""
    # The sizes nearest to `tokens_per_param`, 0 for all: one number, or one for each budget.
    sizes_per_budget: tuple[int, ...] = (6,)
    tokens_per_param: float = 20.0  # the expected optimum (Hoffmann et al. 2022, Table 3)
    min_tokens_per_param: float = 1.0
    max_tokens_per_param: float = 1000.0
    min_steps: int = 100  # shorter runs want another learning rate
    # Whether the runs of a size share a trunk, from which each cools down (`trunks.py`).
    branches: bool = field(default=False, metadata=UNLESS_DEFAULT)
    # FLOPs: a budget has one more seed for each of these that it does not exceed. Seeds pay where
    # they cost little: an exponent hangs on its smallest budget as much as on its largest. Of
    # branches each further seed is a trunk of its own, which ends at the last of these budgets.
    replicates_up_to: tuple[float, ...] = field(default=(), metadata=UNLESS_DEFAULT)

    def __post_init__(self) -> None:
        where = "ladder"
        given = [n for n in ("widths", "shapes", "table") if getattr(self, n)]
        require(
            len(given) == 1,
            where,
            ", ".join(given),
            "give exactly one of widths, shapes and table",
        )
        for width in self.widths:
            positive(where, widths=width)
        for shape in self.shapes:
            rule = "a ladder has dense shapes; techniques.experts.routed gives them experts"
            require(not shape.experts, f"{where}.shapes: experts", shape.experts, rule)
        for flops in self.replicates_up_to:
            positive(where, replicates_up_to=flops)
        for number in self.sizes_per_budget:
            require(
                number >= 0,
                f"{where}.sizes_per_budget",
                number,
                "must be 0 (all sizes) or more",
            )
        positive(
            where,
            tokens_per_param=self.tokens_per_param,
            min_tokens_per_param=self.min_tokens_per_param,
            max_tokens_per_param=self.max_tokens_per_param,
            min_steps=self.min_steps,
        )
        require(
            self.min_tokens_per_param < self.max_tokens_per_param,
            f"{where}.max_tokens_per_param",
            self.max_tokens_per_param,
            f"must exceed min_tokens_per_param = {self.min_tokens_per_param}",
        )


@dataclass(frozen=True, kw_only=True)
class RecipeConfig:
    """The rules that turn a cell (N, D) into a shape, a batch and a learning rate.

    Each rule and its source is in `recipe.py`; these are its constants.
    """

    # A fitted recipe (`fitted_recipe.py`), whose laws of rate, batch and weight decay stand in the
    # place of those by the constants below.
    source: str = field(default="", metadata=UNLESS_DEFAULT)
    definition: str = "modern"
    sequence_length: int = 64
    heads_per_kv_head: int = 1
    # Where muP multipliers are 1. Its root is how much faster than base_lr an embedding moves, and
    # the logit for itself that a tied one begins by giving each token: hence small.
    base_width: int = 64
    parametrization: str = "mup"
    base_lr: float = 6e-3  # at `lr_batch_tokens`
    lr_multiplier: float = field(default=1.0, metadata={"short": "lr"})  # of the rate by the rule
    lr_batch_tokens: float = 512.0
    lr_batch_exponent: float = 0.5
    base_batch_tokens: float = 384.0  # at `batch_data_tokens` tokens of training
    batch_data_tokens: float = 2e6
    batch_exponent: float = 0.6
    max_batch_tokens: float = 4e6
    optimizer: str = "adamw"  # muon: hidden matrices by Muon, all else by AdamW
    schedule: str = "linear"
    warmup_fraction: float = 0.2
    # The warm-up instead: as many tokens for every run, at most nine tenths of it.
    warmup_tokens: float | None = field(default=None, metadata=UNLESS_DEFAULT)
    final_fraction: float = 0.0
    cooldown_fraction: float = 0.2  # of the horizon; wsd only
    decay_timescale: float = 1.5  # lr x weight decay x steps
    beta1: float = 0.9
    beta2: float = 0.95
    eps: float = 1e-8
    clip_norm: float = 1.0

    def __post_init__(self) -> None:
        where = "recipe"
        one_of(f"{where}.definition", self.definition, DEFINITIONS)
        one_of(f"{where}.optimizer", self.optimizer, OPTIMIZERS)
        one_of(f"{where}.schedule", self.schedule, SCHEDULES)
        one_of(f"{where}.parametrization", self.parametrization, PARAMETRIZATIONS)
        positive(
            where,
            sequence_length=self.sequence_length,
            heads_per_kv_head=self.heads_per_kv_head,
            base_width=self.base_width,
            base_lr=self.base_lr,
            lr_multiplier=self.lr_multiplier,
            lr_batch_tokens=self.lr_batch_tokens,
            base_batch_tokens=self.base_batch_tokens,
            batch_data_tokens=self.batch_data_tokens,
            max_batch_tokens=self.max_batch_tokens,
        )
        if self.warmup_tokens is not None:
            positive(where, warmup_tokens=self.warmup_tokens)
        # Of a power law: far beyond any that was measured.
        within(where, -4, 4, lr_batch_exponent=self.lr_batch_exponent)
        within(where, -4, 4, batch_exponent=self.batch_exponent)
        within(where, 0, 1e6, decay_timescale=self.decay_timescale)
        _check_update(where, self)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """By which program a step is computed: precision, layers, what is computed twice.

    The same mathematics, but other roundings: part of a run's fingerprint.
    """

    dtype: str = "auto"  # compute; auto: bfloat16 on accelerators, float32 on CPU
    layers: str = "auto"  # auto: scan on accelerators, unrolled on CPU where scan costs 13-17 %
    # What layers keep for the backward pass: less and less from none over attention and dots to
    # full (models/decoder.py). auto: dots on accelerators, none on CPU.
    remat: str = "auto"
    loss_chunk_tokens: int = 4096  # tokens of a device whose logits exist at once

    def __post_init__(self) -> None:
        where = "training"
        one_of(f"{where}.dtype", self.dtype, DTYPES)
        one_of(f"{where}.layers", self.layers, LAYER_LOOPS)
        one_of(f"{where}.remat", self.remat, REMAT_POLICIES)
        positive(where, loss_chunk_tokens=self.loss_chunk_tokens)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What of a run is measured, and when it counts as diverged.

    It trains no parameter otherwise, but both decide what the result row says: the loss is that of
    just these windows, and a run over `divergence_factor` has no loss at all. Hence they are part
    of a run's fingerprint, and one work folder has one value of them.
    """

    eval_windows: int = 512  # validation sequences, fixed for the whole experiment
    divergence_factor: float = 1.5  # smoothed loss over its lowest past value

    def __post_init__(self) -> None:
        where = "measurement"
        positive(where, eval_windows=self.eval_windows)
        require(
            self.divergence_factor > 1,
            f"{where}.divergence_factor",
            self.divergence_factor,
            "must exceed 1",
        )


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer of one run, resolved: peak rate, decay and the shape of the schedule."""

    learning_rate: float  # peak, at base width
    weight_decay: float
    beta1: float
    beta2: float
    eps: float
    clip_norm: float
    schedule: str
    warmup_fraction: float
    final_fraction: float
    cooldown_fraction: float
    parametrization: str
    base_width: int
    name: str = "adamw"
    # In place of warmup_fraction: of a trunk and its branches, whose lengths differ.
    warmup_steps: int = field(default=0, metadata=UNLESS_DEFAULT)

    def __post_init__(self) -> None:
        where = "optimizer"
        one_of(f"{where}.name", self.name, OPTIMIZERS)
        one_of(f"{where}.schedule", self.schedule, SCHEDULES)
        one_of(f"{where}.parametrization", self.parametrization, PARAMETRIZATIONS)
        positive(where, learning_rate=self.learning_rate, base_width=self.base_width)
        within(where, 0, 1e37, weight_decay=self.weight_decay)  # float32 on the device
        within(where, 0, 1e15, warmup_steps=self.warmup_steps)
        _check_update(where, self)


def _check_update(where: str, config: RecipeConfig | OptimizerConfig) -> None:
    """The fields that a recipe hands on to the optimizer of a run as they are."""
    positive(where, eps=config.eps, clip_norm=config.clip_norm)
    for name in ("warmup_fraction", "final_fraction", "cooldown_fraction", "beta1", "beta2"):
        value = getattr(config, name)
        require(0 <= value < 1, f"{where}.{name}", value, "must lie in [0, 1)")
    require(
        config.schedule != "wsd" or config.warmup_fraction + config.cooldown_fraction <= 1,
        f"{where}.cooldown_fraction",
        config.cooldown_fraction,
        f"overlaps the warm-up, warmup_fraction = {config.warmup_fraction:g}: the two must not "
        "exceed 1 together",
    )


def _check_seed(where: str, seed: int) -> None:
    require(0 <= seed < 2**31, where, seed, "must lie in [0, 2**31)")


def is_plain_name(run_id: str) -> bool:
    """Whether a run's folder, of that name, lies in the folder of the runs and nowhere else."""
    return bool(re.fullmatch(r"\w[\w.+-]*", run_id)) and len(run_id.encode()) <= 250


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One run, with nothing left to derive: the content of runs/<run_id>/config.json."""

    run_id: str = field(metadata=LABEL)
    experiment: str = field(metadata=LABEL)
    budget: float  # FLOPs asked, under `flops_convention`
    flops_convention: str
    model: ModelConfig
    data: DataConfig
    optimizer: OptimizerConfig
    training: TrainingConfig = field(default_factory=TrainingConfig)
    measurement: Measurement = field(default_factory=Measurement)
    execution: Execution = field(default_factory=Execution, metadata=OPERATION)
    techniques: Techniques = field(default_factory=Techniques, metadata=UNLESS_DEFAULT)
    batch_size: int  # sequences
    sequence_length: int  # tokens
    steps: int  # optimizer updates, exactly
    seed: int = 0  # of the initial weights and of the order of the text
    lr_multiplier: float = field(default=1.0, metadata=LABEL)  # `optimizer` has it in its rate
    # The setting of the experiment's panel that it runs; none of the plain ones.
    panel: str = field(default="", metadata={**LABEL, **UNLESS_DEFAULT})
    # Digest of the registered forecast that this run checks: it was begun after that.
    forecast: str = field(default="", metadata={**LABEL, **UNLESS_DEFAULT})
    # That it takes weights from: `needs.py`.
    needs: tuple[OtherRun, ...] = field(default=(), metadata=UNLESS_DEFAULT)
    # The trunk that it is a branch of, and the branches of a trunk: `trunks.py`.
    parent: Parent | None = field(default=None, metadata=UNLESS_DEFAULT)
    branches: tuple[Branch, ...] = field(default=(), metadata={**OPERATION, **UNLESS_DEFAULT})

    def __post_init__(self) -> None:
        positive(
            "run",
            budget=self.budget,
            batch_size=self.batch_size,
            sequence_length=self.sequence_length,
            steps=self.steps,
            lr_multiplier=self.lr_multiplier,
        )
        _check_seed("run.seed", self.seed)
        batch, dispatch = self.batch_size * self.sequence_length, self.execution.steps_per_dispatch
        for name, value, tokens in (
            ("batch_size", self.batch_size, batch),
            ("execution.steps_per_dispatch", dispatch, dispatch * batch),
        ):
            require(
                tokens <= _MOST_TOKENS,
                f"run.{name}",
                value,
                f"{tokens:.3g} tokens at once, at most {_MOST_TOKENS:.3g} are possible",
            )
        one_of("run.flops_convention", self.flops_convention, CONVENTIONS)
        require(
            is_plain_name(self.run_id),
            "run.run_id",
            self.run_id,
            "must be one plain name, of a folder: letters, digits and _ . + -",
        )
        for where, run_id, step, least in (
            *(("parent", parent.run, parent.step, 0) for parent in (self.parent,) if parent),
            *(("branches", branch.run, branch.step, 1) for branch in self.branches),
        ):
            require(is_plain_name(run_id), f"run.{where}.run", run_id, "must be a run id")
            rule = f"must lie inside the run, of {self.steps} steps"
            require(least <= step < self.steps, f"run.{where}.step", step, rule)

    @property
    def first_step(self) -> int:
        """Updates that its trunk has made for it; 0 of a run that begins by itself."""
        return self.parent.step if self.parent else 0

    @property
    def tokens(self) -> int:
        """Training tokens, exactly."""
        return self.batch_size * self.sequence_length * self.steps


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """An iso-FLOP grid: budgets x ladder x whatever varies."""

    name: str = field(metadata=LABEL)
    budgets: tuple[float, ...]  # training FLOPs
    ladder: LadderConfig
    flops_convention: str = "matmul"
    # Digest of the registered forecast that the runs check (scaling/register).
    forecast: str = field(default="", metadata={**LABEL, **UNLESS_DEFAULT})
    order: str = field(default="smallest", metadata=OPERATION)  # of the sweep, by FLOPs
    seed: int = field(default=0, metadata={"short": "s"})
    # Paths of this experiment and the values that each takes, `{"seed": (0, 1, 2)}`: `vary.py`.
    vary: Mapping[str, tuple[Any, ...]] = field(
        default_factory=dict, metadata={**OPERATION, **BY_PATH}
    )
    # Settings that are run beside, by name: `panel.py`.
    panel: Mapping[str, Setting] = field(
        default_factory=dict, metadata={**OPERATION, **UNLESS_DEFAULT}
    )
    # Single cells beside the grid: `points.py`.
    points: tuple[Point, ...] = field(default=(), metadata={**OPERATION, **UNLESS_DEFAULT})
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    data: DataConfig = field(default_factory=DataConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    measurement: Measurement = field(default_factory=Measurement)
    execution: Execution = field(default_factory=Execution, metadata=OPERATION)
    techniques: Techniques = field(default_factory=Techniques, metadata=UNLESS_DEFAULT)

    def __post_init__(self) -> None:
        check_types(self, "config")
        require(bool(self.name.strip()), "name", self.name, "must not be empty")
        one_of("flops_convention", self.flops_convention, CONVENTIONS)
        one_of("order", self.order, ORDERS)
        require(bool(self.budgets), "budgets", self.budgets, "must have at least one value")
        require(
            len(set(self.budgets)) == len(self.budgets),
            "budgets",
            self.budgets,
            "has a value twice",
        )
        for budget in self.budgets:
            positive("config", budgets=budget)
        sizes = self.ladder.sizes_per_budget
        require(
            len(sizes) in (1, len(self.budgets)),
            "ladder.sizes_per_budget",
            sizes,
            f"give one number, or one for each of the {len(self.budgets)} budgets",
        )
        _check_seed("seed", self.seed)
        if self.ladder.branches:
            require(
                self.recipe.schedule == "wsd" and self.recipe.cooldown_fraction > 0,
                "ladder.branches",
                True,
                "a branch cools down from a constant rate: set recipe.schedule=wsd and a "
                "recipe.cooldown_fraction above 0",
            )
        object.__setattr__(self, "vary", vary.checked(self))
        object.__setattr__(self, "panel", vary.checked_panel(self))
        points.check(self.points)

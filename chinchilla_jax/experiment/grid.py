"""From budgets and a ladder of sizes to cells: N, D, steps.

D is solved first, from the exact FLOPs per token of the shape; batch follows from D, and whole
steps from the budget. A budget buys the passes of the trained model itself: what a technique spends
besides, on a teacher say, comes on top, in `flops`. A cell outside the sensible range stays in the
plan with its reason.
"""

import csv
import logging
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from chinchilla_jax import techniques
from chinchilla_jax.experiment import fitted_recipe, panel, points, trunks, vary
from chinchilla_jax.experiment import recipe as rules
from chinchilla_jax.experiment.config import DataConfig, Experiment, RunConfig
from chinchilla_jax.experiment.counting import count_params, flops_per_step, flops_per_token
from chinchilla_jax.experiment.epochs import epochs
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.needs import Planned, settled
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.experiment.points import Point
from chinchilla_jax.experiment.schema import nearest
from chinchilla_jax.experiment.vary import Variant

log = logging.getLogger(__name__)

BUDGET_TOLERANCE = 0.01  # of the budget, by which the FLOPs of whole steps may miss it

TABLES = Path(__file__).resolve().parents[1] / "third_party"  # a link in a checkout


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of the grid, or the reason why it is not run."""

    index: int
    status: str  # planned, rejected
    reason: str  # empty when planned
    params: int  # N, total
    tokens: int  # D, exactly
    flops: int  # spent, under the experiment's convention
    run: RunConfig


def plan(
    experiment: Experiment, train_tokens: int | Mapping[DataConfig, int] | None = None
) -> list[Cell]:
    """All cells: budgets x sizes x variants, of which each has its own shapes, batch and steps.

    A setting of the panel has cells at its budgets and widths only. Further seeds of a budget
    follow: what they run is compiled by then. Points follow the grid, or are the cells of it that
    it would not run. A run that another cell makes already, where a value that varies changes
    nothing, is rejected.

    Args:
      train_tokens: of the corpus, or of each, where they are known, else as many as bytes of
        `data.max_megabytes`; cells that would repeat what they are trained on more than
        `data.max_epochs` times are rejected.
    Raises:
      UserError: a ladder that cannot be built, or no cell left to run.
    """
    variants, replicates = vary.variants(experiment), _replicates(experiment)
    planned = _planned_shapes(variants[0].experiment)
    panel.check_widths(experiment.panel, [shape.width for shape in planned])
    found: list[tuple[tuple[bool, int, int, int], Planned]] = []
    for third, variant in enumerate([*variants, *replicates]):
        fitted_recipe.check(variant.experiment)
        rungs, source = _rungs(variant), variant.experiment
        judged = {
            (number, place): size
            for number, budget in enumerate(experiment.budgets)
            if source.ladder.branches or variant.setting.at_budget(budget)
            for place, size in zip(
                rungs, _judged(source, list(rungs.values()), number, train_tokens), strict=True
            )
        }
        if source.ladder.branches:  # with the batch of all budgets, whichever of them it runs
            judged = _on_trunks(source, judged, train_tokens)
        found += [
            (
                (third >= len(variants), number, place, third),
                Planned(_run(variant, size), source, size.reason),
            )
            for (number, place), size in judged.items()
            if variant.setting.at_budget(experiment.budgets[number])
        ]
    found.sort(key=lambda item: item[0])  # budget, size, variant; replicates after all others
    every = _with_points(experiment, [planned for _, planned in found], train_tokens)
    different = _without_twins(_named(every))
    runs = trunks.linked(settled(different, experiment))
    cells = [
        Cell(
            index=index,
            status="rejected" if reason else "planned",
            reason=reason,
            params=count_params(run.model).total,
            tokens=run.tokens,
            flops=ledger(run).training_flops(run.flops_convention),
            run=run,
        )
        for index, (run, reason) in enumerate((p.run, p.reason) for p in runs)
    ]
    if not any(cell.status == "planned" for cell in cells):
        raise UserError(
            f"experiment {experiment.name}: no cell is left to run; the first was rejected "
            f"because {cells[0].reason}"
        )
    _tell_outside(experiment, cells)
    return cells


def _replicates(experiment: Experiment) -> list[Variant[Experiment]]:
    """Further seeds of `ladder.replicates_up_to`, at its budgets; none where seeds vary anyway."""
    found: list[Variant[Experiment]] = []
    if "seed" in experiment.vary:
        if asked := experiment.ladder.replicates_up_to:
            log.warning(
                "ladder.replicates_up_to = %s: adds no seed, since vary.seed = %s names them all",
                asked, experiment.vary["seed"],
            )  # fmt: skip
        return found
    for extra, most in enumerate(sorted(experiment.ladder.replicates_up_to, reverse=True), start=1):
        budgets = tuple(budget for budget in experiment.budgets if budget <= most)
        if budgets:
            seed = experiment.seed + extra
            setting = Setting(values={"seed": seed}, budgets=budgets)
            found += [replace(v, setting=setting) for v in vary.at_seed(experiment, seed)]
    return found


def _tell_outside(experiment: Experiment, cells: Sequence[Cell]) -> None:
    """Of a fitted recipe, whether runs lie outside what it was fitted to."""
    fitted = fitted_recipe.check(experiment)
    if fitted is not None:
        runs = [(cell.params, cell.tokens) for cell in cells if cell.status == "planned"]
        if said := fitted_recipe.outside(fitted, runs):
            log.warning("recipe.source = %s: %s", experiment.recipe.source, said)


def _with_points(
    experiment: Experiment,
    found: list[Planned],
    train_tokens: int | Mapping[DataConfig, int] | None,
) -> list[Planned]:
    """A grid with the points of its experiment, in the place of cells that it would not run."""
    places = {(planned.run.run_id, planned.run.model): i for i, planned in enumerate(found)}
    for point in experiment.points:
        for variant in vary.at_seed(experiment, point.seed):
            source = variant.experiment
            model = techniques.trained_shape(_shape_of(experiment, point), source.techniques)
            size = _size(source, point.budget, model)
            size = _with_reason(source, size, _text(source, train_tokens))
            run = _run(variant, size)
            planned = Planned(run, source, size.reason)
            place = places.setdefault((run.run_id, model), len(found))
            if place == len(found):
                found.append(planned)
            elif found[place].reason:  # but for the point it is not run
                found[place] = planned
    return found


def _shape_of(experiment: Experiment, point: Point) -> ModelConfig:
    if experiment.ladder.widths:
        return rules.shape_for_width(point.width, experiment.recipe, experiment.data.vocab_size)
    return points.shape_of(point, _planned_shapes(experiment))


def ladder(experiment: Experiment) -> list[ModelConfig]:
    """The shapes of the experiment as they are trained, in the order of the planned ones.

    Raises:
      UserError: an unknown table, a width that cannot be split into heads, or a shape that a
        technique cannot have.
    """
    shapes = _planned_shapes(experiment)
    return [techniques.trained_shape(shape, experiment.techniques) for shape in shapes]


def _rungs(variant: Variant[Experiment]) -> dict[int, ModelConfig]:
    """The shapes that a variant trains, by their place on the ladder."""
    experiment = variant.experiment
    return {
        place: techniques.trained_shape(shape, experiment.techniques)
        for place, shape in enumerate(_planned_shapes(experiment))
        if variant.setting.at_width(shape.width)
    }


def _planned_shapes(experiment: Experiment) -> list[ModelConfig]:
    """The ladder before techniques, in order of total parameters."""
    spec, recipe, vocab = experiment.ladder, experiment.recipe, experiment.data.vocab_size
    if spec.table:
        shapes = [
            replace(shape, definition=recipe.definition, vocab_size=vocab)
            for shape in read_table(spec.table)
        ]
    elif spec.shapes:
        shapes = [replace(shape, vocab_size=vocab) for shape in spec.shapes]
    else:
        shapes = [rules.shape_for_width(width, recipe, vocab) for width in spec.widths]
    if len(set(shapes)) < len(shapes):
        raise UserError("ladder: a shape is given twice")
    return sorted(shapes, key=lambda shape: count_params(shape).total)


def read_table(name: str) -> list[ModelConfig]:
    """A ladder of third_party, by name: d_model, ffw_size, kv_size, n_heads, n_layers.

    Raises:
      UserError: no such table.
    """
    names = sorted(p.stem for p in TABLES.glob("*table*.csv"))
    if name not in names:
        raise UserError(
            f"ladder.table = {name!r}: no such table in third_party{nearest(name, names)} "
            f"(there is {', '.join(names) or 'none'})"
        )
    with (TABLES / f"{name}.csv").open() as lines:
        rows = list(csv.DictReader(line for line in lines if not line.startswith("#")))
    return [
        ModelConfig(
            definition="chinchilla",
            vocab_size=32000,
            width=int(row["d_model"]),
            depth=int(row["n_layers"]),
            heads=int(row["n_heads"]),
            kv_heads=int(row["n_heads"]),
            head_size=int(row["kv_size"]),
            ff_size=int(row["ffw_size"]),
        )
        for row in rows
    ]


@dataclass(frozen=True)
class _Size:
    """A shape at a budget: its tokens, batch and whole steps."""

    budget: float
    model: ModelConfig
    params: int  # that a token meets
    batch: int
    steps: int
    flops: int
    tokens: int
    reason: str = ""  # why it is not run
    lengths: tuple[int, ...] = ()  # tokens of the runs that share a trunk, its own among them

    @property
    def tokens_per_param(self) -> float:
        return self.tokens / self.params


def _tokens(experiment: Experiment, budget: float, model: ModelConfig) -> float:
    """What a budget buys."""
    sequence = experiment.recipe.sequence_length
    return budget / flops_per_token(model, sequence, experiment.flops_convention)


def _size(experiment: Experiment, budget: float, model: ModelConfig, batch: int = 0) -> _Size:
    """With a batch by the tokens of the run where none is given."""
    sequence, convention = experiment.recipe.sequence_length, experiment.flops_convention
    tokens = _tokens(experiment, budget, model)
    params = count_params(model).active
    batch = batch or rules.batch_size(tokens, experiment.recipe, params)
    step = flops_per_step(model, batch, sequence, convention)
    steps = max(1, round(budget / step))
    return _Size(budget, model, params, batch, steps, steps * step, steps * batch * sequence)


def _judged(
    experiment: Experiment,
    shapes: Sequence[ModelConfig],
    number: int,
    train_tokens: int | Mapping[DataConfig, int] | None,
) -> list[_Size]:
    """Every size at the budget of this number."""
    budget, counts = experiment.budgets[number], experiment.ladder.sizes_per_budget
    count = counts[0] if len(counts) == 1 else counts[number]
    text = _text(experiment, train_tokens)
    sizes = [_with_reason(experiment, _size(experiment, budget, s), text) for s in shapes]
    chosen = _nearest_sizes(experiment, [size for size in sizes if not size.reason], count)
    far = _far(experiment, count)
    return [size if size.reason or size in chosen else replace(size, reason=far) for size in sizes]


def _on_trunks(
    experiment: Experiment,
    judged: Mapping[tuple[int, int], _Size],
    train_tokens: int | Mapping[DataConfig, int] | None,
) -> dict[tuple[int, int], _Size]:
    """Sizes by the numbers of budget and shape, those of one shape with the batch of their trunk.

    Which budgets a shape has is decided by the batches that its runs would have by themselves.
    """
    text = _text(experiment, train_tokens)
    found = dict(judged)
    for place in {place for _, place in judged}:
        mine = {key: size for key, size in judged.items() if key[1] == place and not size.reason}
        if not mine:
            continue
        tokens = [_tokens(experiment, size.budget, size.model) for size in mine.values()]
        params = next(iter(mine.values())).params
        batch = rules.batch_size(trunks.middle(tokens), experiment.recipe, params)
        for key, size in mine.items():
            one = _size(experiment, size.budget, size.model, batch)
            mine[key] = _with_reason(experiment, one, text)
        lengths = tuple(size.tokens for size in mine.values() if not size.reason)
        found |= {key: replace(size, lengths=lengths) for key, size in mine.items()}
    return found


def _text(
    experiment: Experiment, train_tokens: int | Mapping[DataConfig, int] | None
) -> int | None:
    """Tokens of text that a run is trained on; None where they are not known."""
    if isinstance(train_tokens, Mapping):
        train_tokens = train_tokens[experiment.data]
    if train_tokens is None and experiment.data.max_megabytes is not None:
        train_tokens = int(1e6 * experiment.data.max_megabytes)  # a token spells a byte or more
    if train_tokens is None:
        return None
    return techniques.trained_text(train_tokens, experiment.techniques)


def _nearest_sizes(experiment: Experiment, sizes: Sequence[_Size], count: int) -> list[_Size]:
    """Which of the fit sizes a budget trains: `count` around the expected optimum, or all."""
    centre = math.log(experiment.ladder.tokens_per_param)
    order = sorted(sizes, key=lambda size: abs(math.log(size.tokens_per_param) - centre))
    return order[: count or len(sizes)]


def _far(experiment: Experiment, count: int) -> str:
    ratio = experiment.ladder.tokens_per_param
    return f"not among the {count} sizes nearest to {ratio:g} tokens per parameter"


def _with_reason(experiment: Experiment, size: _Size, train_tokens: int | None) -> _Size:
    """With why the cell is outside the sensible range; none where it is not."""
    spec = experiment.ladder
    ratio, tokens = size.tokens_per_param, size.tokens_per_param * size.params
    limit = experiment.data.max_epochs
    repeats = 0.0
    if train_tokens is not None:
        repeats = epochs(tokens, train_tokens, experiment.recipe.sequence_length)
    rules_broken = (
        (
            ratio < spec.min_tokens_per_param,
            f"{ratio:.3g} tokens per parameter, under {spec.min_tokens_per_param:g}",
        ),
        (
            ratio > spec.max_tokens_per_param,
            f"{ratio:.3g} tokens per parameter, over {spec.max_tokens_per_param:g}",
        ),
        (size.steps < spec.min_steps, f"{size.steps} steps, under {spec.min_steps}"),
        (
            abs(size.flops / size.budget - 1) > BUDGET_TOLERANCE,
            f"whole steps miss the budget by {abs(size.flops / size.budget - 1):.1%}",
        ),
        (
            repeats > limit,
            f"needs {repeats:.2g} epochs of the corpus, over {limit:g}",
        ),
    )
    return replace(size, reason=next((why for broken, why in rules_broken if broken), ""))


def _run(variant: Variant[Experiment], size: _Size) -> RunConfig:
    experiment = variant.experiment
    recipe = experiment.recipe
    if size.lengths:
        optimizer = trunks.optimizer_of(size.lengths, size.batch, recipe, size.params)
    else:
        rate = rules.learning_rate(size.batch, recipe, size.params, size.tokens)
        optimizer = rules.optimizer_for(size.steps, rate, recipe, size.params, size.tokens)
    name = f"{size.budget:.6g}".replace("e+", "e")
    return RunConfig(
        run_id=f"{name}-{size.model.width}x{size.model.depth}-{variant.name}",
        experiment=experiment.name,
        budget=size.budget,
        flops_convention=experiment.flops_convention,
        model=size.model,
        data=experiment.data,
        optimizer=optimizer,
        training=experiment.training,
        measurement=experiment.measurement,
        execution=experiment.execution,
        techniques=techniques.reduced(experiment.techniques),
        batch_size=size.batch,
        sequence_length=recipe.sequence_length,
        steps=size.steps,
        seed=experiment.seed,
        lr_multiplier=recipe.lr_multiplier,
        panel=variant.panel,
        forecast=experiment.forecast,
    )


def _named(found: list[Planned]) -> list[Planned]:
    """Runs with ids made unique: shapes may share width and depth, and more."""

    def heads(model: ModelConfig) -> str:
        return f"-{model.heads}of{model.head_size}f{model.ff_size}"

    def rest(model: ModelConfig) -> str:
        return f"-g{model.kv_heads}{model.definition}"

    for ending in (heads, rest):
        counts = Counter(planned.run.run_id for planned in found)
        runs = [
            replace(run, run_id=run.run_id + ending(run.model)) if counts[run.run_id] > 1 else run
            for run in (planned.run for planned in found)
        ]
        found = [replace(planned, run=run) for planned, run in zip(found, runs, strict=True)]
    return found


def _without_twins(found: list[Planned]) -> list[Planned]:
    """Runs of which the second that would train the same is rejected."""
    first: dict[str, str] = {}
    kept = []
    for planned in found:
        if not planned.reason:
            run = planned.run
            twin = first.setdefault(fingerprint(run), run.run_id)
            if twin != run.run_id:
                planned = replace(planned, reason=f"is the same run as {twin}")
        kept.append(planned)
    return kept

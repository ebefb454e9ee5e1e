"""From budgets and a ladder of sizes to cells: N, D, steps.

The shapes are those of `ladder.py`, their tokens, batches and steps those of `sizes.py`. A budget
buys the passes of the trained model itself: what a technique spends besides, on a teacher say,
comes on top, in `flops`. A cell outside the sensible range stays in the plan with its reason.
"""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from chinchilla_jax import techniques
from chinchilla_jax.experiment import fitted_recipe, ladder, panel, sizes, trunks, vary
from chinchilla_jax.experiment import recipe as rules
from chinchilla_jax.experiment.config import DataConfig, Experiment, RunConfig
from chinchilla_jax.experiment.counting import count_params
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.needs import Planned, settled
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.experiment.sizes import Size
from chinchilla_jax.experiment.vary import Variant

log = logging.getLogger(__name__)


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
    planned = ladder.planned_shapes(variants[0].experiment)
    panel.check_widths(experiment.panel, [shape.width for shape in planned])
    found: list[tuple[tuple[bool, int, int, int], Planned]] = []
    for third, variant in enumerate([*variants, *replicates]):
        fitted_recipe.check(variant.experiment)
        found += [
            (
                (third >= len(variants), number, place, third),
                Planned(_run(variant, size), variant.experiment, size.reason),
            )
            for (number, place), size in _judged(
                variant, ladder.rungs(variant), train_tokens
            ).items()
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
    _tell_fitted(experiment, cells)
    if said := rules.of_small_heads(cell.run.model for cell in cells if not cell.reason):
        log.warning("%s", said)
    return cells


def _judged(
    variant: Variant[Experiment],
    rungs: Mapping[int, ModelConfig],
    train_tokens: int | Mapping[DataConfig, int] | None,
) -> dict[tuple[int, int], Size]:
    """The sizes of a variant by the numbers of budget and shape.

    Branches have the batch of all budgets, whichever of them the variant runs.
    """
    source = variant.experiment
    found = {
        (number, place): size
        for number, budget in enumerate(source.budgets)
        if source.ladder.branches or variant.setting.at_budget(budget)
        for place, size in zip(
            rungs, sizes.at_budget(source, number, list(rungs.values()), train_tokens), strict=True
        )
    }
    return sizes.on_trunks(source, found, train_tokens) if source.ladder.branches else found


def _trunk(
    variant: Variant[Experiment],
    model: ModelConfig,
    train_tokens: int | Mapping[DataConfig, int] | None,
) -> list[Size]:
    """The runs of a shape that share a trunk on its ladder, or would if it had the shape."""
    if not variant.experiment.ladder.branches:
        return []
    rungs = ladder.rungs(variant)
    if model not in rungs.values():
        rungs = {0: model}
    judged = _judged(variant, rungs, train_tokens).values()
    return [size for size in judged if size.model == model and not size.reason]


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


def _tell_fitted(experiment: Experiment, cells: Sequence[Cell]) -> None:
    """Of a fitted recipe, what it leaves open, what it replaces, and which runs lie outside it."""
    fitted = fitted_recipe.check(experiment)
    if fitted is not None:
        runs = [(cell.params, cell.tokens) for cell in cells if cell.status == "planned"]
        for said in (
            fitted_recipe.undetermined(fitted),
            fitted_recipe.replaced(fitted, experiment),
            fitted_recipe.outside(fitted, runs),
        ):
            if said:
                log.warning("recipe.source = %s: %s", experiment.recipe.source, said)


def _with_points(
    experiment: Experiment,
    found: list[Planned],
    train_tokens: int | Mapping[DataConfig, int] | None,
) -> list[Planned]:
    """A grid with the points of its experiment, in the place of cells that it would not run."""
    places = {(planned.run.run_id, planned.run.model): i for i, planned in enumerate(found)}
    of_seed = {seed: vary.at_seed(experiment, seed) for seed in {p.seed for p in experiment.points}}
    of_trunk: dict[tuple[int, ModelConfig], list[Size]] = {}
    for point in experiment.points:
        for number, variant in enumerate(of_seed[point.seed]):
            source = variant.experiment
            shape = ladder.shape_of(experiment, point)
            model = techniques.trained_shape(shape, source.techniques)
            if (number, model) not in of_trunk:
                of_trunk[number, model] = _trunk(variant, model, train_tokens)
            others = of_trunk[number, model]
            size = sizes.single(source, point.budget, model, train_tokens, others)
            run = _run(variant, size)
            planned = Planned(run, source, size.reason)
            place = places.setdefault((run.run_id, model), len(found))
            if place == len(found):
                found.append(planned)
            elif found[place].reason:  # but for the point it is not run
                found[place] = planned
    return found


def _run(variant: Variant[Experiment], size: Size) -> RunConfig:
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

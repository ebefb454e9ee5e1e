"""The runs that check a forecast: its best size and the neighbours, as the runs behind it were.

Neighbours at half and twice the size tell whether the size was right: what it costs to have chosen
it, and where the minimum of the new budget lies.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chinchilla_jax import techniques
from chinchilla_jax.experiment import grid, ladder, plans, recipe, storage, vary
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.counting import count_params
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint, leaves
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.numbers import count, flops
from chinchilla_jax.experiment.records import first_difference
from chinchilla_jax.experiment.rows import completed, row_of
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.experiment.version import MODEL_VERSION
from chinchilla_jax.scaling.register.registration import Corpus
from chinchilla_jax.scaling.table.columns import label

SIZES = (0.5, 0.5**0.5, 1.0, 2**0.5, 2.0)  # of N*
_SAME = ("data", "recipe", "training", "measurement", "techniques")  # as the runs behind it
_SEARCHED = 40.0  # shapes within this factor of N*, of all their parameters, are looked at
_FINE = range(12, 64, 4)  # widths of small models, where 8 more are twice the size
_NEAR = 1.3  # factor by which a size may miss the one that is wanted
_INSTEAD = (
    "what would be trained is not what the fits are of; train and evaluate them anew, or register "
    "without --write_config"
)


@dataclass(frozen=True)
class Sweep:
    """A work folder of ours: what it was to train, and on which text."""

    folder: Path
    experiment: Experiment
    cells: tuple[Cell, ...]
    facts: Mapping[str, Any]

    def corpus(self, experiment: Experiment) -> Corpus:
        """The text that its runs with the data of `experiment` were trained on."""
        facts = self._of(experiment)
        return Corpus(facts.get("data_fingerprint"), facts.get("tokenizer_fingerprint"))

    def planned(self, experiment: Experiment) -> list[Cell]:
        """The cells of another experiment on the same text."""
        return grid.plan(experiment, self._of(experiment).get("train_tokens"))

    def _of(self, experiment: Experiment) -> Mapping[str, Any]:
        key = fingerprint(experiment.data)
        found: Mapping[str, Any] = self.facts.get("corpora", {}).get(key, {})
        return found


def sweep_of(source: str, fits: Path) -> Sweep | None:
    """The work folder that a table of runs is of; None where it is of no folder of ours.

    Args:
      source: what the fits say they were made of.
      fits: their file, which lies in the report of the folder.
    Raises:
      UserError: the plan is damaged.
    """
    table = storage.path(source or ".")
    places = [table, table.parent] if table.name == "results.csv" else [table]
    if not any(plans.has_plan(place) for place in places) and not storage.exists(table):
        places = [fits.parent.parent]  # moved, or asked from another folder
    found = next((place for place in places if plans.has_plan(place)), None)
    if found is None:
        return None
    experiment, cells, facts = plans.read_plan(found)
    return Sweep(found, experiment, tuple(cells), facts)


def checking(
    sweep: Sweep,
    condition: Mapping[str, str],
    asked: Experiment | None,
    name: str,
    budget: float,
    seeds: int,
) -> Experiment:
    """The experiment of a sweep at another budget, its ladder still to be chosen.

    What varied as a setting still does, since of several the best counts; of what told conditions
    apart it has the values of `condition`.

    Args:
      asked: what a person wants to be trained instead; only how it is carried out may differ.
    Raises:
      UserError: the sweep is of another model than this version trains, or of other shapes than
        its recipe gives, no run of it stands under the condition, or `asked` is of another corpus,
        recipe or evaluation.
    """
    version = sweep.facts.get("model_version")
    if version != MODEL_VERSION:
        raise UserError(
            f"{sweep.folder}: its runs are of model version {version or 'unknown'}, and this "
            f"version trains {MODEL_VERSION}: {_INSTEAD}"
        )
    _refuse_other_shapes(sweep)
    base, varied = _plain(sweep, condition)
    if asked is not None:
        _must_agree(base, asked, sweep.folder)
        base = replace(base, execution=asked.execution, order=asked.order)
    numbers = tuple(range(base.seed, base.seed + seeds))
    return replace(
        base,
        name=name,
        budgets=(budget,),
        ladder=replace(base.ladder, sizes_per_budget=(0,)),  # it may have had one for each budget
        data=replace(base.data, fingerprint=sweep.corpus(base).data_fingerprint or ""),
        vary={**varied, **({"seed": numbers} if seeds > 1 else {})},
        panel={},
    )


def _refuse_other_shapes(sweep: Sweep) -> None:
    """Raises UserError where the recipe gives a width of the sweep another shape than it has."""
    asked = sweep.experiment
    if not asked.ladder.widths:
        return  # they stand in the ladder
    given = {shape for v in vary.variants(asked) for shape in ladder.rungs(v).values()}
    given |= {
        techniques.trained_shape(ladder.shape_of(asked, point), v.experiment.techniques)
        for point in asked.points
        for v in vary.at_seed(asked, point.seed)
    }
    for cell in sweep.cells:
        model = cell.run.model
        alike = [shape for shape in given if shape.width == model.width]
        if cell.status == "rejected" or not alike or model in alike:
            continue
        has, gives = (to_json(shape) for shape in (model, min(alike, key=repr)))
        name = next(name for name in has if has[name] != gives[name])
        raise UserError(
            f"{sweep.folder}: its {model.width}x{model.depth} has {name} = {has[name]}, and this "
            f"version's recipe gives {gives[name]}: {_INSTEAD}"
        )


def _plain(
    sweep: Sweep, condition: Mapping[str, str]
) -> tuple[Experiment, dict[str, tuple[Any, ...]]]:
    """One variant of a sweep under a condition, and what else varies there besides the seed."""
    variants = vary.variants(sweep.experiment)
    rows, why = [], ""
    for variant in variants:
        try:
            rows.append(row_of(grid.plan(variant.experiment)[0].run))
        except UserError as error:  # it needs a run of another variant
            rows.append({})
            why = f" ({error})"
    known = completed([row for row in rows if row] or [row_of(sweep.cells[0].run)])[0]
    wanted = {name: value for name, value in condition.items() if name in known}
    found = [
        variant
        for variant, row in zip(variants, completed(rows), strict=True)
        if row.get("run_id")
        and all(label(row.get(name)) == value for name, value in wanted.items())
    ]
    if not found:
        said = ", ".join(f"{name}={value}" for name, value in condition.items())
        raise UserError(f"{sweep.folder}: no run of its plan can be trained with {said}{why}")
    base, varied = found[0].experiment, {}
    for path in sweep.experiment.vary:
        values = tuple(dict.fromkeys(_at(variant.experiment, path) for variant in found))
        if path != "seed" and len(values) > 1:
            varied[path] = values
    return base, varied


def _at(experiment: Experiment, path: str) -> Any:
    value: Any = experiment
    for part in path.split("."):
        value = getattr(value, part)
    return value


def _must_agree(base: Experiment, asked: Experiment, folder: Path) -> None:
    """Raises UserError for the first difference that decides a number of a run."""
    for group in _SAME:
        old, new = (
            {leaf.path: to_json(leaf.value) for leaf in leaves(getattr(source, group))}
            for source in (base, asked)
        )
        if difference := first_difference(old, new, group):
            raise UserError(
                f"--config: is of another corpus, recipe or evaluation than the runs in {folder} "
                f"({difference}), and the forecast is of theirs alone"
            )


def with_sizes(sweep: Sweep, experiment: Experiment, params: float, convention: str) -> Experiment:
    """The experiment with the shapes nearest to `SIZES` times `params`, counted by `convention`.

    A neighbour that no shape is near to, or that is not to be run, is left out.

    Raises:
      UserError: no shape is near `params`, or its run is not to be trained (and why), or no
        neighbour is left on one of its sides.
    """
    shapes = shapes_near(experiment, params)
    tried = replace(experiment, ladder=only(experiment.ladder, shapes), vary={})
    try:
        cells = sweep.planned(tried)
    except UserError as error:  # none of all these can be
        raise UserError(f"N* = {count(params)}: cannot be trained: {error}") from None
    size_S = [size_of(cell, convention) for cell in cells]
    chosen: list[int] = []
    for wanted in sorted(SIZES, key=lambda size: abs(math.log(size))):
        off_S = [abs(math.log(size / (wanted * params))) for size in size_S]
        nearest = off_S.index(min(off_S))
        if wanted == 1 and off_S[nearest] > math.log(_NEAR):
            raise UserError(
                f"N* = {count(params)}: the nearest shape of the ladder has "
                f"{count(size_S[nearest])} parameters; forecast for a budget whose best size it has"
            )
        if wanted == 1 and cells[nearest].reason:
            raise UserError(f"N* = {count(params)}: cannot be trained: {cells[nearest].reason}")
        near = off_S[nearest] <= math.log(_NEAR) and not cells[nearest].reason
        if near and nearest not in chosen:
            chosen.append(nearest)
    if not min(chosen) < chosen[0] < max(chosen):
        side, beyond = "smaller", cells[: chosen[0]][::-1]
        if chosen[0] == max(chosen):
            side, beyond = "larger", cells[chosen[0] + 1 :]
        why = next((cell.reason for cell in beyond if cell.reason), "")
        raise UserError(
            f"N* = {count(params)} at {flops(experiment.budgets[0])} FLOPs: no {side} neighbour "
            f"can be trained{f' ({why})' if why else ''}, and without one nothing tells whether "
            "the size was right"
        )
    kept = [shapes[place] for place in sorted(chosen)]
    return replace(experiment, ladder=only(experiment.ladder, kept))


def size_of(cell: Cell, convention: str) -> float:
    """Parameters of a cell, counted as the evaluator does by this name.

    Raises:
      UserError: no run of ours is counted so.
    """
    value = row_of(cell.run).get(f"params_{convention}")
    if value is None:
        raise UserError(f"the fits count parameters as '{convention}', and no run of ours does")
    return float(value)


def shapes_near(experiment: Experiment, params: float) -> list[ModelConfig]:
    """Shapes to choose from, in order of their parameters: those of the ladder, and for one of
    widths all others by the recipe's rule, as far as they are within a factor 40 of `params`."""
    spec, rules, vocab = experiment.ladder, experiment.recipe, experiment.data.vocab_size
    if spec.table:
        shapes = ladder.read_table(spec.table)
        shapes = [replace(s, definition=rules.definition, vocab_size=vocab) for s in shapes]
    elif spec.shapes:
        shapes = [replace(shape, vocab_size=vocab) for shape in spec.shapes]
    else:
        heads = {w: w // recipe.head_size_for_width(w) for w in _FINE}
        fine = [w for w in _FINE if heads[w] % rules.heads_per_kv_head == 0]
        widths = sorted({*spec.widths, *recipe.widths(rules), *fine})
        shapes = [recipe.shape_for_width(width, rules, vocab) for width in widths]
    total = {shape: count_params(shape).total for shape in shapes}
    near = [s for s in shapes if 1 / _SEARCHED < total[s] / params < _SEARCHED]
    return sorted(near or shapes, key=lambda shape: total[shape])


def only(ladder: LadderConfig, shapes: Sequence[ModelConfig]) -> LadderConfig:
    """The ladder with these shapes alone, each at every budget and no further seed of any."""
    every = replace(ladder, sizes_per_budget=(0,), replicates_up_to=())
    if ladder.widths:
        return replace(every, widths=tuple(shape.width for shape in shapes))
    return replace(every, table="", shapes=tuple(shapes))

"""The shapes of an experiment, from the smallest to the largest."""

import csv
from dataclasses import replace
from pathlib import Path

from chinchilla_jax import techniques
from chinchilla_jax.experiment import points
from chinchilla_jax.experiment import recipe as rules
from chinchilla_jax.experiment.config import Experiment
from chinchilla_jax.experiment.counting import count_params
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.points import Point
from chinchilla_jax.experiment.schema import nearest
from chinchilla_jax.experiment.vary import Variant

TABLES = Path(__file__).resolve().parents[1] / "third_party"  # a link in a checkout


def trained_shapes(experiment: Experiment) -> list[ModelConfig]:
    """The shapes of the experiment as they are trained, in the order of the planned ones.

    Raises:
      UserError: an unknown table, a width that cannot be split into heads, or a shape that a
        technique cannot have.
    """
    shapes = planned_shapes(experiment)
    return [techniques.trained_shape(shape, experiment.techniques) for shape in shapes]


def rungs(variant: Variant[Experiment]) -> dict[int, ModelConfig]:
    """The shapes that a variant trains, by their place on the ladder."""
    experiment = variant.experiment
    return {
        place: techniques.trained_shape(shape, experiment.techniques)
        for place, shape in enumerate(planned_shapes(experiment))
        if variant.setting.at_width(shape.width)
    }


def shape_of(experiment: Experiment, point: Point) -> ModelConfig:
    """The shape of a single cell beside the grid."""
    if experiment.ladder.widths:
        return rules.shape_for_width(point.width, experiment.recipe, experiment.data.vocab_size)
    return points.shape_of(point, planned_shapes(experiment))


def planned_shapes(experiment: Experiment) -> list[ModelConfig]:
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

"""Single cells beside the grid."""

import dataclasses

import pytest

from chinchilla_jax.experiment import grid
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.loading import load_experiment
from chinchilla_jax.experiment.points import Point
from chinchilla_jax.experiment.schema import from_json, to_json
from chinchilla_jax.experiment.source import source
from tests.experiment.test_vary import experiment

LADDER = LadderConfig(widths=(8, 16, 24, 32), sizes_per_budget=(2,))


def planned(**changes):
    cells = grid.plan(experiment(ladder=LADDER, **changes))
    return {cell.run.run_id: cell for cell in cells if cell.status == "planned"}


def test_points_add_their_cells_and_change_no_other():
    points = (
        Point(budget=3e11, width=16),  # a new budget
        Point(budget=1e11, width=12),  # a new size
        Point(budget=1e11, width=16, seed=1),  # a new seed
    )
    plain, cells = planned(), planned(points=points)
    assert cells.keys() - plain.keys() == {"3e11-16x2-s0", "1e11-12x2-s0", "1e11-16x2-s1"}
    assert all(cells[name].run == cell.run for name, cell in plain.items())
    assert [cell.index for cell in cells.values()][: len(plain)] == [
        cell.index for cell in plain.values()
    ]
    new = cells["3e11-16x2-s0"]
    assert abs(new.flops / 3e11 - 1) < 0.01 and new.run.budget == 3e11
    assert cells["1e11-16x2-s1"].run.seed == 1
    # As a grid of that budget, size and seed would have planned it.
    every = dataclasses.replace(LADDER, sizes_per_budget=(0,))
    like = {c.run.run_id: c for c in grid.plan(experiment(ladder=every, budgets=(3e11,)))}
    assert fingerprint(like["3e11-16x2-s0"].run) == fingerprint(new.run)


def test_a_point_takes_the_place_of_a_cell_that_the_grid_would_not_run():
    every = grid.plan(experiment(ladder=LADDER))
    far = next(cell for cell in every if "not among" in cell.reason)
    point = Point(budget=far.run.budget, width=far.run.model.width)
    cells = grid.plan(experiment(ladder=LADDER, points=(point,)))
    assert cells[far.index].status == "planned" and cells[far.index].run == far.run
    assert len(cells) == len(every)
    # One that the grid runs anyway changes nothing.
    near = next(cell for cell in every if not cell.reason)
    same = Point(budget=near.run.budget, width=near.run.model.width)
    assert grid.plan(experiment(ladder=LADDER, points=(same,))) == every


def test_a_point_is_run_with_every_value_of_what_varies_and_its_own_seed():
    vary = {"recipe.base_lr": (0.004, 0.006), "seed": (0, 1)}
    plain = planned(vary=vary)
    point = Point(budget=3e11, width=16, seed=5)
    added = planned(vary=vary, points=(point,)).keys() - plain.keys()
    assert added == {"3e11-16x2-base_lr_0.004-s5", "3e11-16x2-base_lr_0.006-s5"}


def test_a_point_outside_the_sensible_range_is_rejected_with_its_reason():
    cells = grid.plan(experiment(ladder=LADDER, points=(Point(budget=1e8, width=16),)))
    assert cells[-1].status == "rejected" and "tokens per parameter" in cells[-1].reason


def test_points_are_written_and_read_and_change_no_fingerprint(tmp_path):
    mine = experiment(points=(Point(budget=1e11, width=12, seed=2),))
    assert from_json(Experiment, to_json(mine), "config") == mine
    assert "points" not in to_json(experiment())
    assert fingerprint(mine) == fingerprint(experiment())
    file = tmp_path / "more.py"
    file.write_text(source(mine, "More."))
    assert load_experiment(str(file)) == mine


@pytest.mark.parametrize(
    "points,told",
    [
        ((Point(budget=1e11, width=8),) * 2, "is given twice"),
        ((Point(budget=1e11, width=9),), "must be positive and even"),
    ],
)
def test_mistakes_are_told(points, told):
    with pytest.raises(UserError, match=told):
        grid.plan(experiment(points=points))


def test_a_shape_of_a_table_is_told_by_width_and_depth():
    table = LadderConfig(table="chinchilla_table_a9", sizes_per_budget=(4,))
    base = experiment(budgets=(1e19,), ladder=table, flops_convention="six_nd")
    base = dataclasses.replace(base, recipe=dataclasses.replace(base.recipe, sequence_length=2048))
    with pytest.raises(UserError, match="none of the ladder's"):
        grid.plan(dataclasses.replace(base, points=(Point(budget=1e19, width=100),)))
    with pytest.raises(UserError, match="shapes of the ladder have it"):
        grid.plan(dataclasses.replace(base, points=(Point(budget=1e19, width=640),)))

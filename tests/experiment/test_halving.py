"""Successive halving: who goes on, what it costs, and what it says of the full grid."""

import math

import pytest

from chinchilla_jax.experiment import grid, halving
from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.counting import forward_flops
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.loading import load_experiment
from chinchilla_jax.experiment.recipe import shape_for_width
from chinchilla_jax.experiment.shapes import of_equal_cost

LIKE = shape_for_width(32, RecipeConfig(), 256)
SHAPES = of_equal_cost(LIKE, 64, (16, 24, 32, 48, 64), (1, 2, 3, 4, 6), (8, 16, 32), (1, 2))


def planned(seeds=(0,), budgets=(1e10, 3e10, 1e11), **changed):
    ladder = LadderConfig(
        shapes=tuple(SHAPES), sizes_per_budget=(0,), min_tokens_per_param=0.1, min_steps=1
    )
    return grid.plan(
        Experiment(name="search", budgets=budgets, ladder=ladder, vary={"seed": seeds} | changed)
    )


def quality(run):
    """A loss that a budget does not reorder: best of width 32 and depth 3."""
    shape = run.model
    off = abs(math.log(shape.width / 32)) + abs(math.log(shape.depth / 3)) + shape.kv_heads / 100
    return 1 + off + 1e9 / run.budget


def late(run):
    """A shape that is bad until it trains long."""
    return 0.5 if run.model.width == 64 and run.budget == 1e11 else quality(run)


def trained(cells, names=None, loss=quality):
    return {
        c.run.run_id: {"loss": loss(c.run)} for c in cells if names is None or c.run.run_id in names
    }


def searched(cells, loss=quality):
    """The rungs, by making only the runs asked for, and these runs' ids."""
    rows, rungs = {}, halving.search(cells, {}, 3)
    while not halving.is_over(rungs, cells):
        rows |= trained(rungs[-1].runs, loss=loss)
        rungs = halving.search(cells, rows, 3)
    return rungs, rows


def test_shapes_cost_the_same_to_serve_and_differ_in_everything():
    cost = forward_flops(LIKE, 1, 64)
    assert len(SHAPES) == len(set(SHAPES)) > 20 and LIKE in SHAPES
    for shape in SHAPES:
        assert forward_flops(shape, 1, 64) == pytest.approx(cost, rel=0.02)
        assert 0.5 <= shape.ff_size / shape.width <= 8
    for name in ("width", "depth", "heads", "kv_heads", "head_size", "ff_size"):
        assert len({getattr(shape, name) for shape in SHAPES}) > 1
    with pytest.raises(UserError, match="both sides"):
        of_equal_cost(LIKE, 64, (256,), (4,))


def test_the_best_third_goes_on_and_the_best_is_picked_for_a_third_of_the_flops():
    cells = planned()
    rungs, rows = searched(cells)
    n = len(SHAPES)
    assert [len(rung.cells) for rung in rungs] == [n, n // 3, n // 9]
    assert [rung.kept for rung in rungs] == [n // 3, n // 9, 1]
    best = min(cells, key=lambda cell: quality(cell.run) if cell.run.budget == 1e11 else math.inf)
    assert rungs[-1].cells[0][0] is best
    spent = sum(cell.flops for cell in cells if cell.run.run_id in rows)
    full = sum(cell.flops for cell in cells if cell.run.budget == 1e11)
    assert spent <= full / 3
    said = halving.text(rungs, cells, rows)
    assert best.run.run_id in said and "full grid" not in said
    assert f"{spent / full:.2f} of the" in said


def test_the_full_grid_says_what_the_search_lost():
    cells = planned()
    rungs, _ = searched(cells, late)
    said = halving.text(rungs, cells, trained(cells, loss=late))
    picked = rungs[-1].losses[0]
    assert f"{100 * (picked / 0.5 - 1):.2f} % above; the lowest of" in said
    rungs, _ = searched(cells)
    assert halving.text(rungs, cells, trained(cells)).endswith("0.00 % above")


def test_seeds_are_averaged_and_a_diverged_one_is_out():
    cells = planned(seeds=(0, 1))
    rungs = halving.search(cells, {}, 3)
    assert len(rungs) == 1 and len(rungs[0].runs) == 2 * len(SHAPES)
    best = min(SHAPES, key=lambda s: abs(math.log(s.width / 32)) + abs(math.log(s.depth / 3)))

    def one_diverged(run):
        return None if run.model == best and run.seed == 1 else quality(run) + run.seed

    rungs, _ = searched(cells, one_diverged)
    assert all(cell.run.model != best for rung in rungs[1:] for cell in rung.runs)
    assert rungs[0].losses[-1] is None and rungs[0].cells[-1][0].run.model == best
    first = rungs[-1].cells[0]
    assert {cell.run.seed for cell in first} == {0, 1}
    assert rungs[-1].losses[0] == pytest.approx(quality(first[0].run) + 0.5)
    with pytest.raises(UserError, match="diverged"):
        halving.search(cells, trained(cells, loss=lambda run: None), 3)


def test_a_search_that_is_stopped_goes_on_where_it_was():
    cells = planned()
    rungs, rows = searched(cells)
    half = dict(list(rows.items())[: len(SHAPES) + 2])
    again = halving.search(cells, half, 3)
    assert len(again) == 2 and not halving.is_over(again, cells)
    assert {c.run.run_id for c in again[-1].runs} == {c.run.run_id for c in rungs[1].runs}


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"budgets": (1e11,)}, "two budgets"),
        ({"recipe.base_lr": (0.003, 0.006)}, "recipe.lr_multiplier"),
    ],
)
def test_what_cannot_be_searched_is_one_line(changed, words):
    with pytest.raises(UserError, match=words):
        halving.ladder(planned(**changed))


def test_rates_are_candidates_as_shapes_are():
    cells = planned(**{"recipe.lr_multiplier": (1.0, 2.0)})
    assert len(halving.search(cells, {}, 3)[0].cells) == 2 * len(SHAPES)


def test_a_candidate_without_a_run_at_a_budget_is_one_line():
    cells = planned()
    lacking = [c for c in cells if c.index != cells[-1].index]
    with pytest.raises(UserError, match="sizes_per_budget=0"):
        halving.ladder(lacking)
    seeds = planned(seeds=(0, 1))  # as replicates of the smaller budgets leave them
    lacking = [c for c in seeds if c.run.seed == 0 or c.run.budget < 1e11]
    with pytest.raises(UserError, match=r"has 2 seeds, and 1 at 1e11 FLOPs.*replicates_up_to"):
        halving.ladder(lacking)


@pytest.mark.parametrize("factor", [1.0, 0.5, math.nan, math.inf])
def test_a_factor_that_lets_all_pass_is_one_line(factor):
    with pytest.raises(UserError, match="above 1"):
        halving.search(planned(), {}, factor)


def test_branches_are_not_searched():
    experiment = load_experiment("configs/branches.py", [("vary.seed", "0")])
    with pytest.raises(UserError, match=r"ladder\.branches=False"):
        halving.ladder(grid.plan(experiment))


def test_a_mean_over_seeds_is_called_one():
    cells = planned(seeds=(0, 1))
    rungs, _ = searched(cells, late)
    said = halving.text(rungs, cells, trained(cells, loss=late))
    assert "mean of 2 seeds" in said and said.endswith("% above")


def test_what_a_search_leaves_out_is_known_as_it_goes(tmp_path):
    cells = planned()
    n = len(SHAPES)
    assert not halving.left_out(tmp_path, cells, {})  # no search
    halving.begin(tmp_path, cells, 3)
    assert not halving.left_out(tmp_path, cells, {})  # nothing is decided
    rungs, rows = searched(cells)
    first = {name: rows[name] for name in (cell.run.run_id for cell in rungs[0].runs)}
    out = halving.left_out(tmp_path, cells, first)
    at = {cell.run.run_id: cell.run.budget for cell in cells}
    assert sorted(at[name] for name in out) == [3e10] * (n - n // 3) + [1e11] * (n - n // 3)
    out = halving.left_out(tmp_path, cells, rows)
    assert len(out) == len(cells) - len(rows) and not out & rows.keys()
    # Of a part of the grid the rest was never searched.
    part = [cell for cell in cells if cell.run.model in SHAPES[:9]]
    halving.begin(tmp_path, part, 3)
    names = {cell.run.run_id for cell in part}
    assert len(halving.left_out(tmp_path, cells, rows)) <= len(names - rows.keys())
    halving.end(tmp_path)
    assert not halving.left_out(tmp_path, cells, rows)
    for damaged in (
        "[3]",
        '{"halving": 2, "runs": []}',
        '{"halving": 2, "runs": "abc"}',
        '{"halving": 1, "runs": ["a"]}',
        '{"halving": "3", "runs": ["a"]}',
    ):
        (tmp_path / "search.json").write_text(damaged)
        with pytest.raises(UserError, match=r"search\.json: says nothing of a search; remove it"):
            halving.left_out(tmp_path, cells, rows)


def test_rows_of_a_search_say_what_it_left_out(tmp_path):
    cells = planned()
    halving.begin(tmp_path, cells, 3)
    _, done = searched(cells)
    rows = [
        {"run_id": c.run.run_id, "status": "done" if c.run.run_id in done else "missing",
         **done.get(c.run.run_id, {})}
        for c in cells
    ]  # fmt: skip
    halving.mark(tmp_path, cells, rows)
    left = [row for row in rows if row["status"] == halving.LEFT_OUT]
    assert len(left) == len(cells) - len(done) and "--halving" in left[0]["reason"]
    assert {row["status"] for row in rows} == {"done", halving.LEFT_OUT}

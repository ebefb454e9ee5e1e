"""Trunks and branches in a plan: who goes on from whom, and what is spent once."""

import dataclasses
import math

import pytest

from chinchilla_jax.experiment import plans, records, tables
from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.numbers import flops
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.experiment.points import Point
from chinchilla_jax.experiment.recipe import batch_size, learning_rate
from chinchilla_jax.experiment.rows import completed, row_of
from chinchilla_jax.experiment.schema import from_json, to_json
from chinchilla_jax.experiment.trunks import from_start, marginal_flops
from chinchilla_jax.training import branch_points

BUDGETS = (1e11, 3e11, 1e12)
RECIPE = RecipeConfig(schedule="wsd", cooldown_fraction=0.25, decay_timescale=0.0)


def experiment(**changes):
    ladder = LadderConfig(widths=(8, 12, 16, 32, 64), sizes_per_budget=(3,), branches=True)
    values = {"name": "t", "budgets": BUDGETS, "ladder": ladder, "recipe": RECIPE}
    return Experiment(**(values | changes))


def planned(**changes):
    return [cell for cell in plan(experiment(**changes)) if cell.status == "planned"]


def families(cells):
    """Trunks by their run id, each with the runs that are its branches."""
    runs = [cell.run for cell in cells]
    found = {run.run_id: (run, []) for run in runs if run.parent is None}
    for run in runs:
        if run.parent:
            found[run.parent.run][1].append(run)
    return found


def test_the_longest_run_of_a_size_and_seed_is_the_trunk_of_the_others():
    cells = planned(vary={"seed": (0, 1)})
    assert len(families(cells)) == 2 * len({cell.run.model for cell in cells})
    for trunk, branches in families(cells).values():
        alike = {(r.model, r.seed, r.batch_size, r.optimizer) for r in (trunk, *branches)}
        assert len(alike) == 1  # the same rate, batch and warm-up, so the same beginning
        assert all(run.steps < trunk.steps for run in branches)
        assert {(b.run, b.step) for b in trunk.branches} == {
            (run.run_id, run.parent.step) for run in branches
        }
        for run in branches:
            assert run.parent.step == run.first_step == math.floor(0.75 * run.steps)
            assert run.parent.fingerprint == fingerprint(trunk)


def test_the_recipe_of_a_trunk():
    trunk, branches = max(families(planned()).values(), key=lambda family: len(family[1]))
    assert len(branches) == 2
    lengths = [run.tokens for run in (trunk, *branches)]
    middle = math.sqrt(min(lengths) * max(lengths))
    assert trunk.batch_size == batch_size(middle, RECIPE)
    assert trunk.optimizer.learning_rate == learning_rate(trunk.batch_size, RECIPE)
    assert trunk.optimizer.warmup_steps == round(0.2 * min(run.steps for run in branches))
    assert trunk.optimizer.weight_decay == 0.0


def test_further_seeds_of_small_budgets_are_trunks_with_the_batch_of_the_first():
    ladder = dataclasses.replace(experiment().ladder, replicates_up_to=(3e11, 1e11))
    plain, cells = planned(), planned(ladder=ladder)
    assert [c.run for c in cells[: len(plain)]] == [c.run for c in plain]
    of_seed = {seed: [c.run for c in cells if c.run.seed == seed] for seed in (0, 1, 2)}
    for seed, most in ((1, 3e11), (2, 1e11)):
        assert of_seed[seed] and {r.budget for r in of_seed[seed]} == {
            b for b in BUDGETS if b <= most
        }
        first = {(r.budget, r.model): r for r in of_seed[0]}
        for run in of_seed[seed]:
            like = first[run.budget, run.model]
            assert (run.batch_size, run.steps, run.optimizer) == (
                like.batch_size, like.steps, like.optimizer
            )  # fmt: skip
    # The longest of a seed is its trunk, whatever the first seed's is.
    seeds = {trunk.seed: len(of) for trunk, of in families(cells).values() if of}
    assert seeds == {0: 2, 1: 1} or set(seeds) == {0, 1}
    for trunk, branches in families(cells).values():
        assert {run.seed for run in branches} <= {trunk.seed}
        assert all(run.steps < trunk.steps for run in branches)


def test_a_point_is_one_more_run_of_its_sizes_trunk():
    """Else a further seed of a cell would be another setting of it, of which the best counts."""
    points = (
        Point(budget=1e11, width=16, seed=5),
        Point(budget=3e11, width=16, seed=5),
        Point(budget=2e11, width=16),  # between the budgets of a trunk
        Point(budget=3e12, width=32, seed=5),  # beyond them
        Point(budget=1e11, width=24),  # a size that the ladder lacks
        Point(budget=1e12, width=24),
    )
    plain, cells = planned(), planned(points=points)
    runs = {(c.run.budget, c.run.model.width, c.run.seed): c.run for c in cells}
    assert {c.run.run_id for c in plain} < {c.run.run_id for c in cells}
    assert all(fingerprint(runs[c.run.budget, c.run.model.width, 0]) == fingerprint(c.run)
               for c in plain)  # fmt: skip
    for budget in (1e11, 3e11):
        old, new = runs[budget, 16, 0], runs[budget, 16, 5]
        assert fingerprint(dataclasses.replace(new, seed=0)) == fingerprint(old)
    # The runs of one size and seed share a trunk, those of points too.
    assert runs[1e11, 16, 5].parent.run == runs[3e11, 16, 5].run_id
    between, trunk = (
        runs[2e11, 16, 0],
        max((c.run for c in plain if c.run.model.width == 16), key=lambda run: run.steps),
    )
    assert between.parent.run == trunk.run_id and between.optimizer == trunk.optimizer
    assert between.run_id in {branch.run for branch in runs[trunk.budget, 16, 0].branches}
    assert runs[1e11, 24, 0].parent.run == runs[1e12, 24, 0].run_id
    far = runs[3e12, 32, 5]
    assert (
        far.parent is None and far.batch_size == batch_size(far.tokens, RECIPE) > trunk.batch_size
    )


def test_flops_are_spent_once_and_counted_as_if_alone():
    cells = planned()
    for trunk, branches in families(cells).values():
        step = row_of(trunk)["flops"] // trunk.steps
        own = trunk.steps + sum(run.steps - run.parent.step for run in branches)
        assert sum(map(marginal_flops, (trunk, *branches))) == step * own
    for cell in cells:
        assert cell.flops == pytest.approx(cell.run.budget, rel=0.01)
    rows = completed([row_of(cell.run) for cell in cells])
    assert sum(row["marginal_flops"] for row in rows) == sum(marginal_flops(c.run) for c in cells)
    alone = [row for row in rows if "parent_run" not in row]
    assert alone and all(row["marginal_flops"] == row["flops"] for row in alone)
    text = tables.plan(plan(experiment()))
    trunks = sum(bool(cell.run.branches) for cell in cells)
    branches = sum(bool(cell.run.parent) for cell in cells)
    assert f"by {trunks} trunks, of which {branches} runs are branches: " in text
    share = sum(marginal_flops(c.run) for c in cells) / sum(c.flops for c in cells)
    assert f"{100 * share:.0f} % of the" in text and 0.5 < share < 0.9
    branch = next(cell.run for cell in cells if cell.run.parent)
    assert f"{branch.parent.run} at {branch.parent.step}" in text


def test_what_was_begun_before_its_trunk_was_planned_is_told_as_it_is(tmp_path):
    """The former trunk goes on from its own state; what is over has had whatever trunk it had."""
    cells = planned()
    of = max(families(cells).items(), key=lambda family: len(family[1][1]))[0]
    first, *others = (c for c in cells if c.run.parent and c.run.parent.run == of)
    cells = [
        dataclasses.replace(c, run=from_start(c.run)) if c.run == first.run else c for c in cells
    ]
    for cell in (first, others[0]):
        run = dataclasses.replace(cell.run, parent=None)
        records.run_directory(tmp_path, run.run_id).start(run)
    begun = branch_points.begun(cells, tmp_path)
    assert begun == {first.run.run_id: False, others[0].run.run_id: False}
    text = tables.plan(cells, begun)
    assert f"{flops(first.flops, 4)} by 1 runs that were begun from their start, and" in text
    assert "begun without them" not in text
    assert text.count(f" {of} at ") == len(others)
    records.run_directory(tmp_path, others[0].run.run_id).finish(
        others[0].run, "done", "", {"loss": 2.0}
    )
    text = tables.plan(cells, branch_points.begun(cells, tmp_path))
    assert text.count(f" {of} at ") == len(others) - 1
    assert "by 1 runs from their start: their trunks were begun without" in tables.plan(cells)


def test_a_branch_is_the_run_that_is_trained_alone():
    branch = next(cell.run for cell in planned() if cell.run.parent)
    trunk = next(cell.run for cell in planned() if cell.run.branches)
    assert fingerprint(branch) == fingerprint(dataclasses.replace(branch, parent=None))
    assert fingerprint(trunk) == fingerprint(dataclasses.replace(trunk, branches=()))
    for run in (branch, trunk):
        assert from_json(type(run), to_json(run), "run") == run
    row = row_of(branch)
    assert (row["parent_run"], row["parent_step"]) == (branch.parent.run, branch.parent.step)
    assert not {"parent_fingerprint", "branches"} & set(row)


def test_without_branches_nothing_knows_of_them():
    ladder = dataclasses.replace(experiment().ladder, branches=False)
    for cell in planned(ladder=ladder):
        assert cell.run.parent is None and not cell.run.branches
        assert not {"parent_run", "marginal_flops", "optimizer_warmup_steps"} & set(
            row_of(cell.run)
        )
    assert "marginal" not in tables.plan(plan(experiment(ladder=ladder)))


def test_a_larger_budget_would_change_begun_trunks_and_that_is_why_it_is_refused(tmp_path):
    source = experiment()
    plans.write_plan(tmp_path, source, plan(source), {})
    larger = experiment(budgets=(*BUDGETS, 3e12))
    after = {c.run.run_id: c.run.batch_size for c in plan(larger)}
    run = next(r for r in (c.run for c in plan(source)) if after[r.run_id] != r.batch_size)
    records.run_directory(tmp_path, run.run_id).start(run)
    with pytest.raises(UserError) as refused:
        plans.write_plan(tmp_path, larger, plan(larger), {})
    said = str(refused.value)
    assert f"run {run.run_id} was begun under another plan (" in said
    assert "share a trunk" in said and "a budget which is added changes them all" in said
    assert said.endswith("use another --workdir")
    alone = experiment(ladder=dataclasses.replace(source.ladder, branches=False))
    with pytest.raises(UserError) as refused:
        plans.write_plan(tmp_path, alone, plan(alone), {})
    said = str(refused.value)
    assert "; ladder.branches was True, now False, and runs of a size" in said
    assert "budget which is added" not in said


def test_a_technique_that_follows_the_length_of_a_run_has_no_trunk():
    sparse = Setting(values={"techniques.sparsity.level": 0.5})
    late = Setting(values={"techniques.quantisation.bits": 4, "techniques.quantisation.start": 0.5})
    early = Setting(values={"techniques.quantisation.bits": 4})
    cells = planned(panel={"sparse": sparse, "late": late, "early": early})
    for name, shares in (("sparse", False), ("late", False), ("early", True)):
        runs = [cell.run for cell in cells if f"-{name}-" in cell.run.run_id]
        assert any(run.parent for run in runs) == shares and len(runs) == 9


@pytest.mark.parametrize("change", [{"schedule": "linear"}, {"cooldown_fraction": 0.0}])
def test_branches_of_a_rate_that_does_not_stay_are_refused(change):
    with pytest.raises(UserError, match=r"ladder.branches = True: .*set recipe.schedule=wsd and a"):
        experiment(recipe=dataclasses.replace(RECIPE, **change))


def test_too_few_steps_under_the_batch_of_the_trunk_is_a_reason():
    ladder = dataclasses.replace(experiment().ladder, min_steps=1100)
    cells = plan(experiment(ladder=ladder))
    for trunk, branches in families([c for c in cells if c.status == "planned"]).values():
        steps = [run.steps for run in (trunk, *branches)]
        assert min(steps) >= 1100 and trunk.optimizer.warmup_steps == round(0.2 * min(steps))

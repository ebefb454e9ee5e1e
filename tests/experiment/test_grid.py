"""The grid keeps its promises: exact FLOPs, whole steps, reasons for what is left out."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chinchilla_jax.experiment import grid
from chinchilla_jax.experiment.config import (
    CONVENTIONS,
    DataConfig,
    Experiment,
    LadderConfig,
    RecipeConfig,
)
from chinchilla_jax.experiment.counting import flops_per_step
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.model import ModelConfig

WIDTHS = (8, 12, 16, 24, 32, 48, 64, 96, 128, 160)


def experiment(**changes):
    values = {"name": "t", "budgets": (1e11, 1e12), "ladder": LadderConfig(widths=WIDTHS)}
    return Experiment(**(values | changes))


@settings(max_examples=30, deadline=None)
@given(
    st.floats(5e10, 1e14),
    st.sampled_from(CONVENTIONS),
    st.sampled_from(("modern", "chinchilla")),
)
def test_every_planned_cell_spends_its_budget_within_one_percent(budget, convention, definition):
    cells = grid.plan(
        experiment(
            budgets=(budget,),
            flops_convention=convention,
            recipe=RecipeConfig(definition=definition),
        )
    )
    for cell in cells:
        run = cell.run
        spent = run.steps * flops_per_step(run.model, run.batch_size, 64, convention)
        assert cell.flops == spent
        assert cell.tokens == run.steps * run.batch_size * 64
        if cell.status == "planned":
            assert spent == pytest.approx(budget, rel=0.01)
        else:
            assert cell.reason


def test_six_sizes_around_the_expected_optimum_and_the_rest_with_reasons():
    cells = grid.plan(experiment(budgets=(1e12,)))
    assert len(cells) == len(WIDTHS)
    ratios = {c.tokens / c.params: c for c in cells}
    planned = [r for r, c in ratios.items() if c.status == "planned"]
    assert len(planned) <= 6 and min(planned) < 20 < max(planned)
    assert {c.reason.split(", ")[-1] for c in cells if c.status == "rejected"} == {
        "over 1000",
        "under 1",
    }


def test_sizes_may_be_counted_budget_by_budget():
    budgets = (1e11, 3e11, 1e12)
    ladder = LadderConfig(widths=WIDTHS, sizes_per_budget=(4, 3, 1))
    planned = [c for c in grid.plan(experiment(budgets=budgets, ladder=ladder)) if not c.reason]
    assert [sum(c.run.budget == budget for c in planned) for budget in budgets] == [4, 3, 1]
    with pytest.raises(UserError, match=r"sizes_per_budget.*one for each of the 3 budgets"):
        experiment(budgets=budgets, ladder=LadderConfig(widths=WIDTHS, sizes_per_budget=(4, 3)))


def test_axes_multiply_and_ids_are_unique():
    few = LadderConfig(widths=(16, 24), sizes_per_budget=(0,))
    vary = {"recipe.lr_multiplier": (0.5, 1.0, 2.0), "seed": (0, 1)}
    cells = grid.plan(experiment(ladder=few, vary=vary))
    assert len(cells) == 2 * 2 * 2 * 3
    assert len({c.run.run_id for c in cells}) == len(cells)
    assert [c.index for c in cells] == list(range(len(cells)))
    rates = {(c.run.lr_multiplier): c.run.optimizer.learning_rate for c in cells[:6]}
    assert rates[2.0] == pytest.approx(4 * rates[0.5])


def test_small_budgets_have_further_seeds_after_all_other_cells():
    source = experiment(budgets=(1e11, 3e11, 1e12))
    many = replace(source, ladder=replace(source.ladder, replicates_up_to=(1e11, 3e11)))
    plain, cells = ([c for c in grid.plan(e) if c.status == "planned"] for e in (source, many))
    assert [c.run for c in cells[: len(plain)]] == [c.run for c in plain]
    further = [c.run for c in cells[len(plain) :]]
    assert {(r.budget, r.seed) for r in further} == {(1e11, 1), (1e11, 2), (3e11, 1)}
    assert further[0].run_id == plain[0].run.run_id.replace("-s0", "-s1")
    of_seed = {replace(r, seed=0, run_id=r.run_id[:-1] + "0") for r in further}
    assert of_seed == {c.run for c in plain if c.run.budget < 1e12}


def test_further_seeds_leave_alone_what_a_person_asks_for(caplog):
    """Seeds that vary are all, which is said; a budget beyond has one."""
    source = experiment(budgets=(1e11, 1e13))
    ladder = replace(source.ladder, replicates_up_to=(3e11,))
    varied = replace(source, ladder=ladder, vary={"seed": (0, 1)})
    assert [c.run for c in grid.plan(varied)] == [
        c.run for c in grid.plan(replace(varied, ladder=source.ladder))
    ]
    said = "ladder.replicates_up_to = (300000000000.0,): adds no seed, since vary.seed = (0, 1)"
    assert caplog.text.count(said) == 1
    beyond = replace(source, ladder=ladder, budgets=(1e13,))
    assert {c.run.seed for c in grid.plan(beyond)} == {0}


def test_shapes_that_share_width_and_depth_have_ids_of_their_own():
    def shape(heads):
        return ModelConfig(
            width=16, depth=2, heads=heads, kv_heads=heads, head_size=16 // heads, ff_size=48
        )

    cells = grid.plan(experiment(ladder=LadderConfig(shapes=(shape(1), shape(2)))))
    assert len({c.run.run_id for c in cells}) == len(cells)


def test_a_corpus_too_small_rejects_with_the_epochs_it_would_take():
    free = grid.plan(experiment(budgets=(1e12,)))
    most = max(c.tokens for c in free if c.status == "planned")
    cells = grid.plan(experiment(budgets=(1e12,)), train_tokens=int(most / 4.5))
    reasons = [c.reason for c in cells if "epochs" in c.reason]
    assert reasons and "over 4" in reasons[0]
    allowed = experiment(budgets=(1e12,), data=DataConfig(max_epochs=5.0))
    assert not any("epochs" in c.reason for c in grid.plan(allowed, int(most / 4.5)))


def test_before_the_corpus_is_there_its_cap_says_how_often_it_is_repeated():
    capped = experiment(budgets=(1e12,), data=DataConfig(max_megabytes=0.5))
    assert [c.reason for c in grid.plan(capped)] == [c.reason for c in grid.plan(capped, 500_000)]
    assert any("epochs" in c.reason for c in grid.plan(capped))
    assert not any("epochs" in c.reason for c in grid.plan(capped, 10**9))  # where it is known


def test_no_cell_left_is_an_error_with_the_reason():
    with pytest.raises(UserError, match="no cell is left to run"):
        grid.plan(experiment(budgets=(1e5,)))

"""Picking, splitting and naming conditions; the best settings of a cell inside one."""

import csv

import numpy as np
import pytest

from chinchilla_jax import flag_values
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.table import conditions
from chinchilla_jax.scaling.table.cells import lowest
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.conditions import three_optimizers

ROWS = three_optimizers(sizes=5, budgets=(1e18, 1e19, 1e20))


def crossed():
    """Three optimizers, each at two precisions."""
    return [row | {"bits": bits, "lr": 1e-3} for row in ROWS for bits in (4, 16)]


def numbers(runs):
    return [runs.params, runs.tokens, runs.flops, runs.loss, runs.group_R, runs.budget_G]


def test_a_condition_is_the_table_of_its_rows_alone():
    """Also its budgets: FLOPs of the others do not group with these."""
    rows = [{k: v for k, v in row.items() if k != "flops"} for row in ROWS]
    for row in rows:
        row["tokens"] *= {"adamw": 1.0, "muon": 1.5, "sgd": 1.05}[row["optimizer"]]
    for found in conditions.conditions(read_runs(rows)):
        alone = read_runs([row for row in rows if row["optimizer"] == found.values["optimizer"]])
        for ours, theirs in zip(numbers(found.runs), numbers(alone), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert found.runs.doubts == alone.doubts
        assert found.title == f"optimizer={found.values['optimizer']}"


def test_where_picks_and_numbers_compare_as_numbers():
    runs = read_runs(crossed())
    for bits in ("4", "4.0", "4e0"):
        picked = conditions.where(runs, {"bits": bits, "optimizer": "muon"})
        assert len(picked) == len(ROWS) / 3
        assert set(picked.labels["optimizer"]) == {"muon"} and set(picked.columns["bits"]) == {4}
        assert len(conditions.conditions(picked)) == 1
    assert len(conditions.conditions(conditions.where(runs, {"bits": "4"}))) == 3


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"optimiser": "muon"}, "no column 'optimiser'; did you mean optimizer"),
        ({"optimizer": "lion"}, "no run has it; optimizer is adamw, muon, sgd"),
        ({"bits": "8"}, "no run has it; bits is 4, 16"),
        ({"params": "nothing"}, "and 9 more"),
    ],
)
def test_where_names_what_there_is(asked, message):
    with pytest.raises(UserError, match=message) as told:
        conditions.where(read_runs(crossed()), asked)
    assert "\n" not in str(told.value)


def test_where_of_values_that_never_meet():
    rows = [row for row in crossed() if (row["optimizer"], row["bits"]) != ("muon", 4)]
    with pytest.raises(UserError, match="optimizer=muon,bits=4: no run has all of it"):
        conditions.where(read_runs(rows), {"optimizer": "muon", "bits": "4"})


def test_by_must_name_all_that_differs():
    runs = read_runs(crossed())
    with pytest.raises(UserError, match=r"differ in column bits \(4, 16\): add it to --by"):
        conditions.by(runs, ["optimizer"])
    both = conditions.conditions(conditions.by(runs, ["bits", "optimizer"]), ["bits", "optimizer"])
    assert [c.title for c in both[:2]] == ["bits=4, optimizer=adamw", "bits=4, optimizer=muon"]
    assert len(both) == 6
    with pytest.raises(UserError, match="--by=lr: the same in all runs"):
        conditions.by(conditions.where(runs, {"bits": "4", "optimizer": "sgd"}), ["lr"])
    with pytest.raises(UserError, match="--by=loss: it is fitted"):
        conditions.by(runs, ["loss"])
    with pytest.raises(UserError, match="no column 'bit'; did you mean bits"):
        conditions.by(runs, ["bit"])


def test_by_makes_a_setting_a_condition():
    rows = [row | {"lr": lr} for row in ROWS for lr in (1e-3, 2e-3) if row["optimizer"] == "sgd"]
    runs = read_runs(rows)
    assert len(runs) == len(rows) and len(runs.best()) == len(rows) / 2
    runs = conditions.by(runs, ["lr"])
    assert len(runs.best()) == len(rows)
    assert [c.title for c in conditions.conditions(runs)] == ["lr=0.001", "lr=0.002"]


def test_a_column_that_says_the_same_is_not_named_twice():
    of = {"adamw": ("f0", "first"), "muon": ("f1", "second"), "sgd": ("f2", "third")}
    rows = [
        {"data_fingerprint": of[row["optimizer"]][0], **row, "recipe": of[row["optimizer"]][1]}
        for row in ROWS
    ]
    runs = read_runs(rows)
    assert set(runs.names("condition")) == {"data_fingerprint", "optimizer", "recipe"}
    assert conditions.distinguishing(runs) == ["optimizer"]
    asked = conditions.by(runs, ["data_fingerprint"])
    assert [c.title for c in conditions.conditions(asked, ["data_fingerprint"])] == [
        "data_fingerprint=f0", "data_fingerprint=f1", "data_fingerprint=f2",
    ]  # fmt: skip


def test_one_column_that_tells_all_apart_suffices():
    rows = [row | {"recipe": f"{row['optimizer']}, {row['bits']} bits"} for row in crossed()]
    assert conditions.distinguishing(read_runs(rows)) == ["recipe"]
    runs = read_runs(rows)
    assert conditions.distinguishing(runs, ["bits", "optimizer"]) == ["bits", "optimizer"]


def test_the_choice_is_one_line_with_columns_values_and_both_flags():
    line = conditions.choice(read_runs(crossed()))
    assert "\n" not in line
    for words in (
        "columns optimizer (adamw, muon, sgd), bits (4, 16) tell 6 conditions apart",
        "--by=optimizer,bits",
        "--where=optimizer=adamw,bits=16",
    ):
        assert words in line


def test_the_best_settings_are_chosen_inside_the_condition():
    """Each optimizer has a rate and a schedule of its own, and seeds are averaged first."""
    best = {"adamw": (1e-3, "cosine"), "muon": (2e-3, "wsd"), "sgd": (1e-3, "wsd")}
    rows = []
    for row in three_optimizers(seeds=2, sizes=4, budgets=(1e18, 1e19)):
        for lr in (1e-3, 2e-3):
            for schedule in ("cosine", "wsd"):
                worse = 1.0 if (lr, schedule) == best[row["optimizer"]] else 1.01
                # A lucky seed of a bad setting, whose other seed is unlucky.
                luck = (0.98, 1.03)[row["seed"]] if worse > 1 else 1.0
                rows.append(
                    row | {"lr": lr, "schedule": schedule, "loss": row["loss"] * worse * luck}
                )
    runs = read_runs(rows)
    assert len(runs) == len(rows)  # what loses stays in the table
    kept = runs.best()
    assert len(kept) == len(rows) / 4
    for optimizer, (lr, schedule) in best.items():
        here = kept.labels["optimizer"] == optimizer
        assert set(kept.columns["lr"][here]) == {lr}
        assert set(kept.labels["schedule"][here]) == {schedule}
    # A law in the rate needs the best schedule at every rate.
    spanned = runs.select(runs.best_R(["lr"]))
    assert len(spanned) == len(rows) / 2
    assert all(len(set(spanned.columns["lr"][spanned.params == n])) == 2 for n in spanned.params)


def test_the_lowest_mean_of_each_cell():
    cell = np.array([0, 0, 0, 0, 1, 1])
    trial = np.array([0, 0, 1, 1, 2, 3])
    value = np.array([1.0, 3.0, 1.5, 1.6, 5.0, 4.0])
    assert lowest(cell, trial, value).tolist() == [False, False, True, True, False, True]


def test_replicates_without_a_seed_are_told():
    rows = [{k: v for k, v in row.items() if k != "seed"} for row in three_optimizers(seeds=3)]
    said = read_runs(rows).doubts
    assert any("no column of seeds tells them apart" in warning for warning in said)
    assert not any("seeds" in warning for warning in read_runs(three_optimizers(seeds=3)).doubts)


def test_curves_go_with_their_runs():
    """Those of another condition, or of a run that lost its cell, make no envelope."""
    rows = [
        row | {"run": f"{i}-{lr}", "lr": lr, "step": s, "tokens": row["tokens"] * s / 20,
               "flops": row["flops"] * s / 20,
               "loss": row["loss"] * (20 / s) ** 0.1 * (1 + 5 * lr)}
        for i, row in enumerate(ROWS)
        for lr in (1e-3, 2e-3)
        for s in range(1, 21)
    ]  # fmt: skip
    runs = read_runs(rows)
    assert len(runs) == len(runs.curves) == 2 * len(ROWS)
    picked = conditions.where(runs, {"optimizer": "muon"}).best()
    assert [curve.run_id for curve in picked.curves] == list(picked.run_id_R)
    assert len(picked) == len(ROWS) / 3 and set(picked.columns["lr"]) == {1e-3}


def test_conditions_may_cost_differently_and_a_unit_is_still_found():
    """All parameters of 64 experts: FLOPs a parameter are a fortieth of the dense model's."""
    rows = [
        row | {"experts": experts, "params": row["params"] * (1 if experts == 1 else 40)}
        for row in ROWS
        for experts in (1, 64)
        if row["optimizer"] == "sgd"
    ]
    runs = read_runs(rows)
    assert len(conditions.conditions(runs)) == 2
    wrong = [dict(row) for row in rows]
    wrong[4]["flops"] *= 1e3
    with pytest.raises(
        UserError, match=r"row 5, .* is 6e\+03 where the median row has 6; is a unit"
    ):
        read_runs(wrong)


def test_names_and_values_with_a_comma_or_an_equals_sign_are_picked():
    names = {"adamw": "a,b", "muon": "c=d", "sgd": "e"}
    rows = [
        {"opt=kind" if key == "optimizer" else key: names.get(value, value)
         for key, value in row.items()}
        for row in three_optimizers(sizes=5, budgets=(1e18, 1e19, 1e20))
    ]  # fmt: skip
    runs = read_runs(rows)
    assert "--where='\"opt=kind=a,b\"' picks one" in conditions.choice(runs)
    for value in names.values():
        (text,) = next(csv.reader([f'"opt=kind={value}"']))
        picked = conditions.where(runs, flag_values.pairs("where", [text]))
        assert picked.picked == {"opt=kind": value} and len(picked) == 15
    kinds = flag_values.pairs("kinds", ["opt=kind=seed"])
    assert read_runs(rows, kinds=kinds).kinds["opt=kind"].kind == "seed"
    renamed = [{"a,b" if k == "opt=kind" else k: v for k, v in row.items()} for row in rows]
    with pytest.raises(UserError, match="one with a comma in it is quoted: --by='\"a,b\"'"):
        conditions.by(read_runs(renamed), ["a", "b"])


def test_settings_of_a_panel_are_compared_where_that_is_asked_for():
    """Of recipes that differ in settings alone the best counts; --by=panel tells them apart."""
    rows = [
        {"params": n, "tokens": d, "loss": 3.0 + 0.1 * (panel != "") - n / 1e9, "panel": panel,
         "optimizer_schedule": "wsd" if panel else "linear"}
        for n in (1e7, 3e7, 9e7) for d in (1e9, 3e9) for panel in ("", "slow")
    ]  # fmt: skip
    runs = read_runs(rows)
    assert runs.kinds["panel"].kind == "identifier" and len(conditions.conditions(runs)) == 1
    assert len(runs.best()) == 6
    assert [one.title for one in conditions.conditions(conditions.by(runs, ["panel"]))] == [
        "panel=none",
        "panel=slow",
    ]


def test_batches_of_one_length_are_one_cell_though_whole_steps_round_it():
    rows = [
        {"params": n, "tokens": batch * round(d / batch), "batch": batch, "loss": 2 + batch / 1e4}
        for n in (1e4, 3e4) for d in (1e5, 1.1e5) for batch in (64, 448, 832)
    ]  # fmt: skip
    runs = read_runs(rows)
    assert len(runs.best()) == 4 and set(runs.columns["batch"][runs.best_R()]) == {64}
    assert set(conditions.lost_to(runs).values()) == {"batch=64 did better in this cell"}

"""What a panel is made of: the dense condition, stacks, derived rows, partners, charges."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.report.plots.league import forest, points
from chinchilla_jax.scaling.ruler.league import league
from chinchilla_jax.scaling.ruler.measures import charged
from chinchilla_jax.scaling.ruler.pairs import clusters, joined, pairs, trunks_of
from chinchilla_jax.scaling.ruler.panel import is_panel, of_one_text, panel
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import Condition, where
from chinchilla_jax.scaling.table.conventions import under as under_convention
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.ruler.laws import CASES, kumar, panel_of
from tests.techniques.toy import toy  # noqa: F401

DENSE = [row for row in panel_of(CASES["kumar"], noise=0.0) if row["technique"] == "dense"]


BASELINE = {"sparsity": "0", "bits": "16", "noise": "0"}


def under(technique, factor, **columns):
    """The dense rows with models worth `factor` times their size, in the inner cells."""
    return [
        row
        | {"technique": technique, "loss": kumar(factor * row["params"], row["tokens"])}
        | columns
        for row in DENSE[2:30]
    ]


def by_columns(rows):
    """The technique `sparse0.5+bits4` as two columns, sparsity and bits."""
    found = []
    for row in rows:
        parts = dict(p.split("=") for p in row["technique"].split("+") if "=" in p)
        rest = {k: v for k, v in row.items() if k != "technique"}
        found.append({"sparsity": "0", "bits": "16"} | parts | rest)
    return found


STACKED = by_columns(
    [*DENSE, *under("sparsity=0.5", 0.8), *under("bits=4", 0.7), *under("sparsity=0.5+bits=4", 0.5)]
)


def test_the_dense_condition_is_found_or_named():
    rows = [*DENSE, *under("half", 0.5)]
    assert panel(read_runs(rows)).dense.values == {"technique": "dense"}
    named = [row | {"technique": {"dense": "adamw"}.get(row["technique"], "muon")} for row in rows]
    with pytest.raises(UserError, match=r"none of its 2 conditions is the dense one.*--baseline="):
        panel(read_runs(named))
    assert panel(read_runs(named), baseline={"technique": "adamw"}).dense.values == {
        "technique": "adamw"
    }
    other = [{("kind" if k == "technique" else k): v for k, v in row.items()} for row in rows]
    with pytest.raises(UserError, match=r"has a technique on.*--by=COLUMN --baseline"):
        panel(read_runs(other), ["technique"])
    assert len(panel(read_runs(other), ["kind"], {"kind": "dense"}).others) == 1


def test_runs_that_differ_in_something_else_are_refused():
    rows = [row | {"optimizer": o} for row in [*DENSE, *under("half", 0.5)] for o in ("adamw", "x")]
    with pytest.raises(UserError, match="also differ in column optimizer"):
        panel(read_runs(rows))


def test_techniques_and_dense_runs_alone_make_a_panel():
    def rows(technique, **columns):
        found = by_columns(under(technique, 0.8)) if technique else by_columns(DENSE)
        plain = [{k: v for k, v in row.items() if k not in ("sparsity", "bits")} for row in found]
        return [row | columns for row in plain]

    dense, sparse = rows("", sparsity_level=0.0), rows("sparsity=0.5", sparsity_level=0.5)
    sparser = rows("sparsity=0.5", sparsity_level=0.75)
    assert is_panel(read_runs([*dense, *sparse]))
    assert not is_panel(read_runs(dense))
    assert not is_panel(read_runs([*sparse, *sparser]))
    by_optimizer = [row | {"optimizer": o} for row in [*dense, *sparse] for o in ("adamw", "lion")]
    assert not is_panel(read_runs(by_optimizer))


def sparse(**columns):
    """Dense rows, and sparse ones that have other values in `columns`."""
    rows = [row | {"sparsity_level": 0.0} for row in DENSE]
    rows += under("sparsity=0.5", 0.8, sparsity_level=0.5)
    for row in rows:
        del row["technique"]
        row |= {name: of[row["sparsity_level"] > 0] for name, of in columns.items()}
    return rows


@pytest.mark.parametrize(
    ("name", "values"),
    [("tokenizer_fingerprint", ("ab1", "cd2")), ("data_vocab_size", (256, 512)),
     ("measurement_eval_windows", (256, 512))],
)  # fmt: skip
def test_losses_that_are_not_of_one_unit_are_refused(name, values):
    runs = read_runs(sparse(**{name: values}))
    assert not is_panel(runs)
    with pytest.raises(UserError, match=rf"{name} is {values[1]} in .*=0.5 and {values[0]} in the"):
        panel(runs)
    assert is_panel(read_runs(sparse(**{name: values[:1] * 2})))


def test_what_differs_with_a_technique_is_in_the_doubts_of_its_league():
    found = {"data_path": ("a", "b"), "optimizer": ("adamw", "lion"), "definition": ("x", "y"),
             "optimizer_schedule": ("linear", "cosine")}  # fmt: skip
    for name, (dense, other) in found.items():
        made = panel(read_runs(sparse(**{name: (dense, other)})))
        (said,) = league(made, Settings(bootstrap=0))[0].warnings
        assert "sparse" in said and f"{name} ({other}, dense {dense})" in said
    assert not panel(read_runs(sparse(sparsity_ramp_end=(0.5, 0.75)))).warnings


def test_the_best_of_several_rates_against_one_is_in_the_doubts():
    rates = sparse(learning_rate=(1.0, 1.0))
    tried = [row | {"learning_rate": 2.0, "loss": 1.01 * row["loss"]} for row in rates]
    level = [row for row in tried if row["sparsity_level"] > 0]
    (said,) = panel(read_runs([*rates, *level])).warnings
    assert "best of 2 settings" in said and "of 1 in the dense one" in said
    assert not panel(read_runs([*rates, *tried])).warnings
    assert not panel(read_runs(rates)).warnings


def test_a_baseline_is_a_value_of_a_column_of_by():
    runs = read_runs([*DENSE, *under("half", 0.5)])
    for name, value in (("bits", "16"), ("seed", "1")):
        with pytest.raises(UserError, match=f"--baseline={name}={value}: .*there are technique"):
            panel(runs, baseline={name: value})
    with pytest.raises(UserError, match="did you mean technique"):
        panel(runs, baseline={"techniqe": "half"})
    with pytest.raises(UserError, match="=full: no run has it; technique is dense, half"):
        panel(runs, baseline={"technique": "full"})


def test_runs_picked_without_the_dense_ones_are_refused():
    picked = where(read_runs(sparse()), {"sparsity_level": "0.5"})
    with pytest.raises(UserError, match=r"--where=sparsity_level=0\.5: no dense run is left"):
        panel(picked, ["technique"])
    picked = where(read_runs([*DENSE, *under("half", 0.5)]), {"technique": "half"})
    with pytest.raises(UserError, match="no dense run is left"):
        panel(picked, ["technique"])


def test_a_stack_stands_beside_the_product_of_its_parts():
    made = panel(read_runs(STACKED), ["sparsity", "bits"], {"sparsity": "0", "bits": "16"})
    found = {one.label: one for one in league(made, Settings(bootstrap=100))[0].standings}
    assert set(found) == {"sparsity 0.5", "bits 4", "sparsity 0.5 + bits 4"}
    stack = found["sparsity 0.5 + bits 4"]
    assert set(stack.parts) == {"sparsity 0.5", "bits 4"}
    assert not found["bits 4"].parts and not found["bits 4"].stacks
    product = next(s for s in stack.stacks if s.measure == "params")
    assert product.product == pytest.approx(0.56, rel=1e-4)
    assert product.excess == pytest.approx(0.5 / 0.56, rel=1e-4)
    assert product.low - 1e-6 <= product.product <= product.high + 1e-6


def test_a_stack_is_measured_in_the_cells_that_its_parts_have():
    """Sparsity is worth less in large models, where the stack alone was run."""

    def sparse(part, bits):
        return [row | {"technique": f"sparsity=0.5{bits}",
                       "loss": kumar((0.8 if row["params"] < 6e7 else 0.4) * factor
                                     * row["params"], row["tokens"])}
                for row in part for factor in (0.7 if bits else 1.0,)]  # fmt: skip

    large = [row for row in DENSE[2:30] if row["params"] >= 6e7]
    assert 4 < len(large) < 24
    rows = [*DENSE, *sparse(DENSE[2:30], ""), *under("bits=4", 0.7), *sparse(large, "+bits=4")]
    made = panel(read_runs(by_columns(rows)), ["sparsity", "bits"], {"sparsity": "0", "bits": "16"})
    table, _ = league(made, Settings(bootstrap=100))
    found = {one.label: one for one in table.standings}
    stack = next(s for s in found["sparsity 0.5 + bits 4"].stacks if s.measure == "params")
    assert stack.product == pytest.approx(0.28, rel=1e-3)
    assert stack.excess == pytest.approx(1.0, rel=1e-3)
    alone = next(m for m in found["sparsity 0.5"].multipliers if m.measure == "params")
    assert alone.value > 0.45
    (said,) = table.warnings
    assert "different cells, of 14 in all" in said and "bits 4 14," in said.replace(";", ",")
    same = panel(read_runs(STACKED), ["sparsity", "bits"], {"sparsity": "0", "bits": "16"})
    assert not league(same, Settings(bootstrap=0))[0].warnings


def test_our_columns_are_read_as_techniques_and_derived_rows_with_them(toy):  # noqa: F811
    rows = [
        {**{k: v for k, v in row.items() if k != "technique"}, "toy_level": 0.0, "status": "done",
         "toy_twice": kumar(0.6 * row["params"], row["tokens"]), "run_id": f"r{i}"}
        for i, row in enumerate(DENSE)
    ]  # fmt: skip
    plain = read_runs(rows)
    assert len(plain) == len(rows)
    runs = read_runs(rows, derived=True)
    assert len(runs) == 2 * len(rows) and runs.run_id_R[-1] == f"r{len(rows) - 1}-twice"
    made = panel(runs, ["technique"])
    assert made.by == ("toy_level",) and len(made.dense.runs) == len(rows)
    (one,) = league(made, Settings(bootstrap=0))[0].standings
    assert one.label == "toy level 2" and one.paired == one.runs
    assert one.multipliers[0].value == pytest.approx(0.6, rel=1e-4)


def test_a_table_without_what_techniques_derive_is_read_as_it_is(toy):  # noqa: F811
    rows = [{k: v for k, v in row.items() if k != "technique"} for row in DENSE]
    assert read_runs(rows, derived=True).loss.tolist() == read_runs(rows).loss.tolist()


def test_partners_are_of_the_same_tokens_nearest_size_and_seed():
    rows = [*DENSE, *under("half", 0.5, params_active=1.0)]
    made = panel(read_runs(rows))
    one = made.others[0].runs
    found = pairs(one, made.dense.runs)
    assert found.share_RxS.sum(axis=1) == pytest.approx(1.0) and found.seeded_R.all()
    partner = found.share_RxS.argmax(axis=1)
    assert (made.dense.runs.tokens[partner] == one.tokens).all()
    assert (made.dense.runs.labels["seed"][partner] == one.labels["seed"]).all()
    elsewhere = [row | {"tokens": 1.5 * row["tokens"]} for row in under("half", 0.5)]
    lone = panel(read_runs([*DENSE, *elsewhere])).others[0].runs
    assert not pairs(lone, made.dense.runs).paired_R.any()
    experts = [row | {"params": 4 * row["params"], "params_active": row["params"]}
               for row in under("half", 0.5)]  # fmt: skip
    wide = panel(read_runs([row | {"params_active": row["params"]} for row in DENSE] + experts))
    again = pairs(wide.others[0].runs, wide.dense.runs)
    assert (again.share_RxS.argmax(axis=1) == partner).all()
    assert again.params_R == pytest.approx(found.params_R)


def test_a_shape_is_paired_with_the_dense_run_of_its_budget_whose_tokens_differ():
    """One that ends as low as the dense run of as many FLOPs is worth it, with fewer tokens."""
    dense = [row | {"budget": row["flops"]} for row in DENSE]
    deep = [row | {"technique": "deep", "tokens": 0.88 * row["tokens"]} for row in dense[2:30]]
    runs = panel(read_runs([*dense, *deep]))
    one, found = runs.others[0].runs, pairs(runs.others[0].runs, runs.dense.runs)
    partner = found.share_RxS.argmax(axis=1)
    assert found.seeded_R.all() and (runs.dense.runs.params[partner] == one.params).all()
    assert found.tokens_R == pytest.approx(one.tokens / 0.88)
    (standing,) = league(runs, Settings(bootstrap=0))[0].standings
    by_name = {m.measure: m.value for m in standing.multipliers}
    assert by_name["training"] == pytest.approx(1.0, rel=1e-4)
    assert by_name["tokens"] == pytest.approx(1 / 0.88, rel=1e-4)
    assert standing.change == pytest.approx(0.0, abs=1e-9)
    unknown = [{k: v for k, v in row.items() if k != "budget"} for row in [*dense, *deep]]
    lone = panel(read_runs(unknown))
    assert not pairs(lone.others[0].runs, lone.dense.runs).paired_R.any()


def test_runs_of_another_text_are_left_out_and_a_mixture_is_no_confound():
    columns = ("sparsity_level", "transfer_start", "data_mixed_with", "data_weights")

    def rows(part, text, **values):
        kept = [{k: v for k, v in row.items() if k != "technique"} for row in part]
        of = dict(zip(columns, (0.0, "", "", ""), strict=True)) | values
        return [row | of | {"data_fingerprint": text} for row in kept]

    mixed = rows(under("x", 0.8), "a+b", data_mixed_with=["b"], data_weights=[3.0, 1.0])
    begun = rows(under("x", 1.5), "a", transfer_start="first")
    first = [*rows(under("x", 3.0), "b"), *rows(under("x", 2.0), "b", sparsity_level=0.5)]
    table = [*rows(DENSE, "a"), *mixed, *begun, *first]
    for number, row in enumerate(table):
        row["run_id"], row["needs"] = f"r{number}", ""
        row["builder"] = "b" if row in first else "a"
    for row, other in zip(begun, first, strict=False):
        row["needs"] = other["run_id"]
    made = panel(read_runs(table))
    assert is_panel(read_runs(table))
    assert len(made.dense.runs) == len(DENSE) and not made.warnings
    assert [made.label(one.values) for one in made.others] == ["begun from first", "25 % b"]
    assert any(f"{len(first)} rows are of a text" in said for said in made.runs.notes)
    assert of_one_text(made.runs) is made.runs  # once is enough
    for row in begun:
        row["needs"] = ""
    with pytest.raises(UserError, match="also differ in column"):
        panel(read_runs(table))


def test_a_run_that_another_begins_from_is_charged_when_training_is():
    rows = [*DENSE, *under("begun", 1.5)]
    for row in rows:
        row["needs_flops"] = 3e17 if row["technique"] == "begun" else None
    runs = panel(read_runs(rows)).others[0].runs
    assert charged(runs, "teacher_forward") == pytest.approx(runs.flops)
    assert charged(runs, "teacher_all") == pytest.approx(runs.flops + 3e17)


def test_a_seed_that_no_dense_run_has_is_compared_with_its_cell():
    rows = [*DENSE, *(row | {"seed": 7} for row in under("half", 0.5) if row["seed"] == 0)]
    made = panel(read_runs(rows))
    found = pairs(made.others[0].runs, made.dense.runs)
    assert not found.seeded_R.any() and found.paired_R.all()
    assert set(np.round(found.share_RxS[found.share_RxS > 0], 6)) == {0.5}


def test_charges_add_and_take_off_the_teacher():
    rows = [*DENSE, *under("taught", 1.5)]
    for row in rows:
        taught = row["technique"] == "taught"
        row["flops_teacher"] = 0.25 * row["flops"] if taught else None
        row["needs_flops"] = 1e18 if taught else None
    runs = panel(read_runs(rows)).others[0].runs
    assert charged(runs, "student") == pytest.approx(0.75 * runs.flops)
    assert charged(runs, "teacher_forward") == pytest.approx(runs.flops)
    assert charged(runs, "teacher_all") == pytest.approx(runs.flops + 1e18)
    for row in rows:
        del row["needs_flops"]
    with pytest.raises(UserError, match=r"--charge=teacher_all: .* no column needs_flops"):
        charged(panel(read_runs(rows)).others[0].runs, "teacher_all")
    with pytest.raises(UserError, match="did you mean teacher_all"):
        charged(runs, "teacher_al")


@pytest.mark.parametrize("convention", ["as_given", "matmul", "chinchilla", "six_nd"])
@pytest.mark.parametrize("complete", [True, False])
def test_a_teacher_is_charged_in_every_convention(convention, complete):
    """By totals that have it, and by those of results in which only flops_matmul has it."""
    rows = [dict(row) for row in (*DENSE, *under("taught", 1.5))]
    for row in rows:
        own = 6 * row["params"] * row["tokens"]
        taught = 0.5 * own * (row["technique"] == "taught")
        row |= {
            "params_active": row["params"], "flops": own + taught, "flops_matmul": own + taught,
            "flops_teacher": taught or None, "needs_flops": 2 * taught or None,
        }  # fmt: skip
        row |= dict.fromkeys(("flops_chinchilla", "flops_six_nd"), own + taught * complete)
    made = panel(read_runs(rows))
    runs, dense = (under_convention(one.runs, "total", convention)
                   for one in (made.others[0], made.dense))  # fmt: skip
    own = 6 * runs.params * runs.tokens
    assert charged(dense, "teacher_all") == pytest.approx(6 * dense.params * dense.tokens)
    assert charged(runs, "student") == pytest.approx(own)
    assert charged(runs, "teacher_forward") == pytest.approx(1.5 * own)
    assert charged(runs, "teacher_all") == pytest.approx(2.5 * own)
    bare = [{k: v for k, v in row.items() if not k.startswith("flops")} | {
        "flops_teacher": row["flops_teacher"]} for row in rows]  # fmt: skip
    runs = panel(read_runs(bare)).others[0].runs
    assert charged(runs, "student") == pytest.approx(6 * runs.params * runs.tokens)


def test_flops_of_non_zero_parameters_measure_no_training():
    """6 N D is not what training a sparse model costs, where N are its non-zeros."""

    def sparse(name, **columns):
        rows = [*DENSE, *under("half", 1.5)]
        kept = [{"sparsity": 0.5 * (row["technique"] == "half"), name: row["params"],
                 "tokens": row["tokens"], "loss": row["loss"]} for row in rows]  # fmt: skip
        return [row | {k: f(row) for k, f in columns.items()} for row in kept]

    def training(rows, **settings):
        made = panel(read_runs(rows), ["sparsity"], {"sparsity": "0"})
        found, ruler = league(made, Settings(bootstrap=0, **settings))
        assert isinstance(points(found, ruler), Figure)
        assert isinstance(forest(found), Figure)
        training = next(m for m in found.standings[0].multipliers if m.measure == "training")
        assert (training.value is None) == ("6 N D of non-zero" in (training.reason or ""))
        return training.value is not None

    assert not training(sparse("nonzero_params"))
    assert not training(sparse("params"))  # of which a table with sparsity may mean either
    assert training(sparse("params_total"))
    flops = {"flops": lambda row: 6.5 * row["nonzero_params"] * row["tokens"]}
    assert training(sparse("nonzero_params", **flops))
    assert not training(sparse("nonzero_params", **flops), flops="six_nd")


def test_currencies_that_count_alike_are_shown_once():
    rows = []
    for row in [*DENSE, *under("half", 0.5)]:
        half = row["technique"] == "half"
        rows.append(row | {"params_nonzero": row["params"], "params_active": row["params"],
                           "bytes_at_rest": row["params"] * (1 if half else 4),
                           "decode_seconds_per_token": row["params"] ** 0.5 * 1e-6,
                           "joules_per_token": row["params"] ** 0.9 * 1e-9})  # fmt: skip
    table, _ = league(panel(read_runs(rows)), Settings(bootstrap=0))
    assert [(m.name, m.also) for m in table.measures] == [
        ("nonzero", ("active",)), ("bytes", ()), ("seconds", ()), ("joules", ()), ("training", ()),
        ("tokens", ()),
    ]  # fmt: skip
    by_name = {m.measure: m.value for m in table.standings[0].multipliers}
    assert by_name["nonzero"] == pytest.approx(0.5, rel=1e-4)
    assert by_name["bytes"] == pytest.approx(2.0, rel=1e-4)
    assert table.measures[1].dense_per_param == pytest.approx(4.0)


def test_a_currency_that_one_run_lacks_is_left_out_in_words():
    rows = [row | {"bytes_at_rest": 4 * row["params"]} for row in [*DENSE, *under("half", 0.5)]]
    rows[-1]["bytes_at_rest"] = None
    table, _ = league(panel(read_runs(rows)), Settings(bootstrap=0))
    assert [m.name for m in table.measures] == ["params", "training", "tokens"]
    assert table.warnings == (f"bytes at rest: left out, missing in 1 of {len(rows)} runs",)
    del rows[-1]
    assert not league(panel(read_runs(rows)), Settings(bootstrap=0))[0].warnings


def test_a_condition_is_named_by_all_in_which_it_differs_from_the_dense_runs():
    """Also where less would tell the conditions apart."""
    rows = [
        row | {"sparsity": s, "bits": b, "noise": n}
        for s, b, n in ((0, 16, 0), (0.5, 4, 0), (0, 16, 0.25), (0.75, 16, 0.25))
        for row in (DENSE if s == n == 0 else DENSE[2:30])
        for row in [{k: v for k, v in row.items() if k != "technique"}]
    ]
    found = panel(read_runs(rows), ["sparsity", "bits", "noise"], BASELINE)
    assert sorted(found.label(one.values) for one in found.others) == [
        "noise 0.25",
        "sparsity 0.5 + bits 4",
        "sparsity 0.75 + noise 0.25",
    ]


def on_trunks(rows):
    """Rows whose runs of one size, seed and technique are branches of the longest."""
    longest, found = {}, []
    for i, row in enumerate(rows):
        key = row["technique"], row["params"], row["seed"]
        if key not in longest or row["tokens"] > rows[longest[key]]["tokens"]:
            longest[key] = i
    for i, row in enumerate(rows):
        trunk = longest[row["technique"], row["params"], row["seed"]]
        found.append(row | {"run_id": f"r{i}", "parent_run": "" if trunk == i else f"r{trunk}"})
    return found


def test_cells_that_share_a_trunk_are_resampled_as_one():
    cell, trunk = np.array([5, 7, 7, 9, 2, 2]), np.array([0, 0, 1, 1, 3, 4])
    assert joined(cell, None).tolist() == [1, 2, 2, 3, 0, 0]
    of = joined(cell, trunk)
    assert len(set(of[:4])) == 1 and of[4] == of[5] != of[0]  # 5 - 7 by a trunk, 7 - 9 by another
    assert clusters(cell, 2, trunk).tolist() == of.tolist()
    assert clusters(cell, 3, trunk).tolist() == [0, 0, 1, 1, 2, 3]  # too few: trunks themselves
    assert clusters(cell, 5).tolist() == [0, 1, 2, 3, 4, 5]


def test_a_league_and_a_comparison_resample_trunks(monkeypatch):
    """By what they draw weights of: sizes, where the runs of a size share a trunk."""
    import chinchilla_jax.scaling.ruler.league as module
    import chinchilla_jax.scaling.ruler.versus as other

    sizes = (1e6, 2e6, 4e6, 8e6, 1.6e7, 3.2e7)
    rng = np.random.default_rng(0)
    rows = [
        {"technique": name, "params": n, "tokens": 20 * n * k, "flops": 120 * n * n * k, "seed": 0,
         "loss": kumar(n * factor, 20 * n * k) * np.exp(0.003 * rng.standard_normal())}
        for name, factor in (("dense", 1.0), ("half", 0.5)) for n in sizes for k in (1, 3, 9)
    ]  # fmt: skip
    drawn = []
    plain = module.cell_weights
    monkeypatch.setattr(module, "cell_weights", lambda n, *a: drawn.append(n) or plain(n, *a))
    quick = Settings(bootstrap=40)
    for made, cells in ((rows, 18), (on_trunks(rows), 6)):
        drawn.clear()
        league(panel(read_runs(made)), quick)
        assert set(drawn) == {cells}
    table = read_runs(on_trunks(rows))
    both = [Condition({"half": str(i)}, table.select(np.arange(36) // 18 == i)) for i in (0, 1)]
    drawn.clear()
    draws = other.cell_draws
    monkeypatch.setattr(other, "cell_draws", lambda n, *a: drawn.append(n) or draws(n, *a))
    other.versus(*both, quick)
    assert drawn == [6]  # of the same cells on both sides, each trunk with those of its size
    trunk = trunks_of(*(one.runs for one in both))
    assert len(trunk) == 36 and not set(trunk[:18]) & set(trunk[18:])
    assert trunks_of(read_runs(rows)) is None

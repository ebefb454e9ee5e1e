"""Conditions side by side: the numbers of each alone, the file, and how one is asked for."""

import json

import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.scaling import comparison
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.comparison import compare
from chinchilla_jax.scaling.fits import write as write_fits
from chinchilla_jax.scaling.forecast.frontier import from_fits
from chinchilla_jax.scaling.forecast.questions import at_flops
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import where
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.conditions import NOISE, SURFACES, three_optimizers

ROWS = three_optimizers(sizes=6, seeds=3)
FEW = [row | {"optimizer": "lion"} for row in ROWS[:9:3]]


@pytest.fixture(scope="module")
def compared():
    return compare(read_runs([*ROWS, *FEW]), Settings(bootstrap=100))


def test_each_condition_has_the_law_and_the_noise_that_made_it(compared):
    found, arrays = compared
    assert found.by == ("optimizer",)
    assert [one.condition["optimizer"] for one in found.conditions] == [
        "adamw", "lion", "muon", "sgd",
    ]  # fmt: skip
    fitted = {one.condition["optimizer"]: one.fits for one in found.conditions if one.fits}
    assert set(fitted) == set(SURFACES) and len(arrays) == 3
    for name, surface in SURFACES.items():
        fits = fitted[name]
        assert NOISE / 1.5 < fits.isoflop.noise.log_loss < 1.5 * NOISE
        assert NOISE / 1.5 < fits.parametric.noise < 1.5 * NOISE
        low, high = fits.parametric.interval["a"]
        assert low - 0.01 < surface.exponents()[0] < high + 0.01 and high - low < 0.05
        assert fits.isoflop.a == pytest.approx(float(surface.exponents()[0]), abs=0.02)


def test_a_condition_with_too_few_runs_is_listed_with_its_reason(compared):
    few = next(one for one in compared[0].conditions if one.condition["optimizer"] == "lion")
    assert few.status == "refused" and few.fits is None and few.runs == 3
    assert "3 different runs for 5 parameters" in few.reason


def test_why_a_condition_has_no_laws_of_settings_is_told_without_its_name():
    """The report puts the name before what it says of one condition."""
    found, _ = compare(
        read_runs(three_optimizers(sizes=5)), Settings(bootstrap=0), tuned=("batch",)
    )
    said = [text for one in found.conditions if one.fits for text in one.fits.warnings]
    assert sum("laws of hyper-parameters need" in text for text in said) == 3
    titles = tuple(one.title for one in found.conditions)
    assert not any(text.startswith(titles) for text in said)


def test_all_are_asked_for_the_same_budget_ten_times_the_largest_run_of_all():
    rows = [row for row in ROWS if row["optimizer"] != "muon" or row["flops"] < 5e19]
    found, _ = compare(read_runs(rows), Settings(bootstrap=0))
    largest = max(row["flops"] for row in rows)
    for one in found.conditions:
        (row,) = one.fits.forecast
        assert row.flops == pytest.approx(10 * largest)


def test_the_fit_of_a_condition_is_that_of_its_rows_alone(compared):
    found, _ = compared
    one = next(one for one in found.conditions if one.condition["optimizer"] == "muon")
    alone = [row for row in ROWS if row["optimizer"] == "muon"]
    settings = Settings(bootstrap=100, budgets=found.settings.budgets)
    ours, theirs = to_json(one.fits), to_json(analyse(read_runs(alone), settings)[0])
    assert ours.pop("table")["range"] == theirs.pop("table")["range"]
    assert ours == theirs


def test_nobody_asked_so_the_flags_are_named(compared):
    assert "--by=optimizer" in compared[0].choice and "--where=optimizer=" in compared[0].choice
    asked, _ = compare(read_runs(ROWS), Settings(bootstrap=0), by=["optimizer"])
    assert asked.choice is None


def test_by_a_setting_compares_its_values():
    rows = [
        row | {"lr": lr, "loss": row["loss"] * (1 + 0.1 * (lr != 1e-3))}
        for row in ROWS
        for lr in (1e-3, 2e-3)
        if row["optimizer"] == "sgd"
    ]
    found, _ = compare(read_runs(rows), Settings(bootstrap=0), by=["lr"])
    losses = [one.fits.forecast[0].loss for one in found.conditions]
    assert losses[1] == pytest.approx(1.1 * losses[0], rel=0.01)
    with pytest.raises(UserError, match="also differ in column optimizer"):
        compare(read_runs(ROWS), Settings(bootstrap=0), by=["seed"])


def test_the_file_gives_back_what_was_written_and_one_condition_of_it(compared, tmp_path):
    found, _ = compared
    comparison.write(tmp_path / "fits.json", found)
    text = (tmp_path / "fits.json").read_text()
    data = json.loads(text)
    assert data == to_json(found)
    assert max(len(line) for line in text.splitlines() if '"draws"' not in line) < 500
    picked = comparison.read(tmp_path / "fits.json", {"optimizer": "muon"})
    one = next(one for one in found.conditions if one.condition["optimizer"] == "muon")
    assert to_json(picked) == to_json(one.fits)
    answer = at_flops(from_fits(picked), 1e21)
    assert answer.loss == pytest.approx(float(SURFACES["muon"].loss(answer.params, answer.tokens)),
                                        rel=0.01)  # fmt: skip
    data["conditions"][0]["fits"]["parametric"]["alpha"] = "x"
    (tmp_path / "fits.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=r"alpha.*run evaluate again"):
        comparison.read(tmp_path / "fits.json", {"optimizer": "muon"})


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (None, "pick one with --where=optimizer=adamw; there are optimizer=adamw; optimizer=lion"),
        ({"optimizer": "adam"}, "none of them for --where=optimizer=adam"),
        ({"optimiser": "muon"}, "none of them for --where=optimiser=muon"),
        ({"optimizer": "lion"}, "optimizer=lion: The loss surface .*3 different runs"),
    ],
)
def test_a_comparison_is_not_asked_without_a_condition(compared, tmp_path, asked, message):
    comparison.write(tmp_path / "fits.json", compared[0])
    with pytest.raises(UserError, match=message) as told:
        comparison.read(tmp_path / "fits.json", asked)
    assert "\n" not in str(told.value)


def test_one_fit_has_nothing_to_choose(tmp_path):
    fits, _ = analyse(where(read_runs(ROWS), {"optimizer": "sgd"}), Settings(bootstrap=0))
    write_fits(tmp_path / "fits.json", fits)
    for asked in (None, {"optimizer": "sgd"}):
        assert to_json(comparison.read(tmp_path / "fits.json", asked)) == to_json(fits)
    with pytest.raises(UserError, match="holds one fit and no comparison, that of optimizer=sgd"):
        comparison.read(tmp_path / "fits.json", {"optimizer": "muon"})


def test_a_law_spans_the_conditions_of_its_columns_and_no_others():
    rows = [
        {**{k: v for k, v in row.items() if k != "params"}, "nonzero_params": row["params"],
         "sparsity": level, "loss": row["loss"] * (1 - 0.1 * level)}
        for row in ROWS
        for level in (0.0, 0.5, 0.75)
        if row["optimizer"] != "sgd"
    ]  # fmt: skip
    laws = [LAWS["sparsity"], LAWS["chinchilla"]]
    found, _ = compare(read_runs(rows), Settings(bootstrap=0), laws)
    assert set(found.by) == {"optimizer", "sparsity"} and len(found.conditions) == 6
    spanning = [one for one in found.laws if one.law == "sparsity"]
    assert [one.condition for one in spanning] == [{"optimizer": "adamw"}, {"optimizer": "muon"}]
    assert {one.fit.runs for one in spanning} == {270}
    single = [one for one in found.laws if one.law == "chinchilla"]
    assert len(single) == 6 and {one.fit.runs for one in single} == {90}


def test_a_law_that_some_conditions_cannot_carry_says_so(compared):
    found, _ = compare(read_runs([*ROWS, *FEW]), Settings(bootstrap=0), [LAWS["chinchilla"]])
    by_name = {one.condition["optimizer"]: one for one in found.laws}
    assert by_name["lion"].fit is None and "3 different runs cannot" in by_name["lion"].reason
    assert by_name["muon"].fit.parameters["alpha"] == pytest.approx(0.36, abs=0.02)
    with pytest.raises(UserError, match="repetition"):
        compare(read_runs(ROWS), Settings(bootstrap=0), [LAWS["repetition"]])

"""The verdict on a forecast that rests on a table of others, by the rows of another one."""

import math
import shutil
from html import escape

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling import fits as record
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.fits import read as read_fits
from chinchilla_jax.scaling.fitting.optimum import along
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.forecast.runs import run_forecast
from chinchilla_jax.scaling.register import ledger as ledgers
from chinchilla_jax.scaling.register import table as tables
from chinchilla_jax.scaling.register.register import register
from chinchilla_jax.scaling.register.verify import verify
from chinchilla_jax.scaling.report import outcome as told
from chinchilla_jax.scaling.sections.table import run_table
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.read import read_runs
from tests.command import call
from tests.scaling.sweeps import SURFACE, true_loss

BUDGET = 1e14
BEST = along(Surface(**SURFACE), FlopsModel())(np.array([BUDGET]))
SIZES = tuple(float(BEST.params[0]) * 2 ** (k / 2) for k in range(-3, 5))


def rows(budgets, sizes=None, noise=0.003, seed=0, factor=1.0):
    random = np.random.default_rng(seed)
    return [
        (n, c / 6 / n, c, factor * true_loss(n, c / 6 / n) * math.exp(noise * random.normal()))
        for c in budgets
        for n in sizes or ((c / 300) ** 0.5 * 2**k for k in range(-3, 3))
    ]


def write(path, found, head="params,tokens,flops,loss"):
    lines = [",".join(f"{x:.8g}" if isinstance(x, float) else x for x in row) for row in found]
    path.write_text("\n".join([head, *lines]) + "\n")
    return path


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A table, its fits, and the forecast that rests on it."""
    folder = tmp_path_factory.mktemp("place")
    write(folder / "theirs.csv", rows((1e11, 1e12, 3e12, 1e13, 3e13)))
    found, _ = analyse(read_runs(folder / "theirs.csv"), Settings(bootstrap=200))
    record.write(folder / "out" / "fits.json", found)
    return folder, register(folder / "out", BUDGET, folder / "forecasts" / "one.json")


@pytest.fixture
def fresh(place, tmp_path):
    """The forecast in a folder of its own, without verdicts."""
    shutil.copytree(place[0] / "forecasts", tmp_path / "forecasts")
    (tmp_path / "forecasts" / "ledger.jsonl").unlink(missing_ok=True)
    return tmp_path


def checked(folder, found, head="params,tokens,flops,loss", **how):
    write(folder / "new.csv", found, head)
    return verify(folder / "forecasts" / "one.json", folder / "new.csv", **how)


def refused(folder, words, found, head="params,tokens,flops,loss", **how):
    with pytest.raises(UserError, match=words) as said:
        checked(folder, found, head, **how)
    assert "\n" not in str(said.value)
    assert not (folder / "forecasts" / "ledger.jsonl").exists()


def test_a_true_forecast_is_a_hit(place, fresh):
    found = checked(fresh, rows([BUDGET], SIZES, seed=1))
    assert found.hit and found.missed == () and found.table == str(fresh / "new.csv")
    params, tokens, loss = found.numbers
    assert params.measured == pytest.approx(BEST.params[0], rel=0.2) and params.inside
    assert params.measured * tokens.measured * 6 == pytest.approx(BUDGET, rel=1e-6)
    assert loss.measured == pytest.approx(BEST.loss[0], rel=0.005) and loss.inside
    assert (loss.predicted, loss.interval) == (place[1].loss.value, place[1].loss.interval)
    assert [one.against for one in found.regret] == ["neighbour", "minimum"]
    assert "taken on trust" in found.notes[0] and "corpus, recipe" in found.notes[0]
    assert ledgers.read(fresh / "forecasts" / "ledger.jsonl").verdicts == (found,)
    first = told.sentences(found)[0]
    assert first.startswith("Hit: of ") and "before" not in first


def test_a_run_of_any_size_is_judged_by_the_sizes_beside_it(place, fresh):
    folder, known = place
    found = checked(fresh, rows([BUDGET], SIZES, seed=1))
    fits = read_fits(folder / "out" / "fits.json")
    assert 3 < len(found.runs) < len(SIZES)
    for one in found.runs:
        assert 0.45 < one.params / known.params.value < 2.2
        wanted = run_forecast(fits, one.params, BUDGET / 6 / one.params, known.basis.form)
        assert one.predicted == pytest.approx(wanted.loss, rel=2e-3)
        assert one.interval == pytest.approx(wanted.interval, rel=2e-3)
    assert any("serve the minimum alone" in note for note in found.notes)


def test_a_miss_is_said_with_what_missed(fresh):
    found = checked(fresh, rows([BUDGET], SIZES, factor=1.3))
    assert not found.hit and "loss" in found.missed and "params" not in found.missed
    assert told.sentences(found)[0].startswith("Miss: of ")


def test_without_a_run_near_the_best_size_the_minimum_is_judged(place, fresh):
    best = place[1].params.value
    sizes = [best * x for x in (0.1, 0.2, 0.3, 0.6, 1.7, 2.5, 5, 9)]
    found = checked(fresh, rows([BUDGET], sizes, noise=0))
    assert found.hit and found.regret == () and found.params == best
    assert told.sentences(found)[0].startswith("Hit: at 1e14 FLOPs the forecast said a loss L*")


def test_rows_of_its_budget_alone_count(fresh):
    """Within 5 %: others are too far, to either side; those of the old table may stand there."""
    wanted = checked(fresh, rows([BUDGET * 1.04], SIZES, seed=1))
    others = rows((BUDGET * 1.07, BUDGET * 0.93), SIZES, factor=2)
    found = checked(fresh, [*rows((1e12, 3e13)), *rows([BUDGET * 1.04], SIZES, seed=1), *others])
    assert found.numbers == wanted.numbers
    assert [one.measured for one in found.runs] == [one.measured for one in wanted.runs]


def test_the_very_table_of_the_forecast_is_refused(place, fresh):
    shutil.copy(place[0] / "theirs.csv", fresh / "copy.csv")
    with pytest.raises(UserError, match=r"copy\.csv: is the very table that .*one\.json rests on"):
        verify(fresh / "forecasts" / "one.json", fresh / "copy.csv")


def test_runs_that_were_there_already_are_refused(place, tmp_path):
    """At registration, and where the table could not be looked at, by the largest run of it."""
    folder, _ = place
    with pytest.raises(UserError, match=r"--flops=3\.1e13: .* has 6 runs within 5 % of it, row 26"):
        register(folder / "out", 3.1e13, tmp_path / "one.json")
    assert not (tmp_path / "one.json").exists()
    found = read_fits(folder / "out" / "fits.json").__dict__
    away = record.Fits(
        **found | {"table": type(found["table"])(**vars(found["table"]) | {"source": "gone.csv"})}
    )
    record.write(tmp_path / "fits.json", away)
    register(tmp_path, 3.1e13, tmp_path / "forecasts" / "one.json")
    refused(tmp_path, "row 2 has 3e13 FLOPs, and .* up to 3e13: they are no check", rows([3e13]))


def test_without_a_row_of_the_budget_the_budgets_are_told(fresh):
    refused(fresh, r"within 5 % of the 1e14 .*\(its budgets are 1e13, 3e14\)", rows((1e13, 3e14)))


def test_too_few_sizes_for_a_minimum_leave_the_runs(place, fresh):
    found = checked(fresh, rows([BUDGET], [place[1].params.value * x for x in (0.7, 1)], noise=0))
    assert found.hit and {one.measured for one in found.numbers} == {None}
    assert len(found.runs) == 2 and all(one.inside for one in found.runs)
    assert any("2 sizes have a loss" in note for note in found.notes)
    far = [place[1].params.value * 8]
    (fresh / "forecasts" / "ledger.jsonl").unlink()
    refused(fresh, "1 sizes have a loss, and no run is near .* nothing can be", rows([BUDGET], far))


def test_a_table_that_counts_otherwise_is_refused(fresh):
    twice = [(n, d / 2, c, loss) for n, d, c, loss in rows([BUDGET], SIZES)]
    refused(fresh, r"is 12 in the median run of the budget, and 6 in .*one\.json", twice)
    head = "params_non_embedding,tokens,flops,loss"
    refused(fresh, "no column 'params' for params", rows([BUDGET], SIZES), head)
    how = {"columns": {"params": "params_non_embedding"}}
    refused(fresh, "'non_embedding' and .* as 'as_given'", rows([BUDGET], SIZES), head, **how)


def test_another_metric_is_taken_only_where_it_is_named(fresh):
    head = "params,tokens,flops,val_loss"
    refused(fresh, "no column 'loss' for loss.*--columns=", rows([BUDGET], SIZES, seed=1), head)
    how = {"columns": {"loss": "val_loss"}}
    found = checked(fresh, rows([BUDGET], SIZES, seed=1), head, **how)
    assert found.hit and "the loss is 'val_loss' here and 'loss' in" in found.notes[1]
    assert found.notes[1].endswith("both taken as one in nats per token")


@pytest.mark.parametrize(
    ("name", "count", "unit"),
    [
        ("val_ppl", math.exp, "ln(val_ppl)"),
        ("loss_bits", lambda x: x / math.log(2), "loss_bits"),
    ],
)
def test_a_loss_in_another_unit_by_name_is_converted(fresh, name, count, unit):
    found = [(n, d, c, count(loss)) for n, d, c, loss in rows([BUDGET], SIZES, seed=1)]
    one = checked(fresh, found, f"params,tokens,flops,{name}", columns={"loss": name})
    wanted = checked(fresh, rows([BUDGET], SIZES, seed=1))
    assert f"the loss is '{unit}' here" in one.notes[1] and one.hit
    for a, b in zip(one.runs, wanted.runs, strict=True):
        assert a.measured == pytest.approx(b.measured, rel=1e-6)


def test_a_loss_in_another_metric_by_name_is_refused(fresh):
    found = [(n, d, c, loss / 3) for n, d, c, loss in rows([BUDGET], SIZES, seed=1)]
    head, how = "params,tokens,flops,val_bpb", {"columns": {"loss": "val_bpb"}}
    words = "'val_bpb' is in bits per byte, and .* is of 'loss' in nats per token"
    refused(fresh, words, found, head, **how)
    assert checked(fresh, found, head, columns={"loss": "3*val_bpb"}).hit


@pytest.mark.parametrize(
    ("count", "words", "flag"),
    [
        (lambda x: x / math.log(2), "is it bits", "0.693147*loss"),
        (lambda x: x * math.log(2), "is it nats where", "1.442695*loss"),
        (math.exp, "is it a perplexity", "ln(loss)"),
        (lambda x: x / math.log(10), "is it decimal digits", "2.302585*loss"),
        (lambda x: x / 4.1, "is it another metric", "4.1*loss"),
    ],
)
def test_a_plain_loss_that_is_off_as_another_unit_is_asked_about(fresh, count, words, flag):
    found = [(n, d, c, count(loss)) for n, d, c, loss in rows([BUDGET], SIZES, seed=1)]
    with pytest.raises(UserError, match=words) as said:
        checked(fresh, found)
    assert "--columns='loss=1*loss' takes it as it stands" in str(said.value)
    assert flag in str(said.value) or "4.1" in flag
    assert not (fresh / "forecasts" / "ledger.jsonl").exists()
    assert checked(fresh, found, columns={"loss": flag}).hit
    stands = checked(fresh, found, columns={"loss": "1*loss"})
    assert not stands.hit and "the loss is 1*loss, as --columns says" in stands.notes


def test_factors_of_the_table_behind_a_forecast_are_those_of_the_one_that_checks_it(tmp_path):
    found = [(n / 1e6, d, c, 1e3 * loss) for n, d, c, loss in rows((1e11, 1e12))]
    write(tmp_path / "theirs.csv", found, "params_M,D,flops,odd")
    names = {"loss": "1e-3*odd", "tokens": "D"}
    runs = read_runs(tmp_path / "theirs.csv", names)
    kept, _ = tables.columns_of(run_table(runs, runs, runs, FlopsModel()))
    wanted = {"loss": "0.001*odd", "tokens": "D", "params": "1000000.0*params_M", "flops": "flops"}
    assert kept == wanted
    again = read_runs(tmp_path / "theirs.csv", kept)
    for name in ("params", "tokens", "loss"):
        np.testing.assert_array_equal(getattr(again, name), getattr(runs, name))
    assert runs.params[0] == pytest.approx(1e6 * found[0][0])


def test_the_report_of_the_table_shows_the_verdict(fresh, monkeypatch):
    """Of its runs and losses; withdrawn it says so; another table has none."""
    monkeypatch.chdir(fresh)
    found = checked(fresh, [*rows((1e12, 1e13)), *rows([BUDGET], SIZES, seed=1)])
    done = call("evaluate", "--runs=new.csv", "--bootstrap=0", "--nofigures")
    assert done.returncode == 0, done.stderr
    page = (fresh / "report" / "report.html").read_text()
    assert "Forecast and outcome" in page and escape(told.sentences(found)[0]) in page
    write(fresh / "other.csv", [*rows((1e12, 1e13)), *rows([BUDGET], SIZES, seed=2)])
    assert told.in_report("other.csv", read_runs(fresh / "other.csv")) == []
    ledger = fresh / "forecasts" / "ledger.jsonl"
    ledgers.withdraw(ledger, ledgers.identity(found), "of another corpus")
    shown = told.section(told.in_report("new.csv", read_runs(fresh / "new.csv")), ())
    assert shown.paragraphs[0] == "Withdrawn, given on wrong data: of another corpus."
    assert shown.paragraphs[1:] == told.sentences(found)


def test_a_table_that_cannot_be_read_is_one_line(fresh):
    with pytest.raises(UserError, match=r"none\.csv: no such file$"):
        verify(fresh / "forecasts" / "one.json", fresh / "none.csv")
    how = {"where": {"bits": "4"}}
    refused(fresh, r"no column 'bits' \(there are [^;]*$", rows([BUDGET], SIZES), **how)


def test_of_several_conditions_one_is_picked(fresh):
    found = [(*row, "adamw") for row in rows([BUDGET], SIZES, seed=1)]
    found += [(*row, "muon") for row in rows([BUDGET], SIZES, seed=2, factor=0.8)]
    head = "params,tokens,flops,loss,optimizer"
    refused(fresh, "2 conditions; pick one, as --where=optimizer=", found, head)
    assert checked(fresh, found, head, where={"optimizer": "adamw"}).hit
    assert not checked(fresh, found, head, where={"optimizer": "muon"}).hit


@pytest.mark.parametrize("name", ["columns", "where"])
def test_an_argument_of_another_kind_is_told_by_name(fresh, name):
    refused(fresh, f"^{name} = ", rows([BUDGET], SIZES), **{name: ["loss"]})


def test_what_registration_advises_is_what_verifies(place, fresh):
    advice = told.registered(place[1], "forecasts/one.json", None).splitlines()[-1].split()
    assert advice[:3] == ["python", "-m", "chinchilla_jax.verify"]
    write(fresh / "TABLE.csv", rows([BUDGET], SIZES, seed=1))
    done = call("verify", *advice[3:], cwd=fresh)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert "Hit: of " in done.stdout and "taken on trust" in done.stdout
    assert done.stdout.rstrip().endswith("figure: forecasts/one_outcome.png")
    assert (fresh / "forecasts" / "one_outcome.png").stat().st_size > 10_000

"""The verdict on a registered forecast: right numbers, and runs that do not count."""

import dataclasses
import math
import shutil

import numpy as np
import pytest

import chinchilla_jax as cj
from chinchilla_jax.experiment import records
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.loading import load_experiment
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.fits import read as read_fits
from chinchilla_jax.scaling.fitting.optimum import along
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.register import ledger as ledgers
from chinchilla_jax.scaling.register import verdict as verdicts
from chinchilla_jax.scaling.register.register import register
from chinchilla_jax.scaling.register.registration import Predicted
from chinchilla_jax.scaling.register.verdict import outcome
from chinchilla_jax.scaling.register.verify import verify
from chinchilla_jax.scaling.report import calibration, write
from chinchilla_jax.scaling.report import outcome as told
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.cost import FlopsModel
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.register.known import check_in, plan_in, quickstart, train
from tests.scaling.sweeps import SURFACE, true_loss


@pytest.fixture(scope="module")
def place(tmp_path_factory, grid):
    """A registered forecast of the grid with a configuration, and the runs of that."""
    folder = tmp_path_factory.mktemp("place")
    known = register(grid, 1e13, folder / "forecasts" / "one.json", folder / "one.py", seeds=2)
    check_in(folder / "runs", folder / "one.py", seed=1)
    return folder, known


@pytest.fixture
def copied(place, tmp_path):
    """The same to break, its runs still to be trained."""
    folder, known = place
    shutil.copytree(folder / "forecasts", tmp_path / "forecasts")
    (tmp_path / "forecasts" / "ledger.jsonl").unlink(missing_ok=True)
    shutil.copy(folder / "one.py", tmp_path)
    return tmp_path, known


def test_a_true_forecast_is_a_hit(place, grid):
    folder, known = place
    found = verify(folder / "forecasts" / "one.json", folder / "runs")
    assert found.hit and found.missed == () and found.notes == ()
    assert [one.what for one in found.numbers] == ["params", "tokens", "loss"]
    assert len(found.runs) == 10
    for one in found.runs:
        result = records.run_directory(folder / "runs", one.run_id).result()
        assert one.measured == result["loss"] and one.inside
        assert one.error == pytest.approx(math.log(one.measured / one.predicted))
    cost = read_fits(grid).table.flops_model
    best = along(Surface(**SURFACE), cost)(np.array([1e13]))
    params, _, loss = found.numbers
    assert params.measured == pytest.approx(best.params[0], rel=0.2)
    assert loss.measured == pytest.approx(best.loss[0], rel=0.01)
    assert loss.predicted == known.loss.value and loss.interval == known.loss.interval


def test_regret_is_what_the_choice_cost(copied):
    """Without noise: the loss at N* over the lowest of the others, in FLOPs by the frontier."""
    folder, known = copied
    size = min(known.runs, key=lambda run: abs(math.log(run.size))).params

    def loss(cell):
        return true_loss(cell.params, cell.tokens) * (1.02 if cell.params == size else 1)

    check_in(folder / "runs", folder / "one.py", loss=loss)
    found = verify(folder / "forecasts" / "one.json", folder / "runs")
    neighbour, minimum = found.regret
    by_size = {run.params: true_loss(run.params, run.tokens) for run in known.runs}
    others = min(value for params, value in by_size.items() if params != size)
    assert neighbour.against == "neighbour" and minimum.against == "minimum"
    assert neighbour.loss == pytest.approx(1.02 * by_size[size] / others - 1)
    assert by_size[neighbour.params] == others
    # FLOPs at which the frontier of the surface itself reaches such a loss, in proportion.
    best = along(Surface(**SURFACE), FlopsModel())
    low, high = np.log(1e12), np.log(1e13)
    top = float(best(np.array([1e13])).loss[0])
    for _ in range(60):
        middle = (low + high) / 2
        too_high = best(np.array([np.exp(middle)])).loss[0] > top * (1 + neighbour.loss)
        low, high = (middle, high) if too_high else (low, middle)
    assert neighbour.flops == pytest.approx(1 - np.exp(low) / 1e13, rel=0.35)
    assert neighbour.se == pytest.approx(known.basis.noise)  # two seeds each
    texts = " ".join(told.sentences(found))
    assert "Choosing this size cost" in texts and "FLOPs" in texts


@pytest.mark.parametrize(
    ("log_error", "inside", "z"),
    [(0.0, True, 0.0), (0.1, True, 1.0), (-0.2, True, -1.0), (0.19, True, 1.9), (0.2, False, 2.0),
     (-0.38, True, -1.9), (-0.4, False, -2.0)],
)  # fmt: skip
def test_inside_or_outside_and_by_how_much(log_error, inside, z):
    """Above the forecast the interval stands for a standard deviation of .1, below for .2."""
    forecast = Predicted(3.0, (3 * math.exp(-0.2 * 1.959964), 3 * math.exp(0.1 * 1.959964)))
    found = outcome("loss", forecast, 3 * math.exp(log_error))
    assert found.inside is inside and found.error == pytest.approx(log_error, abs=1e-12)
    assert found.z == pytest.approx(z, abs=1e-5)
    less_sure = outcome("loss", forecast, 3 * math.exp(log_error), se=0.1 if z >= 0 else 0.2)
    assert less_sure.z == pytest.approx(z / math.sqrt(2), abs=1e-5)
    assert less_sure.inside is inside


def test_they_are_calls_of_the_library():
    assert (cj.register, cj.verify) == (register, verify)


def test_a_miss_is_said_with_what_missed(copied):
    folder, _ = copied
    check_in(folder / "runs", folder / "one.py", loss=lambda c: 1.5 * true_loss(c.params, c.tokens))
    found = verify(folder / "forecasts" / "one.json", folder / "runs")
    assert not found.hit and "loss" in found.missed and "params" not in found.missed
    first, second, *_ = told.sentences(found)
    assert first.startswith("Miss: of ") and "loss L*" in second
    assert "outside" in told.terminal(found)


def test_a_minimum_beyond_the_sizes_is_a_miss_without_a_number(copied):
    folder, _ = copied
    check_in(folder / "runs", folder / "one.py", loss=lambda c: 1.2 * c.params**-0.02)
    found = verify(folder / "forecasts" / "one.json", folder / "runs")
    assert {one.measured for one in found.numbers} == {one.z for one in found.numbers} == {None}
    assert "no minimum of the new budget" in found.notes[0] and len(found.numbers) == 3
    assert not found.hit and {"params", "tokens"} <= set(found.missed)
    assert [one.against for one in found.regret] == ["neighbour"]
    assert ledgers.read(folder / "forecasts" / "ledger.jsonl").verdicts == (found,)
    coverage = {one.what: one for one in ledgers.calibration([found])}
    assert (coverage["params"].coverage, coverage["params"].rms_error) == (0, None)
    assert "outside" in told.terminal(found) and told.sentences(found)[0].startswith("Miss: of ")
    assert "miss" in calibration.of_ledger(folder / "forecasts" / "ledger.jsonl", folder, False)


def by_runs(known, losses, forecast=True):
    """The verdict on a forecast where its sizes, ascending, have these multiples of their loss."""
    sizes = {run.params: run for run in sorted(known.runs, key=lambda run: run.params)}
    points, runs = [], []
    for (params, run), factor in zip(sizes.items(), losses, strict=True):
        if factor is not None:
            loss = factor * known.loss.value
            expected = run.loss if forecast else Predicted(known.loss.value, None)
            one = outcome("run", expected, loss)
            points.append(verdicts.Point(params, run.tokens, loss))
            runs.append(verdicts.RunOutcome(**vars(one), run_id=run.run_id, size=run.size,
                                            params=params, seed=0))  # fmt: skip
    chosen = min(known.runs, key=lambda run: abs(math.log(run.size))).params
    return verdicts.concluded(known, points, runs, chosen, [], [])


@pytest.mark.parametrize(
    ("losses", "missed", "unjudged"),
    [((1.04, 1.03, 1.02, 1.01, 1.0), {"params", "tokens"}, {"loss"}),
     ((1.0, 1.01, 1.02, 1.03, 1.04), {"params", "tokens"}, {"loss"}),
     ((1.05, 1.02, 1.002, 0.9992, 0.999), {"params", "tokens"}, {"loss"}),  # turns before the end
     ((1.05, 1.01, 1.0, 0.9999, None), set(), {"params", "tokens", "loss"}),  # turns in it
     ((1.02, 1.0, 1.03, 1.01, 0.999), set(), {"params", "tokens", "loss"}),  # up and down
     ((1.04, 1.03, 1.02, None, None), set(), {"params", "tokens", "loss"}),  # ends in it
     ((None, None, 1.0, None, None), set(), {"params", "tokens", "loss"})],
)  # fmt: skip
def test_what_the_runs_leave_open_is_no_hit(place, losses, missed, unjudged):
    """Losses that fall to the end of the sizes bound N* and D*; others tell nothing of them."""
    found = by_runs(place[1], losses)
    assert (set(found.missed), set(found.unjudged)) == (missed, unjudged)
    assert found.hit == (not missed) and {one.measured for one in found.numbers} == {None}
    said = told.sentences(found)
    assert said[0].startswith("Miss: of " if missed else "Hit as far as it was judged: of ")
    assert any(part.startswith("Not judged: ") and "loss L*" in part for part in said)


def test_where_nothing_can_be_judged_there_is_no_verdict(place):
    """Losses of runs were not forecast, and the runs have no minimum."""
    with pytest.raises(UserError, match=r"one: no minimum .*N\* = .*: nothing can be judged"):
        by_runs(place[1], (3.0, 3.2, 3.3, 3.2, 3.1), forecast=False)
    found = by_runs(place[1], (3.4, 3.3, 3.2, 3.1, 3.0), forecast=False)
    assert found.missed == ("params", "tokens")


def test_a_diverged_run_has_no_loss(copied):
    folder, known = copied
    size = min(known.runs, key=lambda run: abs(math.log(run.size))).params

    def loss(cell):
        return None if cell.params == size else true_loss(cell.params, cell.tokens)

    check_in(folder / "runs", folder / "one.py", loss=loss)
    found = verify(folder / "forecasts" / "one.json", folder / "runs")
    assert not found.hit and found.regret == () and len(found.runs) == 8
    assert any("diverged" in note for note in found.notes)
    assert told.sentences(found)[0].startswith("Miss: no run of the registered size")


def refused(folder, words, runs="runs"):
    with pytest.raises(UserError, match=words):
        verify(folder / "forecasts" / "one.json", folder / runs)
    assert not (folder / "forecasts" / "ledger.jsonl").exists()
    assert not list(folder.rglob(verdicts.FILE))


def test_runs_that_are_older_than_the_registration_are_refused(copied):
    """The same runs, trained without the forecast's digest."""
    folder, _ = copied
    plain = dataclasses.replace(load_experiment(str(folder / "one.py")), forecast="")
    train(folder / "runs", plan_in(folder / "runs", plain))
    refused(folder, "names no forecast, so the run is older than .*one.json")
    # Nor can they be taken over afterwards: what was begun stays what it was.
    with pytest.raises(UserError, match=r"begun before the forecast .* another --workdir"):
        plan_in(folder / "runs", load_experiment(str(folder / "one.py")))


def test_a_forecast_that_was_registered_anew_is_refused(copied, grid):
    folder, _ = copied
    check_in(folder / "runs", folder / "one.py")
    (folder / "forecasts" / "one.json").unlink()
    (folder / "one.py").unlink()
    like = quickstart(order="largest")
    register(grid, 1e13, folder / "forecasts" / "one.json", folder / "one.py", 2, like=like)
    refused(folder, "names another forecast .*registered anew after the results")


def test_a_changed_registration_is_refused(copied):
    folder, _ = copied
    check_in(folder / "runs", folder / "one.py")
    file = folder / "forecasts" / "one.json"
    file.write_text(file.read_text().replace('"2026', '"2025'))
    refused(folder, "was changed after it was registered")


def test_other_text_is_refused(copied):
    folder, _ = copied
    check_in(folder / "runs", folder / "one.py", text="another")
    refused(folder, "was trained on other text .*data_fingerprint another")


def test_another_recipe_is_refused(copied):
    folder, _ = copied
    experiment = load_experiment(str(folder / "one.py"))
    recipe = dataclasses.replace(experiment.recipe, base_lr=0.007)
    train(folder / "runs", plan_in(folder / "runs", dataclasses.replace(experiment, recipe=recipe)))
    refused(folder, r"holds other runs .*recipe\.base_lr was 0\.006, now 0\.007")


def test_a_part_of_the_runs_is_no_verdict(copied):
    folder, _ = copied
    cells = plan_in(folder / "runs", load_experiment(str(folder / "one.py")))
    refused(folder, r"10 of 10 runs are not over .*chinchilla_jax\.sweep")
    train(folder / "runs", cells[:7])
    refused(folder, r"3 of 10 runs are not over \(1e13-")


def test_a_forecast_without_runs_cannot_be_verified(grid, tmp_path):
    register(grid, 1e13, tmp_path / "forecasts" / "one.json")
    refused(tmp_path, "registered without a configuration.*--write_config")


def test_a_folder_without_a_plan_is_refused(copied):
    folder, _ = copied
    refused(folder, "holds no plan.json", runs="nowhere")
    (folder / "results.csv").write_text("run_id,loss\n")
    refused(folder, "results.csv: is a file, .*the work folder of its runs", runs="results.csv")


def test_the_report_of_the_runs_has_the_section(place, grid, tmp_path):
    folder, _ = place
    verify(folder / "forecasts" / "one.json", folder / "runs")
    fits, arrays = analyse(read_runs(folder / "runs"), Settings(bootstrap=0))
    page = write.write(tmp_path, fits, arrays).read_text()
    assert 'id="forecast-and-outcome"' in page and "Hit: of " in page
    assert '<figure id="outcome">' in page and (tmp_path / "outcome.png").exists()
    fits, arrays = analyse(read_runs(grid.parent.parent), Settings(bootstrap=0))
    assert "forecast-and-outcome" not in write.write(tmp_path, fits, arrays, (), False).read_text()


def test_a_damaged_verdict_says_to_verify_again(place, tmp_path):
    folder, _ = place
    shutil.copytree(folder / "runs", tmp_path / "runs")
    (tmp_path / "runs" / verdicts.FILE).write_text('{"version": 1}')
    with pytest.raises(
        UserError, match=r"verdict\.json: the field .* is missing; run verify again"
    ):
        told.in_report(str(tmp_path / "runs"))


def test_verified_twice_it_stands_once_in_the_ledger(copied):
    folder, _ = copied
    check_in(folder / "runs", folder / "one.py", seed=1)
    first = verify(folder / "forecasts" / "one.json", folder / "runs")
    content = (folder / "forecasts" / "ledger.jsonl").read_bytes()
    second = verify(folder / "forecasts" / "one.json", folder / "runs")
    assert first == second == verdicts.in_folder(folder / "runs")
    assert (folder / "forecasts" / "ledger.jsonl").read_bytes() == content
    assert ledgers.read(folder / "forecasts" / "ledger.jsonl").verdicts == (first,)


def test_killed_before_the_ledger_it_goes_on(copied, monkeypatch):
    folder, _ = copied
    check_in(folder / "runs", folder / "one.py", seed=1)

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ledgers, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            verify(folder / "forecasts" / "one.json", folder / "runs")
    first = verdicts.in_folder(folder / "runs")
    assert verify(folder / "forecasts" / "one.json", folder / "runs") == first
    assert ledgers.read(folder / "forecasts" / "ledger.jsonl").verdicts == (first,)


def test_the_figures_legend_lies_within_it(place):
    """With all its entries, which is when a run lies outside."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from chinchilla_jax.scaling.report.plots import outcome as plots
    from chinchilla_jax.scaling.report.plots import style

    folder, _ = place
    found = verify(folder / "forecasts" / "one.json", folder / "runs")
    outside = dataclasses.replace(found.runs[0], inside=False)
    with style.styled():
        figure = plots.outcome(dataclasses.replace(found, runs=(outside, *found.runs[1:])))
        canvas = FigureCanvasAgg(figure)
        legend = figure.axes[0].get_legend()
        box = legend.get_window_extent(canvas.get_renderer())
    assert len(legend.get_texts()) == 5
    assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1

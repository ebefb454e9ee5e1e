"""A sweep that is watched: rate, time left, stalls and curves; in place, as lines, as JSON."""

import io
import json
import re
from contextlib import nullcontext

import pytest

from chinchilla_jax.experiment import claims, halving, plans, records, results, status, watch
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.records import run_directory
from tests.command import call


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self):
        return True


@pytest.fixture
def sweep(tmp_path):
    """Three cells: one goes on, one stalls, one has not begun; and how the first goes on."""
    experiment = Experiment(name="t", budgets=(1e11,), ladder=LadderConfig(widths=(8, 16, 24)))
    cells = plan(experiment)
    plans.write_plan(tmp_path, experiment, cells, {})
    runs = [cell.run for cell in cells if cell.status == "planned"]
    assert len(runs) == 3

    def beat(number, step, count, stalled=False):
        run = runs[number]
        directory = run_directory(tmp_path, run.run_id)
        directory.heartbeat(
            {"owner": f"host{number} 1", "step": step, "doing": "training", "stalled": stalled,
             "seconds_since_step": 90.0, "usual_seconds": 0.5, "count": count, "loss": 2.0}
        )  # fmt: skip
        logged = {row["step"] for row in directory.metrics()}
        directory.metrics_writer().append(
            [{"step": s, "loss": 8.0 / s**0.5, "tokens_per_second": 100.0, "tokens": s}
             for s in range(1, step + 1) if s not in logged]
        )  # fmt: skip

    beat(0, 16, 1)
    beat(1, 4, 1, stalled=True)
    return tmp_path, runs, beat


def test_what_is_known_of_a_sweep(sweep):
    workdir, runs, _ = sweep
    found = watch.facts(workdir, watch.Watch(workdir).rows())
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    first, second, third = found["runs"]
    assert [run["status"] for run in found["runs"]] == ["running", "stalled?", "missing"]
    assert (first["step"], first["steps"], first["loss"]) == (16, runs[0].steps, 2.0)
    assert first["seconds_left"] == pytest.approx(runs[0].tokens * (1 - 16 / runs[0].steps) / 100)
    assert first["curve"][0] == [1, 8.0] and first["curve"][-1] == [16, 2.0]
    assert second["seconds_left"] is None and "90 s, usually 0.5 s" in second["reason"]
    assert third["curve"] == [] and third["step"] is None
    assert (found["cells"], found["over"]) == (3, 0)
    rows = watch.Watch(workdir).rows()
    cost = [row["flops"] for row in rows]
    spent = cost[0] * 16 / runs[0].steps + cost[1] * 4 / runs[1].steps
    assert found["flops"] == pytest.approx(spent) and found["flops_total"] == sum(cost)
    rate = 100 * cost[0] / runs[0].tokens  # of the one that runs
    assert found["flops_per_second"] == pytest.approx(rate)
    assert found["seconds_left"] == pytest.approx((sum(cost) - spent) / rate)


def test_how_far_all_is_fits_a_terminal_of_80_columns():
    statuses = ("done", "running", "failed", "missing") * 100
    known = ("run_id", "reason", "step", "steps", "loss", "tokens_per_second", "seconds_left")
    unknown = {**dict.fromkeys(known), "run_id": "a", "steps": 9, "curve": []}
    runs = [{**unknown, "status": status} for status in statuses]
    spent = {"flops": 1.234e21, "flops_total": 5.678e21, "flops_per_second": 1.23e14}
    cells = {"cells": 400, "over": 100, "left_out": 0, "seconds_left": 4e7}
    cells, spent, *_ = watch.text({**cells, **spent, "runs": runs})
    assert cells.startswith("100 of 400 cells over; 100 done") and spent.endswith(" left")
    assert "FLOP/s" in spent and max(len(cells), len(spent)) < 80


def test_a_run_without_a_sign_of_life_is_silent_after_two_beats(sweep):
    workdir, _, beat = sweep
    now = [0.0]
    watched = watch.Watch(workdir, lambda: now[0])

    def first():
        return watched.rows()[0]["status"]

    assert first() == "running"
    now[0] = 2 * records.HEARTBEAT_SECONDS - 1
    assert first() == "running"
    now[0] += 2
    assert first() == "silent"
    beat(0, 17, 2)
    assert first() == "running"


def _over(workdir, runs):
    for run in runs:
        run_directory(workdir, run.run_id).finish(run, "done", "", {"loss": 2.0})
        run_directory(workdir, run.run_id).end_heartbeat()


def test_a_terminal_is_drawn_over_and_a_log_gets_what_changed(sweep):
    workdir, runs, beat = sweep

    def goes_on(_):
        if run_directory(workdir, runs[0].run_id).metrics()[-1]["step"] < 20:
            beat(0, 20, 2)
        else:
            _over(workdir, runs)

    terminal, log = Terminal(), io.StringIO()
    watch.show(workdir, terminal, False, goes_on)
    drawn = terminal.getvalue()
    back = [int(lines) for lines in re.findall(r"\x1b\[(\d+)F", drawn)]
    parts = re.split(r"\x1b\[\d+F", drawn)
    assert len(parts) == 3 and back == [part.count("\n") for part in parts[:-1]]
    assert "16 of" in parts[0] and "20 of" in parts[1] and "3 of 3 cells over" in parts[2]
    assert re.search(r"running +16 of \d+ +2.0000 +100 .* █[▁-█]*▁", parts[0])
    for run in runs:
        (run_directory(workdir, run.run_id).path / "result.json").unlink()
    beat(0, 16, 3)
    beat(1, 4, 3, stalled=True)
    looks = iter([lambda: None, lambda: _over(workdir, runs)])
    watch.show(workdir, log, False, lambda _: next(looks)())
    lines = log.getvalue().splitlines()
    assert "\x1b" not in log.getvalue() and lines[-2] == "3 of 3 cells over; 3 done"
    assert sum(line.startswith(f"{runs[1].run_id}: stalled?") for line in lines) == 1


def test_json_is_a_line_a_look(sweep):
    workdir, runs, _ = sweep
    out = io.StringIO()
    watch.show(workdir, out, True, lambda _: _over(workdir, runs))
    looks = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [look["over"] for look in looks] == [0, 3]
    assert looks[1]["seconds_left"] is None and looks[1]["flops"] == looks[1]["flops_total"]


def test_a_curve_in_a_line():
    assert watch.spark([]) == "" and watch.spark([3.0, 3.0]) == "▁▁"
    assert watch.spark([8.0, 4.0, 2.0, 1.0]) == "█▆▃▁"
    assert watch.spark([8.0, 1.0], "_.-=+*%#") == "#_"


@pytest.mark.parametrize("how", ["failed", "silent", "waits", "claimed"])
def test_a_sweep_at_which_nobody_works_any_more_is_left(sweep, monkeypatch, how):
    """Failed, or killed; not one that waits in a queue, or whose owner is between two cells."""
    workdir, runs, _ = sweep
    if how != "silent":
        for run in runs:
            directory = run_directory(workdir, run.run_id)
            directory.end_heartbeat()
            if how != "waits":
                directory.fail("memory ran out")
    monkeypatch.setattr(watch.claims, "is_worked", lambda folder: how == "claimed")
    now, stream = [0.0], io.StringIO()

    def sleep(seconds):
        now[0] += seconds
        if now[0] > 2.5 * watch.QUIET_SECONDS:
            raise TimeoutError

    def shown():
        return watch.show(workdir, stream, False, sleep, lambda: now[0])

    if how in ("waits", "claimed"):
        with pytest.raises(TimeoutError):
            shown()
        return
    assert shown() is False
    assert watch.QUIET_SECONDS < now[0] < 2 * watch.QUIET_SECONDS
    monkeypatch.setattr(watch, "QUIET_SECONDS", -1)
    monkeypatch.setattr(status, "HEARTBEAT_SECONDS", 0)
    monkeypatch.setattr(watch, "HEARTBEAT_SECONDS", 0)
    done = call("sweep", f"--workdir={workdir}", "--status", "--watch")
    assert (done.returncode, done.stderr) == (1, f"{watch.NOBODY}\n")


def test_the_program(sweep):
    workdir, runs, _ = sweep
    _over(workdir, runs)
    done = call("sweep", f"--workdir={workdir}", "--status", "--json")
    assert json.loads(done.stdout)["over"] == 3, done.stderr
    done = call("sweep", f"--workdir={workdir}", "--status", "--watch")
    assert done.returncode == 0 and done.stdout.startswith("3 of 3 cells over")
    config = workdir / "other.py"
    config.write_text(
        "from chinchilla_jax.experiment.config import Experiment, LadderConfig\n\n\n"
        "def get_config():\n"
        "    return Experiment(name='t', budgets=(2e11,), ladder=LadderConfig(widths=(8, 16)))\n"
    )
    done = call("sweep", f"--workdir={workdir}", "--status", "--json", f"--config={config}")
    assert json.loads(done.stdout)["over"] == 3
    assert done.stderr.count("\n") == 1 and "the plan of another experiment" in done.stderr
    for flag in ("--watch", "--json"):
        done = call("sweep", f"--workdir={workdir}", flag)
        assert done.returncode == 2 and "are of --status" in done.stderr


def test_a_branch_has_spent_what_its_trunk_has_not(tmp_path):
    row = {
        "run_id": "b", "status": "missing", "reason": "", "steps": 100, "flops": 1000,
        "tokens": 100, "loss": None, "tokens_per_second": None, "marginal_flops": 250,
    }  # fmt: skip
    found = watch.facts(tmp_path, [row])
    assert (found["flops"], found["flops_total"]) == (0.0, 250.0)
    found = watch.facts(tmp_path, [row | {"status": "done"}])
    assert (found["flops"], found["flops_total"]) == (250.0, 250.0)


def test_a_search_is_over_when_its_own_runs_are(sweep, monkeypatch):
    workdir, runs, _ = sweep
    out = frozenset(run.run_id for run in runs[1:])
    monkeypatch.setattr(halving, "left_out", lambda folder, cells, rows: out - set(rows))
    run_directory(workdir, runs[0].run_id).finish(runs[0], "done", "", {"loss": 2.0})
    run_directory(workdir, runs[1].run_id).end_heartbeat()
    stream = io.StringIO()
    watch.show(workdir, stream, as_json=False, sleep=pytest.fail)
    assert stream.getvalue().startswith("1 of 1 cells over, 2 left out by the search; 1 done\n")
    assert f"{halving.LEFT_OUT}" in status.text(workdir)


def test_a_sweep_of_all_cells_beside_a_search_is_watched_to_its_end(sweep, monkeypatch):
    """Also between two of its cells; what it makes is left out by nobody."""
    workdir, runs, beat = sweep
    out = frozenset(run.run_id for run in runs[1:])
    monkeypatch.setattr(halving, "left_out", lambda folder, cells, rows: out - set(rows))
    monkeypatch.setattr(claims, "is_worked", lambda folder: len(looks) < 4)
    run_directory(workdir, runs[0].run_id).finish(runs[0], "done", "", {"loss": 2.0})
    looks, now, stream = [], [0.0], io.StringIO()

    def goes_on(_):
        looks.append(stream.getvalue().splitlines()[-5:])
        if len(looks) == 1:
            _over(workdir, runs[1:2])
        if len(looks) == 3:
            beat(2, 4, 1)
        if len(looks) == 4:
            now[0] = 100.0  # it was killed: the run is what the search says

    assert watch.show(workdir, stream, False, goes_on, lambda: now[0])
    said = [line for line in stream.getvalue().splitlines() if " cells over" in line]
    assert said == [
        "1 of 2 cells over, 1 left out by the search; 1 done, 1 stalled?",
        "2 of 2 cells over, 1 left out by the search; 2 done",
        "2 of 3 cells over; 2 done, 1 running",
        "2 of 2 cells over, 1 left out by the search; 2 done",
    ]


@pytest.mark.parametrize("file", ["result.json", "failure.json", "heartbeat.json"])
def test_a_damaged_run_is_told_and_the_others_are_shown(sweep, file):
    workdir, runs, _ = sweep
    _over(workdir, runs[:1])
    damaged = run_directory(workdir, runs[2].run_id).path / file
    damaged.parent.mkdir(exist_ok=True)
    damaged.write_text('{"status": ')
    rows = watch.Watch(workdir).rows()
    assert [row["status"] for row in rows] == ["done", "stalled?", "damaged"]
    line = f"{runs[2].run_id}: damaged: {damaged}: "
    (told,) = [text for text in watch.text(watch.facts(workdir, rows)) if text.startswith(line)]
    assert "remove this file" in told
    _over(workdir, runs[1:2])
    assert told in status.text(workdir).splitlines()
    with pytest.raises(UserError, match=file) if file != "heartbeat.json" else nullcontext():
        results.collect(workdir)

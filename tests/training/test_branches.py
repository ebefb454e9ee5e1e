"""A branch of a trunk is the run trained from its start, to the bit, wherever either is cut."""

import dataclasses
import itertools
import json
import shutil
import time
from types import SimpleNamespace

import pytest

from chinchilla_jax.experiment import tables
from chinchilla_jax.experiment.config import Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import Cell, plan
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.needs import Planned
from chinchilla_jax.experiment.numbers import flops
from chinchilla_jax.experiment.other_run import Parent
from chinchilla_jax.experiment.records import RunDirectory, run_directory
from chinchilla_jax.experiment.trunks import linked, marginal_flops, optimizer_of
from chinchilla_jax.training import branch_points, supervise, threads, worker
from chinchilla_jax.training.loop import Interrupted, train
from chinchilla_jax.training.progress import Watch
from chinchilla_jax.training.sweep import chosen, select, single
from tests.conftest import write_sentences
from tests.experiment.test_trunks import experiment, planned
from tests.training import test_sweep
from tests.training.helpers import small_run, with_training
from tests.training.test_loop import curve, numbers, train_with_interruptions
from tests.training.test_sweep import await_steps, finish, kill_all, start

RECIPE = RecipeConfig(schedule="wsd", cooldown_fraction=0.25, decay_timescale=0.0)
LENGTHS = {"short": 12, "middle": 20, "long": 32}
MESHES = (
    {"data_parallel": 1, "steps_per_dispatch": 3},
    {"data_parallel": 2, "fsdp": 2},
)


def runs(**training):
    """Three lengths of one size: the longest is the trunk of the others."""
    recipe = {"schedule": "wsd", "cooldown_fraction": 0.25, "decay_timescale": 0.0}
    optimizer = optimizer_of([8 * 64 * steps for steps in LENGTHS.values()], 8, RECIPE)
    variant = Experiment(
        name="t", budgets=(1e9,), ladder=LadderConfig(widths=(8,), branches=True), recipe=RECIPE
    )
    grid = []
    for name, steps in LENGTHS.items():
        run = small_run(
            steps=steps, model={"depth": 1}, training={**MESHES[0], **training}, **recipe
        )
        run = dataclasses.replace(run, run_id=name, optimizer=optimizer)
        grid.append(Planned(run, variant, ""))
    return {planned.run.run_id: planned.run for planned in linked(grid)}


def alone(run):
    return dataclasses.replace(run, parent=None, branches=())


def leaves(directory, run):
    """Digests of the state at its end."""
    record = directory.checkpoints / str(run.steps) / "record.json"
    return json.loads(record.read_text())["leaves"]


@pytest.fixture(scope="module")
def whole(text_corpus, tmp_path_factory):
    """The runs, each trained from its start."""
    folder = tmp_path_factory.mktemp("alone")
    found = {}
    for name, run in runs().items():
        directory = RunDirectory(folder / name)
        found[name] = train(alone(run), text_corpus, directory), directory
    return found


@pytest.fixture(scope="module")
def trunk(text_corpus, tmp_path_factory):
    """A trunk that is over and keeps all its branch points."""
    folder = tmp_path_factory.mktemp("trunk")
    train(runs()["long"], text_corpus, RunDirectory(folder / "long"))
    return folder


def without_trunk(row):
    names = {"parent_run", "parent_step", "marginal_flops", "run_id"}
    return {key: value for key, value in numbers(row).items() if key not in names}


class Killed(BaseException):
    """Nothing is saved, as by kill -9."""


def train_killed(run, corpus, directory, steps):
    """Killed at each of `steps`: it goes on from the checkpoint before, or from its trunk's."""
    for step in steps:

        def kill(done, loss, step=step):
            if done >= step:
                raise Killed

        with pytest.raises(Killed):
            train(run, corpus, directory, on_progress=kill)
    return train(run, corpus, directory)


@pytest.mark.parametrize("cut", ["", "interrupted", "killed"])
def test_a_branch_is_to_the_bit_the_run_trained_from_its_start(cut, whole, text_corpus, tmp_path):
    train_cut = train_killed if cut == "killed" else train_with_interruptions
    for name in ("long", "short", "middle"):
        run, directory = runs()[name], RunDirectory(tmp_path / name)
        steps = [step for step in (5, 10, 17) if cut and run.first_step < step < run.steps - 2]
        assert bool(steps) == bool(cut) or name == "short"
        row = train_cut(run, text_corpus, directory, steps)
        row_alone, directory_alone = whole[name]
        assert row["status"] == "done" and row["loss"] == row_alone["loss"]
        assert without_trunk(row) == without_trunk(row_alone)
        assert leaves(directory, run) == leaves(directory_alone, run)
        begin = run.first_step
        assert curve(directory) == curve(directory_alone)[begin:]
        assert begin == {"long": 0, "short": 9, "middle": 15}[name]
    # Nobody needs the branch points any more; the trunk keeps what a run keeps.
    assert {p.name for p in (tmp_path / "long" / "checkpoints").iterdir()}.isdisjoint({"9", "15"})


def test_branch_points_stay_as_long_as_a_branch_needs_them(trunk, text_corpus, tmp_path):
    shutil.copytree(trunk / "long", tmp_path / "long")
    points = tmp_path / "long" / "checkpoints"
    assert {"9", "15"} <= {p.name for p in points.iterdir()}
    train(runs()["short"], text_corpus, RunDirectory(tmp_path / "short"))
    assert not (points / "9").exists() and (points / "15").exists()


@pytest.mark.parametrize("program", ["train", "train the trunk", "sweep", "several processes"])
def test_points_that_a_killed_run_left_go_with_the_next_start(
    program, trunk, text_corpus, tmp_path, monkeypatch
):
    """Killed between its result and its pruning."""
    folder, points = tmp_path / "runs", tmp_path / "runs" / "long" / "checkpoints"
    shutil.copytree(trunk / "long", folder / "long")
    cells = [SimpleNamespace(run=run) for run in runs().values()]
    for cell in cells:
        if cell.run.parent:
            RunDirectory(folder / cell.run.run_id).start(cell.run)
            RunDirectory(folder / cell.run.run_id).finish(cell.run, "done", "", {"loss": 2.0})
    assert {"9", "15"} <= {p.name for p in points.iterdir()}
    for module in (supervise, worker):
        monkeypatch.setattr(module.results, "write_of", lambda workdir, run_ids: [])
    monkeypatch.setattr(worker, "_work", lambda *arguments: None)
    monkeypatch.setattr(worker, "stop_requested", lambda: lambda: False)

    def start():
        if program == "sweep":
            supervise.run(tmp_path, cells, lambda progress: None)
        elif program == "several processes":
            worker.work_jointly(tmp_path, cells)
        else:
            name = "long" if program == "train the trunk" else "short"
            train(runs()[name], text_corpus, RunDirectory(folder / name))

    start()
    assert {"9", "15"}.isdisjoint(left := {p.name for p in points.iterdir()}) and left
    if "train" not in program:  # nothing is read of a trunk that keeps none
        monkeypatch.setattr(branch_points, "prune", pytest.fail)
    start()


@pytest.mark.parametrize("program", ["sweep", "several processes"])
def test_points_of_a_run_that_was_a_trunk_go_when_its_branches_are_over(
    program, trunk, tmp_path, monkeypatch
):
    """A longer run was added, whose branches all of them are by now."""
    folder, points = tmp_path / "runs", tmp_path / "runs" / "long" / "checkpoints"
    shutil.copytree(trunk / "long", folder / "long")
    cells = [
        SimpleNamespace(
            flops=1,
            run=dataclasses.replace(
                run, branches=(), parent=Parent(run="longer", step=run.first_step, fingerprint="")
            ),
        )
        for run in runs().values()
    ]

    def train_branches(*arguments):
        assert {"9", "15"} <= {p.name for p in points.iterdir()}  # until they are over
        for cell in cells[:2]:
            RunDirectory(folder / cell.run.run_id).start(cell.run)
            RunDirectory(folder / cell.run.run_id).finish(cell.run, "done", "", {"loss": 2.0})

    for module in (supervise, worker):
        monkeypatch.setattr(module.results, "write_of", lambda workdir, run_ids: [])
    monkeypatch.setattr(worker, "_work", train_branches)
    monkeypatch.setattr(supervise, "_supervise", train_branches)
    monkeypatch.setattr(worker, "stop_requested", lambda: lambda: False)
    if program == "sweep":
        supervise.run(tmp_path, cells, lambda progress: None)
    else:
        worker.work_jointly(tmp_path, cells)
    assert {"9", "15"}.isdisjoint(left := {p.name for p in points.iterdir()}) and "32" in left


def test_a_branch_on_another_mesh_ends_as_the_run_does(trunk, whole, text_corpus, tmp_path):
    shutil.copytree(trunk / "long", tmp_path / "long")
    run = with_training(runs()["short"], **MESHES[1])
    row = train(run, text_corpus, RunDirectory(tmp_path / "short"))
    assert row["loss"] == pytest.approx(whole["short"][0]["loss"], rel=1e-5)


def test_a_trunk_without_the_branch_point_is_one_line(trunk, text_corpus, tmp_path):
    run, directory = runs()["short"], RunDirectory(tmp_path / "short")
    with pytest.raises(UserError, match=r"short is a branch of long at step 9, .* run it first$"):
        train(run, text_corpus, directory)
    shutil.copytree(trunk / "long", tmp_path / "long")
    other = dataclasses.replace(run, parent=dataclasses.replace(run.parent, fingerprint="0" * 16))
    with pytest.raises(UserError, match="another run by now than it was planned with"):
        train(other, text_corpus, RunDirectory(tmp_path / "other"))
    shutil.rmtree(tmp_path / "long" / "checkpoints" / "9")
    (tmp_path / "long" / "result.json").unlink()
    for begun in (False, True):
        if begun:
            directory.start(run)
        with pytest.raises(UserError, match="which is not over and has not kept it; run it first"):
            train(run, text_corpus, directory)
        assert directory.begun() is begun  # else no other plan could drop it
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("damage", ["gone", "without a record", "bits"])
def test_a_branch_point_that_is_lost_costs_flops_and_no_run(
    damage, trunk, whole, text_corpus, tmp_path, caplog
):
    """Seen when the branch begins; it was planned to go on from it, and may have begun so."""
    run, directory = runs()["short"], RunDirectory(tmp_path / "short")
    shutil.copytree(trunk / "long", tmp_path / "long")
    point = tmp_path / "long" / "checkpoints" / "9"
    if damage == "gone":
        shutil.rmtree(point)
    elif damage == "without a record":
        (point / "record.json").unlink()
    else:
        part = next(p for p in point.rglob("*") if p.is_file() and p.stat().st_size > 2000)
        part.write_bytes(part.read_bytes()[:-64] + bytes(64))
    directory.start(run)
    with pytest.raises(Interrupted):
        train(run, text_corpus, directory, lambda: True)
    row = train(run, text_corpus, directory)
    told = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert len(told) == 1 and "\n" not in told[0]
    assert told[0].startswith("short is a branch of long at step 9, which has no sound checkpoint")
    assert "/checkpoints/9: " in told[0] and "is trained from its start" in told[0]
    row_alone, directory_alone = whole["short"]
    assert without_trunk(row) == without_trunk(row_alone)
    assert leaves(directory, run) == leaves(directory_alone, run)
    assert curve(directory) == curve(directory_alone)  # all of it
    assert (row["parent_run"], row["parent_step"]) == ("long", 0)
    assert row["marginal_flops"] == row["flops"]


def test_a_branch_whose_trunk_has_no_state_for_it_is_trained_from_its_start(
    trunk, whole, text_corpus, tmp_path
):
    """A budget was added between those that the trunk was begun for, or its point was lost."""
    cells = [
        Cell(
            index=0, status="planned", reason="", params=1, tokens=r.tokens, run=r,
            flops=ledger(r).training_flops(r.flops_convention),
        )
        for r in runs().values()
    ]  # fmt: skip

    def begun():
        found = branch_points.as_begun(cells, tmp_path)
        run = {cell.run.run_id: cell.run for cell in found}
        points = [branch.run for branch in run["long"].branches]
        return {name: run[name].first_step for name in ("short", "middle")}, points, found

    assert begun()[2] == cells  # nothing was begun
    folder = tmp_path / "runs"
    shutil.copytree(trunk / "long", folder / "long")
    assert begun()[2] == cells
    shutil.rmtree(folder / "long" / "checkpoints" / "9")
    first, points, found = begun()
    assert (first, points) == ({"short": 0, "middle": 15}, ["middle"])
    text, alone = tables.plan(found), found[0].flops
    assert "of which 1 runs are branches" in text
    assert f"{flops(alone, 4)} by 1 runs from their start" in text
    assert marginal_flops(found[0].run) == alone
    row = train(found[0].run, text_corpus, RunDirectory(folder / "short"))
    assert row["loss"] == whole["short"][0]["loss"]
    assert (row["parent_run"], row["parent_step"]) == ("long", 0)  # whose noise it has
    assert begun()[0] == {"short": 0, "middle": 15}
    later = dataclasses.replace(runs()["long"], branches=runs()["long"].branches[:1])
    (folder / "long" / "config.json").unlink()
    RunDirectory(folder / "long").start(later)
    assert begun()[0] == {"short": 0, "middle": 0}
    RunDirectory(folder / "middle").start(runs()["middle"])  # it has its own state by now
    assert begun()[0] == {"short": 0, "middle": 15}


def test_what_it_begins_with_may_be_gone_once_a_branch_has_a_checkpoint(
    trunk, whole, text_corpus, tmp_path
):
    shutil.copytree(trunk / "long", tmp_path / "long")
    run, directory = runs()["middle"], RunDirectory(tmp_path / "middle")
    with pytest.raises(Interrupted):
        train(run, text_corpus, directory, lambda: True)
    shutil.rmtree(tmp_path / "long")
    assert train(run, text_corpus, directory)["loss"] == whole["middle"][0]["loss"]


def test_trunks_come_first_and_their_branches_follow_each_other():
    cells = planned(vary={"seed": (0, 1)})
    for order in ("smallest", "largest", "planned"):
        runs = [cell.run for cell in select(cells, "", order)]
        behind = [run.run_id for run in runs if not run.branches]
        assert all(run.branches for run in runs[: len(runs) - len(behind)])
        of = [run.parent.run for run in runs if run.parent]
        assert len(set(of)) == 1 + sum(a != b for a, b in itertools.pairwise(of))
    parts = [select(cells, f"{i}/5", "smallest") for i in range(5)]
    assert {cell.index for part in parts for cell in part} == {cell.index for cell in cells}
    for part in parts:
        names = [cell.run.run_id for cell in part]
        assert all(names.index(c.run.parent.run) < names.index(c.run.run_id) for c in part
                   if c.run.parent)  # fmt: skip


def test_a_branch_that_is_chosen_brings_its_trunk(tmp_path):
    cells = plan(experiment())
    branch = next(cell for cell in cells if cell.run.parent)
    found = chosen(tmp_path, cells, str(branch.index), "smallest")
    assert [cell.run.run_id for cell in found] == [branch.run.parent.run, branch.run.run_id]
    assert single(cells, branch.index) is branch  # of `train --cell`, which runs no other
    rejected = next(cell for cell in cells if cell.status == "rejected")
    with pytest.raises(UserError, match=f"cell {rejected.index}: "):
        select(cells, str(rejected.index), "smallest")


@pytest.mark.slow
def test_a_sweep_of_branches_killed_again_and_again_changes_no_digit(tmp_path):
    """kill -9 of the sweep and its workers, at trunks and at branches."""
    (tmp_path / "text").mkdir()
    write_sentences(tmp_path / "text")
    text = test_sweep.CONFIG.format(path=str(tmp_path / "text"))
    recipe = 'sequence_length=16, schedule="wsd", cooldown_fraction=0.25, decay_timescale=0.0'
    text = text.replace("sequence_length=16", recipe).replace(
        "min_steps=1", "min_steps=1, branches=True"
    )
    (tmp_path / "config.py").write_text(text)
    config = f"--config={tmp_path / 'config.py'}"
    status, out, err = finish(start(tmp_path, tmp_path / "whole", config))
    assert status == 0 and "4 done" in out, err
    killed = tmp_path / "killed"
    for number in range(12):
        process = start(tmp_path, killed, config)
        await_steps(process, killed)
        time.sleep(0.2 * number)
        kill_all(killed, process)
    status, _, err = finish(start(tmp_path, killed, config))
    assert status == 0, err
    assert test_sweep.results(killed) == test_sweep.results(tmp_path / "whole")
    marginal = [float(row["marginal_flops"]) for row in test_sweep.results(killed)]
    assert sum(marginal) < 0.9 * sum(float(r["flops"]) for r in test_sweep.results(killed))
    for trunk in killed.glob("runs/1e10-*/checkpoints"):
        # One that was cut short by a kill is set aside as damaged.
        assert all(int(p.name) > 1000 for p in trunk.iterdir() if p.name.isdecimal())


def standing(tmp_path, status):
    """What becomes of a branch whose trunk has this status, or none."""
    branch = next(cell.run for cell in planned() if cell.run.parent)
    trunk = next(cell.run for cell in planned() if cell.run.run_id == branch.parent.run)
    if status:
        directory = run_directory(tmp_path, trunk.run_id)
        directory.start(trunk)
        directory.finish(trunk, status, "", {"loss": None})
    return worker._standing(branch, tmp_path)


def test_a_branch_waits_until_its_trunk_is_over_and_tries_where_that_diverged(tmp_path):
    """For its branch point may be from before."""
    assert standing(tmp_path, "") == ("waits", "")
    for status in ("diverged", "done"):
        assert standing(tmp_path, status) == ("ended", "")


def test_a_branch_goes_on_with_the_threads_of_its_trunk(tmp_path):
    branch = next(cell.run for cell in planned() if cell.run.parent)
    trunk = next(cell.run for cell in planned() if cell.run.run_id == branch.parent.run)
    directory = run_directory(tmp_path, branch.run_id)
    assert threads.of_cell(branch, directory) == 1
    run_directory(tmp_path, trunk.run_id).start(with_training(trunk, threads=2))
    assert threads.of_cell(branch, directory) == threads.alone(branch, directory) == 2


def test_progress_counts_a_trunk_once(tmp_path):
    cells = planned()
    watch, spent = Watch(tmp_path, cells), sum(marginal_flops(cell.run) for cell in cells)
    assert watch.look().flops_total == spent < sum(cell.flops for cell in cells)
    for cell in cells:
        directory = run_directory(tmp_path, cell.run.run_id)
        directory.start(cell.run)
        if cell.run.parent:  # a branch that has logged its first step has spent nearly nothing
            first = cell.run.first_step + 1
            flops = cell.flops * first // cell.run.steps
            directory.metrics_writer().append([{"step": first, "flops": flops, "loss": 1.0}])
            continue
        directory.finish(cell.run, "done", "", {"loss": 2.0})
    trunks = sum(cell.flops for cell in cells if not cell.run.parent)
    assert watch.look().flops == pytest.approx(trunks, rel=0.01)
    for cell in cells:
        if cell.run.parent:
            run_directory(tmp_path, cell.run.run_id).finish(cell.run, "done", "", {"loss": 2.0})
    assert watch.look().flops == spent

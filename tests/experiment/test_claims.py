"""A plan that somebody works by loses no cell, whoever writes another one and whenever."""

import dataclasses
import signal
import subprocess
import sys
import threading
import time

import pytest

from chinchilla_jax.experiment import claims, lock, plans, records, storage
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.grid import plan


def experiment(*widths):
    return Experiment(name="t", budgets=(1e11,), ladder=LadderConfig(widths=widths))


def write(workdir, *widths, **more):
    source = experiment(*widths)
    plans.write_plan(workdir, source, plan(source), {}, **more)


def widths(workdir):
    return tuple(cell.run.model.width for cell in plans.read_plan(workdir)[1])


@pytest.fixture(params=["flock", "lease"])
def kind(request, monkeypatch):
    monkeypatch.setenv("CHINCHILLA_JAX_LOCK", request.param)
    monkeypatch.setenv("CHINCHILLA_JAX_LEASE_SECONDS", "0.05")
    return request.param


def claimed(workdir):
    """A claim by another process, which waits for the end of its input."""
    code = (
        "import sys; from pathlib import Path; from chinchilla_jax.experiment import claims\n"
        "folder = Path(sys.argv[1])\n"
        "with claims.alone(folder): claim = claims.claim(folder); claim.__enter__()\n"
        "print('claimed', flush=True); sys.stdin.read(); claim.__exit__(None, None, None)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(workdir)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout.readline() == "claimed\n"
    return other


def test_while_somebody_works_by_a_plan_it_may_grow_and_not_shrink(kind, tmp_path):
    write(tmp_path, 8, 12)
    other = claimed(tmp_path)
    write(tmp_path, 8, 12, 16)
    message = rf"{lock.process(other.pid)}, which has run 1e11-12x2-s0 \(dropped in this one\)"
    with pytest.raises(UserError, match=message):
        write(tmp_path, 8)
    changed = experiment(8, 12, 16)
    changed = dataclasses.replace(changed, recipe=dataclasses.replace(changed.recipe, base_lr=0.1))
    with pytest.raises(UserError, match=r"learning_rate was .* in this one"):
        plans.write_plan(tmp_path, changed, plan(changed), {})
    assert widths(tmp_path) == (8, 12, 16)
    other.communicate("")
    write(tmp_path, 8)
    assert widths(tmp_path) == (8,)
    assert [f.name for f in (tmp_path / "claims").iterdir() if f.is_dir()] == []


def test_a_claim_ends_with_its_process(kind, tmp_path):
    write(tmp_path, 8, 12)
    other = claimed(tmp_path)
    other.send_signal(signal.SIGKILL)
    other.communicate()
    write(tmp_path, 8)
    assert widths(tmp_path) == (8,)
    assert [f.name for f in (tmp_path / "claims").iterdir() if f.is_dir()] == []


def test_of_two_who_begin_with_different_plans_the_second_is_refused(kind, tmp_path):
    """Whenever: each makes its claim before the other may compare."""
    outcomes, ended = {}, threading.Event()
    begin = threading.Barrier(2)

    def sweep(*sizes):
        held = []

        def claim():
            held.append(claims.claim(tmp_path))
            held[0].__enter__()

        begin.wait()
        try:
            write(tmp_path, *sizes, then=claim)
            outcomes[sizes] = "works"
            ended.wait(30)
        except UserError as error:
            outcomes[sizes] = str(error)
        finally:
            for one in held:
                one.__exit__(None, None, None)

    threads = [threading.Thread(target=sweep, args=sizes) for sizes in ((8, 12), (8, 16))]
    for thread in threads:
        thread.start()
    end = time.monotonic() + 30
    while len(outcomes) < 2 and time.monotonic() < end:
        time.sleep(0.01)
    ended.set()
    for thread in threads:
        thread.join()
    (winner,) = [sizes for sizes, outcome in outcomes.items() if outcome == "works"]
    (loser,) = [outcome for outcome in outcomes.values() if outcome != "works"]
    assert f"is being carried out here, by {lock.myself()}" in loser
    assert widths(tmp_path) == winner


def test_nobody_compares_between_a_plan_and_its_claim(kind, tmp_path):
    busy = []
    write(tmp_path, 8, then=lambda: busy.append(lock.is_held(tmp_path / "claims")))
    assert busy == [True] and not lock.is_held(tmp_path / "claims")


def test_one_who_only_looks_sees_whether_somebody_works(kind, tmp_path):
    assert not claims.is_worked(tmp_path)
    other = claimed(tmp_path)
    assert claims.is_worked(tmp_path)
    other.communicate("")
    assert not claims.is_worked(tmp_path)


def test_what_another_writes_meanwhile_is_compared_with(tmp_path, monkeypatch):
    """Two who extend a plan at once: the second does not take away what the first has added."""
    write(tmp_path, 8)
    alone = claims.alone

    def late(workdir):
        monkeypatch.setattr(claims, "alone", alone)
        write(tmp_path, 8, 12)
        begun = next(c.run for c in plan(experiment(8, 12)) if c.run.model.width == 12)
        records.run_directory(tmp_path, begun.run_id).start(begun)
        return alone(workdir)

    monkeypatch.setattr(claims, "alone", late)
    with pytest.raises(UserError, match=r"run 1e11-12x2-s0 was begun under another plan"):
        write(tmp_path, 8, 16)
    assert widths(tmp_path) == (8, 12)


def test_a_run_that_was_begun_and_given_up_meanwhile_is_not_lost(tmp_path, monkeypatch):
    write(tmp_path, 8, 12)
    alone = claims.alone

    def late(workdir):
        begun = plan(experiment(8, 12))[1].run
        records.run_directory(tmp_path, begun.run_id).start(begun)
        return alone(workdir)

    monkeypatch.setattr(claims, "alone", late)
    with pytest.raises(UserError, match="was begun under another plan"):
        write(tmp_path, 8)


def test_one_that_does_not_come_to_an_end_with_the_plan_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(claims, "WAIT_SECONDS", 0.1)
    with (
        claims.alone(tmp_path),
        pytest.raises(UserError, match=f"process {lock.myself()} has it for"),
        claims.alone(tmp_path),
    ):
        pass


def test_folders_go_with_their_files(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "a")
    storage.remove_folder(tmp_path / "link")
    assert not (tmp_path / "link").is_symlink() and (tmp_path / "a" / "file").exists()
    storage.remove_folder(tmp_path / "a")
    storage.remove_folder(tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_claim_that_is_a_link_costs_nobody_a_file(tmp_path):
    """Whoever can write the folder of claims can have it lead anywhere."""
    write(tmp_path / "w", 8, 12)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("x")
    (tmp_path / "w" / "claims" / "host-1-a").symlink_to(tmp_path / "mine")
    write(tmp_path / "w", 8)
    assert widths(tmp_path / "w") == (8,) and (tmp_path / "mine" / "file").exists()

"""Train, evaluate, choose, and again: where it ends, and that an interruption changes nothing."""

import zlib

import numpy as np
import pytest

from chinchilla_jax.experiment import plans, records
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.design import next_runs
from chinchilla_jax.scaling.design.until import ENOUGH, SPENT, Goal, until
from chinchilla_jax.scaling.settings import Settings
from tests.command import call
from tests.scaling.register.known import plan_in, quickstart, train
from tests.scaling.sweeps import true_loss

QUICK = Settings(bootstrap=200)
GRID = 2.64e13  # FLOPs of quickstart's


@pytest.fixture(autouse=True)
def by_variances(monkeypatch):
    """No losses are made up: tests/scaling/design/test_expected.py."""
    monkeypatch.setattr(next_runs, "narrowest", lambda known, pool, designs, *_: designs[0])


def loss(cell):
    """The same for a run whenever it is made."""
    random = np.random.default_rng(zlib.crc32(cell.run.run_id.encode()))
    return true_loss(cell.params, cell.tokens) * np.exp(0.004 * random.standard_normal())


class Trainer:
    """Stands for the sweep: makes all runs of a plan that are not over, `stop` of them at most."""

    def __init__(self, folder, stop=10**6):
        self.folder, self.stop, self.calls = folder, stop, 0

    def __call__(self, experiment):
        self.calls += 1
        for cell in plan_in(self.folder, experiment):
            if records.run_directory(self.folder, cell.run.run_id).result() is None:
                if self.stop == 0:
                    raise KeyboardInterrupt
                self.stop -= 1
                train(self.folder, [cell], loss)
        return 0


def made(folder):
    return sorted(place.name for place in (folder / "runs").iterdir())


def test_it_chooses_until_the_flops_are_spent_and_goes_on_after_an_interruption(tmp_path):
    goal, whole, parts = Goal(1.01, GRID + 1.2e13), tmp_path / "whole", tmp_path / "parts"
    said = []
    assert until(quickstart(), whole, goal, Trainer(whole), said.append, QUICK) == SPENT
    spent = sum(c.flops for c in plans.read_plan(whole)[1] if c.status == "planned")
    assert GRID * 1.05 < spent <= goal.flops
    assert len(said) > 1 and all("1.01 x asked" in line for line in said)
    assert all("next: " in line for line in said[:-1]) and "next: " not in said[-1]
    stops = 0
    for asked in (quickstart(), quickstart(), None, quickstart(), None, *[None] * 20):
        try:
            status = until(asked, parts, goal, Trainer(parts, stop=11), lambda _: None, QUICK)
            break
        except KeyboardInterrupt:
            stops += 1
    assert status == SPENT and stops > 1 and made(parts) == made(whole)


def test_it_ends_at_once_where_the_interval_is_narrow_enough_or_a_run_failed(tmp_path):
    said, trainer = [], Trainer(tmp_path)
    goal = Goal(20.0, 2 * GRID, 1e13)
    assert until(quickstart(), tmp_path, goal, trainer, said.append, QUICK) == ENOUGH
    assert trainer.calls == 1 and said[0].endswith("enough") and "N* at 1e13 FLOPs" in said[0]
    assert until(None, tmp_path, goal, lambda _: 1, said.append, QUICK) == 1
    assert len(said) == 1
    # The grid alone has spent all there is.
    goal = Goal(1.001, GRID, 1e13)
    assert until(None, tmp_path, goal, trainer, said.append, QUICK) == SPENT
    assert "no run can be paid for any more" in said[1]


def test_a_grid_that_costs_too_much_or_reaches_the_target_is_refused_before_any_run(tmp_path):
    trainer = Trainer(tmp_path)
    with pytest.raises(
        UserError, match=r"--flops=1e12: the 24 runs to begin with take 2\.6\d?e13 "
    ):
        until(quickstart(), tmp_path, Goal(1.5, 1e12), trainer, settings=QUICK)
    with pytest.raises(UserError, match=r"--target=3e12: the runs go up to 3\.?\d*e12 FLOPs"):
        until(quickstart(), tmp_path, Goal(1.5, 1e14, 3e12), trainer, settings=QUICK)
    assert trainer.calls == 0 and not list(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        until(quickstart(), tmp_path, Goal(1.5, 2 * GRID), Trainer(tmp_path, stop=3))
    with pytest.raises(UserError, match="runs to begin with take"):  # half-way, and for less
        until(None, tmp_path, Goal(1.5, 1e12), trainer, settings=QUICK)
    assert trainer.calls == 0 and len(made(tmp_path)) == 3


def test_mistakes_are_told(tmp_path):
    with pytest.raises(UserError, match="a number over 1"):
        Goal(0.9, 1e13)
    for flags, told in (
        (["--until=1.5"], "give --flops too"),
        (["--flops=1e13"], "are of --until"),
        (["--until=1.5", "--flops=1e13", "--cells=0"], "makes all cells itself"),
        (["--until=1.5", "--flops=1e13"], "--config: is missing"),
    ):
        done = call("sweep", f"--workdir={tmp_path}", *flags)
        assert done.returncode == 2 and told in done.stderr, done.stderr

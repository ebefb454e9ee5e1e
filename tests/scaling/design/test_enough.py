"""The smallest grid that tells enough."""

import dataclasses

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.design import enough as module
from chinchilla_jax.scaling.design.enough import enough, enough_for
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.report import design
from tests.command import call
from tests.scaling.design.test_next_runs import table
from tests.scaling.register.known import quickstart
from tests.scaling.sweeps import SURFACE

LAW = Surface(**SURFACE)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    monkeypatch.setattr(module, "_REPEATS", 2)
    monkeypatch.setattr(module, "_SIZES", (4, 6))
    monkeypatch.setattr(module, "_SEEDS", (1, 2))


def test_the_cheapest_grid_that_is_narrow_enough_is_found():
    found = enough(quickstart(), LAW, 0.005, 1.9)
    assert found.found is found.tried[-1] and found.found.width <= 1.9
    assert all(one.width > 1.9 for one in found.tried[:-1])
    spent = [one.flops for one in found.tried]
    assert spent == sorted(spent)
    assert found.target == pytest.approx(3e13) and found.found.budgets[0] == 1e11
    assert found.found.runs == len(found.found.budgets) * found.found.sizes * found.found.seeds
    said = design.smallest(found)
    assert "the last row" in said and "within a factor 1.9" in said


def test_noise_takes_more_runs_or_finds_none(monkeypatch):
    quiet = enough(quickstart(), LAW, 0.001, 1.6).found
    assert quiet is not None and quiet.seeds == 1
    monkeypatch.setattr(module, "_expected", None)  # is not called: chance alone is too much
    loud = enough(quickstart(), LAW, 0.1, 1.6)
    assert loud.found is None and not loud.tried
    said = design.smallest(loud)
    assert "no grid of this ladder" in said and "\nA run scatters by 10" in said
    assert "upper end over lower" not in said  # of a table that there is not


def test_grids_that_are_not_tried_are_told(monkeypatch):
    monkeypatch.setattr(module, "_MOST_TRIED", 1)
    monkeypatch.setattr(module, "_expected", lambda *_: (9.0, 9.0))
    found = enough(quickstart(), LAW, 0.001, 1.6)
    assert found.found is None and len(found.tried) == 1 and found.untried > 1
    assert f"{found.untried} dearer grids were not tried" in design.smallest(found)
    monkeypatch.setattr(module, "_MOST_TRIED", 1 + found.untried)
    found = enough(quickstart(), LAW, 0.001, 1.6)
    assert not found.untried and "no grid of this ladder" in design.smallest(found)


def test_runs_of_several_conditions_are_picked_from(monkeypatch):
    monkeypatch.setattr(module, "enough", lambda _, surface, noise, *__: (surface, noise))
    runs = table(sizes=5)
    both = {name: np.append(column, column) for name, column in runs.items()}
    both["loss"][len(runs["loss"]) :] *= 1.2
    both["optimizer"] = np.repeat(["adamw", "lion"], len(runs["loss"]))
    with pytest.raises(UserError, match="--where=optimizer=adamw picks one") as told:
        enough_for(3.0, source=both, experiment=quickstart())
    assert "--by" not in str(told.value)  # which no program of designs takes
    one, other = (
        enough_for(3.0, source=source, experiment=quickstart(), where=where)
        for source, where in ((runs, None), (both, {"optimizer": "adamw"}))
    )
    assert one == other


def test_the_chance_that_sorts_grids_out_is_the_scatter_of_fits():
    """By least squares in ln loss on made-up grids, linearised nowhere."""
    from chinchilla_jax.scaling.fitting.newton import Objective
    from chinchilla_jax.scaling.fitting.surface import fit_surface
    from chinchilla_jax.scaling.table.cost import FlopsModel

    ladder, cells = list(module._ladders(quickstart(), quickstart().budgets))[-1]
    cost = FlopsModel.of(cells["params"], cells["tokens"], cells["flops"])
    random, noise, found = np.random.default_rng(0), 0.002, []
    for _ in range(30):
        scatter = np.exp(noise * random.standard_normal(ladder.runs))
        loss = LAW.loss(cells["params"], cells["tokens"]) * scatter
        fit = fit_surface(cells["params"], cells["tokens"], loss, objective=Objective("squared"))
        found.append(float(np.log(fit.surface.optimum(3e13, cost)[0])))
    expected = module._chance(LAW, cost, cells, noise, 3e13)
    assert 0.7 < np.std(found) / expected < 1.4


def test_replicates_of_a_plan_are_not_counted_as_sizes():
    ladder = dataclasses.replace(quickstart().ladder, replicates_up_to=(1e11,))
    for one, _ in module._ladders(quickstart(ladder=ladder), quickstart().budgets):
        assert one.runs == len(one.budgets) * one.sizes * one.seeds


def test_mistakes_are_told(tmp_path):
    for width, target, told in ((1.0, None, "--enough=1:"), (1.5, 1e12, "--target=1e12")):
        with pytest.raises(UserError, match=told):
            enough(quickstart(), LAW, 0.01, width, target)
    with pytest.raises(UserError, match="three or more"):
        enough(quickstart(budgets=(1e11, 3e11)), LAW, 0.01, 1.5)
    with pytest.raises(UserError, match="give --noise"):
        enough_for(1.5, law="hoffmann", experiment=quickstart())
    with pytest.raises(UserError, match=r"--noise=1: is a fraction of loss, .* 1 % is 0.01"):
        enough_for(1.5, law="hoffmann", noise=1.0, experiment=quickstart())
    with pytest.raises(UserError, match="--where: picks runs of --runs"):
        enough_for(1.5, law="hoffmann", noise=0.01, where={"a": "b"})
    with pytest.raises(UserError, match="give --config"):
        enough_for(1.5, law="hoffmann", noise=0.01)
    done = call("plan", "--enough=1.5")
    assert done.returncode == 2 and "give --runs" in done.stderr


def test_the_program_takes_a_published_law():
    done = call("plan", "--enough=9", "--law=hoffmann", "--noise=0.005",
                "--config=configs/quickstart.py")  # fmt: skip
    assert done.returncode == 0 and "the last row" in done.stdout, done.stderr

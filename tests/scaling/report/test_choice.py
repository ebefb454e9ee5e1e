"""What a law holds best by length of training: its numbers, its intervals, its figure."""

import csv
import json

import numpy as np
import pytest

from chinchilla_jax.scaling.comparison import compare
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.draws import LENGTHS
from chinchilla_jax.scaling.laws.published import law_named
from chinchilla_jax.scaling.report import comparison
from chinchilla_jax.scaling.report.laws import choices
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.report.plots.choice import choice, drawers
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.laws.known import TRUTH
from tests.scaling.report.marks import assert_points_are_listed

LAW = LAWS["sparsity"]
BEST = (0.425, 0.484, 0.537, 0.601, 0.729)


def table(path, levels=(0.0, 0.5, 0.75, 0.875), noise=0.002):
    """Runs of a sweep of ours, by the names that its columns have."""
    random, rows = np.random.default_rng(0), []
    for level in levels:
        for params in np.geomspace(1e7, 1e9, 5):
            for tokens in np.geomspace(1e9, 1e12, 5):
                nonzero = params * (1 - level)
                loss = LAW.predict(
                    TRUTH["sparsity"], sparsity=level, nonzero_params=nonzero, tokens=tokens
                )
                rows.append(
                    {
                        "params_total": params, "params_nonzero": nonzero, "tokens": tokens,
                        "flops": 6 * params * tokens, "sparsity_level": level,
                        "loss": loss * np.exp(noise * random.standard_normal()),
                    }
                )  # fmt: skip
    with path.open("w") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    return read_runs(path)


@pytest.fixture(scope="module")
def compared(tmp_path_factory):
    runs = table(tmp_path_factory.mktemp("sparse") / "runs.csv")
    return *compare(runs, Settings(bootstrap=60), [LAW], ["sparsity_level"]), runs


def test_optimal_sparsity_rises_with_the_length_of_training_as_published():
    """Frantar et al. 2023 on C4, at their price of sparse training; brute force over sparsity."""
    published = law_named("frantar_t5").parameters
    length = np.array(LENGTHS)
    assert tuple(LAW.choice.best(published, length)) == BEST
    levels, dense = np.arange(0, 0.99, 0.001), law_named("frantar_t5").optimum(1e21)
    for times, found in zip(LENGTHS, BEST, strict=True):
        flops = times * 6 * dense.params * dense.tokens
        price = (1 - 0.625 * levels) / (1 - levels)
        tokens = flops / 6 / dense.params / price
        loss = LAW.predict(published, sparsity=levels, nonzero_params=dense.params, tokens=tokens)
        assert levels[loss.argmin()] == pytest.approx(found, abs=2e-3)
        runs = {"sparsity": 0.5, "nonzero_params": dense.params, "tokens": flops / 6 / dense.params}
        spent = LAW.choice.length(published, runs)
        assert spent == pytest.approx(times * (1 - 0.625 * 0.5) / 0.5, rel=1e-3)


def test_a_fit_to_runs_of_a_sweep_says_it_with_intervals(compared):
    found, *_ = compared
    (law,) = found.laws
    assert law.condition == {} and law.fit.runs == 100
    assert [chosen.length for chosen in law.fit.choices] == list(LENGTHS)
    for chosen, true in zip(law.fit.choices, BEST, strict=True):
        low, high = chosen.interval
        assert low < true < high and high - low < 0.3
    shown = choices([law.fit])
    assert shown.head[2:] == ("at 1", "at 2", "at 4", "at 10", "at 100")
    assert shown.rows[0][:2] == ("sparsity", "sparsity") and "non-zeros" in shown.note


def test_it_is_drawn_beside_the_runs(compared, tmp_path):
    found, arrays, runs = compared
    fit = found.laws[0].fit
    with style.styled():
        figure = choice(fit, runs)
    (ax,) = figure.axes
    x, y = ax.lines[0].get_data()
    assert np.all(np.diff(y) >= 0) and y[-1] > y[0] + 0.2
    np.testing.assert_allclose(
        np.interp(LENGTHS, x, y), [chosen.value for chosen in fit.choices], atol=0.01
    )
    dots = ax.collections[-1].get_offsets()
    assert len(dots) == 100 and set(np.round(dots[:, 1], 3)) == {0, 0.5, 0.75, 0.875}
    page = comparison.write(tmp_path, found, arrays, runs).read_text()
    assert 'id="choice"' in page and (tmp_path / "choice.png").exists()
    assert_points_are_listed(tmp_path, "choice")
    assert "Best by the length of training" in page
    (kept,) = json.loads((tmp_path / "fits.json").read_text())["laws"]
    assert [chosen["length"] for chosen in kept["fit"]["choices"]] == list(LENGTHS)


def test_runs_of_one_level_say_nothing_of_the_best(tmp_path):
    runs = table(tmp_path / "runs.csv", levels=(0.0, 0.5))
    (law,) = compare(runs, Settings(bootstrap=0), [LAW], ["sparsity_level"])[0].laws
    assert law.fit.undetermined and law.fit.choices == ()
    assert choices([law.fit]) is None and drawers([law.fit], runs) == {}

"""The law of what a technique adds to finished runs: fitted by value, its figure, its refusal."""

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.comparison import compare
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.report import comparison
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.report.plots.excess import drawers
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.techniques.quantisation import Quantisation, columns_after
from tests.scaling.report.marks import assert_points_are_listed

LAW = LAWS["post_training"]
TRUE = {"C_T": 16.0, "gamma_D": 0.5, "gamma_N": 0.3, "gamma_post": 0.6}
BY_GROUP = 0.4  # of what a scale for a channel costs


def sweep(groups=(0, 32), bits=(6, 5, 4), noise=0.05):
    """Rows of finished runs with what was measured of them, as results.csv has them."""
    random, rows = np.random.default_rng(0), []
    for params in np.geomspace(1e4, 1e6, 4):
        for tokens in np.geomspace(1e5, 1e8, 4):
            loss = float(1.5 + 40 * params**-0.4 + 60 * tokens**-0.4)
            row = {
                "run_id": f"{params:.0f}-{tokens:.0f}", "status": "done", "params_total": params,
                "tokens": tokens, "flops": 6 * params * tokens, "loss": loss, "seed": 0,
            }  # fmt: skip
            config = Quantisation(after=tuple(map(float, bits)), after_groups=groups)
            for each in config.measured():
                rise = LAW.predict(TRUE, params=params, tokens=tokens, bits=each.bits)
                rise = float(rise * np.exp(noise * random.standard_normal()))
                rise *= BY_GROUP if each.group else 1.0
                more = {"loss": loss + rise, "loss_se": 0.02, "bits_per_byte": 3.0}
                row |= columns_after(each, {**more, "bytes_at_rest": int(each.bits * params / 8)})
            rows.append(row)
    return rows


@pytest.fixture(scope="module")
def compared():
    runs = read_runs(sweep(), derived=True)
    return *compare(runs, Settings(bootstrap=60), [LAW]), runs


def test_its_parameters_are_found_again_for_each_group(compared):
    found, _, runs = compared
    assert len(runs) == 16 * 7
    channel, group = found.laws
    assert (channel.fit.runs, group.fit.runs) == (48, 48)
    for name, value in TRUE.items():
        low, high = channel.fit.interval[name]
        assert low < value < high, name
    ratio = group.fit.parameters["C_T"] / channel.fit.parameters["C_T"]
    assert 0.25 < ratio < 0.6
    assert channel.fit.rms == pytest.approx(0.05, rel=0.3)


def test_it_is_drawn_against_tokens_per_parameter(compared, tmp_path):
    found, arrays, runs = compared
    with style.styled():
        figure = comparison.law_figures(found, runs)["excess"]()
    (ax,) = figure.axes
    assert [text.get_text() for text in ax.get_legend().get_texts()] == [
        "4 bits", "5 bits", "6 bits",
    ]  # fmt: skip
    for line, dots in zip(ax.lines, ax.collections, strict=True):
        x, y = line.get_data()
        np.testing.assert_allclose(np.diff(np.log(y)) / np.diff(np.log(x)), 0.5, atol=0.05)
        points = dots.get_offsets()
        assert len(points) == 16
        on_line = np.exp(np.interp(np.log(points[:, 0]), np.log(x), np.log(y)))
        assert np.std(np.log(points[:, 1] / on_line)) == pytest.approx(0.05, rel=0.5)
    page = comparison.write(tmp_path, found, arrays, runs).read_text()
    assert 'id="excess"' in page and (tmp_path / "excess.png").exists()
    assert_points_are_listed(tmp_path, "excess")


def test_a_rise_that_is_noise_is_left_out_and_a_table_without_any_is_one_line(compared):
    rows = sweep(groups=(0,))
    for row in rows[:3]:
        row["loss_after_b6"] = row["loss"] + 9e-4
    (law,) = compare(read_runs(rows, derived=True), Settings(bootstrap=0), [LAW])[0].laws
    assert law.fit.runs == 45
    plain = read_runs([{k: v for k, v in row.items() if "_after_" not in k} for row in rows])
    with pytest.raises(UserError, match="post_training describes excess_loss, which no run of"):
        analyse(plain, Settings(bootstrap=0), [LAW])
    assert drawers([], plain) == {}

"""An analysis as a whole: its determinism, a sweep of ours, nothing heavy imported."""

import subprocess
import sys

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.doubt.uncertainty import surface_draws
from chinchilla_jax.scaling.fits import Draws, read, write
from chinchilla_jax.scaling.fitting.surface import fit_surface
from chinchilla_jax.scaling.forecast.frontier import from_fits
from chinchilla_jax.scaling.forecast.source import of_surface
from chinchilla_jax.scaling.laws.further import laws_named
from chinchilla_jax.scaling.sections import outlook
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import where
from chinchilla_jax.scaling.table.cost import SIX_ND
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.conditions import NOISE, SURFACES, three_optimizers
from tests.scaling.known import DATA, TRUE, grid, noisy
from tests.scaling.sweeps import write_sweep


@pytest.fixture(scope="module")
def sweep(tmp_path_factory):
    return read_runs(write_sweep(tmp_path_factory.mktemp("sweep")))


@pytest.fixture(scope="module")
def fits(sweep):
    return analyse(sweep, Settings(bootstrap=300, budgets=(1e13, 3e13)))[0]


def test_it_is_a_function_of_the_seed(sweep, fits):
    again = analyse(sweep, Settings(bootstrap=300, budgets=(1e13, 3e13)))[0]
    assert to_json(fits) == to_json(again)
    other = analyse(sweep, Settings(bootstrap=300, budgets=(1e13, 3e13), seed=1))[0]
    assert other.parametric.interval != fits.parametric.interval
    assert other.parametric.alpha == fits.parametric.alpha


def test_a_sweep_of_24_runs_is_read_with_its_own_budgets(sweep, fits):
    assert fits.table.budgets_from == "column"
    assert [b.flops for b in fits.isoflop.budgets] == [1e11, 3e11, 1e12, 3e12]
    assert fits.table.aside == {"missing": 1, "diverged": 1}
    assert fits.table.fitted == len(sweep) == 22
    assert fits.envelope.status == "ok"
    assert fits.envelope.curves == 22
    assert fits.holdout.status == "ok"
    for row in fits.forecast:
        for name in ("params", "tokens", "tokens_per_param", "loss"):
            low, high = row.interval[name]
            assert low <= getattr(row, name) <= high, name
        new = row.interval["new_run"]
        assert new[0] <= row.interval["loss"][0] and new[1] >= row.interval["loss"][1]


def test_the_draws_give_the_intervals_again(fits):
    """What `forecast` does with fits.json alone."""
    draws = fits.draws.surface
    rows = dict(zip(draws.columns, draws.rows.T, strict=True))
    selection = fits.sources.surface.selection
    if selection == "all":
        for name in ("E", "alpha", "beta"):
            np.testing.assert_allclose(
                np.quantile(rows[name], [0.025, 0.975]), fits.parametric.interval[name]
            )
    source = fits.sources.minima
    minima = dict(zip(fits.draws.minima.columns, fits.draws.minima.rows.T, strict=True))
    row = next(r for r in fits.forecast[0].every if r.form == "loss_law")
    log_c = np.log(1e13)
    params = np.exp(minima["ln_params_at_1"] + minima["a"] * log_c)
    # Chance, and in quadrature the error of the form.
    error = from_fits(fits, "loss_law").draws(np.array([1e13])).params / params
    assert np.std(np.log(error)) > 0.5 * source.held_out.params
    low, high = row.interval["params"]
    chance, whole = np.ptp(np.nanquantile(np.log(params), [0.025, 0.975])), np.log(high / low)
    assert whole == pytest.approx(np.hypot(chance, 3.92 * np.std(np.log(error))), rel=0.1)
    assert row.params == pytest.approx(np.exp(source.ln_params_at_1 + source.a * log_c))
    loss = source.E + source.A * np.exp(-source.exponent * log_c)
    assert row.loss == pytest.approx(loss)


def test_no_bootstrap_no_intervals(sweep):
    fits = analyse(sweep, Settings(bootstrap=0))[0]
    assert fits.parametric.bootstrap is None
    assert fits.parametric.interval == {}
    assert fits.forecast[0].interval is None
    assert fits.draws == Draws(None, None)


def test_new_runs_fall_into_the_prediction_interval():
    """The interval holds a new run at the forecast's N and D about 95 times in a hundred."""
    rng = np.random.default_rng(0)
    params, tokens, _ = grid([1e17, 3e17, 1e18, 3e18, 1e19], 8, 5.0)
    inside, tables = 0, 60
    for _ in range(tables):
        loss = TRUE.loss(params, tokens) * np.exp(0.01 * rng.standard_normal(len(params)))
        fit = fit_surface(params, tokens, loss, count=8)
        drawn = surface_draws(fit, 150, rng)
        source = of_surface("all", fit, drawn, SIX_ND, 1e21)
        row = outlook.prediction(source, 1e20, rng)
        new = TRUE.loss(row.params, row.tokens) * np.exp(0.01 * rng.standard_normal())
        low, high = row.interval["new_run"]
        inside += low <= new <= high
        assert high - low > np.ptp(row.interval["loss"])
    assert inside >= 51  # fewer happen once in a thousand at 95 %


@pytest.mark.parametrize(
    "wrong",
    [
        {"minima": "spline"},
        {"bootstrap": -1},
        {"budgets": (-1.0,)},
        {"budgets": (float("nan"),)},
        {"seed": -1},
    ],
)
def test_settings_are_checked(wrong):
    with pytest.raises(UserError):
        Settings(**wrong)


def test_nothing_heavy_is_imported():
    code = (
        "import sys, chinchilla_jax.scaling.analysis;"
        "heavy = {'jax', 'scipy', 'pyarrow', 'matplotlib', 'flax', 'pandas'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("name", ["chinchilla_fig4", "llama3_isoflop", "made_up"])
def test_other_peoples_tables_go_through(name, tmp_path):
    path = DATA / f"{name}.csv"
    if name == "made_up":
        path = tmp_path / path.name
        rows = np.stack(noisy(), axis=1)
        np.savetxt(path, rows, delimiter=",", header="params,tokens,loss", comments="")
    elif not path.exists():
        pytest.skip(f"{name} is other people's data and not part of the repository")
    fits = analyse(read_runs(path), Settings(bootstrap=100))[0]
    write(tmp_path / "fits.json", fits)
    assert to_json(read(tmp_path / "fits.json")) == to_json(fits)
    assert fits.parametric.status == fits.isoflop.status == "ok"
    assert fits.parametric.starts_agreeing > 0.8


def test_several_conditions_are_not_fitted_as_one():
    runs = read_runs(three_optimizers())
    with pytest.raises(UserError, match=r"column optimizer .* tells 3 conditions apart") as told:
        analyse(runs, Settings(bootstrap=0))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("seeds", [1, 3])
def test_inside_a_condition_the_noise_is_the_noise(seeds):
    """Three conditions of .1 % noise were read as one of several per cent, "from seeds"."""
    runs = read_runs(three_optimizers(seeds=seeds))
    for name, surface in SURFACES.items():
        fits, _ = analyse(where(runs, {"optimizer": name}), Settings(bootstrap=0))
        noise = fits.isoflop.noise
        assert noise.from_ == ("seeds" if seeds > 1 else "curve residuals")
        assert fits.parametric.noise == pytest.approx(NOISE, rel=0.5)
        if seeds > 1:
            assert noise.log_loss == pytest.approx(NOISE, rel=0.5)
        assert fits.parametric.a == pytest.approx(surface.exponents()[0], abs=0.03)
        assert fits.table.condition == {"optimizer": name}


def test_a_condition_picked_is_the_table_of_its_rows_alone():
    """All numbers, also those drawn: the rest of the table leaves no trace."""
    rows = three_optimizers(seeds=2)
    settings = Settings(bootstrap=50)
    picked, _ = analyse(where(read_runs(rows), {"optimizer": "muon"}), settings)
    alone, _ = analyse(read_runs([row for row in rows if row["optimizer"] == "muon"]), settings)
    ours, theirs = to_json(picked), to_json(alone)
    assert ours.pop("table")["range"] == theirs.pop("table")["range"]
    assert ours == theirs


@pytest.mark.parametrize("draws", [1, 2, 39, 40])
def test_so_few_draws_that_none_lies_beyond_a_percentile_give_no_interval(draws):
    rows = three_optimizers(sizes=5, budgets=(1e17, 1e18, 1e19, 1e20))[:20]
    fits, _ = analyse(read_runs(rows), Settings(bootstrap=draws), laws_named(["compute"]))
    said = [text for text in fits.warnings if "draws" in text]
    (row,), (law,) = fits.forecast, fits.laws
    found = (fits.parametric.interval, fits.isoflop.interval, row.interval, law.interval)
    if draws < 40:
        assert not any(found) and fits.draws.surface is None
        assert said == [
            f"bootstrap: {draws} draws say nothing of 95 % intervals, which take 40 or more: none "
            "is given"
        ]
    else:
        assert all(found) and not said


@pytest.mark.filterwarnings("error")
def test_runs_of_hardly_any_law_warn_of_nothing():
    """Losses that scatter by a factor of e: resamples without a minimum, or with one far away."""
    params, tokens, _ = grid([1e18, 3e18, 1e19, 3e19], 5, 3.0)
    noise = np.random.default_rng(39).standard_normal(len(params))
    table = {"params": params, "tokens": tokens, "loss": TRUE.loss(params, tokens) * np.exp(noise)}
    analyse(read_runs(table), Settings(bootstrap=100))

"""The further laws: form against linear part, published values, and fits that must be optimal."""

import csv
from pathlib import Path

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.fitting.surface import fit_surface
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.fit import fit
from chinchilla_jax.scaling.laws.published import law_named
from chinchilla_jax.techniques.sparsity import dense_size_multiplier
from tests.scaling.known import noisy
from tests.scaling.laws.known import TRUTH, law_runs

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data beside the repo")


def _read(name):
    with (DATA / name).open() as lines:
        rows = list(csv.DictReader(lines))
    return {column: np.array([float(row[column]) for row in rows]) for column in rows[0]}


@pytest.mark.parametrize("name", LAWS)
def test_form_equals_its_linear_part(name):
    law, runs = LAWS[name], law_runs()
    exponents = {k: np.asarray(np.sqrt(low * high)) for k, (low, high) in law.ranges.items()}
    basis, power = law.linear(exponents, runs)
    if name == "repetition":  # here the searched ratio must be the one that A and B imply
        ratio = exponents["params_per_token"] ** exponents["alpha"]
        coefficients = (1.5, 400.0 * ratio, 400.0)
    else:
        coefficients = tuple(2.0 + np.arange(len(basis)))
    summed = sum(c * phi for c, phi in zip(coefficients, basis, strict=True)) ** power
    summed = law.offset(runs) + summed
    parameters = law.natural(exponents, tuple(map(np.asarray, coefficients)))
    assert set(parameters) == set(law.parameters)
    np.testing.assert_allclose(law.form(parameters, runs), summed, rtol=1e-12)


@pytest.mark.parametrize("name", LAWS)
def test_noise_free_parameters_are_recovered(name):
    law, runs = LAWS[name], law_runs()
    loss = law.predict(TRUTH[name], **{column: runs[column] for column in law.columns})
    found = fit(law, runs, loss, Objective("squared"))
    assert found.warnings == ()
    if name == "farseer":  # nine parameters, of which whole valleys give these losses
        assert found.rms < 3e-4
        return
    for parameter, value in TRUTH[name].items():
        assert found.parameters[parameter] == pytest.approx(value, rel=1e-4), parameter
    assert found.rms < 1e-8


@needs_data
def test_generic_fit_reaches_the_certified_optimum_of_the_replication():
    table = _read("chinchilla_fig4.csv")
    keep = np.argsort(table["loss"])[:240]
    runs = {column: values[keep] for column, values in table.items()}
    found = fit(LAWS["chinchilla"], runs, runs["loss"])
    assert found.objective <= 0.0010182740178007
    assert found.gradient_norm < 1e-9
    assert found.starts_agreeing > 0.5
    golden = {"E": 1.817218, "A": 477.826, "B": 2143.417, "alpha": 0.3473105, "beta": 0.3671724}
    for name, value in golden.items():
        assert found.parameters[name] == pytest.approx(value, rel=1e-6)


def test_generic_fit_reaches_the_optimum_of_the_surfaces_own_solver():
    params, tokens, loss = noisy()
    found = fit(LAWS["chinchilla"], {"params": params, "tokens": tokens}, loss)
    own = fit_surface(params, tokens, loss)
    assert found.objective == pytest.approx(own.value, rel=1e-9)
    assert found.gradient_norm < 1e-9
    for name, value in found.parameters.items():
        assert value == pytest.approx(getattr(own.surface, name), rel=1e-5), name


@needs_data
def test_sparsity_law_beats_the_published_coefficients_on_its_own_runs():
    runs = _read("t5_c4_sparsity.csv")
    law, published = LAWS["sparsity"], law_named("frantar_t5").parameters
    found = fit(law, runs, runs["loss"])
    theirs = log_huber(law, published, runs, runs["loss"])
    assert theirs == pytest.approx(
        48 * 7.603605281507622e-06, rel=1e-6
    )  # printed in their notebook
    assert found.objective < 0.65 * theirs
    assert found.gradient_norm < 1e-8


@pytest.mark.parametrize("name", ["sparsity", "width_depth"])
def test_a_fit_beats_the_coefficients_that_noisy_runs_were_made_with(name):
    law, runs = LAWS[name], law_runs()
    clean = law.predict(TRUTH[name], **{column: runs[column] for column in law.columns})
    loss = clean * np.exp(0.005 * np.random.default_rng(0).standard_normal(len(clean)))
    found = fit(law, runs, loss)
    assert found.objective == pytest.approx(log_huber(law, found.parameters, runs, loss), rel=1e-9)
    assert 0.7 < found.objective / log_huber(law, TRUTH[name], runs, loss) < 1
    assert found.gradient_norm < 1e-8


def log_huber(law, parameters, runs, loss, delta=1e-3):
    columns = {column: runs[column] for column in law.columns}
    size = np.abs(np.log(law.predict(parameters, **columns) / loss))
    inside = np.minimum(size, delta)
    return float(np.sum(inside * (size - inside / 2)))


def test_sparsity_multipliers_of_the_published_law():
    published = law_named("frantar_t5").parameters
    found = [round(dense_size_multiplier(published, s), 3) for s in (0.5, 0.75, 0.875)]
    assert found == [1.586, 2.157, 2.630]


def test_repetition_law_reproduces_the_unit_values_of_its_authors():
    law = law_named("muennighoff")
    exact = {
        "E": np.exp(0.6254804), "A": np.exp(6.255414), "B": np.exp(7.3049974), "alpha": 0.3526596,
        "R_D": 15.387756, "R_N": 5.309743,
    }  # fmt: skip
    for params, tokens, value in (
        (6.34e9, 242e9, 2.2256440889984477),
        (8.67e9, 178e9, 2.2269634075087867),
    ):
        columns = {"params": params, "tokens": tokens, "unique_tokens": 25e9}
        assert float(LAWS["repetition"].predict(exact, **columns)) == pytest.approx(
            value, rel=1e-12
        )
        assert float(law.loss(params, tokens, unique_tokens=25e9)) == pytest.approx(
            value, rel=1e-10
        )


def test_over_training_is_the_tied_surface():
    law = law_named("gadre_c4")
    params, tokens = np.geomspace(1e7, 1e10, 5), np.geomspace(1e12, 1e9, 5)
    np.testing.assert_allclose(
        law.surface.loss(params, tokens), law.loss(params, tokens), rtol=1e-12
    )


@pytest.mark.parametrize("loss", ["huber", "least_absolute"])
def test_other_objectives_end_in_a_stationary_point(loss):
    law, runs = LAWS["kaplan"], law_runs()
    noise = np.random.default_rng(1).laplace(0, 0.01, len(runs["params"]))
    clean = law.predict(TRUTH["kaplan"], params=runs["params"], tokens=runs["tokens"])
    found = fit(law, runs, clean * np.exp(noise), Objective(loss))
    assert found.starts_agreeing > 0.5

    def value(parameters):
        predicted = law.predict(parameters, params=runs["params"], tokens=runs["tokens"])
        return _sum(loss, predicted, clean * np.exp(noise))

    assert value(found.parameters) == pytest.approx(found.objective, rel=1e-6)
    for name in law.parameters:
        for factor in (1 - 1e-4, 1 + 1e-4):
            moved = {**found.parameters, name: found.parameters[name] * factor}
            assert value(moved) >= found.objective


def _sum(loss, predicted, observed):
    if loss == "least_absolute":
        return float(np.sum(np.abs(np.log(predicted / observed))))
    size = np.abs(predicted - observed)
    inside = np.minimum(size, 1e-3)
    return float(np.sum(inside * (size - inside / 2)))


def test_what_runs_do_not_determine_is_said():
    runs = law_runs()
    fixed = {**runs, "tokens": 20 * runs["params"]}  # every run at 20 tokens per parameter
    loss = LAWS["over_training"].predict(
        TRUTH["over_training"], params=fixed["params"], tokens=fixed["tokens"]
    )
    found = fit(LAWS["over_training"], fixed, loss)
    assert any("only together" in warning for warning in found.warnings)


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"params": np.ones(9)}, "needs the column tokens"), (law_runs(count=5), "cannot determine")],
)
def test_too_little_is_one_line(columns, message):
    with pytest.raises(UserError, match=message):
        fit(LAWS["chinchilla"], columns, np.ones(5))

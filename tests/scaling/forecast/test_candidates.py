"""Which forecasts there are, and in what order: the chosen one, then as hold-out ranks them."""

import numpy as np

from chinchilla_jax.scaling.approaches import approaches
from chinchilla_jax.scaling.forecast.candidates import candidates
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.known import TRUE, grid


def test_the_other_form_is_told_by_its_best_forecast():
    """A surface of runs that hold-out ranks low says nothing of the error of the laws."""
    params, tokens, budget = grid([1e17, 3e17, 1e18, 3e18, 1e19], 7, 12.0)
    loss = TRUE.loss(params, tokens)
    loss *= 1 + 0.03 * np.log(budget / 1e18) ** 2 / 10  # what no surface has
    runs = read_runs({"params": params, "tokens": tokens, "loss": loss})
    settings = Settings(bootstrap=0)
    fitted = approaches(runs, settings, np.random.default_rng)
    found = candidates(fitted, settings, np.random.default_rng(0))
    order = [score.forecaster for score in found.ranking]
    first, *others = (source.forecaster for source in found.sources)
    assert first == found.chosen and len(others) > 2
    places = [order.index(other) for other in others if other in order]
    assert places == sorted(places)
    for source in found.sources:
        assert source.other is not None
        rivals = [s for s in found.sources if s.forecaster.form != source.forecaster.form]
        assert source.other.forecaster == rivals[0].forecaster

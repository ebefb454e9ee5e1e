"""Farseer: what a fit to its own runs says, and that it describes what Chinchilla cannot."""

import numpy as np
import pytest

from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.fit import fit

FARSEER = LAWS["farseer"]
_BILLION = 1e-9  # N of these parameters counts in 1e9
# Somebody else's fit to the paper's 404 runs (bits per character), in the paper's letters.
A1, ALPHA, B1 = -3.64018052694574, 0.04227158138097161, 2.426767169414907
A2, BETA, B2 = 6.521067537526011, -0.12577666979396562, -1.8538051793707684
A3, GAMMA, B3 = -2.0823163727130565, 0.05307598573983473, 1.277014316755749
PARAMETERS = {
    "E": np.exp(B3), "k3": -A3 * _BILLION**GAMMA, "gamma": GAMMA,
    "B": np.exp(B2), "k2": A2 * _BILLION**BETA, "beta": -BETA,
    "d": np.exp(B1), "k1": -A1 * _BILLION**ALPHA, "alpha": ALPHA,
}  # fmt: skip


def test_it_is_the_equation_of_the_paper():
    n, tokens = 3e9, 2e11
    slope = np.exp(A1 * 3**ALPHA + B1)
    loss = np.exp(A3 * 3**GAMMA + B3) + np.exp(A2 * 3**BETA + B2) * tokens**-slope
    assert FARSEER.predict(PARAMETERS, params=n, tokens=tokens) == pytest.approx(loss, rel=1e-12)


def test_the_best_tokens_per_parameter_are_those_of_that_fit():
    """Published beside it: 32, 25, 28, 43, 82 and 195 at 1e19 to 1e24 FLOPs: not a power law."""
    for exponent, ratio in zip(range(19, 25), (32, 25, 28, 43, 82, 195), strict=True):
        params = np.geomspace(1e7, 1e13, 20_001)
        tokens = 10.0**exponent / (6 * params)
        best = FARSEER.predict(PARAMETERS, params=params, tokens=tokens).argmin()
        assert tokens[best] / params[best] == pytest.approx(ratio, abs=0.6)


def test_a_fit_predicts_what_chinchillas_form_misses():
    params, tokens = (
        x.ravel() for x in np.meshgrid(np.geomspace(1e8, 6e9, 8), np.geomspace(1e9, 5e11, 7))
    )
    loss = FARSEER.predict(PARAMETERS, params=params, tokens=tokens)
    columns = {"params": params, "tokens": tokens}
    ours, theirs = (
        fit(law, columns, loss, Objective("squared"), count=6, searched=1024)
        for law in (FARSEER, LAWS["chinchilla"])
    )
    assert ours.rms < 3e-4 < 5e-3 < theirs.rms
    beyond = FARSEER.predict(PARAMETERS, params=3e10, tokens=3e12)
    far = FARSEER.predict(ours.parameters, params=3e10, tokens=3e12)
    assert far == pytest.approx(beyond, rel=3e-3)

"""What a layer keeps, by its arrays; against XLA's own plan see tests/training/test_memory.py."""

from collections import Counter

import pytest

from chinchilla_jax.experiment.memory import saved
from tests.training.helpers import small_run

# What `Layer` multiplies by weights, and its input: the last result only adds to the residual
# stream, of which the next layer's input is left.
RESULTS = {
    "modern": {"TD": 2, "THK": 1, "TGK": 2, "TF": 2},
    "chinchilla": {"TD": 2, "THK": 1, "TGK": 2, "SHK": 1, "TF": 1},
}


@pytest.mark.parametrize("definition", RESULTS)
def test_dots_keeps_the_results_of_products_with_weights(definition):
    kept = Counter()
    for array in saved(small_run(model={"definition": definition}).model, "dots", fused=False):
        kept[array.dims] += array.count
        assert not array.wide
    assert kept == RESULTS[definition]


def test_each_policy_keeps_less_and_a_kernel_no_scores():
    model = small_run().model
    kept = {remat: saved(model, remat, fused=False) for remat in ("none", "attention", "full")}
    scores = [array for array in kept["none"] if array.dims == "THS"]
    assert scores == [array for array in kept["none"] if array not in kept["attention"]] != []
    assert [array.dims for array in kept["full"]] == ["TD"]
    fused = saved(model, "none", fused=True)
    assert set(fused) < set(kept["none"]) and not set(scores) & set(fused)

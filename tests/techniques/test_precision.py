"""Published laws of precision: values that were computed from the papers' tables."""

import numpy as np
import pytest

from chinchilla_jax.techniques.precision import (
    AFTER,
    CHEN,
    GROUP,
    KUMAR,
    KUMAR_AFTER,
    KUMAR_AFTER_OFFSET,
    TRAINING,
    best_share,
    kept,
    kumar_loss,
)


@pytest.mark.parametrize("flops", [1e18, 1e21, 1e24])
def test_the_best_precision_is_seven_bits_at_every_budget(flops):
    """Kumar et al., section 4: 7 to 8, with C = (6/16) N D P free in all three."""
    bits = np.arange(1, 16.01, 0.05)[:, None]
    params = np.geomspace(1e5, 1e13, 1500)[None]
    loss = kumar_loss(params, flops / (6 / 16 * params * bits), bits, bits, bits)
    best = np.unravel_index(loss.argmin(), loss.shape)
    assert bits[best[0], 0] == pytest.approx(7.0, abs=0.051)


def test_what_counts_of_the_parameters_at_few_bits():
    found = [
        kept(np.array([3, 4, 6, 8, 16]), KUMAR[f"gamma_{x}"], KUMAR[f"n_{x}"])
        for x in ("w", "a", "kv")
    ]
    np.testing.assert_allclose(found[0], [0.559, 0.696, 0.856, 0.932, 0.9966], atol=6e-4)
    np.testing.assert_allclose(found[1], [0, 0.331, 0.730, 0.891, 0.9971], atol=6e-4)
    np.testing.assert_allclose(found[2], [0.510, 0.828, 0.979, 0.997, 1.0], atol=6e-4)
    assert np.isinf(kumar_loss(1e8, 1e10, activations=3))


def test_the_loss_in_full_precision():
    assert kumar_loss(220e6, 13e9) == pytest.approx(3.2466, abs=5e-5)
    law = {"E": 2.7648, "A": 4.299e3, "B": 1.806e4, "alpha": 0.4965, "beta": 0.4965}
    law |= {"gamma": KUMAR["gamma_w"], "n": KUMAR["n_w"]}
    by_law = TRAINING.predict(law, params=220e6, tokens=13e9, bits=4)
    assert by_law == pytest.approx(kumar_loss(220e6, 13e9, weights=4))


@pytest.mark.parametrize(
    "params,bits,rise,with_offset",
    [(30e6, 4, 0.0349, 0.1078), (30e6, 3, 0.1897, 0.5858), (220e6, 4, 0.0176, 0.0543)],
)
def test_what_quantising_afterwards_costs(params, bits, rise, with_offset):
    found = AFTER.predict(KUMAR_AFTER, params=params, tokens=26e9, bits=bits)
    assert found == pytest.approx(rise, abs=5.1e-5)
    assert found * np.exp(KUMAR_AFTER_OFFSET) == pytest.approx(with_offset, abs=1.1e-4)


def test_more_tokens_can_hurt_once_a_model_is_quantised():
    tokens = np.geomspace(1e8, 1e14, 60)
    rise = AFTER.predict(KUMAR_AFTER, params=30e6, tokens=tokens, bits=3)
    loss = kumar_loss(30e6, tokens) + rise
    assert 0 < loss.argmin() < 59 and kumar_loss(30e6, tokens).argmin() == 59


@pytest.mark.parametrize(
    "params,tokens,group,rise",
    [(145e6, 20e9, 128, 0.0692), (595e6, 100e9, 32, 0.0441), (595e6, 100e9, 128, 0.0573)],
)
def test_what_training_with_four_bits_costs_by_group(params, tokens, group, rise):
    """Chen et al.; their runs of the first: .060 to .065."""
    found = GROUP.predict(CHEN["w4a4"], params=params, tokens=tokens, group=group)
    assert found == pytest.approx(rise, abs=5.1e-5)
    parts = [
        GROUP.predict(CHEN[name], params=params, tokens=tokens, group=group)
        for name in ("w4a16", "w16a4")
    ]
    assert found < sum(parts) < 1.3 * found


def test_when_to_begin_with_few_bits():
    for tokens_per_byte, share in ((20, 0.106), (40, 0.161), (100, 0.232), (400, 0.325),
                                   (2000, 0.413)):  # fmt: skip
        assert best_share(tokens_per_byte) == pytest.approx(share, abs=5.1e-4)
    assert best_share(1.0) == best_share(0.5) == 0.0

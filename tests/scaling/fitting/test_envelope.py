"""Approach 1: smoothing, the lower envelope, and curves that were cut short."""

import numpy as np
import pytest

from chinchilla_jax.scaling.fitting import envelope as envelopes
from chinchilla_jax.scaling.fitting.envelope import doubts, envelope, envelope_draws, smooth
from chinchilla_jax.scaling.table.curves import Curve, curves_of_rows
from tests.scaling.known import TRUE


def _curve(params, horizon, noise=0.0, cut=1.0, seed=0, high=0.03):
    """A run whose loss lies above the surface, by `high` at first, until its rate has decayed."""
    share = np.linspace(0.002, cut, 400)
    tokens = share * horizon
    loss = TRUE.loss(params, tokens) * (1 + high * (1 - share) ** 2)
    loss = loss * np.exp(noise * np.random.default_rng(seed).standard_normal(400))
    rate = 1 - 0.9 * share
    return Curve(f"{params:.3g}", params, tokens, 6 * params * tokens, loss, rate)


def _many(**change):
    """Four horizons that span a factor 16 for each size, as in the paper, about its optimum."""
    return [
        _curve(n, factor * d, seed=i, **change)
        for i, (n, d) in enumerate(zip(*TRUE.optimum(np.geomspace(1e19, 1e23, 15)), strict=True))
        for factor in np.geomspace(0.25, 4, 4)
    ]


@pytest.mark.parametrize(("high", "error"), [(0.0, 0.01), (0.03, 0.05)])
def test_the_envelope_finds_the_exponents_of_the_surface(high, error):
    """To .01 where a curve is as good as a run that ends there, worse where its rate is high."""
    found = envelope(_many(high=high))
    a, b = TRUE.exponents()
    assert found.laws.a[0] == pytest.approx(a, abs=error)
    assert found.laws.b[0] == pytest.approx(b, abs=error)
    np.testing.assert_allclose(6 * found.params_F * found.tokens_F, found.flops_F, rtol=1e-3)
    edge = (found.params_F == found.params_F.min()) | (found.params_F == found.params_F.max())
    assert not np.any(edge & found.used_F)


def test_no_curve_lies_below_the_envelope():
    curves = _many(noise=0.01)
    found = envelope(curves)
    assert np.all(np.nanmin(found.loss_CxF, axis=0) == found.loss_F)
    for f in range(0, len(found.flops_F), 97):
        here = [
            np.interp(found.flops_F[f], c.flops_S, smooth(c))
            for c in curves
            if c.flops_S[8] < found.flops_F[f] < c.flops_S[-1]
        ]
        assert found.loss_F[f] <= min(here) * (1 + 1e-4)


def test_smoothing_removes_noise_and_does_not_lag():
    clean, noisy = _curve(1e9, 2e10), _curve(1e9, 2e10, noise=0.02)
    inner = slice(20, 390)
    np.testing.assert_allclose(smooth(clean)[inner], clean.loss_S[inner], rtol=2e-3)
    raw = np.std(np.log(noisy.loss_S / clean.loss_S)[inner])
    assert np.std(np.log(smooth(noisy) / clean.loss_S)[inner]) < raw / 3


def test_curves_cut_out_of_a_longer_decay_are_told():
    whole, cut = _many(), _many(cut=0.5)
    assert not any(
        "before their learning rate decayed" in x for x in doubts(envelope(whole), whole)
    )
    said = " ".join(doubts(envelope(cut), cut))
    assert "60 of 60 curves end before their learning rate decayed" in said
    early = [_curve(n, 3e12, seed=1) for n in np.geomspace(1e8, 1e10, 7)]
    share = envelope(early).last_share
    assert share < 0.9
    assert any("last 15 %" in x for x in doubts(envelope(early), early))


def test_resampled_curves_give_an_interval_around_the_exponent():
    curves = _many(noise=0.01)
    found = envelope(curves)
    draws = envelope_draws(found, curves, 200, np.random.default_rng(0))
    low, high = np.quantile(draws.a, [0.025, 0.975])
    assert low < found.laws.a[0] < high
    assert high - low < 0.3


@pytest.mark.parametrize("ranks", [2, 5, 1000])
def test_a_draw_is_the_envelope_of_the_curves_drawn(monkeypatch, ranks):
    """However few ranks are looked at first."""
    curves = _many(noise=0.01)
    found = envelope(curves)
    monkeypatch.setattr(envelopes, "_RANKS", ranks)
    draws = envelope_draws(found, curves, 5, np.random.default_rng(3))
    rng = np.random.default_rng(3)
    for a in draws.a:
        drawn = np.unique(rng.integers(len(curves), size=len(curves)))
        loss = np.where(np.isnan(found.loss_CxF[drawn]), np.inf, found.loss_CxF[drawn])
        chosen, some = drawn[loss.argmin(axis=0)], np.isfinite(loss).any(axis=0)
        log_flops, log_params = np.log(found.flops_F), np.log([curves[i].params for i in chosen])
        ends = np.array([curves[i].tokens_S[-1] for i in chosen])
        tokens = [
            np.exp(np.interp(x, np.log(curves[i].flops_S), np.log(curves[i].tokens_S)))
            for i, x in zip(chosen, log_flops, strict=True)
        ]
        used = np.zeros(len(chosen), bool)
        used[some] = envelopes._used(np.exp(log_params[some]), (np.array(tokens) / ends)[some])
        assert a == pytest.approx(np.polyfit(log_flops[used], log_params[used], 1)[0], rel=1e-9)


def test_too_few_sizes_give_no_envelope():
    assert envelope([_curve(1e8, 2e9), _curve(1e9, 2e10)]) is None
    assert (
        curves_of_rows("x", {k: np.ones(3) for k in ("params", "tokens", "flops", "loss")}) is None
    )

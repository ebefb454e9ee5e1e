"""Published laws of hyper-parameters: predictions as printed, or as their formulas give them."""

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.tuning.published import published_settings


@pytest.mark.parametrize(
    ("name", "run", "settings"),
    [
        ("steplaw", {"params": 1e9, "tokens": 1e11},
         {"learning_rate": 1.6325e-3, "batch": 1.1077e6}),
        ("steplaw", {"params": 7e9, "tokens": 1.4e12},
         {"learning_rate": 9.166e-4, "batch": 4.999e6}),
        ("deepseek", {"flops": 1e20}, {"learning_rate": 9.86e-4, "batch": 1.017e6}),
        ("bergsma", {"params": 1e9, "tokens": 2e10}, {"weight_decay": 0.2236}),
        ("bergsma", {"params": 1e9, "tokens": 2e11}, {"weight_decay": 0.0664}),
        ("bergsma", {"params": 1e9, "tokens": 1e12}, {"weight_decay": 0.0284}),
        ("bergsma", {"params": 1e8, "tokens": 3e9}, {"batch": 130.5 * 2048}),
        ("bergsma", {"params": 1e9, "tokens": 4e10}, {"batch": 351.8 * 2048}),
        ("tian", {"flops": 1e20}, {"learning_rate": 1.013e-3, "batch": 1.347e6}),
    ],
)  # fmt: skip
def test_predictions(name, run, settings):
    found = published_settings()[name].predict(**run)
    for setting, value in settings.items():
        assert float(found[setting]) == pytest.approx(value, rel=2e-3), setting


def test_every_row_has_its_source_and_policy():
    for name, row in published_settings().items():
        assert row.source and row.title and row.policy in ("tuned", "fixed"), name
        assert set(row.laws) <= {"learning_rate", "batch", "weight_decay"}
        assert row.needs()


def test_what_a_law_needs_and_what_none_gives_is_told():
    laws = published_settings()
    with pytest.raises(UserError, match="steplaw gives settings by params, tokens: give --params"):
        laws["steplaw"].predict(flops=1e20)
    with pytest.raises(UserError, match=r"deepseek .*: give --flops"):
        laws["deepseek"].predict(params=1e9)
    with pytest.raises(UserError, match="bjorck has exponents and no constant"):
        laws["bjorck"].predict(params=1e9, tokens=1e10)


def test_the_sign_of_tokens_follows_the_policy_of_the_batch():
    sign = {
        row.policy: np.sign(row.exponents()["learning_rate"]["tokens"])
        for row in published_settings().values()
        if "tokens" in row.exponents().get("learning_rate", {})
    }
    assert sign == {"tuned": 1, "fixed": -1}


def test_how_far_a_law_is_carried():
    law = published_settings()["steplaw"]
    inside = law.decades_beyond(params=np.array([5e8]), tokens=np.array([5e10]))
    beyond = law.decades_beyond(params=np.array([5e8, 1.073741824e10]), tokens=np.array([5e10] * 2))
    assert inside == 0.0 and beyond == pytest.approx(1.0)
    assert published_settings()["porian"].decades_beyond(params=np.array([1e9])) is None

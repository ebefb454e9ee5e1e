"""Capped and noisy text: what is planned of it, and how tables of such runs are read."""

import numpy as np
import pytest

from chinchilla_jax import techniques
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.ledger import dense, facts, ledger
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.further import fit_laws
from chinchilla_jax.scaling.ruler.league import league
from chinchilla_jax.scaling.ruler.panel import is_panel, panel
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.ruler.laws import muennighoff


def experiment(**changes):
    ladder = LadderConfig(widths=(16, 32), sizes_per_budget=(0,), min_tokens_per_param=0.1)
    return Experiment(name="t", budgets=(1e11,), ladder=ladder, **changes)


def varied(field, *values, **data):
    return plan(experiment(vary={f"techniques.data.{field}": values}), **data)


def test_a_cap_costs_nothing_and_decides_the_run():
    cells = varied("unique_tokens", 0, 65536)
    assert [c.run.run_id.split("-", 2)[2] for c in cells[:2]] == ["U0-s0", "U65536-s0"]
    assert ledger(cells[1].run) == dense(facts(cells[1].run))
    assert fingerprint(cells[0].run) != fingerprint(cells[1].run)
    assert fingerprint(cells[0].run) == fingerprint(plan(experiment())[0].run)


def test_epochs_are_of_the_capped_text():
    most = max(cell.tokens for cell in plan(experiment()))
    cells = varied("unique_tokens", 0, 65536, train_tokens=10 * most)
    reasons = [cell.reason for cell in cells if cell.tokens == most]
    assert reasons[0] == "" and "epochs of the corpus, over 4" in reasons[1]
    small = varied("unique_tokens", 0, 10**9, train_tokens=most)
    assert [cell.reason for cell in small] == [""] * len(small)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("unique_tokens", -1, r"unique_tokens = -1: must be 0 \(all of the text\) or more"),
        ("unique_tokens", 63, "unique_tokens = 63: is less than one sequence of 64 tokens"),
        ("noise", 1.0, r"noise = 1.0: must lie in \[0, 1\), 0 is none"),
        ("noise", -0.1, r"noise = -0.1: must lie in"),
        ("quality", "gofer", "quality = 'gofer': expected .*; did you mean gopher"),
        ("quality", "classifier", "curated = '': name the files that the classifier holds good"),
        ("keep", 0.0, r"keep = 0.0: must lie in \(0, 1\]"),
    ],
)
def test_what_is_no_text_is_one_line(field, value, message):
    with pytest.raises(UserError, match=message):
        varied(field, value)


def test_a_filter_in_use_is_all_that_counts_and_a_share_of_the_text_is_planned_on():
    most = max(cell.tokens for cell in plan(experiment()))
    half = {"techniques.data.quality": "random", "techniques.data.keep": 0.25}
    panel = {"half": Setting(values=half), "same": Setting(values={"techniques.data.keep": 0.1})}
    cells = plan(experiment(panel=panel), most // 3)
    reasons = {cell.run.run_id.split("-")[2]: cell.reason for cell in cells if cell.tokens == most}
    assert reasons["s0"] == "" and "needs 12 epochs" in reasons["half"]
    assert "is the same run as" in reasons["same"]


def rows(caps=(0, 2**28, 2**26), noise=0.0, shares=(0.0,), seeds=1, scatter=0.0):
    """Runs as the law has them, with the columns of our own tables; models below what U feeds."""
    rng, found = np.random.default_rng(0), []
    for budget in (1e17, 3e17, 1e18, 3e18):
        for k in (0.35, 0.6, 1.0, 1.6, 2.8):
            params = k * (budget / 120) ** 0.5
            tokens = budget / 6 / params
            for seed in range(seeds):
                shared = scatter * rng.standard_normal()
                for cap in caps:
                    for share in shares:
                        unique = min(tokens, cap or tokens)
                        loss = muennighoff(params, tokens * (1 - share), tokens / unique)
                        own = 0.3 * scatter * rng.standard_normal()
                        found.append(
                            {"params": params, "tokens": tokens, "flops": budget, "seed": seed,
                             "loss": loss * np.exp(shared + own), "unique_tokens": unique,
                             "data_unique_tokens": cap, "data_noise": share}
                        )  # fmt: skip
    return found


def test_a_cap_is_one_condition_whatever_a_run_repeats():
    """`unique_tokens`, which is the tokens of a short run, tells nothing apart beside it."""
    runs = read_runs(rows())
    assert runs.kinds["data_unique_tokens"].kind == "condition"
    assert runs.kinds["unique_tokens"].kind == "count"
    assert is_panel(runs)
    found = panel(runs)
    assert [found.label(one.values) for one in found.others] == [
        "67108864 unique tokens", "268435456 unique tokens"
    ]  # fmt: skip
    assert all(len(one.runs) == 20 for one in (found.dense, *found.others))


def test_the_law_of_repetition_spans_the_caps_and_leaves_noise_apart():
    assert LAWS["repetition"] in techniques.laws()
    assert techniques.explained("repetition") == ("data_unique_tokens",)


@pytest.mark.parametrize("draws", [0, pytest.param(80, marks=pytest.mark.slow)])
def test_the_law_of_repetition_is_fitted_over_the_caps_with_its_interval(draws):
    runs = read_runs(rows(caps=(0, 2**28, 2**26, 2**24), scatter=0.004))
    (found,) = fit_laws([LAWS["repetition"]], runs, Objective("squared"), draws, 0)
    assert found.runs == 80 and found.parameters["R_D"] == pytest.approx(15.387756, rel=0.05)
    if draws:
        low, high = found.interval["R_D"]
        assert low < 15.387756 < high < 1.2 * low


def test_noise_is_worth_the_share_of_tokens_that_is_text():
    """The known answer of the control, of runs to which noise does nothing but take their place."""
    table = read_runs(rows(caps=(0,), shares=(0.0, 0.25), seeds=2, scatter=0.005))
    (one,) = league(panel(table), Settings(bootstrap=200))[0].standings
    assert one.label == "25 % noise"
    found = next(m for m in one.multipliers if m.measure == "tokens")
    assert found.low <= 0.75 <= found.high and found.pays is False

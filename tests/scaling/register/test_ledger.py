"""The ledger of verdicts: it only grows, what is damaged is told, and calibration is counted."""

import dataclasses
import json
import math

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.scaling.register import ledger as ledgers
from chinchilla_jax.scaling.register.registration import Predicted
from chinchilla_jax.scaling.register.verdict import RunOutcome, Verdict, outcome
from chinchilla_jax.scaling.report import calibration as told

Z = 1.959964


def verdict(number, z_loss=0.0, z_params=0.0, decades=0.5, deviation=0.02):
    """A verdict whose L* and N* came out so many standard deviations off."""
    ends = math.exp(-Z * deviation), math.exp(Z * deviation)
    numbers = tuple(
        outcome(what, Predicted(1.0, ends), math.exp(z * deviation))
        for what, z in (("params", z_params), ("tokens", -z_params), ("loss", z_loss))
    )
    run = outcome("run", Predicted(1.0, ends), math.exp(z_loss * deviation))
    return Verdict(
        version=1, forecast=f"one_{number}", digest=f"{number}", date="2026-11-27", flops=1e13,
        decades=decades, params=3e5, form="surface", source="runs/x", runs_digest="d",
        hit=abs(z_loss) < Z, missed=(), numbers=numbers,
        runs=(RunOutcome(**vars(run), run_id="r", size=1.0, params=3e5, seed=0),), regret=(),
        notes=(),
    )  # fmt: skip


def test_it_only_grows_and_a_damaged_line_is_kept_and_told(tmp_path):
    path = tmp_path / "forecasts" / "ledger.jsonl"
    assert ledgers.read(path) == ledgers.Ledger((), (), 0)
    first, second, third = (verdict(i) for i in range(3))
    assert ledgers.append(path, first)
    whole = path.read_bytes()
    torn = json.dumps(to_json(second)).encode()[:150]
    path.write_bytes(whole + b'{"version": 1}\nnonsense \xff\n' + torn)  # killed while it wrote
    assert ledgers.append(path, second) and ledgers.append(path, third)
    content = path.read_bytes()
    assert content.startswith(whole + b'{"version": 1}\nnonsense \xff\n' + torn + b"\n")
    found = ledgers.read(path)
    assert found.verdicts == (first, second, third) and found.damaged == (2, 3, 4)
    said = told.of_ledger(path, tmp_path, figures=False)
    assert "3 damaged lines (2, 3, 4), kept and not counted" in said
    assert not ledgers.append(path, second) and path.read_bytes() == content


def test_a_forecast_counts_once_by_its_first_verdict(tmp_path):
    path = tmp_path / "ledger.jsonl"
    first = verdict(0, z_loss=3.0)
    for one in (first, dataclasses.replace(verdict(0), runs_digest="again"), verdict(1)):
        assert ledgers.append(path, one)
    found = ledgers.read(path)
    assert [one.forecast for one in found.verdicts] == ["one_0", "one_1"]
    assert found.verdicts[0] == first and found.repeated == 1
    assert "the first counts" in told.of_ledger(path, tmp_path, figures=False)


def test_a_verdict_on_wrong_data_is_withdrawn_and_stays(tmp_path):
    """It counts no more, the next one of its forecast does, and everybody sees it."""
    path = tmp_path / "ledger.jsonl"
    wrong, right, other = verdict(0, z_loss=9.0), verdict(0, z_loss=0.5), verdict(1)
    for one in (wrong, right, other):
        ledgers.append(path, one)
    before, name = path.read_bytes(), ledgers.identity(wrong)
    said = told.taken_back(path, name[:6], "losses were in bits")
    assert path.read_bytes().startswith(before) and path.read_bytes() != before
    found = ledgers.read(path)
    assert found.verdicts == (right, other) and found.repeated == 0 and not found.damaged
    assert found.withdrawn == (ledgers.Withdrawn(wrong, "losses were in bits"),)
    line = f"1 verdict is withdrawn, kept and not counted ({name} of one_0, a miss: losses were in"
    assert line in said and line in told.of_ledger(path, tmp_path, figures=False)
    assert [one.coverage for one in ledgers.calibration(found.verdicts)] == [1.0] * 4
    assert not ledgers.append(path, wrong) and "it is withdrawn" in told.recorded(path, wrong)
    assert told.recorded(path, right) == f"verdict: {ledgers.identity(right)}\nledger: {path}"
    for one, why, words in (
        (name, "again", "is withdrawn already: losses were in bits"),
        ("nothing", "why", r"no such verdict as 'nothing'; there are .* \(one_1\)"),
        (ledgers.identity(other), " ", "say what was wrong"),
        ("", "why", "give both"),
    ):
        with pytest.raises(UserError, match=words):
            told.taken_back(path, one, why)
    assert ledgers.read(path) == found
    ledgers.append(path, ledgers.Withdrawal(ledgers.VERSION, "nonexist", "by hand"))
    assert dataclasses.replace(ledgers.read(path), unknown=()) == found
    said = told.of_ledger(path, tmp_path, figures=False)
    assert "withdraws what is no verdict of it: nonexist" in said


def test_calibration_of_draws_from_the_forecasts_themselves():
    random = np.random.default_rng(0)
    many = [verdict(i, *random.standard_normal(2)) for i in range(1500)]
    for one in ledgers.calibration(many):
        assert one.forecasts == 1500
        assert one.coverage == pytest.approx(0.95, abs=0.02)
        assert one.mean_z == pytest.approx(0, abs=0.08)
        assert one.rms_z == pytest.approx(1, abs=0.06)
        assert one.rms_error == pytest.approx(0.02, rel=0.06)


def test_calibration_of_intervals_that_are_too_narrow_and_off():
    random = np.random.default_rng(0)
    many = [verdict(i, 1 + 2 * random.standard_normal(), 0.0) for i in range(2000)]
    found = {one.what: one for one in ledgers.calibration(many)}
    assert found["loss"].coverage < 0.7 and found["loss"].mean_z == pytest.approx(1, abs=0.15)
    assert found["params"].coverage == 1 and found["params"].rms_z == 0


def test_pinball_loss_is_least_for_the_truth():
    """Of forecasts of a standard normal ln y, by its own quantiles."""
    random = np.random.default_rng(0)
    y = random.standard_normal(4000)

    def mean(scale, shift):
        ends = math.exp(shift - Z * scale), math.exp(shift + Z * scale)
        forecast = Predicted(math.exp(shift), ends)
        return np.mean([ledgers.pinball(outcome("loss", forecast, math.exp(v))) for v in y])

    true = mean(1.0, 0.0)
    assert true < min(mean(0.6, 0.0), mean(1.6, 0.0), mean(1.0, 0.5), mean(1.0, -0.5))
    # By hand: y 1 above the middle, half of it; ends at +-2, .025 of the distances 3 and 1.
    one = outcome("loss", Predicted(1.0, (math.exp(-2), math.exp(2))), math.e)
    assert ledgers.pinball(one) == pytest.approx((0.5 + 0.025 * 3 + 0.025 * 1) / 3)


def test_error_against_distance():
    found = ledgers.by_distance(
        [verdict(0, 1.0, 2.5, decades=0.5), verdict(1, -1.0, 0.0, decades=0.6),
         verdict(2, 3.0, 3.0, decades=1.0)]
    )  # fmt: skip
    near, far = found
    assert (near.forecasts, far.forecasts) == (2, 1) and near.high == far.low == 0.75
    assert near.loss == pytest.approx(0.02) and near.params == pytest.approx(0.02 * 2.5 / 2**0.5)
    assert near.inside == 0.75 and far.inside == 0
    assert far.loss == pytest.approx(0.06)


def test_the_tables_and_the_figure(tmp_path):
    path = tmp_path / "forecasts" / "ledger.jsonl"
    for i, z in enumerate((0.3, -1.2, 2.4)):
        ledgers.append(path, verdict(i, z, -z, decades=0.5 * (i + 1)))
    said = told.of_ledger(path, tmp_path / "forecasts")
    assert "Calibration" in said and "losses of single runs" in said and "67 %" in said
    assert "miss" in said and "0.35 to 0.75" in said
    assert (tmp_path / "forecasts" / "calibration.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "forecasts" / "calibration.svg").exists()


def test_an_empty_ledger_is_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no verdict yet"):
        told.of_ledger(tmp_path / "ledger.jsonl", tmp_path)
    (tmp_path / "ledger.jsonl").write_text("damaged\n")
    assert "1 damaged line (1)" in told.of_ledger(tmp_path / "ledger.jsonl", tmp_path)


def test_a_ledger_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot be (read|written)"):
        ledgers.append(tmp_path / "file" / "ledger.jsonl", verdict(0))


@pytest.mark.parametrize(
    "change", [{"measured": 0.0}, {"measured": -1.2}, {"predicted": 0}, {"interval": [2.0, 1.0]}]
)
def test_a_line_with_a_number_that_no_run_has_is_damaged(tmp_path, change):
    path = tmp_path / "ledger.jsonl"
    line = to_json(verdict(0))
    line["numbers"][2] |= change
    path.write_text(json.dumps(line) + "\n")
    ledgers.append(path, verdict(1))
    found = ledgers.read(path)
    assert found.damaged == (1,) and [one.digest for one in found.verdicts] == ["1"]

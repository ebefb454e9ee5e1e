"""Joules: what is not known stays unknown, and no estimate passes for a measurement."""

import pytest

from chinchilla_jax.experiment.energy import NOTHING, UNKNOWN, added, columns, totals
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.hardware import HARDWARE, by_name
from chinchilla_jax.experiment.schema import to_json
from tests.training.helpers import small_run, with_training

H200 = by_name("h200")


def test_parts_add_up_and_what_one_does_not_know_the_sum_does_not():
    one = {"gpu": 2.0, "cpu": 3.0, "memory": None}
    assert added(one, one) == {"gpu": 4.0, "cpu": 6.0, "memory": None}
    assert added(one, {"gpu": 1.0}) == {"gpu": 3.0, "cpu": None, "memory": None}
    assert added(one, NOTHING) == one
    assert added(one, UNKNOWN) == UNKNOWN == dict.fromkeys(("gpu", "cpu", "memory"))


def test_the_estimate_is_the_stated_power_and_has_a_column_of_its_own():
    row = columns(UNKNOWN, 100.0, 4, H200, 300.0)
    assert row == {
        "joules_gpu": None, "joules_cpu": None, "joules_memory": None,
        "joules_estimated": 700.0 * 4 * 100, "energy_source": "estimated",
        "grams_co2e_per_kwh": 300.0,
    }  # fmt: skip


@pytest.mark.parametrize("spent", [{"gpu": 5.0}, {"cpu": 0.0, "memory": 2.0}])
def test_where_anything_was_measured_nothing_is_estimated(spent):
    row = columns(spent, 100.0, 1, H200, None)
    assert row["joules_estimated"] is None and row["energy_source"] == "measured"
    assert {part: row[f"joules_{part}"] for part in spent} == spent
    assert [row[f"joules_{part}"] for part in ("gpu", "cpu", "memory") if part not in spent] in (
        [None], [None, None],
    )  # fmt: skip


@pytest.mark.parametrize("hardware", [None, by_name("v5e")])
def test_of_what_is_neither_counted_nor_stated_nothing_is_said(hardware):
    assert set(columns(UNKNOWN, 100.0, 1, hardware, 300.0).values()) == {None}


def test_stated_powers_are_of_one_device_in_watts():
    assert {h.name: h.power for h in HARDWARE if h.power is not None} == {
        "h200": 700.0, "h100": 700.0, "a100": 400.0, "a100-40gb": 400.0, "v4": 192.0,
    }  # fmt: skip


def test_the_intensity_decides_no_number_and_is_written_only_where_it_is_stated():
    plain = small_run()
    stated = with_training(plain, grams_co2e_per_kwh=50.0)
    assert fingerprint(plain) == fingerprint(stated)
    assert "grams_co2e_per_kwh" not in to_json(plain)["execution"]
    assert to_json(stated)["execution"]["grams_co2e_per_kwh"] == 50.0
    with pytest.raises(
        UserError, match=r"execution\.grams_co2e_per_kwh = -1.*\[0, 5000\] g of CO2"
    ):
        Execution(grams_co2e_per_kwh=-1.0)


def test_totals_keep_what_was_measured_from_what_was_estimated():
    """And say of how many runs each is, and how many of them state what their electricity emits."""
    rows = [
        columns({"gpu": 3.6e6, "cpu": 7.2e5}, 1.0, 1, H200, 500.0),
        columns({"gpu": 1.8e6}, 1.0, 1, H200, None),
        columns(UNKNOWN, 3600.0, 2, H200, 100.0),
        {"status": "missing"},
        {"joules_gpu": float("nan"), "grams_co2e_per_kwh": float("nan")},  # of a table's empty cell
    ]
    assert [total.text(4) for total in totals(rows)] == [
        "accelerators, measured: 1.5 kWh in 2 of 4 runs, 0.5 kg CO2e of 1",
        "processors, measured: 0.2 kWh in 1 of 4 runs, 0.1 kg CO2e",
        "accelerators, estimated from stated power: 1.4 kWh in 1 of 4 runs, 0.14 kg CO2e",
    ]
    assert totals([{"status": "done"}]) == ()
    (none,) = totals([columns({"cpu": 0.0}, 1.0, 1, None, None)])
    assert none.text(1) == "processors, measured: 0 kWh in 1 of 1 runs"

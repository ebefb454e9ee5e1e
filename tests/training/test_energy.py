"""Counters of energy, on made-up hardware, and what a run that is interrupted makes of them."""

import dataclasses
import sys
import types

import pytest

from chinchilla_jax.experiment.energy import NOTHING
from chinchilla_jax.experiment.hardware import by_name
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.training import energy, loop
from chinchilla_jax.training.energy import Meter, Nvml, Rapl, busy_seconds, rapl_counters
from chinchilla_jax.training.loop import Interrupted, train
from tests.training.helpers import small_run


class Scripted:
    """A counter that gives out 1, 2, 4, ... joules of the processors, so that a sum tells which."""

    def __init__(self, given):
        self._given = given

    def spent(self):
        self._given.append(2.0 ** len(self._given))
        return {"cpu": self._given[-1]}


@pytest.fixture
def scripted(monkeypatch):
    """What a run has been given, by order; every dispatch is read."""
    given = []
    monkeypatch.setattr(loop, "counters", lambda mesh: [Scripted(given)])
    monkeypatch.setattr(energy, "INTERVAL_SECONDS", 0.0)
    return given


RUN = small_run(steps=12, training={"data_parallel": 1, "steps_per_dispatch": 2})


def energies(row):
    return {name: row[f"joules_{name}"] for name in ("gpu", "cpu", "memory")}


def test_a_run_has_all_that_was_counted_from_its_begin_to_its_end(scripted, text_corpus, tmp_path):
    row = train(RUN, text_corpus, RunDirectory(tmp_path))
    assert len(scripted) >= 6  # dispatches
    assert energies(row) == {"gpu": None, "cpu": sum(scripted), "memory": None}
    assert row["energy_source"] == "measured" and row["joules_estimated"] is None


def test_interrupted_it_has_what_led_to_its_state_and_no_more(scripted, text_corpus, tmp_path):
    """Not what was spent between the last checkpoint and a crash: nor does wall_seconds."""
    directory = RunDirectory(tmp_path)
    seen = []
    with pytest.raises(Interrupted):
        train(RUN, text_corpus, directory, lambda: len(seen) > 1, lambda *_: seen.append(0))
    counted = list(scripted)  # the last reading was that of the checkpoint
    with pytest.raises(ZeroDivisionError):
        train(RUN, text_corpus, directory, on_progress=lambda *_: 1 / 0)
    lost = scripted[len(counted) :]
    assert lost
    row = train(RUN, text_corpus, directory)
    assert row["joules_cpu"] == sum(scripted) - sum(lost)


@pytest.mark.parametrize("first", [True, False])
def test_a_run_of_which_a_part_was_not_measured_is_not_measured(
    first, scripted, text_corpus, tmp_path, monkeypatch
):
    directory = RunDirectory(tmp_path)
    counting = loop.counters
    monkeypatch.setattr(loop, "counters", counting if first else lambda mesh: [])
    with pytest.raises(Interrupted):
        train(RUN, text_corpus, directory, lambda: True)
    monkeypatch.setattr(loop, "counters", (lambda mesh: []) if first else counting)
    row = train(RUN, text_corpus, directory)
    assert set(energies(row).values()) == {None} and row["energy_source"] is None


def test_without_a_counter_it_is_estimated_from_stated_power(text_corpus, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "counters", lambda mesh: [])
    monkeypatch.setattr(loop, "by_device_kind", lambda kind: by_name("h100"))
    stated = dataclasses.replace(RUN.execution, grams_co2e_per_kwh=380.0)
    row = train(dataclasses.replace(RUN, execution=stated), text_corpus, RunDirectory(tmp_path))
    assert row["joules_estimated"] == 700.0 * row["device_count"] * row["wall_seconds"]
    assert set(energies(row).values()) == {None} and row["energy_source"] == "estimated"
    assert row["grams_co2e_per_kwh"] == 380.0


def test_a_meter_reads_no_oftener_than_it_must_and_adds(monkeypatch):
    given = []
    meter = Meter([Scripted(given)])
    meter.update()
    assert not given
    monkeypatch.setattr(energy, "INTERVAL_SECONDS", 0.0)
    meter.update()
    meter.continue_from(NOTHING | {"cpu": 100.0})
    assert meter.joules()["cpu"] == 1 + 100 + 2
    assert set(Meter([]).joules().values()) == {None}


def test_a_counter_that_fails_ends_no_run_and_its_part_is_not_known(caplog):
    class Broken:
        def spent(self):
            raise OSError("the counter is gone")

    meter = Meter([Broken(), Scripted([])])
    assert meter.joules() == {"gpu": None, "cpu": 1.0, "memory": None}
    assert meter.joules()["cpu"] == 3.0
    assert [r.getMessage() for r in caplog.records] == [
        "energy is measured no more by Broken: the counter is gone"
    ]


def zones(root, **files):
    for name, (kind, microjoules) in files.items():
        folder = root / f"intel-rapl:{name.replace('_', ':')}"
        folder.mkdir(exist_ok=True)
        (folder / "name").write_text(f"{kind}\n")
        (folder / "max_energy_range_uj").write_text("999999\n")
        (folder / "energy_uj").write_text(f"{microjoules}\n")


def test_rapl_charges_a_process_by_its_part_of_the_processor_time(tmp_path):
    seconds = {"busy": 100.0, "used": 7.0}
    others = {"0_1": ("core", 3), "2": ("psys", 5)}
    sockets = {"0": ("package-0", 500_000), "1": ("package-1", 0)}
    zones(tmp_path, **sockets, **others, **{"0_0": ("dram", 900_000)})
    found = Rapl(tmp_path, lambda: seconds["busy"], lambda: seconds["used"])
    others = {"0_1": ("core", 999), "2": ("psys", 999)}
    sockets = {"0": ("package-0", 800_000), "1": ("package-1", 100_000)}
    zones(tmp_path, **sockets, **others, **{"0_0": ("dram", 0)})
    seconds |= {"busy": 104.0, "used": 8.0}
    # A quarter of .3 + .1 J, and of the .1 J to the end of a counter that began anew.
    assert found.spent() == pytest.approx({"cpu": 0.25 * 0.4, "memory": 0.25 * 0.1})
    seconds |= {"busy": 104.5, "used": 8.6}  # its clock is finer than the host's
    zones(tmp_path, **{"1": ("package-1", 300_000)})
    assert found.spent() == pytest.approx({"cpu": 0.2, "memory": 0.0})
    assert found.spent() == {"cpu": 0.0, "memory": 0.0}


def test_memory_that_is_not_counted_is_not_known(tmp_path):
    zones(tmp_path, **{"0": ("package-0", 5)})
    busy = iter([1.0, 2.0])
    meter = Meter([Rapl(tmp_path, lambda: next(busy), lambda: 0.0)])
    assert meter.joules() == {"gpu": None, "cpu": 0.0, "memory": None}


@pytest.mark.parametrize("missing", ["all", "energy_uj"])
def test_zones_that_are_not_there_or_may_not_be_read_are_no_counter(tmp_path, missing):
    if missing == "energy_uj":
        zones(tmp_path, **{"0": ("package-0", 5)})
        (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    assert rapl_counters(tmp_path) == []


def test_busy_seconds_are_those_of_all_but_idle_processors(tmp_path, monkeypatch):
    monkeypatch.setattr(energy.os, "sysconf", lambda name: 100)
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 20 30 5000 600 7 8 9 1000 0\ncpu0 1 1 1 1 1 1 1 1 1 1\n")
    assert busy_seconds(stat) == pytest.approx((100 + 20 + 30 + 7 + 8 + 9) / 100)


class FakeNvml(types.SimpleNamespace):
    """Two GPUs, by number and by UUID."""

    class NVMLError(Exception):
        pass

    def __init__(self):
        super().__init__(energy={0: 1000, 1: 500}, users={0: [42], 1: [42]}, started=False)

    def nvmlInit(self):
        self.started = True

    def nvmlDeviceGetHandleByIndex(self, number):
        if number not in self.energy:
            raise self.NVMLError("Invalid Argument")
        return number

    def nvmlDeviceGetHandleByUUID(self, name):
        return {"GPU-a": 0, "GPU-b": 1}[name]

    def nvmlDeviceGetTotalEnergyConsumption(self, handle):
        return self.energy[handle]

    def nvmlDeviceGetComputeRunningProcesses(self, handle):
        return self.users[handle]


@pytest.mark.parametrize("names", [["1"], ["GPU-b"]])
def test_a_gpu_is_counted_whole_in_joules(names):
    nvml = FakeNvml()
    found = Nvml(nvml, names)
    nvml.energy = {0: 9000, 1: 2500}
    assert found.spent() == {"gpu": 2.0}
    assert found.spent() == {"gpu": 0.0}


def test_a_gpu_that_others_use_too_is_not_counted():
    nvml = FakeNvml()
    meter = Meter([Nvml(nvml, ["0", "1"])])
    nvml.energy = {0: 2000, 1: 1500}
    assert meter.joules()["gpu"] == 2.0
    nvml.users[1] = [42, 43]
    assert meter.joules()["gpu"] is None
    nvml.users[1] = [42]
    assert meter.joules()["gpu"] is None  # no more: a part of the run is missing


@pytest.mark.parametrize(
    "visible,numbers,counted",
    [("", [1], 1), ("1,0", [1], 0), ("GPU-b", [0], 1), ("MIG-x", [0], None), ("0", [3], None)],
)
def test_gpus_are_those_that_the_process_sees(monkeypatch, visible, numbers, counted):
    nvml = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = energy.nvml_counters(numbers)
    assert bool(found) == (counted is not None)
    if counted is not None:
        assert nvml.started
        nvml.energy[counted] += 3000
        assert found[0].spent() == {"gpu": 3.0}


def test_without_the_library_gpus_are_not_counted(monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert energy.nvml_counters([0]) == []

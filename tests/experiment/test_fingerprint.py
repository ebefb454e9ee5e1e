"""A fingerprint tells runs of other numbers apart, and no others, from one version to the next."""

import dataclasses
import math
from dataclasses import dataclass, field

import pytest

from chinchilla_jax.experiment.config import (
    Experiment,
    LadderConfig,
    Measurement,
    TrainingConfig,
)
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.fingerprint import OPERATION, fingerprint
from chinchilla_jax.experiment.grid import plan
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.schema import replace_paths


@pytest.fixture
def run():
    shape = ModelConfig(width=8, depth=2, heads=1, kv_heads=1, head_size=8, ff_size=24)
    experiment = Experiment(name="t", budgets=(1e11,), ladder=LadderConfig(shapes=(shape,)))
    return plan(experiment)[0].run


def every_field(config, path=""):
    """(what has it, its name, its path) of every field that is no group."""
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            yield from every_field(value, f"{path}{f.name}.")
        else:
            yield config, f.name, f"{path}{f.name}"


def other_than(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, 2)
    return value + "x" if isinstance(value, str) else (value or 0) * 2 + 1


def test_it_sees_numbers_and_neither_operation_nor_labels(run):
    before, unseen = fingerprint(run), set()
    for group, name, path in every_field(run):
        value = getattr(group, name)
        object.__setattr__(group, name, other_than(value))  # past the checks: it need not train
        if fingerprint(run) == before:
            unseen.add(path)
        object.__setattr__(group, name, value)
    assert unseen == {
        "run_id", "experiment", "lr_multiplier", "forecast", "branches", "panel",
        "data.cache", "data.max_epochs", "data.fingerprint",
        *(f"execution.{f.name}" for f in dataclasses.fields(Execution)),
        # At what a finished run is measured besides: another list trains nothing anew.
        "techniques.quantisation.after", "techniques.quantisation.after_groups",
        # What a technique makes of the shape, whose own fields tell.
        "model.experts", "model.expert_picks", "model.expert_size", "model.expert_capacity",
    }  # fmt: skip
    assert fingerprint(run) == before


@pytest.mark.parametrize("group", [Measurement(eval_windows=64), TrainingConfig(dtype="bfloat16")])
def test_what_is_measured_and_by_which_program_counts(run, group):
    name = {Measurement: "measurement", TrainingConfig: "training"}[type(group)]
    assert fingerprint(dataclasses.replace(run, **{name: group})) != fingerprint(run)


@dataclass(frozen=True)
class Inner:
    rate: float = 0.1


@dataclass(frozen=True)
class Wider:
    rate: float = 0.1
    level: float = 0.0
    levels: tuple[int, ...] = ()


@dataclass(frozen=True)
class Outer:
    steps: int
    inner: Inner | Wider = Inner()
    folder: str = field(default="", metadata=OPERATION)


@dataclass(frozen=True)
class WithMore:
    steps: int
    inner: Inner | Wider = Wider()
    more: Wider = Wider()
    folder: str = field(default="", metadata=OPERATION)


def test_fields_and_groups_added_with_a_default_change_nothing_until_they_are_set():
    before = Outer(7, Inner(0.2))
    assert fingerprint(WithMore(7, Wider(0.2))) == fingerprint(before)
    assert fingerprint(WithMore(7, Wider(0.2, level=1.0))) != fingerprint(before)
    assert fingerprint(WithMore(7, Wider(0.2, levels=(1,)))) != fingerprint(before)
    assert fingerprint(WithMore(7, Wider(0.2), more=Wider(level=0.5))) != fingerprint(before)
    assert fingerprint(Outer(7, Inner(0.2), "/elsewhere")) == fingerprint(before)
    assert fingerprint(Outer(7)) != fingerprint(before) != fingerprint(Outer(8, Inner(0.2)))


def test_a_whole_number_is_one_number_however_it_is_written():
    ladder = LadderConfig(widths=(8, 16))
    runs = [
        plan(Experiment(name="t", budgets=(budget,), ladder=ladder))[0].run
        for budget in (10**11, 1e11)
    ]
    assert fingerprint(runs[0]) == fingerprint(runs[1])


def test_the_last_digits_of_a_power_are_no_other_run(run):
    def with_rate(rate):
        optimizer = dataclasses.replace(run.optimizer, learning_rate=rate)
        return fingerprint(dataclasses.replace(run, optimizer=optimizer))

    rate = 6e-3 * 3**0.6
    assert with_rate(rate) == with_rate(math.nextafter(rate, 1)) != with_rate(rate * (1 + 1e-10))


def test_the_fingerprint_of_a_run_of_today(run):
    """Runs begun with it must be found again: change this only together with the plan's version."""
    assert fingerprint(run) == "535e7f6c43cc28f3"
    fewer = replace_paths(run, [("measurement.eval_windows", "64")])
    assert fingerprint(fewer) == "c9ddce5bff1dcaa0"

"""Every number of every configuration and run file, as nobody would write it: one line, or a plan.

What is accepted is planned, costed, placed on hardware and told in a table; no exception but
UserError, no text but one line, and no time.
"""

import dataclasses
import functools
import json
import math
import typing
from pathlib import Path

import pytest

from chinchilla_jax.experiment import estimate, grid, hardware, tables
from chinchilla_jax.experiment.config import Experiment, RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.loading import load_experiment
from chinchilla_jax.experiment.needs import read_run
from chinchilla_jax.experiment.rows import row_of
from chinchilla_jax.experiment.schema import replace_paths, to_json
from chinchilla_jax.training.schedules import learning_rates

CONFIGS = sorted(Path("configs").glob("*.py"))
ODD = ("0", "-1", "1", "1e-320", "1e-30", "1e30", "1e308", "nan", "inf", "-inf", "2.5", "1e5",
       "9" * 20, "9" * 5000, "-" + "9" * 400)  # fmt: skip
QUICKSTART = Path("configs/quickstart.py")


def numbers(config, prefix=""):
    """The paths of the numbers of a tree of dataclasses, lists of numbers too."""
    for name, hint in typing.get_type_hints(type(config)).items():
        value = getattr(config, name)
        if dataclasses.is_dataclass(value):
            yield from numbers(value, f"{prefix}{name}.")
        kinds = {hint, *typing.get_args(hint)}
        if kinds & {int, float} and not isinstance(value, dict):
            yield f"{prefix}{name}"


def one_line(error):
    text = str(error)
    assert "\n" not in text and len(text) < 600, text
    return text


def carried_out(source):
    """What `plan` does with an experiment, on hardware too."""
    cells = grid.plan(source)
    tables.plan(cells)
    machine = hardware.by_name("h200")
    for cell in [cell for cell in cells if cell.status == "planned"][:2]:
        estimate.suggest(cell.run, 64, machine)
        told(cell.run)


def told(run):
    """What is computed of a run before anything is allocated."""
    assert json.loads(json.dumps(row_of(run), allow_nan=False))
    assert fingerprint(run)
    rates = learning_rates(run.optimizer, run.steps, 0, min(run.steps, 100))
    assert math.isfinite(rates.sum()) and (rates >= 0).all()


@functools.cache
def loaded(path):
    return load_experiment(str(path))


@pytest.mark.parametrize("path", sorted(numbers(loaded(QUICKSTART))))
def test_a_number_of_a_configuration(path):
    for text in ODD:
        try:
            carried_out(replace_paths(loaded(QUICKSTART), [(path, text)]))
        except UserError as error:
            one_line(error)


@pytest.mark.slow
@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_a_number_of_any_configuration_and_pairs_of_them(config):
    source = loaded(config)
    paths = sorted(numbers(source))
    for i, path in enumerate(paths):
        for j, text in enumerate(ODD):
            beside = (paths[(7 * i + 3 * j) % len(paths)], ODD[(i + 5 * j) % len(ODD)])
            for overrides in ([(path, text)], [beside, (path, text)]):
                try:
                    carried_out(replace_paths(source, overrides))
                except UserError as error:
                    one_line(error)


def first_run(config=QUICKSTART):
    return next(c.run for c in grid.plan(loaded(config)) if c.status == "planned")


@pytest.mark.parametrize("path", sorted(numbers(first_run())))
def test_a_number_of_a_run_file(tmp_path, path):
    """As JSON has them: NaN and Infinity are read by Python, and whole numbers of any length."""
    content = to_json(first_run())
    *groups, name = path.split(".")
    for text in ("0", "-1", "1", "1e-320", "1e308", "NaN", "Infinity", "-Infinity", "2.5", "1e30",
                 "1e400", "true", "null", '"1"', "[1]", "9" * 400, "9" * 5000):  # fmt: skip
        here = json.loads(json.dumps(content))
        # Techniques that are off are not written.
        functools.reduce(lambda group, of: group.setdefault(of, {}), groups, here)[name] = "HERE"
        file = tmp_path / "config.json"
        file.write_text(json.dumps(here).replace('"HERE"', text))
        try:
            run = read_run(file)
            told(run)
            estimate.suggest(run, 64, hardware.by_name("h200"))
        except UserError as error:
            assert str(file) in one_line(error)


@pytest.mark.parametrize(
    "changes,words",
    [
        ({"optimizer.beta1": 2.0}, r"optimizer\.beta1 = 2\.0: must lie in \[0, 1\)"),
        ({"optimizer.weight_decay": -5.0}, r"weight_decay = -5\.0: must lie in \[0, "),
        ({"optimizer.warmup_fraction": -3.0}, r"warmup_fraction = -3\.0: must lie in \[0, 1\)"),
        ({"optimizer.clip_norm": 0.0}, r"clip_norm = 0\.0: must be positive"),
        ({"optimizer.learning_rate": 1e-320}, r"learning_rate = 1e-320: must lie in"),
        ({"optimizer.schedule": "wsd", "optimizer.warmup_fraction": 0.9,
          "optimizer.cooldown_fraction": 0.9}, r"cooldown_fraction = 0\.9: overlaps the warm-up"),
        ({"seed": -1}, r"run\.seed = -1: must lie in \[0, 2\*\*31\)"),
        ({"execution.steps_per_dispatch": 5_000_000_000}, r"steps_per_dispatch = 5000000000: "),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)  # fmt: skip
def test_a_run_file_that_was_edited_by_hand_meets_the_ranges_of_a_recipe(tmp_path, changes, words):
    content = to_json(first_run())
    for path, value in changes.items():
        *groups, name = path.split(".")
        functools.reduce(dict.__getitem__, groups, content)[name] = value
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=rf"config\.json.*: .*{words}"):
        read_run(tmp_path / "config.json")


def test_a_recipe_with_a_warm_up_that_reaches_into_the_cooldown_is_refused():
    overrides = [("recipe.schedule", "wsd"), ("recipe.warmup_fraction", "0.9")]
    with pytest.raises(UserError, match=r"recipe\.cooldown_fraction = 0\.2: overlaps the warm-up"):
        replace_paths(loaded(QUICKSTART), overrides)


def test_every_number_is_fuzzed():
    """What the fuzz goes by: it finds numbers in groups, in lists and where None may stand."""
    of_experiment, of_run = set(numbers(loaded(QUICKSTART))), set(numbers(first_run()))
    assert {"seed", "budgets", "ladder.widths", "data.max_megabytes"} <= of_experiment
    assert {"execution.grams_co2e_per_kwh", "techniques.sparsity.level"} <= of_experiment
    assert {"steps", "optimizer.beta2", "model.heads", "techniques.quantisation.after"} <= of_run
    assert isinstance(loaded(QUICKSTART), Experiment) and isinstance(first_run(), RunConfig)

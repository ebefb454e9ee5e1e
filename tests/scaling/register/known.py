"""Work folders of made-up runs on a known surface: a grid, and the check of its forecast."""

import dataclasses

import numpy as np

from chinchilla_jax.experiment import grid, plans, records
from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.loading import load_experiment
from chinchilla_jax.experiment.storage import write_text_atomic
from chinchilla_jax.scaling import fits as record
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.sweeps import true_loss

TEXT, TOKENIZER = "0123456789abcdef", "fedcba9876543210"
NOISE = 0.004


def quickstart(**changes):
    values = {
        "name": "grid",
        "budgets": (1e11, 3e11, 1e12, 3e12),
        "ladder": LadderConfig(
            widths=(8, 12, 16, 24, 32, 48, 64, 96, 128, 160), min_tokens_per_param=0.3
        ),
    }
    return Experiment(**(values | changes))


def plan_in(folder, experiment):
    """Freezes a plan as the sweep does; its cells."""
    facts = {
        "code_version": "1",
        "corpora": {
            fingerprint(experiment.data): {
                "train_tokens": 70_000_000,
                "data_fingerprint": TEXT,
                "tokenizer_fingerprint": TOKENIZER,
            }
        },
    }
    cells = grid.plan(experiment, 70_000_000)
    plans.write_plan(folder, experiment, cells, facts)
    return [cell for cell in cells if cell.status == "planned"]


def train(folder, cells, loss=None, text=TEXT, seed=0):
    """Every run ends with a loss of the known surface, or that of `loss` by its cell."""
    random = np.random.default_rng(seed)
    for cell in cells:
        value = true_loss(cell.params, cell.tokens) * np.exp(NOISE * random.standard_normal())
        if loss is not None:
            value = loss(cell)
        directory = records.run_directory(folder, cell.run.run_id)
        directory.start(cell.run)
        measured = {"data_fingerprint": text, "tokenizer_fingerprint": TOKENIZER}
        status = "done" if value is not None else "diverged"
        directory.finish(cell.run, status, "", {"loss": value, **measured})


def report(folder, **settings):
    """fits.json of a work folder, in its report."""
    fits, _ = analyse(read_runs(folder), Settings(**({"bootstrap": 200} | settings)))
    write_text_atomic(folder / "report" / "x", "")
    record.write(folder / "report" / "fits.json", fits)
    return folder / "report" / "fits.json"


def grid_in(folder, experiment=None, **settings):
    """A grid that is trained and evaluated; its fits.json."""
    cells = plan_in(folder, experiment or quickstart())
    train(folder, cells)
    return report(folder, **settings)


def check_in(folder, config, **how):
    """The runs of a written configuration, trained."""
    experiment = load_experiment(str(config))
    plain = dataclasses.replace(experiment)
    cells = plan_in(folder, plain)
    train(folder, cells, **how)
    return cells

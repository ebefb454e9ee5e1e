"""The runs of a forecast's configuration, each of which bears the forecast's digest."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np

from chinchilla_jax.experiment import plans, records
from chinchilla_jax.experiment.commands import command
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.records import first_difference
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.scaling.arrays import silent
from chinchilla_jax.scaling.register.registration import (
    Predicted,
    RegisteredRun,
    Registration,
    digest_of,
)
from chinchilla_jax.scaling.register.verdict import (
    Point,
    RunOutcome,
    Verdict,
    concluded,
    outcome,
)


@silent()
def judged(registration: Registration, folder: Path, file: Path | str = "") -> Verdict:
    """The verdict on a forecast by the runs in `folder`.

    Args:
      file: the forecast's, for messages.
    Raises:
      UserError: the runs are of another corpus or recipe, were begun before the forecast was
        registered, are not all over, or tell nothing to judge it by.
    """
    file = file or registration.name
    if not registration.runs or registration.experiment is None:
        raise UserError(
            f"{file}: was registered without a configuration, so that no run can name it: nothing "
            "tells that a run is younger; register with --write_config"
        )
    losses, notes = _losses(registration, folder, str(file))
    best = _best_settings(registration, losses)
    runs = [run for run in registration.runs if run.run_id in best]
    points = [Point(run.params, run.tokens, losses[run.run_id]) for run in runs]
    outcomes = [_run(registration, run, losses[run.run_id]) for run in runs]
    chosen = _chosen(registration)
    return concluded(registration, points, outcomes, chosen, sorted(losses.items()), notes)


def _chosen(registration: Registration) -> float:
    """Parameters of the size that was registered as N*."""
    return min(registration.runs, key=lambda run: abs(math.log(run.size))).params


def _losses(
    registration: Registration, folder: Path, file: str
) -> tuple[dict[str, float], list[str]]:
    """The loss of every registered run that has one, and a sentence on those that have none."""
    experiment, cells, _ = plans.read_plan(folder)
    planned = {fingerprint(cell.run): cell.run for cell in cells if cell.status == "planned"}
    lacking = [run for run in registration.runs if run.fingerprint not in planned]
    if lacking:
        raise UserError(_another(registration, experiment, lacking[0], folder, file))
    bears, found, notes, left = digest_of(registration), {}, [], []
    for run in registration.runs:
        run_id = planned[run.fingerprint].run_id
        directory = records.run_directory(folder, run_id)
        result = directory.result()
        if result is None:
            left.append(run_id)
            continue
        _must_follow(result, bears, directory.path, file)
        _must_be_of(result, registration, directory.path)
        if result["status"] == "diverged" or result["loss"] is None:
            notes.append(f"{run_id} diverged and has no loss")
        else:
            found[run.run_id] = float(result["loss"])
    if left:
        shown = ", ".join(left[:3]) + f" and {len(left) - 3} more" * (len(left) > 3)
        raise UserError(
            f"{folder}: {len(left)} of {len(registration.runs)} runs are not over ({shown}): run "
            f"{command('sweep', workdir=folder)}, then verify"
        )
    return found, notes


def _another(
    registration: Registration, experiment: Any, run: RegisteredRun, folder: Path, file: str
) -> str:
    """Why the plan in a folder lacks a registered run: another corpus, another recipe."""
    ours, theirs = (
        {name: value for name, value in to_json(source).items() if name not in ("name", "forecast")}
        for source in (registration.experiment, experiment)
    )
    for data in (ours["data"], theirs["data"]):
        data.pop("fingerprint", None)
    difference = first_difference(ours, theirs)
    why = f"{difference}" if difference else f"run {run.run_id} is another"
    return f"{folder}: holds other runs than {file} registered ({why})"


def _must_follow(result: dict[str, Any], bears: str, place: Path, file: str) -> None:
    """Raises UserError unless a run was begun after the forecast that it checks."""
    named = result.get("forecast")
    if named == bears:
        return
    if not named:
        raise UserError(
            f"{place}: its result names no forecast, so the run is older than {file}: what is "
            "registered after the results is no forecast; train the configuration that "
            "--write_config wrote in another --workdir"
        )
    raise UserError(
        f"{place}: its result names another forecast ({named:.12}...), and {file} is "
        f"{bears:.12}...: it was registered anew after the results"
    )


def _must_be_of(result: dict[str, Any], registration: Registration, place: Path) -> None:
    """Raises UserError for a run on another text than the runs behind the forecast."""
    for name in ("data_fingerprint", "tokenizer_fingerprint"):
        wanted, found = getattr(registration.corpus, name), result.get(name)
        if wanted is not None and found != wanted:
            raise UserError(
                f"{place}: was trained on other text than the forecast is of ({name} {found}, "
                f"registered was {wanted})"
            )


def _run(registration: Registration, run: RegisteredRun, loss: float) -> RunOutcome:
    expected = run.loss or Predicted(registration.loss.value, None)
    one = outcome("run", expected, loss)
    return RunOutcome(
        **vars(one), run_id=run.run_id, size=run.size, params=run.params, seed=run.seed
    )


def _best_settings(registration: Registration, losses: dict[str, float]) -> set[str]:
    """Runs at the best settings of their size; seeds are averaged in ln loss."""
    found: dict[float, dict[str, list[RegisteredRun]]] = {}
    for run in registration.runs:
        if run.run_id in losses:
            found.setdefault(run.params, {}).setdefault(run.setting, []).append(run)
    kept = set()
    for settings in found.values():
        best = min(
            settings.values(),
            key=lambda runs: np.mean([math.log(losses[run.run_id]) for run in runs]),
        )
        kept |= {run.run_id for run in best}
    return kept

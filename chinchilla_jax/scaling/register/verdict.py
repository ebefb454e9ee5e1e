"""What came of a registered forecast: inside or outside, by how much, and what the choice cost."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from chinchilla_jax.experiment import plans, records, storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.records import first_difference
from chinchilla_jax.experiment.schema import from_json, require, to_json
from chinchilla_jax.scaling.arrays import silent
from chinchilla_jax.scaling.fitting.estimators import LEAST_SIZES, Estimator
from chinchilla_jax.scaling.fitting.intervals import LEVEL, Interval
from chinchilla_jax.scaling.fitting.isoflop import profiles
from chinchilla_jax.scaling.fitting.minima import fit_minima
from chinchilla_jax.scaling.fitting.noise import Noise
from chinchilla_jax.scaling.register.registration import (
    Predicted,
    RegisteredRun,
    Registration,
    digest,
    digest_of,
)

VERSION = 1
FILE = "verdict.json"  # in the work folder of the runs: the report shows it
Z = NormalDist().inv_cdf((1 + LEVEL) / 2)  # standard deviations from the middle to an end


@dataclass(frozen=True)
class Outcome:
    """A number that was forecast beside what was measured; None where the runs do not tell it.

    Attributes:
      error: ln(measured / forecast).
      z: the error over the standard deviation that the interval stands for, on its side, with
        that of the measurement; None without an interval.
      inside: whether the interval has the measured number; None without an interval.
      measured_se: standard error of ln of a measured minimum, 0 of a run.
    """

    what: str  # "params", "tokens", "loss", or "run"
    predicted: float
    interval: Interval | None
    measured: float | None
    measured_se: float
    error: float | None
    z: float | None
    inside: bool | None

    def __post_init__(self) -> None:
        for name in ("predicted", "measured"):
            value = getattr(self, name)
            rule = "a positive number is needed"
            require(value is None or 0 < value < math.inf, name, value, rule)
        low, high = self.interval or (self.predicted, self.predicted)
        require(0 < low <= high, "interval", self.interval, "must be two positive numbers in order")


@dataclass(frozen=True)
class RunOutcome(Outcome):
    """The loss of one run."""

    run_id: str
    size: float  # of N*
    params: float
    seed: int


@dataclass(frozen=True)
class Regret:
    """What it cost to train the registered size.

    Attributes:
      against: "neighbour", the best of the sizes trained, or "minimum", that of the new budget.
      params: of that size.
      loss: loss of the registered size over it, minus 1; se: its standard error.
      flops: share of the budget that the best size would not have needed for that loss.
    """

    against: str
    params: float
    loss: float
    se: float
    flops: float


@dataclass(frozen=True)
class Verdict:
    """Of one registered forecast; `missed` names what lies outside its interval."""

    version: int
    forecast: str  # its name
    digest: str  # of its registration
    date: str  # of the registration
    flops: float
    decades: float
    params: float  # of the size that was registered as N*
    form: str
    source: str  # of the runs it rests on
    runs_digest: str  # of the runs that checked it
    hit: bool
    missed: tuple[str, ...]
    numbers: tuple[Outcome, ...]  # N*, D*, L* of the minimum of the new budget
    runs: tuple[RunOutcome, ...]
    regret: tuple[Regret, ...]
    notes: tuple[str, ...]


def read(path: Path) -> Verdict:
    """A verdict as it was written.

    Raises:
      UserError: no such file, or not what `write` writes.
    """
    return from_json(Verdict, storage.read_json(path), str(path))


def in_folder(folder: Path) -> Verdict | None:
    """The verdict on the runs of a work folder, where there is one."""
    return read(folder / FILE) if storage.exists(folder / FILE) else None


def write(folder: Path, verdict: Verdict) -> None:
    """Writes it beside the runs."""
    content = json.dumps(to_json(verdict), indent=1, allow_nan=False)
    storage.write_text_atomic(folder / FILE, f"{content}\n")


@silent()
def judged(registration: Registration, folder: Path, file: Path | str = "") -> Verdict:
    """The verdict on a forecast by the runs in `folder`.

    Args:
      file: the forecast's, for messages.
    Raises:
      UserError: the runs are of another corpus or recipe, were begun before the forecast was
        registered, or are not all over.
    """
    file = file or registration.name
    if not registration.runs or registration.experiment is None:
        raise UserError(
            f"{file}: was registered without a configuration, so that no run can name it: nothing "
            "tells that a run is younger; register with --write_config"
        )
    losses, left_out = _losses(registration, folder, str(file))
    every = [
        _run(registration, run, losses[run.run_id])
        for run in registration.runs
        if run.run_id in losses
    ]
    runs = [one for one in every if one.run_id in _best_settings(registration, losses)]
    numbers, minimum, why = _numbers(registration, runs, losses)
    notes = [*left_out, *([f"no minimum of the new budget: {why}"] if why else [])]
    chosen = _chosen(registration)
    headline: list[tuple[str, Outcome]] = [(one.what, one) for one in numbers]
    headline += [(f"loss of {one.run_id}", one) for one in runs if one.params == chosen]
    missed = tuple(name for name, one in headline if one.inside is False)
    trained = any(one.params == chosen for one in runs)
    if not trained:
        notes.append("no run of the registered size has a loss")
    return Verdict(
        version=VERSION,
        forecast=registration.name,
        digest=digest_of(registration),
        date=registration.date,
        flops=registration.flops,
        decades=registration.decades,
        params=chosen,
        form=registration.basis.form,
        source=registration.basis.source,
        runs_digest=digest(sorted([name, loss] for name, loss in losses.items())),
        hit=trained and not missed,
        missed=missed,
        numbers=tuple(numbers),
        runs=tuple(runs),
        regret=tuple(_regret(registration, runs, losses, minimum)) if trained else (),
        notes=tuple(notes),
    )


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
            f"python -m chinchilla_jax.sweep --workdir={folder}, then verify"
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


def outcome(what: str, predicted: Predicted, measured: float | None, se: float = 0.0) -> Outcome:
    """A forecast number beside the measured one, which has a standard error `se` of its ln."""
    if measured is None:
        return Outcome(what, predicted.value, predicted.interval, None, 0.0, None, None, None)
    error = math.log(measured / predicted.value)
    z = inside = None
    if predicted.interval is not None:
        low, high = predicted.interval
        end = high if error > 0 else low
        deviation = abs(math.log(end / predicted.value)) / Z
        spread = math.hypot(deviation, se)
        z = error / spread if spread > 0 else None
        inside = low <= measured <= high
    return Outcome(what, predicted.value, predicted.interval, measured, se, error, z, inside)


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


@dataclass(frozen=True)
class _Minimum:
    params: float
    loss: float
    log_loss_se: float


def _numbers(
    registration: Registration, runs: Sequence[RunOutcome], losses: Mapping[str, float]
) -> tuple[list[Outcome], _Minimum | None, str]:
    """N*, D* and L* against the minimum through the new runs, or why there is none."""
    expected = {name: getattr(registration, name) for name in ("params", "tokens", "loss")}
    tokens = {run.run_id: run.tokens for run in registration.runs}
    budget = profiles(
        np.zeros(len(runs), np.int64),
        np.array([registration.flops]),
        np.array([one.params for one in runs], float),
        np.array([tokens[one.run_id] for one in runs], float),
        np.array([losses[one.run_id] for one in runs]),
    )
    sizes = budget[0].sizes if budget else 0
    if sizes < LEAST_SIZES[registration.basis.minima]:
        why = f"{sizes} sizes have a loss"
        return [outcome(name, one, None) for name, one in expected.items()], None, why
    size = registration.basis.noise
    noise = Noise(size, 0, "registered", np.array([size]))
    estimator = Estimator(registration.basis.minima)
    found = fit_minima(estimator, budget, noise, 0, np.random.default_rng(0))
    if found.reason_G[0] is not None:
        numbers = [outcome(name, one, None) for name, one in expected.items()]
        return numbers, None, found.reason_G[0]
    params, data, loss = (float(x[0]) for x in (found.params_G, found.tokens_G, found.loss_G))
    size_se, loss_se = float(found.errors.log_params_G[0]), float(found.errors.log_loss_G[0])
    numbers = [
        outcome("params", expected["params"], params, size_se),
        outcome("tokens", expected["tokens"], data, size_se),
        outcome("loss", expected["loss"], loss, loss_se),
    ]
    return numbers, _Minimum(params, loss, loss_se), ""


def _regret(
    registration: Registration,
    runs: Sequence[RunOutcome],
    losses: Mapping[str, float],
    minimum: _Minimum | None,
) -> list[Regret]:
    """Of the registered size, in ln loss averaged over seeds.

    A loss is worth FLOPs by the registered slope of ln L* on ln C.
    """
    by_size: dict[float, list[float]] = {}
    for one in runs:
        by_size.setdefault(one.params, []).append(math.log(losses[one.run_id]))
    mean = {params: float(np.mean(values)) for params, values in by_size.items()}
    se = {n: registration.basis.noise / math.sqrt(len(v)) for n, v in by_size.items()}
    chosen = _chosen(registration)

    def regret(against: str, params: float, log_loss: float, error: float) -> Regret:
        excess = mean[chosen] - log_loss
        saved = -math.expm1(excess / registration.slope)
        return Regret(against, params, math.expm1(excess), error, saved)

    neighbours = [params for params in mean if params != chosen]
    found = []
    if neighbours:
        best = min(neighbours, key=lambda params: mean[params])
        error = math.hypot(se[chosen], se[best])
        found.append(regret("neighbour", best, mean[best], error))
    if minimum is not None:
        error = math.hypot(se[chosen], minimum.log_loss_se)
        found.append(regret("minimum", minimum.params, math.log(minimum.loss), error))
    return found

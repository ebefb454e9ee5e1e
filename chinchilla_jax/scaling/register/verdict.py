"""What came of a registered forecast: inside or outside, by how much, and what the choice cost."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import NormalDist

import numpy as np

from chinchilla_jax.experiment import json_data, storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.numbers import count
from chinchilla_jax.experiment.schema import UNLESS_DEFAULT, from_json, require, to_json
from chinchilla_jax.scaling.fitting.curves import Minima
from chinchilla_jax.scaling.fitting.estimators import LEAST_SIZES, Estimator
from chinchilla_jax.scaling.fitting.intervals import LEVEL, Interval
from chinchilla_jax.scaling.fitting.isoflop import Profile, profiles
from chinchilla_jax.scaling.fitting.minima import fit_minima
from chinchilla_jax.scaling.fitting.noise import Noise
from chinchilla_jax.scaling.register.registration import (
    Predicted,
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
      inside: whether the interval has the measured number; False too where nothing is measured
        and the runs tell that it lies beyond the interval; None where they do not, or without one.
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
    # The table that holds those runs; "" for a work folder, whose runs bear the forecast's digest.
    table: str = field(default="", metadata=UNLESS_DEFAULT)

    @property
    def unjudged(self) -> tuple[str, ...]:
        """What of N*, D*, L* and the runs of the registered size came out neither in nor out."""
        headline = _headline(self.numbers, self.runs, self.params)
        return tuple(name for name, one in headline if one.inside is None)


def _headline(
    numbers: Sequence[Outcome], runs: Sequence[RunOutcome], chosen: float
) -> list[tuple[str, Outcome]]:
    """By what a forecast is a hit or a miss: the minimum, and the runs of the registered size."""
    return [(one.what, one) for one in numbers] + [
        (f"loss of {one.run_id}", one) for one in runs if one.params == chosen
    ]


def read(path: Path) -> Verdict:
    """A verdict as it was written.

    Raises:
      UserError: no such file, or not what `write` writes.
    """
    return from_json(Verdict, json_data.read_json(path), str(path))


def in_folder(folder: Path) -> Verdict | None:
    """The verdict on the runs of a work folder, where there is one."""
    return read(folder / FILE) if storage.exists(folder / FILE) else None


def write(folder: Path, verdict: Verdict) -> None:
    """Writes it beside the runs."""
    content = json.dumps(to_json(verdict), indent=1, allow_nan=False)
    storage.write_text_atomic(folder / FILE, f"{content}\n")


@dataclass(frozen=True)
class Point:
    """A run of the new budget and its loss."""

    params: float
    tokens: float
    loss: float


def concluded(
    registration: Registration,
    points: Sequence[Point],
    runs: Sequence[RunOutcome],
    chosen: float,
    measured: Sequence[tuple[str, float]],
    notes: Sequence[str],
    table: str = "",
) -> Verdict:
    """The verdict by the runs of the new budget.

    Args:
      points: those at the best settings of their size, through which the minimum is sought.
      runs: those of them whose loss was forecast.
      chosen: parameters of the size that stands for N*, which may have no run.
      measured: run and loss of all that checked it.
      table: where they stand, if in no work folder of ours.
    Raises:
      UserError: there are runs, and nothing of the forecast can be judged by them.
    """
    numbers, minimum, why = _numbers(registration, points)
    said = [*notes, *([f"no minimum of the new budget: {why}"] if why else [])]
    headline = _headline(numbers, runs, chosen)
    missed = tuple(name for name, one in headline if one.inside is False)
    trained = any(one.params == chosen for one in points)
    if (trained or table) and all(one.inside is None for _, one in headline):
        sizes = [one.params for one in points]
        raise UserError(
            f"{table or registration.name}: no minimum of the new budget: {why}, and no run is "
            f"near a size whose loss was forecast (N* = {count(registration.params.value)}; its "
            f"sizes are {count(min(sizes))} to {count(max(sizes))}): nothing can be judged"
        )
    if not trained:
        said.append("no run of the registered size has a loss")
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
        runs_digest=digest([list(one) for one in measured]),
        hit=(trained or bool(table)) and not missed,
        missed=missed,
        numbers=tuple(numbers),
        runs=tuple(runs),
        regret=tuple(_regret(registration, points, chosen, minimum)) if trained else (),
        notes=tuple(said),
        table=table,
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


def bounded(what: str, predicted: Predicted, low: float = 0.0, high: float = math.inf) -> Outcome:
    """A forecast number beside one that is only known to lie between `low` and `high`."""
    found, ends = outcome(what, predicted, None), predicted.interval
    outside = ends is not None and (low >= ends[1] or high <= ends[0])
    return replace(found, inside=False) if outside else found


@dataclass(frozen=True)
class _Minimum:
    params: float
    loss: float
    log_loss_se: float


def _numbers(
    registration: Registration, points: Sequence[Point]
) -> tuple[list[Outcome], _Minimum | None, str]:
    """N*, D* and L* against the minimum through the new runs, or why there is none."""
    expected = {name: getattr(registration, name) for name in ("params", "tokens", "loss")}
    budget = profiles(
        np.zeros(len(points), np.int64),
        np.array([registration.flops]),
        np.array([one.params for one in points], float),
        np.array([one.tokens for one in points], float),
        np.array([one.loss for one in points], float),
    )
    sizes = budget[0].sizes if budget else 0
    if sizes < LEAST_SIZES[registration.basis.minima]:
        why = f"{sizes} sizes have a loss"
        return [outcome(name, one, None) for name, one in expected.items()], None, why
    size = registration.basis.noise
    noise = Noise(size, 0, "registered", np.array([size]))
    estimator = Estimator(registration.basis.minima)
    curves = estimator.curves(budget)
    found = fit_minima(estimator, budget, noise, 0, np.random.default_rng(0), fitted=curves)
    if found.reason_G[0] is not None:
        between = _known_between(budget[0], curves.minima()[0])
        numbers = [bounded(name, one, *between.get(name, ())) for name, one in expected.items()]
        return numbers, None, found.reason_G[0]
    params, data, loss = (float(x[0]) for x in (found.params_G, found.tokens_G, found.loss_G))
    size_se, loss_se = float(found.errors.log_params_G[0]), float(found.errors.log_loss_G[0])
    numbers = [
        outcome("params", expected["params"], params, size_se),
        outcome("tokens", expected["tokens"], data, size_se),
        outcome("loss", expected["loss"], loss, loss_se),
    ]
    return numbers, _Minimum(params, loss, loss_se), ""


def _known_between(profile: Profile, minimum: Minima) -> dict[str, tuple[float, float]]:
    """Between what N*, D* and L* lie where the losses still fall at the end of the sizes.

    The end of the sizes bounds N* where the curve falls on there. Where it turns just before, or
    the losses of other sizes go up and down, the runs themselves tell less or nothing.
    """
    size, where = np.unique(profile.log_params_S, return_inverse=True)
    loss = np.bincount(where, profile.loss_S) / np.bincount(where)
    lowest = int(loss.argmin())
    if lowest not in (0, len(size) - 1):
        return {}
    larger, fault = lowest > 0, str(minimum.fault_B[0])
    if fault == "":
        next_to_it = size[lowest - 1 if larger else 1]
        ends = (next_to_it, minimum.log_params_B[0])
        end = min(ends) if larger else max(ends)
    elif fault == ("above the largest size" if larger else "below the smallest size") or np.all(
        np.diff(loss) < 0 if larger else np.diff(loss) > 0
    ):
        end = size[lowest]
    else:
        return {}
    params, data = float(np.exp(end)), float(profile.tokens_at(np.array([end]))[0])
    above, below = (params, math.inf), (0.0, params)
    return {
        "params": above if larger else below,
        "tokens": (0.0, data) if larger else (data, math.inf),
        "loss": (0.0, float(loss[lowest])),
    }


def _regret(
    registration: Registration,
    points: Sequence[Point],
    chosen: float,
    minimum: _Minimum | None,
) -> list[Regret]:
    """Of the registered size, in ln loss averaged over seeds.

    A loss is worth FLOPs by the registered slope of ln L* on ln C.
    """
    by_size: dict[float, list[float]] = {}
    for one in points:
        by_size.setdefault(one.params, []).append(math.log(one.loss))
    mean = {params: float(np.mean(values)) for params, values in by_size.items()}
    se = {n: registration.basis.noise / math.sqrt(len(v)) for n, v in by_size.items()}

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

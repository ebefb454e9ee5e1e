"""How often the stated 95 % intervals of forecasts hold, and how wide they are.

    python -m tests.benchmarks.held_out_intervals [--tables=a.csv,b.csv] [--most=3]

Of every table (by default those of ../shared/data that are there), and of every condition with four
budgets or more that have a minimum, the largest one to `--most` are held out; the rest is fitted,
chosen and drawn anew and asked for each of them. The first count is of measured minima inside; they
have noise of their own, which no interval here contains: the second count lets them off by 1.96 of
their standard error. `narrowest` is the smallest common factor on all widths that still holds the
share asked for (90 % of L*, 85 % of N* and D*), by either count: at most 1 the bar is reached, and
below .5 the intervals are more than twice as wide as that needs. "alone" are intervals of bootstrap
draws alone, as they were stated once.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from absl import app, flags

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.approaches import approaches
from chinchilla_jax.scaling.arrays import silent
from chinchilla_jax.scaling.forecast.candidates import candidates
from chinchilla_jax.scaling.forecast.source import Source
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import conditions
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.scaling.table.runs import Runs

_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
_TABLES = flags.DEFINE_list("tables", [], "Tables of runs; a sweep's folder is one.")
_MOST = flags.DEFINE_integer("most", 3, "Budgets held out, at most.")
_BOOTSTRAP = flags.DEFINE_integer("bootstrap", 500, "Draws.")
_QUANTITIES = {"loss": 0.90, "params": 0.85, "tokens": 0.85}  # the share that must lie inside


@dataclass(frozen=True)
class Forecast:
    """One budget that was held out: arrays of the three quantities, in logs."""

    point: np.ndarray
    measured: np.ndarray
    scatter: np.ndarray  # standard errors of the measured minimum
    ends: np.ndarray  # [low or high, quantity]
    alone: np.ndarray  # the same of draws alone


def _streams(*part: int) -> np.random.Generator:
    return np.random.default_rng([0, *part])


@silent()
def forecasts(runs: Runs, most: int, draws: int) -> Iterator[Forecast]:
    """Every forecast with one to `most` budgets held out."""
    runs = runs.best()
    whole = approaches(runs, Settings(bootstrap=0), _streams)
    good = np.flatnonzero(whole.head.good_G)
    flops_G = np.array([profile.flops for profile in whole.profiles])
    for held in range(1, most + 1):
        if len(good) - held < 3:
            return
        cut, late = flops_G[good[-held - 1]], good[-held:]
        early = runs.select(runs.flops <= cut * 1.1)
        settings = Settings(bootstrap=draws)
        fitted = approaches(early, settings, _streams, whole.flops_model)
        sources = candidates(fitted, settings, _streams(3)).sources
        if not sources or sources[0].drawn is None:
            continue
        source = sources[0]
        alone = replace(source, fit=replace(source.fit, held_out=None), others=())
        for g in late:
            log_loss, log_params = (
                getattr(whole.head.errors, name)[g] for name in ("log_loss_G", "log_params_G")
            )
            yield Forecast(
                point=_asked(source, flops_G[g], drawn=False)[:, 0],
                measured=np.log([getattr(whole.head, f"{q}_G")[g] for q in _QUANTITIES]),
                scatter=np.array([log_loss, log_params, log_params]),
                ends=np.quantile(_asked(source, flops_G[g]), (0.025, 0.975), axis=1),
                alone=np.quantile(_asked(alone, flops_G[g]), (0.025, 0.975), axis=1),
            )


def _asked(source: Source, flops: float, drawn: bool = True) -> np.ndarray:
    """[quantity, draw] in logs; draws without an optimum are left out."""
    found = (source.drawn if drawn else source.best)(np.array([flops]))
    values = np.log([np.ravel(getattr(found, q)) for q in _QUANTITIES])
    return values[:, np.all(np.isfinite(values), axis=0)]


def _row(name: str, found: list[Forecast], ends: str) -> str:
    point, measured, scatter = (
        np.stack([getattr(f, part) for f in found]) for part in ("point", "measured", "scatter")
    )
    low, high = np.stack([getattr(f, ends) for f in found], axis=1)
    side = np.where(measured < point, point - low, high - point)
    miss = np.abs(measured - point)
    past = [miss / side, np.maximum(miss - 1.96 * scatter, 0.0) / side]  # the ends, without, with
    cells = []
    for q, least in enumerate(_QUANTITIES.values()):
        inside = " ".join(f"{np.sum(ratio[:, q] <= 1):3d}" for ratio in past)
        narrowest = " ".join(
            f"{np.quantile(ratio[:, q], least, method='inverted_cdf'):4.2f}" for ratio in past
        )
        width = 50 * np.median(high - low, axis=0)[q]
        cells.append(f"{inside} of {len(found):3d} +-{width:5.1f} % {narrowest}")
    return f"{name:24.24s} {ends:6s} {'   '.join(cells)}"


def _tables() -> Iterator[tuple[str, Runs]]:
    for path in _TABLES.value or sorted(_DATA.glob("*.csv")):
        try:
            table = read_runs(path)
        except UserError:  # another kind of table
            continue
        for one in conditions(table):
            yield f"{Path(path).stem} {one.title}".strip(), one.runs


def main(_: list[str]) -> None:
    every: list[Forecast] = []
    cells = [f"{q}: inside, +noise; width; narrowest" for q in ("L*", "N*", "D*")]
    print(f"{'table':24s} {'':6s} {'   '.join(f'{cell:33s}' for cell in cells)}")
    for name, runs in _tables():
        found = list(forecasts(runs, _MOST.value, _BOOTSTRAP.value))
        every += found
        for ends in ("alone", "ends") if found else ():
            print(_row(name, found, ends), flush=True)
    for ends in ("alone", "ends") if every else ():
        print(_row("all", every, ends))
    if not every:
        print("no table here has four budgets with a minimum")


if __name__ == "__main__":
    app.run(main)

"""How well surfaces forecast runs that they have not seen, and how often their intervals hold.

    python -m tests.benchmarks.held_out_surfaces [--tables=a.csv,b.csv] [--cut=.7]

Of every table (by default those of ../shared/data that are there), and of every condition, the runs
with the lower 70 % of N D are fitted and the others asked for: the rms of ln(predicted / observed)
of each form on all runs, and of the average that `evaluate` forecasts with, which sees nothing of
the others. `to best` is its error over that of the best form of the three, chosen afterwards.
`inside` is how many of the others lie in the stated 95 % intervals of single runs, and the median
half-width of these. At the end: medians over tables, against Chinchilla's on all runs.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import app, flags

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.approaches import approaches
from chinchilla_jax.scaling.arrays import silent
from chinchilla_jax.scaling.fits import FormFit
from chinchilla_jax.scaling.fitting.surface import PARAMETERS, Surface
from chinchilla_jax.scaling.forecast.average import mean_loss, run_interval
from chinchilla_jax.scaling.sections.surfaces import surfaces
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import conditions
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.scaling.table.runs import Runs

_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
_TABLES = flags.DEFINE_list("tables", [], "Tables of runs; a sweep's folder is one.")
_CUT = flags.DEFINE_float("cut", 0.7, "Share of the runs, the cheapest, that are fitted.")
_BOOTSTRAP = flags.DEFINE_integer("bootstrap", 400, "Draws.")
_SINGLE = ("surface", "even", "gamma")  # among which the best is chosen afterwards
_LEAST = 4  # runs beyond


@dataclass(frozen=True)
class Result:
    """Errors in ln loss of the runs beyond."""

    name: str
    rms: dict[str, float]  # by form, "average" among them
    bias: dict[str, float]
    inside: int
    runs: int
    width: float  # median half-width of the intervals

    @property
    def to_best(self) -> float:
        return self.rms["average"] / min(self.rms[form] for form in _SINGLE)


def _loss(form: FormFit, params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    return Surface(*(getattr(form, name) for name in PARAMETERS)).loss(params, tokens)


@silent()
def result(name: str, runs: Runs, cut: float, draws: int) -> Result | None:
    """None where there are too few runs on either side."""
    runs = runs.best()
    price = runs.params * runs.tokens
    early_R = price <= np.quantile(price, cut) * (1 + 1e-9)
    early, late = runs.select(early_R), runs.select(~early_R)
    if len(late) < _LEAST:
        return None
    streams = np.random.default_rng
    each = approaches(early, Settings(bootstrap=0), streams)
    found = surfaces(each, Settings(bootstrap=draws), streams(8))
    if found.runs is None:
        return None
    error = {
        form.form: np.log(_loss(form, late.params, late.tokens) / late.loss) for form in found.forms
    }
    pairs = list(zip(late.params, late.tokens, strict=True))
    mean = np.array([mean_loss(found.runs.members, n, d) for n, d in pairs])
    error["average"] = np.log(mean / late.loss)
    beyond = np.log(late.flops / early.flops.max())
    ends = np.array(
        [
            run_interval(found.runs, found.draws, n, d, float(x)) or (np.nan, np.nan)
            for (n, d), x in zip(pairs, beyond, strict=True)
        ]
    )
    return Result(
        name,
        {form: float(np.sqrt(np.mean(x**2))) for form, x in error.items()},
        {form: float(np.mean(x)) for form, x in error.items()},
        int(np.sum((ends[:, 0] <= late.loss) & (late.loss <= ends[:, 1]))),
        len(late),
        float(np.nanmedian(np.log(ends[:, 1] / ends[:, 0]))) / 2,
    )


def _tables() -> Iterator[tuple[str, Runs]]:
    for path in _TABLES.value or sorted(_DATA.glob("*.csv")):
        try:
            table = read_runs(path)
        except UserError:  # another kind of table
            continue
        for one in conditions(table):
            yield f"{Path(path).stem} {one.title}".strip(), one.runs


def _row(one: Result) -> str:
    cells = [f"{100 * rms:5.2f} {100 * one.bias[form]:+5.2f}" for form, rms in one.rms.items()]
    return (
        f"{one.name:30.30s} {'   '.join(cells)}  to best {one.to_best:4.2f}  inside "
        f"{one.inside:3d} of {one.runs:3d} +-{100 * one.width:4.1f} %"
    )


def main(_: list[str]) -> None:
    every: list[Result] = []
    for name, runs in _tables():
        one = result(name, runs, _CUT.value, _BOOTSTRAP.value)
        if one is None:
            continue
        if not every:
            print(f"{'rms and bias, %':30s} {'   '.join(f'{form:11s}' for form in one.rms)}")
        every.append(one)
        print(_row(one), flush=True)
    if not every:
        print("no table here has runs enough on both sides of the cut")
        return
    rms = {form: np.array([one.rms[form] for one in every]) for form in every[0].rms}
    base = rms["surface"]
    for form, values in rms.items():
        print(
            f"{form:10s} median {100 * np.median(values):.2f} %, of Chinchilla's "
            f"{np.median(values) / np.median(base):.2f}; ratio by table: median "
            f"{np.median(values / base):.2f}, mean of logs "
            f"{np.exp(np.mean(np.log(values / base))):.2f}"
        )
    near = sum(one.to_best <= 1.25 for one in every)
    inside, runs = sum(one.inside for one in every), sum(one.runs for one in every)
    shares = np.array([one.inside / one.runs for one in every])
    print(
        f"at most 1.25 times the best form in {near} of {len(every)} tables; 95 % intervals of "
        f"single runs hold in {inside} of {runs} ({100 * inside / runs:.1f} %), by table "
        f"{100 * shares.mean():.1f} % in the mean, {(shares >= 0.9).sum()} of {len(every)} in 90 %"
    )


if __name__ == "__main__":
    app.run(main)

"""How well the chosen estimator of iso-FLOP minima finds the exponent a of N* ~ C^a.

    python -m tests.benchmarks.minima [--tables=a.csv:0.49,b.csv:0.60] [--repeats=40] [--designs=0]

Simulated: three surfaces, grids of width (largest over smallest params) 8, 32 and 100, noise of 0,
.2 and .6 %, centred on the optima and drifting across them by a factor of two each way; five
budgets, eleven sizes. Printed is the rms error of a by the choice, by the best single estimator of
that very design (known only here), and by each method through all sizes. An error that a budget
without a minimum leaves out is left out for all.

The best of thirteen estimators on these very tables is the luckiest of them too: `ratio` is the
choice's error over its. `apart` takes the estimator that is best on half of a design's tables and
compares on the other half, the mean over halves.

Tables: the chosen estimator's exponent beside a published one (by default those of ../shared/data
that are there).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from absl import app, flags

from chinchilla_jax.scaling.arrays import silent
from chinchilla_jax.scaling.fitting.estimators import (
    ESTIMATORS,
    METHODS,
    Curves,
    Estimator,
    choose,
)
from chinchilla_jax.scaling.fitting.isoflop import Profile, power_laws, profiles
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.table.read import read_runs

_DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
_PUBLISHED = {"llama3_isoflop.csv": 0.47, "chinchilla_fig4.csv": 0.49}
_TABLES = flags.DEFINE_list("tables", [], "Tables of runs, each as FILE:EXPONENT.")
_REPEATS = flags.DEFINE_integer("repeats", 40, "Tables of every design with noise.")
_DESIGNS = flags.DEFINE_bool("designs", True, "Simulate.")
_WIDTHS = flags.DEFINE_list("widths", ["8", "32", "100"], "Largest over smallest params of a grid.")
_NEAR = 0.02  # of a published exponent
_BUDGETS = 10.0 ** np.arange(17, 22)
_SIZES = 11
_DRIFT = np.log(2.0)
_FLOOR = 1e-4  # errors of a below it count as equal
_HALVES = 200

Loss = Callable[[np.ndarray, np.ndarray], np.ndarray]


def _busbridge(params: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Busbridge et al. 2502.08606: no valley of ours is its profile."""
    return 1.220 + (3355 * params**-0.408 + 18186 * tokens**-0.431) ** 0.452


# name -> loss, and the surface of the same optimum
_SURFACES: dict[str, tuple[Loss | None, Surface]] = {
    "Chinchilla": (None, Surface(1.69, 406.4, 410.7, 0.34, 0.28)),
    "lopsided": (None, Surface(1.69, 406.4, 410.7, 0.45, 0.20)),
    "Busbridge": (_busbridge, Surface(1.22, 3355.0, 18186.0, 0.408, 0.431)),
}


def _design(name: str, width: float, drift: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """params, tokens and noise-free loss [budget, size]."""
    loss, surface = _SURFACES[name]
    centre = surface.optimum(_BUDGETS)[0] * np.exp(np.linspace(-drift, drift, len(_BUDGETS)))
    half = 0.5 * np.log(width)
    params = centre[:, None] * np.exp(np.linspace(-half, half, _SIZES))
    tokens = _BUDGETS[:, None] / (6 * params)
    return params, tokens, (loss or surface.loss)(params, tokens)


def _profiles(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray) -> list[Profile]:
    group = np.arange(len(_BUDGETS)).repeat(_SIZES)
    return profiles(group, _BUDGETS, params.ravel(), tokens.ravel(), loss.ravel())


def _exponent(fitted: Curves, found: list[Profile]) -> float:
    minima = fitted.minima()
    y = np.array([[lowest.log_params_B[0] for lowest in minima]])
    good = np.array([[lowest.good_B[0] for lowest in minima]])
    return float(power_laws(np.log([p.flops for p in found]), y, y, good * 1.0).a[0])


@dataclass(frozen=True)
class _Errors:
    """Errors of a of one design's tables, by every estimator and by the choice."""

    each_TxM: np.ndarray
    chosen_T: np.ndarray

    @property
    def rms(self) -> dict[Estimator, float]:
        return dict(zip(ESTIMATORS, _rms(self.each_TxM).tolist(), strict=True))

    @property
    def apart(self) -> float:
        """The choice's error over that of the best estimator of other tables."""
        tables, rng = len(self.chosen_T), np.random.default_rng(0)
        logs = []
        for _ in range(_HALVES if tables > 1 else 0):
            known, asked = np.array_split(rng.permutation(tables), 2)
            best = _rms(self.each_TxM[known]).argmin()
            logs.append(np.log(_ratio(self.chosen_T[asked], self.each_TxM[asked, best])))
        return float(np.exp(np.mean(logs))) if logs else float("nan")


def _rms(error: np.ndarray) -> np.ndarray:
    return np.asarray(np.sqrt(np.mean(error**2, axis=0)))


def _ratio(error: np.ndarray, other: np.ndarray) -> float:
    return max(float(_rms(error)), _FLOOR) / max(float(_rms(other)), _FLOOR)


@silent()
def _errors(name: str, width: float, noise: float, drift: float) -> _Errors:
    params, tokens, loss = _design(name, width, drift)
    true = float(_SURFACES[name][1].exponents()[0])
    rng = np.random.default_rng(0)
    rows = []
    for _ in range(_REPEATS.value if noise else 1):
        found = _profiles(params, tokens, loss * np.exp(noise * rng.standard_normal(loss.shape)))
        choice = choose(found)
        fitted = {trial.estimator: trial.curves for trial in choice.trials}
        row = {e: _exponent(fitted.get(e) or e.curves(found), found) - true for e in ESTIMATORS}
        rows.append([*row.values(), row[choice.estimator]])
    error = np.array([row for row in rows if np.isfinite(row).all()])
    return _Errors(error[:, :-1], error[:, -1])


def _simulated() -> Iterator[tuple[float, float]]:
    """Prints a line a design; gives `ratio` and `apart`."""
    heads = " ".join(f"{method:>9s}" for method in METHODS)
    print(f"{'surface':11s} width noise drift   chosen    best  ratio  apart {heads}  best of all")
    for name in _SURFACES:
        for width in map(float, _WIDTHS.value):
            for noise in (0.0, 0.002, 0.006):
                for drift in (0.0, _DRIFT):
                    found = _errors(name, width, noise, drift)
                    rms = found.rms
                    best = min(rms, key=lambda e: rms[e])
                    ratio = _ratio(found.chosen_T, found.each_TxM[:, ESTIMATORS.index(best)])
                    each = " ".join(f"{rms[Estimator(method)]:9.5f}" for method in METHODS)
                    print(
                        f"{name:11s} {width:5g} {100 * noise:4.1f}% {drift:5.2f} "
                        f"{_rms(found.chosen_T):8.5f} {rms[best]:7.5f} {ratio:6.2f} "
                        f"{found.apart:6.2f} {each}  {best.title}",
                        flush=True,
                    )
                    yield ratio, found.apart


def _published() -> None:
    tables = dict(one.rsplit(":", 1) for one in _TABLES.value) or {
        str(_DATA / name): a for name, a in _PUBLISHED.items() if (_DATA / name).exists()
    }
    missed = []
    for path, a in tables.items():
        runs = read_runs(path)
        found = profiles(runs.group_R, runs.budget_G, runs.params, runs.tokens, runs.loss)
        choice = choose(found)
        missed.append(_exponent(choice.estimator.curves(found), found) - float(a))
        print(
            f"{Path(path).stem:45.45s} published {float(a):.3f}, found {float(a) + missed[-1]:.3f} "
            f"({missed[-1]:+.3f}) by {choice.estimator.title}"
        )
    if missed:
        print(f"within {_NEAR} in {sum(abs(m) <= _NEAR for m in missed)} of {len(missed)}")


def main(_: list[str]) -> None:
    if _DESIGNS.value:
        ratio_D, apart_D = np.array(list(_simulated())).T
        drawn_D = apart_D[np.isfinite(apart_D)]
        print(
            f"{np.sum(ratio_D <= 1.1)} of {len(ratio_D)} designs within 1.1 of their best estimator"
        )
        print(
            f"{np.sum(drawn_D <= 1.1)} of the {len(drawn_D)} with noise within 1.1 of the one "
            f"that is best on other tables, at most {drawn_D.max():.2f}"
        )
    _published()


if __name__ == "__main__":
    app.run(main)

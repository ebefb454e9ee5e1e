"""The surface fit side by side: ours, SciPy's L-BFGS-B over 4500 starts, the package `chinchilla`.

    python -m tests.benchmarks.fitting [--runs=TABLE] [--starts=4500] [--large]
    python -m tests.benchmarks.fitting --gamma    E + (A/N^alpha + B/D^beta)^gamma beside SciPy

One run, one machine, one table, one objective (sum of log-Huber, delta 1e-3). Without --runs the
table is 240 made runs. `chinchilla` (PyPI, 0.2) is timed where it can be imported, on a few starts,
since each costs it seconds. --large adds 100,000 rows and 10,000 bootstraps of 1,000 rows.
"""

import contextlib
import io
import itertools
import os
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from absl import app, flags
from scipy.optimize import minimize

from chinchilla_jax.scaling.fitting.surface import Surface, fit_surface, refit
from chinchilla_jax.scaling.table.read import read_runs

_RUNS = flags.DEFINE_string("runs", None, "Table of runs; the five highest losses are left out.")
_STARTS = flags.DEFINE_integer("starts", 4500, "Starts for SciPy, spread over the grid of 4500.")
_PACKAGE = flags.DEFINE_integer("package_starts", 4, "Starts for the package chinchilla.")
_LARGE = flags.DEFINE_bool("large", False, "Time large tables too.")
_GAMMA = flags.DEFINE_bool("gamma", False, "Time the surface of six parameters.")
_DELTA = 1e-3


def _table() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if _RUNS.value:
        runs = read_runs(_RUNS.value)
        keep = np.sort(np.argsort(runs.loss)[: len(runs) - 5])
        return runs.params[keep], runs.tokens[keep], runs.loss[keep]
    return _made(240)


def _made(rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    params, tokens = np.exp(rng.uniform(17, 24, rows)), np.exp(rng.uniform(20, 26, rows))
    loss = Surface(1.82, 478.0, 2143.0, 0.347, 0.367).loss(params, tokens)
    return params, tokens, loss * np.exp(0.005 * rng.standard_normal(rows))


def _timed(what: Callable[[], Any], repeats: int = 1) -> tuple[float, Any]:
    """Seconds of the fastest of `repeats`, and the last result."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        result = what()
        seconds.append(time.perf_counter() - begin)
    return min(seconds), result


def _grid() -> np.ndarray:
    """The 4500 starts of Hoffmann et al.: a, b, e, alpha, beta."""
    exponent, e = np.arange(0, 2.5, 0.5), np.arange(-1, 1.5, 0.5)
    size = np.arange(0, 30, 5)
    points = np.array(list(itertools.product(size, size, e, exponent, exponent)), float)
    return points[np.linspace(0, len(points) - 1, _STARTS.value).astype(int)]


def _objective(x: np.ndarray, log_n: np.ndarray, log_d: np.ndarray, log_loss: np.ndarray) -> float:
    """As in Besiroglu et al.'s notebook, gradients left to SciPy's differences as there."""
    a, b, e, alpha, beta, *gamma = x  # of a sixth parameter the bracket is raised to it
    with np.errstate(all="ignore"):
        bracket = np.exp(a - alpha * log_n) + np.exp(b - beta * log_d)
        predicted = np.log((bracket ** gamma[0] if gamma else bracket) + np.exp(e))
        size = np.abs(log_loss - predicted)
        total = np.sum(np.where(size <= _DELTA, size**2 / 2, _DELTA * (size - _DELTA / 2)))
    return float(total) if np.isfinite(total) else 1e9


def _scipy(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray) -> np.ndarray:
    columns = (np.log(params), np.log(tokens), np.log(loss))
    starts = _grid()
    if _GAMMA.value:
        starts = np.column_stack([starts, np.resize([1.0, 0.5], len(starts))])
    return np.array([minimize(_objective, x, columns, "L-BFGS-B").fun for x in starts])


def _package(params: np.ndarray, tokens: np.ndarray, loss: np.ndarray) -> float:
    """The best objective that `chinchilla` reaches from a few starts near the usual answer."""
    import chinchilla
    from chinchilla._metrics import log_huber

    one = {"e": [0.5], "a": [5.0], "b": [5.0, 10.0], "alpha": [0.5], "beta": [0.5]}
    starts = max(1, _PACKAGE.value // 2)
    one["a"] = list(np.linspace(5.0, 10.0, starts))
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        model = chinchilla.Chinchilla(
            folder,
            param_grid=one,
            loss_fn=lambda true, predicted: log_huber(true, predicted, _DELTA),
            log_level=50,
        )
        for n, d, value in zip(params, tokens, loss, strict=True):
            model.append(N=n, D=d, loss=value)
        model.fit()
    x = [np.log(model.A), np.log(model.B), np.log(model.E), model.alpha, model.beta]
    return _objective(np.array(x, float), np.log(params), np.log(tokens), np.log(loss))


def _say(name: str, seconds: float, result: str) -> None:
    print(f"{name:46s} {seconds:10.4f} s   {result}", flush=True)


def main(_: list[str]) -> None:
    params, tokens, loss = _table()
    print(f"{len(loss)} runs, {os.cpu_count()} cores, sum of log-Huber {_DELTA:g}")
    form = "gamma" if _GAMMA.value else "surface"
    own, fit = _timed(lambda: fit_surface(params, tokens, loss, form=form), repeats=7)
    certificate = f"gradient {fit.gradient_norm:.0e}, {fit.starts_agreeing:.0%} of starts agree"
    _say("ours, one certified fit", own, f"objective {fit.value:.16g}, {certificate}")
    weights = np.random.default_rng(0).multinomial(
        len(loss), np.full(len(loss), 1 / len(loss)), 4000
    )
    seconds, found = _timed(lambda: refit(fit, weights.astype(float)), repeats=3)
    _say("ours, 4000 bootstrap fits", seconds, f"a +- {found.surface.exponents()[0].std():.4f}")
    seconds, values = _timed(lambda: _scipy(params, tokens, loss))
    best = values.min()
    share = np.mean(values <= fit.value * (1 + 1e-4))
    _say(
        f"SciPy L-BFGS-B, {len(values)} starts",
        seconds,
        f"objective {best:.16g}, {share:.1%} of starts within 1e-4; ours is {seconds / own:.0f} "
        "times as fast",
    )
    if _GAMMA.value:
        return
    try:
        seconds, value = _timed(lambda: _package(params, tokens, loss))
        _say(
            f"package chinchilla, {max(1, _PACKAGE.value // 2) * 2} starts",
            seconds,
            f"objective {value:.16g}; ours is {seconds / own:.0f} times as fast",
        )
    except ImportError as error:
        print(f"package chinchilla: not timed, {error}")
    if _LARGE.value:
        table = _made(100_000)
        seconds, large = _timed(lambda: fit_surface(*table))
        _say("ours, 100,000 rows", seconds, f"{large.starts_agreeing:.0%} of starts agree")
        table = _made(1_000)
        thousand = fit_surface(*table)

        def many() -> float:
            rng, share = np.random.default_rng(0), np.full(1000, 1e-3)
            draws = [
                refit(thousand, rng.multinomial(1000, share, 1000).astype(float)) for _ in range(10)
            ]
            return float(np.concatenate([d.surface.exponents()[0] for d in draws]).std())

        seconds, spread = _timed(many)
        _say("ours, 10,000 bootstrap fits of 1,000 rows", seconds, f"a +- {spread:.4f}")


if __name__ == "__main__":
    app.run(main)

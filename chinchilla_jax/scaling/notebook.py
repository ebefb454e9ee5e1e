"""The evaluator for a notebook: a table of runs in, the compute-optimal run out.

A table is a path, a list of dicts, a dict of columns, or a data frame of pandas or polars.

    >>> import chinchilla_jax as cj
    >>> table = [
    ...     {"params": n, "flops": c, "loss": 1.69 + 406.4 / n**0.34 + 410.7 / (c / 6 / n) ** 0.28}
    ...     for c in (1e18, 1e19, 1e20, 1e21)
    ...     for n in ((c / 120) ** 0.5 * 2**k for k in range(-3, 4))
    ... ]
    >>> result = cj.fit(table, bootstrap=200)
    >>> best = result.optimum(1e22)
    >>> f"{best.params:.3g} parameters, {best.tokens:.3g} tokens, loss {best.loss:.3f}"
    '5.16e+09 parameters, 3.23e+11 tokens, loss 2.139'
    >>> low, high = best.interval["loss"]
    >>> bool(low <= best.loss <= high)
    True
    >>> result.fits.parametric.alpha.__round__(4)
    0.34

What cannot be known is refused in a sentence, as on the report's page:

    >>> cj.fit(table[:4], bootstrap=0).optimum(1e22)
    Traceback (most recent call last):
    ...
    chinchilla_jax.experiment.errors.UserError: ...
"""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import nearest, require, typed
from chinchilla_jax.scaling import arguments, comparison
from chinchilla_jax.scaling.analysis import Arrays, analyse
from chinchilla_jax.scaling.arrays import silent
from chinchilla_jax.scaling.fits import Fits
from chinchilla_jax.scaling.fitting.surface import Surface
from chinchilla_jax.scaling.forecast.frontier import Frontier, from_fits, from_published
from chinchilla_jax.scaling.forecast.questions import Answer, at_flops, reaching
from chinchilla_jax.scaling.laws.downstream import accuracy
from chinchilla_jax.scaling.laws.published import law_named
from chinchilla_jax.scaling.report import summary, write
from chinchilla_jax.scaling.report.ranked import Ranked
from chinchilla_jax.scaling.ruler.league import league as rank_by_ruler
from chinchilla_jax.scaling.ruler.measures import CHARGES
from chinchilla_jax.scaling.ruler.panel import panel
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table import conditions
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.scaling.table.runs import Runs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Result:
    """An evaluation: `fits` is its record, as in fits.json; `arrays` what figures draw besides."""

    fits: Fits
    arrays: Arrays

    def __repr__(self) -> str:
        return "\n".join(summary.answer(self.fits))

    def optimum(self, flops: float, form: str = "") -> Answer:
        """The compute-optimal run of `flops` training FLOPs, with 95 % intervals.

        Args:
          form: `surface` or `loss_law`; by default the one that hold-out prefers.
        Raises:
          UserError: these runs do not tell; the sentence says why.
        """
        return _optimum(from_fits(self.fits, form), flops)

    def cheapest(self, loss: float, form: str = "") -> Answer:
        """The run of least FLOPs that reaches `loss`, in the unit of the table.

        Raises:
          UserError: these runs do not tell, or no budget reaches it.
        """
        return reaching(from_fits(self.fits, form), "loss", arguments.positive("loss", loss))

    def accuracy(self, task: str, params: float, tokens: float) -> float:
        """The share of `task` that a run of that size gets right; `fits.tasks` has the tasks.

        Raises:
          UserError: there is no such task, or too few runs have it.
        """
        names = [found.name for found in self.fits.tasks]
        if task not in names:
            raise UserError(
                f"{task}: no such task{nearest(str(task), names)} (there are "
                f"{', '.join(names) or 'none: no column of the table is an accuracy'})"
            )
        found = self.fits.tasks[names.index(task)]
        if not found.forms:
            raise UserError(f"{task}: {found.reason}")
        law, at = (
            found.forms[0],
            (arguments.positive("params", params), arguments.positive("tokens", tokens)),
        )
        return float(accuracy(Surface(**law.surface), law.link, found.chance, *at))

    @silent()
    def draw(self, name: str = "isoflop") -> Figure:
        """A figure of the report, Matplotlib's.

        Args:
          name: isoflop, frontier, surface, curves, holdout, residuals, bootstrap, ...
        Raises:
          UserError: there is no such figure, or these runs give nothing to draw in it.
        """
        from chinchilla_jax.scaling.report.plots import FIGURES, of_tasks, style

        more = of_tasks(self.fits, self.arrays)
        if name not in (names := [*FIGURES, *more]):
            raise UserError(
                f"{name}: no such figure{nearest(str(name), names)} (there are {', '.join(names)})"
            )
        with style.styled():
            figure = more[name]() if name in more else FIGURES[name](self.fits, self.arrays, ())
        if isinstance(figure, str):
            raise UserError(f"{name}: these runs give nothing to draw: {figure}")
        return figure

    def report(self, folder: Path | str) -> Path:
        """Writes fits.json, all figures and the page to `folder`; returns the page."""
        require(isinstance(folder, str | PurePath), "folder", folder, "a path is needed")
        return write.write(folder, self.fits, self.arrays)


@dataclass(frozen=True)
class Published:
    """A published law that can be asked like a fit of one's own.

    >>> import chinchilla_jax as cj
    >>> f"{cj.published('hoffmann').optimum(5.76e23).params:.3g}"
    '4.04e+10'
    """

    frontier: Frontier

    def __repr__(self) -> str:
        return self.frontier.title

    def optimum(self, flops: float) -> Answer:
        """The compute-optimal run of `flops` training FLOPs; it has no intervals.

        Raises:
          UserError: the law has no optimum there, or none at all.
        """
        return _optimum(self.frontier, flops)

    def cheapest(self, loss: float) -> Answer:
        """The run of least FLOPs that reaches `loss`.

        Raises:
          UserError: the law has no loss, or no budget reaches it.
        """
        return reaching(self.frontier, "loss", arguments.positive("loss", loss))


def _optimum(frontier: Frontier, flops: object) -> Answer:
    answer = at_flops(frontier, arguments.positive("flops", flops))
    if not answer.is_run:
        raise UserError(f"flops = {flops!r}: this law gives no optimum there")
    return answer


def read(
    table: Any,
    columns: Mapping[str, str] | None = None,
    kinds: Mapping[str, str] | None = None,
    where: Mapping[str, Any] | None = None,
) -> Runs:
    """The finished runs of a table, every doubt about it in `warnings`.

    Args:
      table: a path (CSV, TSV, JSONL, JSON, Parquet, a sweep's folder), a list of dicts, a dict of
        columns or a data frame.
      columns: what the table calls ours: {"params": "N", "loss": "val_loss"}.
      kinds: what a column is where its name misleads: {"batch": "condition"}.
      where: only the runs with these values, where several conditions are in one table:
        {"optimizer": "adamw"}.
    Raises:
      UserError: it cannot be read as a table of runs.

    >>> import chinchilla_jax as cj
    >>> runs = cj.read({"N": [1e6, 2e6], "D": [2e7, 1e7], "final_loss": [3.1, 3.2]})
    >>> len(runs), runs.flops.tolist()
    (2, [120000000000000.0, 120000000000000.0])
    """
    columns, kinds = arguments.texts("columns", columns), arguments.texts("kinds", kinds)
    arguments.mapping("where", where)
    picked = {name: str(value) for name, value in (where or {}).items()}
    return conditions.where(read_runs(table, columns, kinds), picked)


def fit(table: Any, **settings: Any) -> Result:
    """Fits everything that `evaluate` fits to a table, or to what `read` returned.

    Args:
      settings: fields of `settings.Settings`, as `bootstrap=0`, `flops="six_nd"`, `seed=1`.
    Raises:
      UserError: no table of runs, runs of several conditions (`read` with `where` picks one), or a
        setting that does not exist.
    """
    runs = table if isinstance(table, Runs) else read(table)
    if names := conditions.distinguishing(runs):
        values = {name: str(runs.condition_labels(name)[0]) for name in names}
        raise UserError(
            f"{conditions.choice(runs)}; in Python cj.compare(table, by={names}) and "
            f"cj.read(table, where={values})"
        )
    return Result(*analyse(runs, _settings(settings)))


@dataclass(frozen=True)
class Compared:
    """Conditions side by side, by their title: `optimizer=adamw`."""

    results: dict[str, Result]
    refused: dict[str, str]  # why a condition was not fitted

    def __repr__(self) -> str:
        fitted = [f"{title}: {result!r}" for title, result in self.results.items()]
        return "\n\n".join(
            [*fitted, *(f"{t}: not fitted: {why}" for t, why in self.refused.items())]
        )


def compare(table: Any, by: Sequence[str] = (), **settings: Any) -> Compared:
    """Fits every condition of a table by itself, as `evaluate --by` does.

    Args:
      by: the columns that make the conditions; by default all that were taken for one.
      settings: as in `fit`.
    Raises:
      UserError: runs of one such condition differ in another one, or a column lacks.

    >>> import chinchilla_jax as cj
    >>> table = [
    ...     {"optimizer": o, "params": n, "flops": c, "loss": loss}
    ...     for o, e in (("adamw", 1.7), ("muon", 1.6))
    ...     for c in (1e18, 1e19, 1e20)
    ...     for n in ((c / 120) ** 0.5 * 2**k for k in range(-2, 3))
    ...     for loss in (e + 406.4 / n**0.34 + 410.7 / (c / 6 / n) ** 0.28,)
    ... ]
    >>> found = cj.compare(table, by=["optimizer"], bootstrap=0)
    >>> {title: round(result.fits.parametric.E, 3) for title, result in found.results.items()}
    {'optimizer=adamw': 1.7, 'optimizer=muon': 1.6}
    """
    runs = table if isinstance(table, Runs) else read(table)
    found, arrays = comparison.compare(runs, _settings(settings), by=_names(by))
    fitted = [(one.title, one.fits) for one in found.conditions if one.fits is not None]
    return Compared(
        {title: Result(fits, each) for (title, fits), each in zip(fitted, arrays, strict=True)},
        {one.title: str(one.reason) for one in found.conditions if one.fits is None},
    )


def league(
    table: Any,
    by: Sequence[str] = (),
    baseline: Mapping[str, Any] | None = None,
    charge: str = "teacher_forward",
    **settings: Any,
) -> Ranked:
    """What every technique of a table is worth in dense models, as `evaluate --by=technique` says.

    Args:
      by: columns that make the conditions; by default those of our techniques, or `technique`.
      baseline: the values in columns `by` of the condition that measures the others, {"optimizer":
        "adamw"}; by default those of runs without a technique.
      charge: what of a teacher training FLOPs hold: student, teacher_forward or teacher_all.
      settings: as in `fit`.
    Raises:
      UserError: no dense runs, runs that differ in something else, or a column lacks.

    >>> import chinchilla_jax as cj
    >>> table = [
    ...     {"technique": t, "params": n, "flops": c,
    ...      "loss": 1.69 + 406.4 / (m * n)**0.34 + 410.7 / (c / 6 / n) ** 0.28}
    ...     for t, m in (("dense", 1.0), ("half", 0.5))
    ...     for c in (1e18, 1e19, 1e20)
    ...     for n in ((c / 120) ** 0.5 * 2**k for k in range(-2, 3))
    ... ]
    >>> found = cj.league(table, bootstrap=200)
    >>> round(found["half"]["params"].value, 3)
    0.5
    """
    arguments.mapping("baseline", baseline)
    require(isinstance(charge, str), "charge", charge, f"one of {', '.join(CHARGES)} is needed")
    runs = table if isinstance(table, Runs) else read_runs(table, derived=True)
    dense = {name: str(value) for name, value in (baseline or {}).items()}
    found = panel(runs, _names(by), dense)
    return Ranked(*rank_by_ruler(found, _settings(settings), charge))


def _names(by: object) -> Sequence[str]:
    names = [by] if isinstance(by, str) else by
    right = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    require(right, "by", by, "a list of names of columns is needed")
    return typing.cast(Sequence[str], names)


def _settings(given: Mapping[str, Any]) -> Settings:
    names = list(Settings.__dataclass_fields__)
    for name in given:
        if name not in names:
            raise UserError(
                f"{name}: no such setting{nearest(name, names)} (there are {', '.join(names)})"
            )
    hints = typing.get_type_hints(Settings)
    return Settings(
        **{name: typed(hints[name], _plain(name, x), name) for name, x in given.items()}
    )


def _plain(name: str, value: Any) -> Any:
    """NumPy's numbers and arrays as those of Python; a single budget as a list of one."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    alone = name == "budgets" and isinstance(value, Real) and not isinstance(value, bool)
    return [value] if alone else value


def published(name: str, **columns: float) -> Published:
    """A law of third_party/published_laws.json by name.

    Args:
      columns: further columns that the law knows (sparsity, unique_tokens, width, depth).
    Raises:
      UserError: there is no such law; all are named.
    """
    require(isinstance(name, str), "name", name, "the name of a law is needed, as 'hoffmann'")
    columns = {
        column: typed(float, _plain(column, value), column) for column, value in columns.items()
    }
    return Published(from_published(law_named(name), columns))

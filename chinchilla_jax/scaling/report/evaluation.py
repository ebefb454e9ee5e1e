"""From runs to a report in a folder: one law, conditions side by side, a league table, or two
against each other; each returns what the terminal shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.comparison import compare, oppose, rank
from chinchilla_jax.scaling.laws.further import laws_named, of_derived_rows
from chinchilla_jax.scaling.laws.published import PublishedLaw
from chinchilla_jax.scaling.report import comparison, league, write
from chinchilla_jax.scaling.ruler.measures import PAID
from chinchilla_jax.scaling.ruler.panel import BY, is_panel, of_one_text
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import Condition, conditions
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.scaling.table.runs import Runs
from chinchilla_jax.scaling.tuning import SETTINGS
from chinchilla_jax.techniques.law import Law


@dataclass(frozen=True)
class Request:
    """What is asked of a table, by the flags of `evaluate`."""

    settings: Settings
    laws: Sequence[Law] = ()
    tuned: Sequence[str] = ()  # laws of hyper-parameters, of SETTINGS
    overlays: Sequence[PublishedLaw] = ()
    by: Sequence[str] = ()
    baseline: Mapping[str, str] | None = None
    charge: str = PAID
    figures: bool = True

    @staticmethod
    def laws_of(names: Sequence[str]) -> dict[str, Any]:
        """The fields `laws` and `tuned` for the laws of these names.

        Raises:
          UserError: there is no such law, or one is given twice.
        """
        tuned = tuple(name for name in names if name in SETTINGS)
        return {"laws": laws_named(names, SETTINGS), "tuned": tuned}

    @property
    def ranked(self) -> bool:
        """Whether a league table is asked for."""
        return BY in self.by or bool(self.baseline)

    @property
    def derived(self) -> bool:
        """Whether rows that techniques derive from runs are asked for."""
        return self.ranked or of_derived_rows(self.laws)


def settled(read: Callable[[bool], Runs], asked: Request) -> tuple[Runs, Request]:
    """The runs, and what is asked of them: where nothing is, of a panel its league table.

    Args:
      read: reads them, with the rows that techniques derive from runs or without.
    """
    runs = read(asked.derived)
    if asked.by or asked.ranked or not is_panel(runs):
        return runs, asked
    return read(True), replace(asked, by=[BY])


def evaluated(runs: Runs, asked: Request, out: Path) -> str:
    """Fits a table and writes its report under `out`.

    Raises:
      UserError: the table lacks what is asked of it.
    """
    settings, laws, overlays = asked.settings, asked.laws, asked.overlays
    if asked.ranked:
        runs = of_one_text(runs)
        if asked.tuned:
            raise UserError(
                f"--laws={','.join(asked.tuned)}: is fitted under one condition and no league "
                "table; pick the condition with --where, or compare with --by=COLUMN"
            )
        found, drawn, ruler = rank(runs, settings, laws, asked.by, asked.baseline, asked.charge)
        page = league.write(out, found, drawn, ruler, runs, overlays, asked.figures)
        return league.terminal(found, page)
    if asked.by or len(conditions(runs)) > 1:
        found, drawn = compare(runs, settings, laws, asked.by, asked.tuned)
        page = comparison.write(out, found, drawn, runs, overlays, asked.figures)
        return comparison.terminal(found, page)
    fits, arrays = analyse(runs, settings, laws, asked.tuned)
    page = write.write(out, fits, arrays, overlays, asked.figures)
    return write.terminal(fits, page)


def verified(folder: Path, figures: bool = True) -> str:
    """Writes the report of the runs that checked a forecast; a line that says where it is."""
    try:
        fits, arrays = analyse(read_runs(folder), Settings())
        return f"report: {write.write(folder / 'report', fits, arrays, figures=figures)}"
    except UserError as error:
        return f"no report: {error}"


def opposed(sides: tuple[Condition, Condition], asked: Request, out: Path) -> str:
    """Fits two sides and writes their report under `out`.

    Raises:
      UserError: another report or charge is asked for besides, or losses or FLOPs are not of one
        unit.
    """
    for flag, given in (("by", asked.by), ("baseline", asked.baseline),
                        ("laws", (*asked.laws, *asked.tuned))):  # fmt: skip
        if given:
            raise UserError(f"--compare and --{flag} ask for two reports: leave out one of them")
    if asked.charge != PAID:
        raise UserError(
            f"--charge={asked.charge}: --compare takes training FLOPs as the tables have them, "
            f"with a teacher's forward passes; leave out --charge, or compare with --by={BY}"
        )
    found, drawn = oppose(*sides, asked.settings)
    page = comparison.write(out, found, drawn, sides[0].runs, asked.overlays, asked.figures)
    return comparison.terminal(found, page)

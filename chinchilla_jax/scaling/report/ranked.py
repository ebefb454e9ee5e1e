"""A league table in a notebook: printed, asked by condition, drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import nearest, one_of
from chinchilla_jax.scaling.arrays import silent
from chinchilla_jax.scaling.report import league
from chinchilla_jax.scaling.ruler.league import Ruler
from chinchilla_jax.scaling.ruler.records import League, Multiplier

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Ranked:
    """A league table: `table` is its record, as in fits.json; `ruler` what figures draw besides."""

    table: League
    ruler: Ruler | None

    def __repr__(self) -> str:
        return league.plain(self.table)

    def __getitem__(self, label: str) -> dict[str, Multiplier]:
        """The multipliers of the condition with this label, by what they count.

        Raises:
          UserError: there is no such condition.
        """
        found = {one.label: one for one in self.table.standings}
        if label not in found:
            names = list(found)
            raise UserError(
                f"{label}: no such condition{nearest(str(label), names)} (there are "
                f"{'; '.join(names)})"
            )
        return {m.measure: m for m in found[label].multipliers}

    @silent()
    def draw(self, name: str = "forest") -> Figure:
        """A figure of the league table, Matplotlib's: forest or points.

        Raises:
          UserError: there is no such figure, or these runs give nothing to draw in it.
        """
        from chinchilla_jax.scaling.report.plots import league as plots
        from chinchilla_jax.scaling.report.plots import style

        one_of("draw", name, ("forest", "points"))
        with style.styled():
            figure = (
                plots.forest(self.table)
                if name == "forest"
                else plots.points(self.table, self.ruler)
            )
        if isinstance(figure, str):
            raise UserError(f"{name}: these runs give nothing to draw: {figure}")
        return figure

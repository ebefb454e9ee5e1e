"""Makes the runs of a search by successive halving, and no others (`experiment/halving.py`)."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment import halving
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.training import distributed


def run(
    workdir: Path,
    cells: Sequence[Cell],
    make: Callable[[Sequence[Cell]], list[dict[str, Any]]],
    factor: float,
) -> tuple[list[dict[str, Any]], str]:
    """Makes the runs of a search, rung by rung, those that are over excepted.

    Args:
      cells: of the grid to be searched.
      make: runs cells and returns their result rows.
    Returns:
      The rows of all runs of the search, and what was found; nothing where a run is left, which
      its row tells.
    Raises:
      UserError: as `experiment.halving.search`.
    """
    by_id = {cell.run.run_id: cell for cell in cells}
    begun = False

    def following() -> list[str]:
        nonlocal begun
        rungs = halving.search(cells, halving.over(workdir), factor)
        if not begun:  # once: a sweep of all cells that comes later takes it back
            halving.begin(workdir, cells, factor)
            begun = True
        return [] if halving.is_over(rungs, cells) else [cell.run.run_id for cell in rungs[-1].runs]

    rows: list[dict[str, Any]] = []
    while names := distributed.on_writer(following):
        made = make([by_id[name] for name in names])
        rows += [row for row in made if row["run_id"] in names]
        if not all(row["status"] in halving.OVER for row in rows):
            return rows, ""
    found = halving.over(workdir)
    rungs = halving.search(cells, found, factor)
    rows = [dict(found[cell.run.run_id]) for rung in rungs for cell in rung.runs]
    return rows, f"\n\n{halving.text(rungs, cells, found)}"

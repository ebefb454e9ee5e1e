"""How far the cells of a sweep are, from their folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.experiment.records import run_directory


@dataclass(frozen=True)
class Progress:
    """How far a sweep is."""

    flops: float  # done, of the selected cells
    flops_total: float
    over: int  # cells: done, diverged or failed
    cells: int


class Watch:
    """Looks at cells again and again, each time at those alone that are begun and not over."""

    def __init__(self, workdir: Path, cells: Sequence[Cell]) -> None:
        self._workdir = workdir
        self._cells = len(cells)
        self._total = float(sum(cell.flops for cell in cells))
        self._left = {cell.run.run_id: cell for cell in cells}
        self._flops = 0.0  # of those that are over

    def look(self) -> Progress:
        """How far they are now."""
        flops, failed = 0.0, 0
        for run_id in storage.names(self._workdir / "runs") & self._left.keys():
            directory = run_directory(self._workdir, run_id)
            if directory.result() is not None:
                self._flops += self._left.pop(run_id).flops
            elif directory.failure() is not None:  # another sweep may try it again
                flops, failed = flops + self._left[run_id].flops, failed + 1
            else:
                flops += directory.last_flops()
        over = self._cells - len(self._left) + failed
        return Progress(self._flops + flops, self._total, over, self._cells)

"""How far the cells of a sweep are, from their folders."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.experiment.records import run_directory
from chinchilla_jax.experiment.trunks import marginal_flops


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
        self._marginal = {cell.run.run_id: marginal_flops(cell.run) for cell in cells}
        self._total = float(sum(self._marginal.values()))
        self._left = {cell.run.run_id: cell for cell in cells}
        self._flops = 0.0  # of those that are over

    def look(self) -> Progress:
        """How far they are now."""
        flops, failed = 0.0, 0
        for run_id in storage.names(self._workdir / "runs") & self._left.keys():
            directory = run_directory(self._workdir, run_id)
            if directory.result() is not None:
                del self._left[run_id]
                self._flops += self._marginal[run_id]
            elif directory.failure() is not None:  # another sweep may try it again
                flops, failed = flops + self._marginal[run_id], failed + 1
            else:
                of_trunk = self._left[run_id].flops - self._marginal[run_id]
                flops += max(directory.last_flops() - of_trunk, 0.0)
        over = self._cells - len(self._left) + failed
        return Progress(self._flops + flops, self._total, over, self._cells)

"""The runs of a table, as every later room takes them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.table.cells import cell_index
from chinchilla_jax.scaling.table.curves import Curve


@dataclass(frozen=True)
class Aside:
    """A row that is shown and never fitted."""

    row: int
    run_id: str
    status: str
    reason: str


@dataclass(frozen=True)
class Runs:
    """Finished runs, one entry each; arrays of float64, NaN where a cell is empty.

    `group_R` says which budget of `budget_G` a run belongs to, -1 for none. `columns` holds every
    numeric column by its canonical name, for other laws and other counting conventions.
    """

    source: str
    row_R: npt.NDArray[np.int64]
    run_id_R: tuple[str, ...]
    params: Floats
    tokens: Floats
    flops: Floats
    loss: Floats
    group_R: npt.NDArray[np.int64]
    budget_G: Floats
    budgets_from: str | None
    params_convention: str
    flops_convention: str
    columns: Mapping[str, Floats]
    curves: tuple[Curve, ...] = ()
    aside: tuple[Aside, ...] = ()
    warnings: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def tokens_per_param(self) -> Floats:
        return self.tokens / self.params

    def cell_R(self) -> npt.NDArray[np.int64]:
        """Index of the cell (same params and tokens): runs of one cell are replicates."""
        return cell_index(self.params, self.tokens)

    def select(self, keep_R: npt.NDArray[np.bool_]) -> "Runs":
        """The rows of `keep_R`; budgets keep their numbers."""
        index = np.flatnonzero(keep_R)
        return replace(
            self,
            **{
                name: getattr(self, name)[index]
                for name in ("row_R", "params", "tokens", "flops", "loss", "group_R")
            },
            run_id_R=tuple(self.run_id_R[i] for i in index),
            columns={name: column[index] for name, column in self.columns.items()},
        )

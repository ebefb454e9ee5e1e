"""The runs of a table, as every later room takes them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from chinchilla_jax.scaling.arrays import Bools, Floats
from chinchilla_jax.scaling.table.cells import cell_index, lowest, rounded_cells
from chinchilla_jax.scaling.table.curves import Curve
from chinchilla_jax.scaling.table.kinds import Codes, Column, Labels, codes, condition_labels, joint


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

    `row_R` is the row of the file; `index_R` counts the runs as they were read, and names them
    in a part of the table: rows that were derived from a run share its row.
    `group_R` says which budget of `budget_G` a run belongs to, -1 for none. `columns` holds every
    numeric column by its canonical name, for other laws and other counting conventions; `labels`
    every column of the file as text, by the file's name, and `kinds` what each was taken for.
    `title` has the file's name of our columns, `scale` the factors by which they were read where a
    name or a person says one, `given` those of the fitted ones that the file had, `picked` the
    values of columns by which these runs were picked out of more.
    `notes` are what reading had to say, `doubts` what these very numbers give to doubt.
    """

    source: str
    row_R: npt.NDArray[np.int64]
    index_R: npt.NDArray[np.int64]
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
    labels: Mapping[str, Labels] = field(default_factory=dict)
    kinds: Mapping[str, Column] = field(default_factory=dict)
    title: Mapping[str, str] = field(default_factory=dict)
    scale: Mapping[str, float] = field(default_factory=dict)
    given: tuple[str, ...] = ("params", "tokens", "flops")
    picked: Mapping[str, str] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    aside: tuple[Aside, ...] = ()
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def tokens_per_param(self) -> Floats:
        return self.tokens / self.params

    @property
    def warnings(self) -> tuple[str, ...]:
        return self.notes + self.doubts

    def names(self, kind: str) -> list[str]:
        """The file's names of the columns of a kind."""
        return [name for name, column in self.kinds.items() if column.kind == kind]

    def condition_R(self, spanned: Collection[str] = ()) -> Codes:
        """Which condition a run stands under, leaving out the columns `spanned`."""
        return joint(
            np.zeros(len(self), np.int64),
            *(codes(self.condition_labels(name)) for name in self.names("condition")
              if name not in spanned),
        )  # fmt: skip

    def condition_labels(self, name: str) -> Labels:
        """The column `name` as it tells conditions apart."""
        return condition_labels(self.kinds[name], self.labels[name], self.tokens)

    def trunk_R(self) -> Codes | None:
        """The number of each run's trunk, its own where it has none; None where no run has one."""
        parent_R = self.labels.get("parent_run")
        if parent_R is None or not any(parent_R):
            return None
        names = [parent or own for parent, own in zip(parent_R, self.run_id_R, strict=True)]
        return codes(np.array(names))

    def trunks_of(self, run_ids: Sequence[str]) -> Codes | None:
        """`trunk_R` of the runs of these ids."""
        trunk_R = self.trunk_R()
        if trunk_R is None:
            return None
        place = {run_id: i for i, run_id in enumerate(self.run_id_R)}
        return trunk_R[[place[run_id] for run_id in run_ids]]

    def cell_R(self) -> Codes:
        """Index of the cell: the same condition, params and tokens."""
        return cell_index(self.condition_R().astype(float), self.params, self.tokens)

    def tried_cell_R(self) -> Codes:
        """Index of the cell in which settings are tried: as `cell_R`, but for whole steps."""
        return joint(self.condition_R(), rounded_cells(self.params, self.tokens))

    def best_R(self, spanned: Collection[str] = ()) -> Bools:
        """The runs at the best settings of their cell; seeds are averaged in ln loss.

        A law in the columns `spanned` needs every value of them: each is a cell of its own.
        """
        kept = [codes(self.labels[name]) for name in spanned if name in self.labels]
        tried = [codes(self.labels[name]) for name in self.names("setting") if name not in spanned]
        cell_R = joint(self.tried_cell_R(), *kept)
        return lowest(cell_R, joint(cell_R, *tried), np.log(self.loss))

    def best(self) -> "Runs":
        """The runs at the best settings of their cell."""
        best_R = self.best_R()
        return self if best_R.all() else self.select(best_R)

    def select(self, keep_R: npt.NDArray[np.bool_]) -> "Runs":
        """The rows of `keep_R` with their curves; budgets keep their numbers."""
        index = np.flatnonzero(keep_R)
        run_ids = tuple(self.run_id_R[i] for i in index)
        return replace(
            self,
            **{
                name: getattr(self, name)[index]
                for name in ("row_R", "index_R", "params", "tokens", "flops", "loss", "group_R")
            },
            run_id_R=run_ids,
            columns={name: column[index] for name, column in self.columns.items()},
            labels={name: column[index] for name, column in self.labels.items()},
            curves=tuple(curve for curve in self.curves if curve.run_id in set(run_ids)),
        )

"""Fits scaling laws to a sweep or to any table of training runs, and writes a report.

    python -m chinchilla_jax.evaluate --runs=runs/quickstart
    python -m chinchilla_jax.evaluate --runs=table.csv --columns=params=N,tokens=D --out=report

A table is CSV, TSV, JSONL, JSON or Parquet with the loss and two of parameters, tokens and FLOPs;
its conditions (optimizers, ...) are compared: see --by and --where; --by=technique ranks them,
--compare opposes two. Under --out: fits.json (unrounded), figures and report.html, for offline.
"""

import functools
from pathlib import Path

from absl import flags

from chinchilla_jax import flag_values, program, shared_flags
from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.published import laws_to_show
from chinchilla_jax.scaling.report import write as report
from chinchilla_jax.scaling.report.evaluation import Request, evaluated, opposed, settled
from chinchilla_jax.scaling.ruler.measures import CHARGES, PAID
from chinchilla_jax.scaling.ruler.panel import BY
from chinchilla_jax.scaling.ruler.sides import sides
from chinchilla_jax.scaling.table.conditions import where
from chinchilla_jax.scaling.table.kinds import CHOICES
from chinchilla_jax.scaling.table.read import read_runs
from chinchilla_jax.scaling.table.runs import Runs
from chinchilla_jax.scaling.tuning import SETTINGS

_RUNS = flags.DEFINE_string("runs", None, "A sweep's folder, table, or TABLE,RESULTS of lm-eval.")
_OUT = flags.DEFINE_string("out", "", "Folder of the report. Default: report, in that of a sweep.")
_COLUMNS = flags.DEFINE_list(
    "columns", [], "What the table calls our columns: params=N,tokens=1e9*D,loss=final,status=none."
)
_WHERE = flags.DEFINE_list("where", [], "Only runs with these values: optimizer=adamw,bits=4.")
_BY = flags.DEFINE_list(
    "by",
    [],
    "Columns whose values are fitted each by itself, side by side: optimizer,precision. "
    f"{BY} makes the league table of all techniques, measured by the dense runs, and is the "
    "default where techniques alone tell runs apart.",
)
_COMPARE = flags.DEFINE_list(
    "compare", [], "Two conditions (optimizer=adamw,optimizer=muon) or tables (a.csv,b.csv): what "
    "a training FLOP of the second is worth under the first."
)  # fmt: skip
_BASELINE = flags.DEFINE_list(
    "baseline", [], "The condition of --by that measures the others: optimizer=adamw."
)
_CHARGE = flags.DEFINE_enum("charge", PAID, CHARGES, "What of its teacher's FLOPs a student pays.")
_KINDS = flags.DEFINE_list(
    "kinds", [], f"What a column is, where it was taken for something else: batch=condition,... "
    f"({', '.join(CHOICES)})."
)  # fmt: skip
_ROWS = flags.DEFINE_string("rows", None, "What rows are: finished runs (runs) or steps (curves).")
_SETTINGS = shared_flags.define_settings()
_OVERLAY = flags.DEFINE_list(
    "overlay", [], "Published laws to draw beside ours, as hoffmann,kaplan_frontier,llama3."
)
_LAWS = flags.DEFINE_list("laws", [], f"Further laws to fit: {', '.join((*LAWS, *SETTINGS))}.")
_FIGURES = flags.DEFINE_bool("figures", True, "Draw the figures.")


def main(_: list[str]) -> None:
    asked = Request(
        settings=_SETTINGS(),
        **Request.laws_of(_LAWS.value),
        overlays=laws_to_show(_OVERLAY.value),
        by=_BY.value,
        baseline=flag_values.pairs("baseline", _BASELINE.value),
        charge=_CHARGE.value,
        figures=_FIGURES.value,
    )
    if _COMPARE.value:
        both = sides(_COMPARE.value, _RUNS.value, functools.partial(_read, derived=True))
        print(opposed(both, asked, report.writable(_folder())))
    else:
        runs, asked = settled(functools.partial(_read, _RUNS.value), asked)
        print(evaluated(runs, asked, report.writable(_folder())))


def _read(table: str | None, derived: bool) -> Runs:
    """The runs of a table, as the flags take its columns and pick of them."""
    if not table:
        raise UserError("--runs: is required; see --help")
    columns, kinds, only = (flag_values.pairs(f.name, f.value) for f in (_COLUMNS, _KINDS, _WHERE))
    return where(read_runs(storage.path(table), columns, kinds, _ROWS.value, derived), only)


def _folder() -> Path:
    beside = storage.path(_RUNS.value or "report")
    within = bool(_RUNS.value) and beside.is_dir()
    return storage.path(_OUT.value or (beside / "report" if within else "report"))


if __name__ == "__main__":
    program.run(main)

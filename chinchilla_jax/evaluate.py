"""Fits scaling laws to a sweep or to any table of training runs, and writes a report.

    python -m chinchilla_jax.evaluate --runs=runs/quickstart
    python -m chinchilla_jax.evaluate --runs=table.csv --columns=params=N,tokens=D --out=report

A table is CSV, TSV, JSONL, JSON or Parquet with the loss and two of parameters, tokens and FLOPs;
its conditions (optimizers, ...) are compared: see --by and --where. Under --out: fits.json
(unrounded), figures (PNG and SVG) and report.html, which opens offline.
"""

from absl import flags

from chinchilla_jax import program
from chinchilla_jax.experiment import storage
from chinchilla_jax.scaling.analysis import analyse
from chinchilla_jax.scaling.comparison import compare
from chinchilla_jax.scaling.fitting.isoflop import METHODS
from chinchilla_jax.scaling.fitting.separable import LOSSES
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.further import laws_named
from chinchilla_jax.scaling.laws.published import laws_to_show
from chinchilla_jax.scaling.report import comparison
from chinchilla_jax.scaling.report import write as report
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import conditions, where
from chinchilla_jax.scaling.table.conventions import FLOPS, PARAMS
from chinchilla_jax.scaling.table.kinds import CHOICES
from chinchilla_jax.scaling.table.read import read_runs

_RUNS = flags.DEFINE_string("runs", None, "A sweep's folder, or a table of runs.", required=True)
_OUT = flags.DEFINE_string("out", "", "Folder of the report. Default: report, in that of a sweep.")
_COLUMNS = flags.DEFINE_list(
    "columns", [], "What the table calls our columns: params=N,tokens=1e9*D,loss=final,status=none"
)
_WHERE = flags.DEFINE_list("where", [], "Only runs with these values: optimizer=adamw,bits=4.")
_BY = flags.DEFINE_list(
    "by", [], "Columns whose values are fitted each by itself, side by side: optimizer,precision."
)
_KINDS = flags.DEFINE_list(
    "kinds", [], f"What a column is, where it was taken for something else: batch=condition,... "
    f"({', '.join(CHOICES)})."
)  # fmt: skip
_ROWS = flags.DEFINE_string("rows", None, "What a row is: runs (finished) or curves (their steps).")
_PARAMS = flags.DEFINE_enum("params", "total", PARAMS, "Which parameters N counts.")
_FLOPS = flags.DEFINE_enum("flops", "as_given", FLOPS, "Convention by which FLOPs are counted.")
_OBJECTIVE = flags.DEFINE_enum(
    "objective", "log_huber", list(LOSSES), "What the fit of the loss surface minimises."
)
_DELTA = flags.DEFINE_float("delta", 1e-3, "Huber's delta.")
_TIED = flags.DEFINE_bool("tied", False, "One exponent for size and data: alpha = beta.")
_MINIMA = flags.DEFINE_enum(
    "minima", Settings.minima, METHODS, "Iso-FLOP minima whose exponents head the report."
)
_BOOTSTRAP = flags.DEFINE_integer("bootstrap", 4000, "Bootstrap draws; 0 for no intervals.")
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the bootstrap.")
_BUDGETS = flags.DEFINE_list(
    "budgets", [], "FLOPs to forecast, as 1e21,5.76e23. Default: ten times the largest run."
)
_HOLDOUT_ABOVE = flags.DEFINE_float(
    "holdout_above", None, "Also fit only runs up to these FLOPs and check the forecast beyond."
)
_OVERLAY = flags.DEFINE_list(
    "overlay", [], "Published laws to draw beside ours, as hoffmann,kaplan_frontier,llama3."
)
_LAWS = flags.DEFINE_list("laws", [], f"Further laws to fit to the same runs: {', '.join(LAWS)}.")
_FIGURES = flags.DEFINE_bool("figures", True, "Draw the figures.")


def main(_: list[str]) -> None:
    columns, kinds, picked = (program.pairs(f.name, f.value) for f in (_COLUMNS, _KINDS, _WHERE))
    settings = Settings(
        params=_PARAMS.value,
        flops=_FLOPS.value,
        objective=_OBJECTIVE.value,
        delta=_DELTA.value,
        tied=_TIED.value,
        minima=_MINIMA.value,
        bootstrap=_BOOTSTRAP.value,
        seed=_SEED.value,
        budgets=program.positive_numbers("budgets", _BUDGETS.value),
        holdout_above=_HOLDOUT_ABOVE.value,
    )
    overlays, laws = laws_to_show(_OVERLAY.value), laws_named(_LAWS.value)
    source = storage.path(_RUNS.value)
    out = storage.path(_OUT.value or (source / "report" if source.is_dir() else "report"))
    runs, out = where(read_runs(source, columns, kinds, _ROWS.value), picked), report.writable(out)
    if _BY.value or len(conditions(runs)) > 1:
        found, drawn = compare(runs, settings, laws, _BY.value)
        path = comparison.write(out, found, drawn, runs, overlays, figures=_FIGURES.value)
        print(comparison.terminal(found, path))
    else:
        fits, arrays = analyse(runs, settings, laws)
        path = report.write(out, fits, arrays, overlays, figures=_FIGURES.value)
        print(report.terminal(fits, path))


if __name__ == "__main__":
    program.run(main)

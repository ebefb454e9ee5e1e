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
from chinchilla_jax.scaling.comparison import compare, rank
from chinchilla_jax.scaling.laws import LAWS
from chinchilla_jax.scaling.laws.further import laws_named, of_derived_rows
from chinchilla_jax.scaling.laws.published import laws_to_show
from chinchilla_jax.scaling.report import comparison, league
from chinchilla_jax.scaling.report import write as report
from chinchilla_jax.scaling.ruler.measures import CHARGES
from chinchilla_jax.scaling.ruler.panel import BY
from chinchilla_jax.scaling.table.conditions import conditions, where
from chinchilla_jax.scaling.table.kinds import CHOICES
from chinchilla_jax.scaling.table.read import read_runs

_RUNS = flags.DEFINE_string("runs", None, "A sweep's folder, or a table of runs.", required=True)
_OUT = flags.DEFINE_string("out", "", "Folder of the report. Default: report, in that of a sweep.")
_COLUMNS = flags.DEFINE_list(
    "columns", [], "What the table calls our columns: params=N,tokens=1e9*D,loss=final,status=none"
)
_WHERE = flags.DEFINE_list("where", [], "Only runs with these values: optimizer=adamw,bits=4.")
_BY = flags.DEFINE_list(
    "by",
    [],
    "Columns whose values are fitted each by itself, side by side: optimizer,precision. "
    f"{BY}: the league table of all techniques, measured by the dense runs.",
)
_BASELINE = flags.DEFINE_list(
    "baseline", [], "The condition of --by that measures the others in a league table: bits=16."
)
_CHARGE = flags.DEFINE_enum("charge", CHARGES[1], CHARGES, "What of a teacher training FLOPs hold.")
_KINDS = flags.DEFINE_list(
    "kinds", [], f"What a column is, where it was taken for something else: batch=condition,... "
    f"({', '.join(CHOICES)})."
)  # fmt: skip
_ROWS = flags.DEFINE_string("rows", None, "What a row is: runs (finished) or curves (their steps).")
_SETTINGS = program.define_settings()
_OVERLAY = flags.DEFINE_list(
    "overlay", [], "Published laws to draw beside ours, as hoffmann,kaplan_frontier,llama3."
)
_LAWS = flags.DEFINE_list("laws", [], f"Further laws to fit to the same runs: {', '.join(LAWS)}.")
_FIGURES = flags.DEFINE_bool("figures", True, "Draw the figures.")


def main(_: list[str]) -> None:
    lists = (_COLUMNS, _KINDS, _WHERE, _BASELINE)
    columns, kinds, picked, baseline = (program.pairs(f.name, f.value) for f in lists)
    settings = _SETTINGS()
    overlays, laws = laws_to_show(_OVERLAY.value), laws_named(_LAWS.value)
    source = storage.path(_RUNS.value)
    out = storage.path(_OUT.value or (source / "report" if source.is_dir() else "report"))
    ranked = BY in _BY.value or bool(baseline)
    derived = ranked or of_derived_rows(laws)
    runs = where(read_runs(source, columns, kinds, _ROWS.value, derived), picked)
    out = report.writable(out)
    if ranked:
        found, drawn, ruler = rank(runs, settings, laws, _BY.value, baseline, _CHARGE.value)
        path = league.write(out, found, drawn, ruler, overlays, figures=_FIGURES.value)
        print(league.terminal(found, path))
    elif _BY.value or len(conditions(runs)) > 1:
        found, drawn = compare(runs, settings, laws, _BY.value)
        path = comparison.write(out, found, drawn, runs, overlays, figures=_FIGURES.value)
        print(comparison.terminal(found, path))
    else:
        fits, arrays = analyse(runs, settings, laws)
        path = report.write(out, fits, arrays, overlays, figures=_FIGURES.value)
        print(report.terminal(fits, path))


if __name__ == "__main__":
    program.run(main)

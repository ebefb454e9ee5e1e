"""Results of lm-eval beside a table of runs: `runs.csv,evals`, joined by the runs' names."""

from dataclasses import replace
from pathlib import Path, PurePath

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.commands import items
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.table.folders import is_sweep, read_file, read_folder
from chinchilla_jax.scaling.table.names import usual
from chinchilla_jax.scaling.table.readers import Cell, Raw
from chinchilla_jax.scaling.table.shapes import LM_EVAL

_SHOWN = 3


def parts(source: str | PurePath) -> tuple[Path, list[Path]]:
    """The table's path, and those of results that stand behind a comma."""
    path = storage.path(source)
    if "," not in str(source) or storage.exists(path):
        return path, []
    first, *rest = (storage.path(text.strip()) for text in str(source).split(","))
    return first, rest


def with_tasks(raw: Raw, places: list[Path]) -> Raw:
    """With a column for every task and metric, such as `piqa/acc_norm`.

    A result is of the run that its model is called, or a folder on the way to it.

    Raises:
      UserError: the table has no names, a place has no results of lm-eval, or none of a run.
    """
    found = usual("run_id", list(raw.columns))
    if not found:
        raise UserError(f"{raw.source}: results are joined by name, and no column names the runs")
    row_of = {str(name): i for i, name in enumerate(raw.columns[found[0][0]])}
    columns: dict[str, list[Cell]] = {}
    lost: list[str] = []
    joined = 0
    for place in places:
        results = _results_of(place, raw.source)
        names = [name for name in results.columns if "/" in name]
        models = results.columns.get("model_name", [None] * len(results.line))
        for j, (run, model) in enumerate(zip(results.columns["run_id"], models, strict=True)):
            called = [*str(model).split("/")[::-1], str(model), *str(run).split("/")[::-1]]
            i = next((row_of[name] for name in called if name in row_of), None)
            if i is None:
                lost.append(str(model or run))
                continue
            joined += 1
            for name in names:
                if (value := results.columns[name][j]) is not None:
                    columns.setdefault(name, [None] * len(raw.line))[i] = value
    if not joined:
        raise UserError(
            f"{raw.source}: none of the results is of a run of the table: they are of "
            f"{', '.join(lost[:_SHOWN])}, its runs are {', '.join(list(row_of)[:_SHOWN])}"
        )
    said = f"{joined} results of lm-eval joined by the runs' names"
    if lost:
        said += f"; {len(lost)} are of no run of the table ('{lost[0]}' first)"
    new = {name: cells for name, cells in columns.items() if name not in raw.columns}
    return replace(raw, columns={**raw.columns, **new}, notes=(*raw.notes, said))


def _results_of(place: Path, table: str) -> Raw:
    try:
        found = read_folder(place) if place.is_dir() else read_file(place)
    except UserError:
        if not is_sweep(place):
            raise
        found = None
    if found is None or LM_EVAL not in found.columns:
        kind = "is a sweep's folder and has" if is_sweep(place) else "has"
        raise UserError(
            f"{place}: {kind} no results of lm-eval, which are what stands behind a comma; two "
            f"tables or sweeps are compared by --compare={items([table, str(place)])}"
        )
    return found

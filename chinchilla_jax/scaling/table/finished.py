"""Which rows are of runs that are over: by a status, or by a column of yes and no."""

from collections.abc import Sequence

from chinchilla_jax.scaling.table.columns import NamedTable, is_empty, label, texts
from chinchilla_jax.scaling.table.derived import DONE
from chinchilla_jax.scaling.table.kinds import words

# Columns of yes and no: which of both a finished run has, and the status of one without.
_FLAGS = {
    **dict.fromkeys(("diverged", "nan", "exploded"), (False, "diverged")),
    **dict.fromkeys(("failed", "crashed", "killed", "oom"), (False, "failed")),
    **dict.fromkeys(("finished", "completed", "complete", "done"), (True, "unfinished")),
}  # fmt: skip
# What stands for a loss that there is none of.
_WORDS = {
    **dict.fromkeys(("diverged", "diverge", "exploded"), "diverged"),
    **dict.fromkeys(("failed", "crashed", "killed", "error", "oom", "timeout"), "failed"),
    **dict.fromkeys(("running", "pending", "queued", "unfinished"), "unfinished"),
}
_TRUTH = {**dict.fromkeys(("true", "yes", "1", "y"), True),
          **dict.fromkeys(("false", "no", "0", "n"), False)}  # fmt: skip


def unfinished(
    table: NamedTable, over: Sequence[str] = ()
) -> tuple[dict[int, tuple[str, str]], list[str], list[str]]:
    """Rows that say so: by a status, by a flag such as `diverged`, or by a word for the loss.

    Args:
      over: columns that are no flags, whatever their names.

    Returns:
      status and reason of each such row, the flags that say so, and what a person must hear.
    """
    status, reason = texts(table, "status"), texts(table, "reason")
    found = {
        i: (word.lower(), reason[i])
        for i, word in enumerate(status)
        if word and word.lower() not in DONE
    }
    for i, cell in enumerate(table.cells["loss"]):
        word = cell.strip().lower() if isinstance(cell, str) else ""
        if word in _WORDS:
            found.setdefault(i, (_WORDS[word], f"its loss is '{cell}'"))
    flags, notes = [], []
    for name, cells in table.raw.columns.items():
        flag = words(name).removeprefix("is ").removeprefix("has ")
        if flag not in _FLAGS or name in (table.title.get("status"), *over):
            continue
        truth = [_TRUTH.get(str(label(cell)).lower()) for cell in cells]
        if not all(is_empty(cell) or x is not None for cell, x in zip(cells, truth, strict=True)):
            continue
        good, status_of = _FLAGS[flag]
        bad = [i for i, value in enumerate(truth) if value is not None and value != good]
        if len(bad) == len(cells) > 1 and not all(map(is_empty, table.cells["loss"])):
            notes.append(f"column '{name}' is {cells[0]} in all rows: none is left out by it")
            continue
        flags += [name] if {*bad} - {*found} else []
        for i in bad:
            found.setdefault(i, (status_of, f"{name} is {cells[i]}"))
    return found, flags, notes

"""Which rows are of runs that are over: by a status, or by a column of yes and no."""

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


def unfinished(table: NamedTable) -> dict[int, tuple[str, str]]:
    """Rows that say so: by a status, by a flag such as `diverged`, or by a word for the loss."""
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
    for name, cells in table.raw.columns.items():
        flag = words(name).removeprefix("is ").removeprefix("has ")
        if flag not in _FLAGS or name == table.title.get("status"):
            continue
        said = [_TRUTH.get(str(label(cell)).lower()) for cell in cells]
        if not all(is_empty(cell) or x is not None for cell, x in zip(cells, said, strict=True)):
            continue
        good, status_of = _FLAGS[flag]
        for i, value in enumerate(said):
            if value is not None and value != good:
                found.setdefault(i, (status_of, f"{name} is {cells[i]}"))
    return found

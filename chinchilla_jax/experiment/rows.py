"""The result row of a run: its configuration, flattened, what it costs, and what it measured.

The columns of results.csv follow from the types: a field of the configuration is a column
`group_field` (COLUMNS has those of other names) unless it says only how the run is carried out
(`fingerprint.OPERATION`), and a row has each. Techniques have columns where they are in use.
"""

import dataclasses
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from chinchilla_jax import techniques
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint, leaves
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.other_run import OtherRun
from chinchilla_jax.experiment.schema import from_json, is_number, one_of, positive, to_json, typed
from chinchilla_jax.experiment.trunks import marginal_flops

MARGINAL = "marginal_flops"  # spent by the run itself: `trunks.marginal_flops`
OVER = ("done", "diverged")  # the statuses of a run that has a result

# Of fields that have a name of their own in the field. `name` would be read as a run's.
COLUMNS = {
    "batch_size": "batch",
    "sequence_length": "sequence",
    "model.definition": "definition",
    "model.width": "width",
    "model.depth": "depth",
    "model.heads": "heads",
    "model.kv_heads": "kv_heads",
    "model.head_size": "head_size",
    "model.ff_size": "ff_size",
    "optimizer.name": "optimizer",
    "optimizer.learning_rate": "learning_rate",
    "optimizer.weight_decay": "weight_decay",
}


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a run finds out, None where it does not."""

    loss: float | None = None  # nats per token, over the held-out windows
    loss_se: float | None = None  # its standard error over windows
    bits_per_byte: float | None = None
    train_loss: float | None = None  # smoothed
    wall_seconds: float | None = None
    tokens_per_second: float | None = None
    mfu: float | None = None  # where the device's peak is known
    input_share: float | None = None  # of the time, in which a device may have waited for input
    joules_gpu: float | None = None  # counted, `experiment/energy.py`
    joules_cpu: float | None = None
    joules_memory: float | None = None
    joules_estimated: float | None = None  # from stated power, where nothing was counted
    energy_source: str | None = None  # measured, estimated
    grams_co2e_per_kwh: float | None = None  # of the electricity, as the configuration states
    device_kind: str | None = None
    device_count: int | None = None
    unique_tokens: int | None = None  # of the text, that it was trained on
    held_out_in_training: float | None = None  # share of held-out passages, word for word
    text_left_out: str | None = None  # of the source, by reason: copies, blank documents
    metrics_lost: int | None = None  # lines of metrics.jsonl that were damaged
    data_fingerprint: str | None = None
    tokenizer_fingerprint: str | None = None


_UNMEASURED = dataclasses.asdict(Measured())


def row_of(run: RunConfig) -> dict[str, Any]:
    """The row of a run of which nothing is measured yet."""
    costs = ledger(run).columns()
    return {
        "run_id": run.run_id,
        "status": None,
        "reason": None,
        **{column(leaf.path): _told(leaf.value) for leaf in leaves(run)},
        "config_fingerprint": fingerprint(run),
        "tokens": run.tokens,
        "flops": costs[f"flops_{run.flops_convention}"],
        **({MARGINAL: marginal_flops(run)} if run.parent or run.branches else {}),
        **costs,
        **_UNMEASURED,
    }


def _told(value: Any) -> Any:
    """The value of a column: of other runs their names."""
    if isinstance(value, tuple) and all(isinstance(item, OtherRun) for item in value):
        return " ".join(other.run for other in value)
    return to_json(value)


def checked(result: dict[str, Any], where: str) -> dict[str, Any]:
    """`result`, the content of a result.json called `where`, if a run that is over wrote it.

    Raises:
      UserError: it has no status or no loss, what it measured is not of its type, or a loss is not
        positive, as every cross-entropy of text is.
    """
    one_of(f"{where}: status", str(result.get("status")), OVER)
    if "loss" not in result:
        raise UserError(f"{where}: loss is missing")
    names = [field.name for field in dataclasses.fields(Measured) if field.name in result]
    measured = from_json(Measured, {name: result[name] for name in names}, where)
    losses = {"loss": measured.loss, "bits_per_byte": measured.bits_per_byte}
    positive(where, **{name: value for name, value in losses.items() if value is not None})
    return result


def merged(row: dict[str, Any], result: Mapping[str, Any], where: str) -> dict[str, Any]:
    """`row` of a run with its result, whichever version wrote it.

    Raises:
      UserError: it is the result of another run, or has no number where the run has one.
    """
    if (name := result.get("run_id", row["run_id"])) != row["run_id"]:
        raise UserError(f"{where}: run_id = {name!r}: is the result of another run")
    for name, value in row.items():
        if type(value) in (int, float) and name in result and not is_number(result[name]):
            typed(float | None, result[name], f"{where}.{name}")
    return row | dict(result)


def column(path: str) -> str:
    """The column of the field at a path of a run."""
    return COLUMNS.get(path, path.removeprefix("techniques.").replace(".", "_"))


def completed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that all have the columns of the techniques which some of them use.

    A run without a technique has the value that means so, and is no run of which it is missing.
    One without a trunk spends all its FLOPs itself, in a table of runs that have one.
    """
    names = {name for row in rows for name in row}
    dense = {name: value for name, value in techniques.dense_columns().items() if name in names}
    return [completed_row(row, dense, names) for row in rows]


def completed_row(
    row: Mapping[str, Any], dense: Mapping[str, Any], names: Collection[str]
) -> dict[str, Any]:
    """`row` in a table of the columns `names`, of which `dense` are those of techniques."""
    usual = {**dense, MARGINAL: row["flops"]} if MARGINAL in names else dense
    return {**row, **{name: value for name, value in usual.items() if name not in row}}


def columns(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The columns that some row has, in the order in which they first come."""
    return list(dict.fromkeys(name for row in rows for name in row))

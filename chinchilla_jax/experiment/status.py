"""What the cells of a plan are doing now, for a person who asks from anywhere.

A run under way renews its heartbeat every `HEARTBEAT_SECONDS`. Whoever asks sees whether it
changes, by a clock of their own: clocks of different hosts are not compared.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment import halving
from chinchilla_jax.experiment.config import Experiment
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.faults import StorageError
from chinchilla_jax.experiment.fingerprint import leaves
from chinchilla_jax.experiment.numbers import duration, fixed
from chinchilla_jax.experiment.plans import read_plan
from chinchilla_jax.experiment.records import HEARTBEAT_SECONDS, first_difference, run_directory
from chinchilla_jax.experiment.results import DAMAGED, collect
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.experiment.tables import results

_LOOK_SECONDS = 1.0  # between two looks
UNDER_WAY = ("running", "stalled?", "silent")
OPEN = ("missing", "failed", halving.LEFT_OUT)  # of which one may be under way


def text(workdir: Path, asked: Experiment | None = None) -> str:
    """The table of all cells, a line for each that is under way or damaged, and one for another
    plan."""
    found = rows(workdir)
    listed = [row for row in found if row["status"] in (*UNDER_WAY, DAMAGED)]
    lines = [f"{row['run_id']}: {row['status']}: {row['reason']}" for row in listed]
    if asked is not None:
        lines += other_plan(workdir, asked)
    return "\n".join([results(found), *lines])


def other_plan(workdir: Path, experiment: Experiment) -> list[str]:
    """A line where the folder's plan is not that of `experiment`."""
    planned, asked = (
        {leaf.path: to_json(leaf.value) for leaf in leaves(source) if not leaf.label}
        | {name: to_json(getattr(source, name)) for name in ("vary", "panel", "points")}
        for source in (read_plan(workdir)[0], experiment)
    )
    difference = first_difference(planned, asked)
    if not difference:
        return []
    plan = workdir / "plan.json"
    return [f"{plan}: is the plan of another experiment ({difference} in --config)"]


def rows(workdir: Path, sleep: Callable[[float], None] = time.sleep) -> list[dict[str, Any]]:
    """`results.collect`, where a cell under way is running, stalled? or silent, with the reason,
    one that a search has left out and nobody makes is left out, and a damaged one is that.

    Takes up to two beats where there is such a cell, else no time.
    """
    found = collect(workdir, tell_damage=True)
    halving.mark(workdir, read_plan(workdir)[1], found)
    open_rows = {row["run_id"]: row for row in found if row["status"] in OPEN}
    first = {name: last_beat(workdir, row) for name, row in open_rows.items()}
    waiting = {name: beat for name, beat in first.items() if beat is not None}
    for name, beat in waiting.items():
        judge(open_rows[name], beat, changed=False)
    begun = time.monotonic()
    while waiting and time.monotonic() - begun < 2 * HEARTBEAT_SECONDS:
        sleep(_LOOK_SECONDS)
        for name, beat in list(waiting.items()):
            now = last_beat(workdir, open_rows[name])
            if now != beat:
                del waiting[name]
                judge(open_rows[name], now or beat, changed=True)
    return found


def last_beat(workdir: Path, row: dict[str, Any]) -> dict[str, Any] | None:
    """The last sign of life of an open run; where that is damaged, its row says so."""
    try:
        return run_directory(workdir, row["run_id"]).last_heartbeat()
    except StorageError:
        raise
    except UserError as error:
        row |= {"status": DAMAGED, "reason": str(error)}
        return None


def judge(row: dict[str, Any], beat: dict[str, Any], changed: bool) -> None:
    """Writes into the row of an open run what its last sign of life says; `changed`: lately.

    A run that a search has left out stays that, where the sweep that made it was killed.
    """
    if row["status"] == halving.LEFT_OUT and not changed:
        return
    usual = beat["usual_seconds"]
    silent = duration(beat["seconds_since_step"])
    step = "before its first step" if beat["step"] is None else f"at step {beat['step']}"
    place = f"{step} of {row['steps']}, by {beat['owner']}"
    if not changed:
        status = "silent"
        why = f"{place}: no sign of life; killed, suspended or cut off"
    elif beat["stalled"]:
        status = "stalled?"
        why = f"{place}: no step has ended for {silent}, usually {usual:.2g} s"
    else:
        status = "running"
        loss = beat.get("loss")
        why = f"{place}, {beat['doing']}" + (f", loss {fixed(loss)}" if loss else "")
    row |= {"status": status, "reason": why}

"""A sweep as it goes: `sweep --status --watch` in a terminal or a log, `--json` for programs.

    {"cells": 24, "left_out": 0, "over": 12, "flops": 3.2e12, "flops_total": 1e13,
     "flops_per_second": 1.1e9, "seconds_left": 6200.0, "runs": [{"run_id": ...,
     "status": "running", "reason": ..., "step": 40, "steps": 800, "loss": 3.21,
     "tokens_per_second": 5.1e4, "seconds_left": 75.0, "curve": [[10, 5.1], [20, 4.4], ...]}, ...]}

is one line of JSON; with --watch there is one a look. What is not known is null. `status` is that
of `results.csv`, of a run under way running, stalled? or silent, and damaged where its result is
(`status`).
"""

import json
import math
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from chinchilla_jax.experiment import claims, contents, halving, storage
from chinchilla_jax.experiment.numbers import count, duration, fixed, flops
from chinchilla_jax.experiment.plans import read_plan
from chinchilla_jax.experiment.records import HEARTBEAT_SECONDS, run_directory
from chinchilla_jax.experiment.results import DAMAGED, collect
from chinchilla_jax.experiment.rows import MARGINAL
from chinchilla_jax.experiment.status import OPEN, UNDER_WAY, judge, last_beat
from chinchilla_jax.experiment.tables import table

LOOK_SECONDS = 2.0  # between two looks
QUIET_SECONDS = 60.0  # after which nobody who works comes
NOBODY = "nobody works at what is left; the command that began the sweep goes on with it"
_POINTS = 24  # of a curve
_LEVELS = "▁▂▃▄▅▆▇█", "_.-=+*%#"  # the second where a terminal has no Unicode


class Watch:
    """Looks at a sweep again and again; what changes between two looks is alive.

    Args:
      clock: a monotonic one, the watcher's own.
    """

    def __init__(self, workdir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._workdir = workdir
        self._clock = clock
        self._seen: dict[str, tuple[dict[str, Any], float]] = {}  # a beat, and since when

    def rows(self) -> list[dict[str, Any]]:
        """As of `status.rows`, without waiting: a run is alive until two beats are missed."""
        found, now = collect(self._workdir, tell_damage=True), self._clock()
        halving.mark(self._workdir, read_plan(self._workdir)[1], found)
        for row in found:
            name = row["run_id"]
            if row["status"] not in OPEN:
                continue
            if (beat := last_beat(self._workdir, row)) is None:
                self._seen.pop(name, None)
                continue
            if name not in self._seen or self._seen[name][0] != beat:
                self._seen[name] = (beat, now)
            judge(row, beat, changed=now - self._seen[name][1] < 2 * HEARTBEAT_SECONDS)
        return found


def facts(workdir: Path, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the module's docstring shows, of the rows of a sweep."""
    planned = [row for row in rows if row["status"] not in ("rejected", halving.LEFT_OUT)]
    runs = [_facts_of(workdir, row) for row in planned]
    total = float(sum(row.get(MARGINAL, row["flops"]) or 0.0 for row in planned))
    spent, rate = 0.0, 0.0
    for row, run in zip(planned, runs, strict=True):
        cost = row["flops"] or 0.0
        share = 1.0 if row["status"] in halving.OVER else (run["step"] or 0) / row["steps"]
        of_trunk = cost - (row.get(MARGINAL, cost) or 0.0)
        spent += max(cost * share - of_trunk, 0.0)
        if run["status"] == "running" and run["tokens_per_second"]:
            rate += run["tokens_per_second"] * cost / row["tokens"]
    return {
        "cells": len(planned),
        "left_out": sum(row["status"] == halving.LEFT_OUT for row in rows),
        "over": sum(row["status"] in halving.OVER for row in planned),
        "flops": spent,
        "flops_total": total,
        "flops_per_second": rate or None,
        "seconds_left": (total - spent) / rate if rate else None,
        "runs": runs,
    }


def _facts_of(workdir: Path, row: Mapping[str, Any]) -> dict[str, Any]:
    """Of a run; what there is of its curve only while it is under way."""
    found = {
        "run_id": row["run_id"], "status": row["status"], "reason": row["reason"] or None,
        "step": row["steps"] if row["status"] == "done" else None, "steps": row["steps"],
        "loss": row["loss"], "tokens_per_second": row["tokens_per_second"], "seconds_left": None,
        "curve": [],
    }  # fmt: skip
    if row["status"] not in UNDER_WAY:
        return found
    logged = _logged(workdir, row["run_id"])
    found["curve"] = [[one["step"], one["loss"]] for one in logged if one.get("loss") is not None]
    if logged:
        last = logged[-1]
        speed = last.get("tokens_per_second")
        found |= {"step": last["step"], "loss": last.get("loss"), "tokens_per_second": speed}
        left = row["tokens"] * (1 - last["step"] / row["steps"])
        if speed and row["status"] == "running":
            found["seconds_left"] = left / speed
    return found


def _logged(workdir: Path, run_id: str) -> list[dict[str, Any]]:
    """Some of the lines of a run's log, evenly in the logarithm of their number, and the last."""
    try:
        lines = storage.read_bytes(run_directory(workdir, run_id).path / "metrics.jsonl").split(
            b"\n"
        )
    except FileNotFoundError:
        return []
    whole = lines[:-1]  # the last is empty, or being written
    most = min(_POINTS, len(whole))
    at = {round(len(whole) ** (i / max(1, most - 1))) - 1 for i in range(most)}
    return [row for i in sorted(at) if (row := contents.logged(whole[i])) is not None]


def spark(losses: Sequence[float], levels: str = _LEVELS[0]) -> str:
    """A curve in one line, high losses high: ln loss from its lowest to its highest.

    >>> spark([8.0, 4.0, 2.0, 1.0])
    '█▆▃▁'
    """
    logs = [math.log(loss) for loss in losses if loss > 0]
    if not logs:
        return ""
    low, span = min(logs), (max(logs) - min(logs)) or 1.0
    return "".join(levels[round((x - low) / span * (len(levels) - 1))] for x in logs)


def text(found: Mapping[str, Any], levels: str = _LEVELS[0]) -> list[str]:
    """Lines: how far all is in cells and in FLOPs (each for 80 columns), a table of the runs under
    way, and what stalls or failed."""
    under_way = [run for run in found["runs"] if run["status"] in UNDER_WAY]
    counts: dict[str, int] = {}
    for run in found["runs"]:
        counts[run["status"]] = counts.get(run["status"], 0) + 1
    left = found["left_out"]
    over = f"{found['over']} of {found['cells']} cells over"
    over += f", {left} left out by the search" * (left > 0)
    lines = [f"{over}; {', '.join(f'{number} {status}' for status, number in counts.items())}"]
    parts = [f"{flops(found['flops'])} of {flops(found['flops_total'])} FLOPs"]
    if found["flops_per_second"]:
        parts.append(f"{flops(found['flops_per_second'])} FLOP/s")
    if found["seconds_left"] is not None:
        parts.append(f"{duration(found['seconds_left'])} left")
    lines.append("; ".join(parts))
    if under_way:
        head = ("run", "status", "step", "loss", "tokens/s", "left", "curve")
        lines += table(head, [_line(run, levels) for run in under_way]).split("\n")
    lines += [
        f"{run['run_id']}: {run['status']}: {run['reason']}"
        for run in found["runs"]
        if run["status"] in ("stalled?", "silent", "failed", DAMAGED) and run["reason"]
    ]
    return lines


def _line(run: Mapping[str, Any], levels: str) -> tuple[str, ...]:
    return (
        run["run_id"], run["status"], f"{run['step'] or 0} of {run['steps']}", fixed(run["loss"]),
        count(run["tokens_per_second"]), duration(run["seconds_left"]),
        spark([loss for _, loss in run["curve"]], levels),
    )  # fmt: skip


def show(
    workdir: Path,
    stream: TextIO,
    as_json: bool,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Shows the sweep until all of its cells are over: in place in a terminal, else what changes.

    A log gets the lines of the runs whose status or step changed, JSON one line a look. One that
    was begun and at which nobody has worked for `QUIET_SECONDS` is shown no longer.

    Returns:
      Whether all cells are over.
    """
    watch, drawn, before = Watch(workdir, clock), 0, list[str]()
    worked = clock()
    levels = _LEVELS[not _can_write(stream, _LEVELS[0])]
    while True:
        found = facts(workdir, watch.rows())
        if as_json:
            print(json.dumps(found, allow_nan=False), file=stream, flush=True)
        else:
            lines = text(found, levels)
            if stream.isatty():
                drawn = _redraw(stream, lines, drawn)
            else:
                new = [line for line in lines if line not in before]
                print("\n".join(new), file=stream, flush=True) if new else None
                before = lines
        whole = not found["left_out"]  # else another sweep, of all cells, may be at work too
        if found["over"] == found["cells"] and (whole or not claims.is_worked(workdir)):
            return True
        now = clock()
        if _is_worked(workdir, found):
            worked = now
        elif now - worked > QUIET_SECONDS:
            return False
        sleep(LOOK_SECONDS)


def _is_worked(workdir: Path, found: Mapping[str, Any]) -> bool:
    """Whether somebody works at a sweep, or it was not begun and may wait in a queue."""
    there = {run["status"] for run in found["runs"]}
    return (
        there <= {"missing"} or bool(there & {"running", "stalled?"}) or claims.is_worked(workdir)
    )


def _redraw(stream: TextIO, lines: Sequence[str], drawn: int) -> int:
    """Draws over what was drawn; returns how many lines stand there now, all on the screen."""
    width, height = shutil.get_terminal_size()
    shown = list(lines[: height - 1])
    if len(lines) > len(shown):
        shown[-1] = f"... {len(lines) - len(shown) + 1} more lines"
    back = f"\x1b[{drawn}F" * bool(drawn)
    body = "".join(f"{line[: width - 1]}\x1b[K\n" for line in shown)
    stream.write(f"{back}{body}\x1b[J")
    stream.flush()
    return len(shown)


def _can_write(stream: TextIO, characters: str) -> bool:
    try:
        characters.encode(stream.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True

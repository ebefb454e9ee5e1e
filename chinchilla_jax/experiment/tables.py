"""What the programs print: tables of cells and results, and the progress of long work."""

import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from tqdm import tqdm

from chinchilla_jax.experiment import estimate
from chinchilla_jax.experiment.energy import totals
from chinchilla_jax.experiment.estimate import Estimate
from chinchilla_jax.experiment.grid import Cell
from chinchilla_jax.experiment.hardware import Hardware
from chinchilla_jax.experiment.numbers import (
    count,
    data_size,
    duration,
    fixed,
    flops,
    is_number,
    percentage,
)
from chinchilla_jax.experiment.trunks import marginal_flops

LOG_SECONDS = 10.0  # between lines of progress where there is no terminal


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as their longest entry, numbers to the right, texts to the left."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    columns = zip(*rows, strict=True)
    numeric = [all(map(is_number, column)) for column in columns] or [False] * len(header)

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(cells, widths, numeric, strict=True)
        )
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


def hardware_plan(cells: Sequence[Cell], devices: int, hardware: Hardware) -> str:
    """What each planned cell costs on so many devices of an accelerator, and what that rests on."""
    estimates = {
        cell.index: estimate.suggest(cell.run, devices, hardware)
        for cell in cells
        if cell.status == "planned"
    }
    costs = _costs(cells, estimates)
    return f"{costs}\n{estimate.footer(list(estimates.values()), devices, hardware)}"


def _costs(cells: Sequence[Cell], estimates: Mapping[int, Estimate]) -> str:
    header = (
        "cell", "shape", "params", "tokens", "FLOPs", "mesh", "batch/device", "state", "act.",
        "temp.", "arithmetic", "collectives", "hours", "fits",
    )  # fmt: skip
    rows = []
    for cell in cells:
        if cell.index not in estimates:
            continue
        e, model = estimates[cell.index], cell.run.model
        times = "" if e.microbatches == 1 else f" x{e.microbatches}"
        rows.append(
            (
                str(cell.index),
                f"{model.width}x{model.depth}",
                count(cell.params),
                count(cell.tokens),
                flops(cell.flops),
                str(e.mesh),
                f"{e.batch_per_device}{times}",
                data_size(e.memory.state),
                data_size(e.memory.activations),
                data_size(e.memory.temporaries),
                f"{1e3 * e.arithmetic_seconds:.3g} ms",
                f"{1e3 * e.collective_seconds:.3g} ms",
                f"{e.hours:.3g}",
                e.reason or "yes",
            )
        )
    return table(header, rows)


def plan(cells: Sequence[Cell], begun: Mapping[str, bool] | None = None) -> str:
    """Every cell of a plan; the rejected ones with their reason.

    Where runs share trunks, what each spends itself, and what that saves.

    Args:
      begun: the ids of branches that were begun, and whether each is over.
    """
    begun = begun or {}
    planned = [cell for cell in cells if cell.status == "planned"]
    shared = any(cell.run.parent for cell in planned)
    header = (
        "cell", "run", "params", "tokens", "D/N", "batch", "steps", "lr",
        *(("marginal", "from") if shared else ()), "status",
    )  # fmt: skip
    rows = []
    for cell in cells:
        run = cell.run
        rows.append(
            (
                str(cell.index),
                run.run_id,
                count(cell.params),
                count(cell.tokens),
                f"{cell.tokens / cell.params:.3g}",
                str(run.batch_size),
                str(run.steps),
                f"{run.optimizer.learning_rate:.2g}",
                *(_lineage(cell, begun.get(run.run_id, False)) if shared else ()),
                cell.reason or cell.status,
            )
        )
    total = sum(cell.flops for cell in planned)
    spent = sum(marginal_flops(cell.run) for cell in planned)
    convention = cells[0].run.flops_convention
    said = (
        f"{table(header, rows)}\n{len(planned)} of {len(cells)} cells planned, "
        f"{flops(spent, 4)} FLOPs in all ({convention} convention)"
    )
    if shared:
        trunks = [cell for cell in planned if cell.run.branches]
        of_trunks = sum(cell.flops for cell in trunks)
        branches = sum(cell.run.first_step > 0 for cell in planned)
        said += (
            f"\n{flops(of_trunks, 4)} of them by {len(trunks)} trunks, of which {branches} runs "
            f"are branches: {percentage(spent / total)} of the {flops(total, 4)} of separate runs"
        )
        whole = [cell for cell in planned if cell.run.parent and not cell.run.first_step]
        if late := [cell for cell in whole if cell.run.run_id not in begun]:
            said += (
                f"\n{flops(sum(c.flops for c in late), 4)} by {len(late)} runs from their start: "
                "their trunks were begun without them, and keep no state of theirs"
            )
        if early := [cell for cell in whole if cell.run.run_id in begun]:
            said += (
                f"\n{flops(sum(c.flops for c in early), 4)} by {len(early)} runs that were begun "
                "from their start, and are no branches of the trunks that are planned now"
            )
    return said


def _lineage(cell: Cell, over: bool) -> tuple[str, str]:
    """FLOPs that a cell spends itself, and the trunk and step that it goes on from.

    One that is over may have had another trunk.
    """
    run, begin = cell.run, ""
    if run.parent and run.first_step and not over:
        begin = f"{run.parent.run} at {run.parent.step}"
    return ("", "") if cell.status != "planned" else (flops(marginal_flops(run)), begin)


def results(rows: Sequence[Mapping[str, Any]]) -> str:
    """Result rows of a plan; rejected cells are counted, not listed."""
    header = (
        "run", "status", "params", "tokens", "D/N", "loss", "s.e.", "bits/byte", "tokens/s", "time",
    )  # fmt: skip
    lines = [
        (
            str(row["run_id"]),
            str(row["status"]),
            count(row["params_total"]),
            count(row["tokens"]),
            f"{row['tokens'] / row['params_total']:.3g}",
            fixed(row["loss"]),
            fixed(row["loss_se"]),
            fixed(row["bits_per_byte"]),
            count(row["tokens_per_second"]),
            duration(row["wall_seconds"]),
        )
        for row in rows
        if row["status"] != "rejected"
    ]
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["status"]] = counts.get(row["status"], 0) + 1
    summary = ", ".join(f"{count} {status}" for status, count in counts.items())
    why = " (the plan program and results.csv say why)" if "rejected" in counts else ""
    spent = [
        total.text(counts.get("done", 0) + counts.get("diverged", 0)) for total in totals(rows)
    ]
    return "\n".join([table(header, lines), f"{summary}{why}", *(f"energy: {t}" for t in spent)])


class ProgressBar:
    """Progress by FLOPs: a bar in a terminal, a line every few seconds in a log."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._bar: tqdm | None = None
        self._started = time.monotonic()
        self._first: float | None = None  # FLOPs that earlier sessions had done
        self._spoke, self._last = 0.0, ""

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, done: float, total: float, label: str) -> None:
        """Tells how much of `total` FLOPs is done.

        The time left assumes the FLOP/s so far; small models, which go first, are slower.
        """
        if self._first is None:
            self._first = done
        seconds = time.monotonic() - self._started
        gained = done - self._first
        left = seconds * (total - done) / gained if gained else None
        far = f"{flops(done)} of {flops(total)} FLOPs, {label}, {duration(seconds)}"
        if left is not None:
            far += f", {duration(left)} left"
        if self._stream.isatty():
            if self._bar is None:
                self._bar = tqdm(
                    total=total,
                    file=self._stream,
                    bar_format="{percentage:3.0f} % |{bar}| {desc}",
                )
            self._bar.n = done
            self._bar.set_description_str(far)
        elif seconds - self._spoke >= LOG_SECONDS or (done >= total and label != self._last):
            self._spoke, self._last = seconds, label
            print(f"{percentage(done / total)}: {far}", file=self._stream, flush=True)

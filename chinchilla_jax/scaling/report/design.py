"""What `plan` says of designs: the runs to make next, and the smallest grid that is enough."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

from chinchilla_jax.experiment import source, storage, tables
from chinchilla_jax.experiment.commands import command
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.numbers import between, count, flops, loss, percent, ratio
from chinchilla_jax.scaling.design.enough import Enough
from chinchilla_jax.scaling.design.next_runs import NextRuns, Shrunk
from chinchilla_jax.scaling.report.forecasts import FORMS

OPEN = "interval open"
_NOISE = {
    "seeds": "measured by seeds",
    "surface residuals": "by residuals of the surface, for no seeds tell it",
    "curve residuals": "by residuals of the curves, for no seeds tell it",
    "none": "by residuals of the surface, for no seeds tell it",
}


def chosen(found: NextRuns) -> str:
    """The table of runs, and the intervals before and after."""
    rows = [
        (
            flops(run.budget), count(run.params), count(run.tokens), ratio(run.tokens / run.params),
            str(run.count), str(run.made), flops(run.flops * run.count), loss(run.loss),
        )
        for run in found.runs
    ]  # fmt: skip
    head = ("budget", "params", "tokens", "D/N", "runs", "there are", "FLOPs", "expected loss")
    number = sum(run.count for run in found.runs)
    parts = [tables.table(head, rows)] if rows else []
    if rows:
        parts.append(
            f"{number} run{'s' * (number > 1)}, {flops(found.flops)} of {flops(found.budget)} FLOPs"
        )
    if found.waiting:
        parts.append(
            f"{found.waiting} cells of the plan are not over; they count as made, and come first"
        )
    if found.left_out:
        parts.append(
            f"{found.left_out} cells that a search left out count as not made; a sweep without "
            "--halving makes these too"
        )
    if found.reason:
        parts.append(f"Nothing to run: {found.reason}.")
    effect = [
        _effect("N*", found.params, count),
        _effect("L*", found.loss, loss),
    ]
    title = (f"at {flops(found.target)} FLOPs", "now (95 %)", "expected", "width")
    parts += ["", tables.table(title, effect)]
    parts.append(
        f"By the {FORMS[found.form]} on {found.source}, as a report forecasts; a run scatters by "
        f"{percent(found.noise).lstrip('+')} of loss ({_NOISE[found.noise_source]})."
    )
    return "\n".join(parts)


def _effect(name: str, one: Shrunk, write: Callable[[float | None], str]) -> tuple[str, ...]:
    return (
        name, f"{write(one.value)} ({between(one.before, write) or OPEN})",
        between(one.expected, write) or OPEN,
        f"{100 * one.ratio:.0f} %",
    )  # fmt: skip


def smallest(found: Enough) -> str:
    """The grids that were tried, and the one that is enough."""
    rows = [
        (
            ", ".join(map(flops, one.budgets)), str(one.sizes), str(one.seeds), str(one.runs),
            flops(one.flops), *(_factor(wide) for wide in (one.width, one.loss_width)),
        )
        for one in found.tried
    ]  # fmt: skip
    head = ("budgets", "sizes each", "seeds", "runs", "FLOPs", "N*", "L*")
    said = "no grid of this ladder is expected to; add budgets or sizes, or ask for less"
    if found.untried:
        said = (
            f"none of these is expected to, and {found.untried} dearer grids were not tried; leave "
            "out the smallest budgets, or ask for less"
        )
    if found.found is not None:
        one = found.found
        said = f"{one.runs} runs, {flops(one.flops)} FLOPs: the last row"
    return "\n".join([
        *([tables.table(head, rows)] if rows else []),
        f"N* at {flops(found.target)} FLOPs within a factor {found.asked:g} from end to end of its "
        f"95 % interval: {said}.",
        f"{'N*, L*: upper end over lower, medians of made-up grids; a' if rows else 'A'} run "
        f"scatters by {percent(found.noise).lstrip('+')} of loss.",
    ])  # fmt: skip


def _factor(wide: float | None) -> str:
    return "open" if wide is None or not math.isfinite(wide) else f"{wide:.3g}"


def written(found: NextRuns, file: str) -> str:
    """Writes the configuration that makes the runs; a line that says so, and the command.

    Raises:
      UserError: the runs are of a table, there are none, or the file is there.
    """
    config = source.new_file(file)
    if found.reason:
        raise UserError(f"--write_config: {found.reason}")
    if found.experiment is None:
        raise UserError(
            f"--write_config: {found.source} is no work folder of ours with runs of one condition, "
            "so that nothing tells how a run of it is trained"
        )
    text = source.source(found.experiment, _docstring(found, config))
    if not storage.create(config, text.encode()):
        raise UserError(f"{config}: is there already; give another name")
    return f"config: {config}; then\n  {_sweep(found, config)}"


def _sweep(found: NextRuns, config: Path) -> str:
    return command("sweep", config=config, workdir=found.source)


def _docstring(found: NextRuns, config: Path) -> str:
    number = sum(run.count for run in found.runs)

    def said(one: Shrunk, write: Callable[[float | None], str]) -> str:
        before, expected = (between(ends, write) or OPEN for ends in (one.before, one.expected))
        return f"{expected} (before: {before})"

    return (
        f"The runs of {found.source}, and {number} more that tell most of the optimum at "
        f"{flops(found.target)} FLOPs.\n\n"
        f"    {_sweep(found, config)}\n\n"
        f"They take {flops(found.flops)} FLOPs. Expected is a 95 % interval of N* of\n"
        f"{said(found.params, count)}, and of L* of {said(found.loss, loss)}."
    )

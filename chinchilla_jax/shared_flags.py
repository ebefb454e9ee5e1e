"""Flags that several programs have: each `define_` defines some and returns what reads them."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from chinchilla_jax import flag_values, program
from chinchilla_jax.experiment.errors import UserError

if TYPE_CHECKING:
    from chinchilla_jax.scaling.design.until import Goal
    from chinchilla_jax.scaling.settings import Settings

flags.disclaim_key_flags()  # they are of the program that asks for them: its --help shows them


def define_config(required: bool = True) -> flags.FlagHolder[str | None]:
    """The flag --config, which takes overrides as --config.a.b=value, and --init_from for one."""
    flags.DEFINE_string(
        program.START,
        "",
        "Folder of a run, or of an exported model, whose weights the runs start from: "
        f"--config.{program.START_FIELD}.",
    )
    return flags.DEFINE_string(
        "config",
        None,
        "The experiment, a Python file such as configs/quickstart.py. Override any field with "
        "--config.group.field=value, a list with commas: --config.budgets=1e11,3e11.",
        required=required,
    )


def define_processes() -> Callable[[], bool]:
    """The flags of a run by several processes; what is returned joins them.

    It says whether there are several, and raises UserError when they cannot meet.
    """
    coordinator = flags.DEFINE_string(
        "coordinator",
        "",
        "HOST:PORT of process 0, of several processes that train one run together. Found by "
        "itself under SLURM (srun) and on TPU slices.",
    )
    count = flags.DEFINE_integer(
        "num_processes", None, "How many processes train the run together.", lower_bound=1
    )
    number = flags.DEFINE_integer(
        "process_id", None, "Which of these processes this one is, from 0.", lower_bound=0
    )
    timeout = flags.DEFINE_float(
        "peer_timeout",
        60.0,
        "Seconds without a sign of life of one process after which the others end.",
        1.0,
    )

    def join() -> bool:
        from chinchilla_jax.training import cluster, distributed

        found = cluster.find(coordinator.value, count.value, number.value)
        distributed.initialize(found, timeout.value)
        return found is not None

    return join


def define_division() -> Callable[[], tuple[int, int, int]]:
    """The flags of how a sweep divides its host; what is returned reads them.

    Devices that a cell gets (0: as many as it can use), cells at once on a device, and processes.
    """
    number = flags.DEFINE_integer
    found = (
        number(
            "devices_per_cell",
            0,
            "Devices of this host that a cell gets. Default: as many as each can use well.",
            lower_bound=0,
        ),
        number(
            "cells_per_device",
            1,
            "Cells that share a device at once, of those that take only one.",
            lower_bound=1,
        ),
        number(
            "workers",
            0,
            "Most processes at once. Default: as many as have a place.",
            lower_bound=0,
        ),
    )
    return lambda: (found[0].value, found[1].value, found[2].value)


def define_settings() -> Callable[[], "Settings"]:
    """The flags of an evaluation, a field of `Settings` each; what is returned reads them."""
    from chinchilla_jax.scaling.fitting.newton import LOSSES
    from chinchilla_jax.scaling.settings import MINIMA, Settings
    from chinchilla_jax.scaling.table.conventions import FLOPS, PARAMS

    default = Settings()
    enum, number = flags.DEFINE_enum, flags.DEFINE_integer
    above = "Also fit only runs up to these FLOPs and check the forecast beyond."
    found: tuple[flags.FlagHolder[Any], ...] = (
        enum("params", default.params, PARAMS, "Which parameters N counts."),
        enum("flops", default.flops, FLOPS, "Convention by which FLOPs are counted."),
        enum("objective", default.objective, list(LOSSES), "What the surface's fit minimises."),
        flags.DEFINE_float(
            "delta", default.delta, "Where Huber's loss, of --objective, becomes linear."
        ),
        flags.DEFINE_bool(
            "tied", default.tied, "Fit one exponent for size and data: alpha = beta."
        ),
        enum(
            "minima",
            default.minima,
            MINIMA,
            "How iso-FLOP minima are found; chosen: as hold-out prefers.",
        ),
        number("bootstrap", default.bootstrap, "Bootstrap draws; 0 for no intervals."),
        number("seed", default.seed, "Seed of the bootstrap."),
        flags.DEFINE_float("holdout_above", None, above),
    )
    budgets = flags.DEFINE_list(
        "budgets", [], "FLOPs to forecast, as 1e21,5.76e23. Default: ten times the largest run."
    )

    def settings() -> Settings:
        values = {flag.name: flag.value for flag in found}
        return Settings(**values, budgets=flag_values.positive_numbers("budgets", budgets.value))

    return settings


def define_aim() -> Callable[[], tuple[float | None, float | None]]:
    """The flags --flops and --target of runs to be chosen; what is returned reads both.

    None where one is not given.
    """
    spent = flags.DEFINE_string(
        "flops", "", "FLOPs that all chosen runs together may take, as 2e13."
    )
    target = flags.DEFINE_string(
        "target", "", "FLOPs whose best run is to be known. Default: ten times the largest run."
    )

    def aim() -> tuple[float | None, float | None]:
        found = (flag_values.positive_number(flag.name, flag.value) if flag.value else None
                 for flag in (spent, target))  # fmt: skip
        return next(found), next(found)

    return aim


def define_goal() -> Callable[..., "Goal | None"]:
    """The flags of a sweep that chooses its runs; what is returned reads them, None without.

    Its arguments are what else was asked for, none of which goes with choosing.
    """
    until = flags.DEFINE_float(
        "until", None, "Choose further runs until N* at --target is known within this factor."
    )
    aim = define_aim()

    def goal(*others: object) -> "Goal | None":
        most, target = aim()
        if until.value is None:
            if most or target:
                raise UserError("--flops and --target are of --until; give that too")
            return None
        if any(others):
            raise UserError("--until: chooses and makes all cells itself, in one process")
        from chinchilla_jax.scaling.design.until import Goal

        if most is None:
            raise UserError("--until: give --flops too, what all runs together may take")
        return Goal(until.value, most, target)

    return goal


def define_status() -> Callable[[Path, str | None], bool]:
    """The flags of a look at a sweep; what is returned shows it, false where nobody asked."""
    asked = flags.DEFINE_bool("status", False, "Run nothing, only show how far each cell is.")
    often = flags.DEFINE_bool(
        "watch", False, "With --status: look again and again, until all is over or nobody works."
    )
    as_json = flags.DEFINE_bool("json", False, "With --status: write JSON, one line a look.")

    def shown(workdir: Path, config: str | None) -> bool:
        if not asked.value:
            if often.value or as_json.value:
                raise UserError("--watch and --json are of --status; give that too")
            return False
        from chinchilla_jax.experiment import status, watch

        experiment = program.experiment_from_flags(config) if config else None
        if experiment is not None and (often.value or as_json.value):
            for line in status.other_plan(workdir, experiment):
                print(line, file=sys.stderr)
        if often.value:
            if not watch.show(workdir, sys.stdout, as_json.value):
                print(watch.NOBODY, file=sys.stderr)
                sys.exit(1)
        elif as_json.value:
            print(json.dumps(watch.facts(workdir, status.rows(workdir)), allow_nan=False))
        else:
            print(status.text(workdir, experiment))
        return True

    return shown

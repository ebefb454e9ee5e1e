"""What the programs share: flags, overrides, and errors told in one line."""

import contextlib
import io
import json
import logging
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import app, flags
from absl import logging as absl_logging

from chinchilla_jax.experiment.config import Experiment
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.loading import OVERRIDE, load_experiment, split_overrides
from chinchilla_jax.experiment.records import has_plan
from chinchilla_jax.experiment.schema import nearest

if TYPE_CHECKING:
    from chinchilla_jax.scaling.design.until import Goal
    from chinchilla_jax.scaling.settings import Settings

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it

_START, _START_FIELD = "init_from", "techniques.transfer.start"
_overrides: list[tuple[str, str]] = []


def run(main: Callable[[list[str]], Any]) -> None:
    """Runs `main` with the flags of its module.

    A `UserError` becomes one line on standard error and exit status 2; Ctrl-C and SIGTERM exit
    with 130, also where the program is process 1 of a container, which SIGTERM else passes by.
    `--config.a.b=value` is kept for `experiment_from_flags`.
    """
    logging.getLogger("chinchilla_jax").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):  # a name in a table may be more than a pipe can take
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Libraries log through absl and the root; of theirs only warnings are for a person.
    absl_logging.set_verbosity(absl_logging.WARNING)
    try:
        with _interruptible():
            app.run(_guarded(main), flags_parser=_parse)
    except UserError as error:  # raised while flags are parsed
        _fail(error)
    except KeyboardInterrupt:
        _end_interrupted()


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, where by `chinchilla_jax/__init__.py` it does not yet."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if before is signal.SIG_DFL:
            signal.signal(signal.SIGINT, before)


def define_config(required: bool = True) -> flags.FlagHolder[str | None]:
    """The flag --config, which takes overrides as --config.a.b=value, and --init_from for one."""
    flags.DEFINE_string(
        _START,
        "",
        "Folder of a run, or of an exported model, whose weights the runs start from: "
        f"--config.{_START_FIELD}.",
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
    count = flags.DEFINE_integer("num_processes", None, "How many they are.", lower_bound=1)
    number = flags.DEFINE_integer("process_id", None, "Which of them this one is.", lower_bound=0)
    timeout = flags.DEFINE_float(
        "peer_timeout", 60.0, "Seconds without a sign of life after which the others end.", 1.0
    )

    def join() -> bool:
        from chinchilla_jax.training import distributed

        cluster = distributed.find(coordinator.value, count.value, number.value)
        distributed.initialize(cluster, timeout.value)
        return cluster is not None

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
            "Cells at once on a device, of those that take one.",
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
        flags.DEFINE_float("delta", default.delta, "Huber's delta."),
        flags.DEFINE_bool("tied", default.tied, "One exponent for size and data: alpha = beta."),
        enum("minima", default.minima, MINIMA, "How iso-FLOP minima are found for the headline."),
        number("bootstrap", default.bootstrap, "Bootstrap draws; 0 for no intervals."),
        number("seed", default.seed, "Seed of the bootstrap."),
        flags.DEFINE_float("holdout_above", None, above),
    )
    budgets = flags.DEFINE_list(
        "budgets", [], "FLOPs to forecast, as 1e21,5.76e23. Default: ten times the largest run."
    )

    def settings() -> Settings:
        values = {flag.name: flag.value for flag in found}
        return Settings(**values, budgets=positive_numbers("budgets", budgets.value))

    return settings


def define_aim() -> Callable[[], tuple[float | None, float | None]]:
    """The flags --flops and --target of runs to be chosen; what is returned reads both.

    None where one is not given.
    """
    spent = flags.DEFINE_string("flops", "", "FLOPs that runs which are chosen may take, as 2e13.")
    target = flags.DEFINE_string(
        "target", "", "FLOPs whose best run is to be known. Default: ten times the largest run."
    )

    def aim() -> tuple[float | None, float | None]:
        found = (positive_number(flag.name, flag.value) if flag.value else None
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
    asked = flags.DEFINE_bool("status", False, "Only show how far each cell is.")
    often = flags.DEFINE_bool("watch", False, "With --status: again and again, until all is over.")
    as_json = flags.DEFINE_bool("json", False, "With --status: as JSON, a line a look.")

    def shown(workdir: Path, config: str | None) -> bool:
        if not asked.value:
            if often.value or as_json.value:
                raise UserError("--watch and --json are of --status; give that too")
            return False
        from chinchilla_jax.experiment import status, watch

        experiment = experiment_from_flags(config) if config else None
        if experiment is not None and (often.value or as_json.value):
            for line in status.other_plan(workdir, experiment):
                print(line, file=sys.stderr)
        if often.value:
            watch.show(workdir, sys.stdout, as_json.value)
        elif as_json.value:
            print(json.dumps(watch.facts(workdir, status.rows(workdir)), allow_nan=False))
        else:
            print(status.text(workdir, experiment))
        return True

    return shown


def experiment_from_flags(path: str | None) -> Experiment:
    """The experiment of --config with the command line's overrides.

    Raises:
      UserError: no --config, or one that does not load.
    """
    if not path:
        raise UserError("--config: is missing; give a file, for example configs/quickstart.py")
    return load_experiment(path, _overrides)


def experiment_to_plan(path: str | None, workdir: Path) -> Experiment | None:
    """The experiment of --config; None where there is none and `workdir` has a plan to go on with.

    Raises:
      UserError: as `experiment_from_flags`.
    """
    return None if not path and has_plan(workdir) else experiment_from_flags(path)


def _parse(arguments: Sequence[str]) -> list[str]:
    others, overrides = split_overrides(arguments)
    _overrides[:] = overrides
    try:
        rest: list[str] = flags.FLAGS(others)
    except flags.Error as error:
        raise UserError(_explained(str(error).splitlines()[-1])) from None
    if len(rest) > 1:
        raise UserError(f"{rest[1]}: unexpected; flags are written --name=value")
    known = "config" in flags.FLAGS
    if known and (start := flags.FLAGS[_START].value):
        overrides.append((_START_FIELD, start if "/" in start else f"./{start}"))
        _overrides[:] = overrides
    if overrides and not (known and flags.FLAGS["config"].value):
        changes = "changes a field of --config=FILE"
        why = f"{changes}; give that too" if known else f"{changes}, which this program has not"
        raise UserError(f"{OVERRIDE}{overrides[0][0]}: {why}")
    return rest


def _explained(message: str) -> str:
    """A message of absl about a flag, for a person."""
    if unknown := re.match(r"Unknown command line flag '(.*?)'", message):
        ours = sorted(
            flag.name
            for module, defined in flags.FLAGS.flags_by_module_dict().items()
            if module == sys.argv[0] or module.startswith("chinchilla_jax.")
            for flag in defined
        )
        there = ", ".join(f"--{name}" for name in ours)
        return f"--{unknown[1]}: no such flag{nearest(unknown[1], ours)} (there are {there})"
    if missing := re.match(r"flag (--\w+)=None", message):
        return f"{missing[1]}: is required; see --help"
    for python, kind in (("invalid literal for int", "a whole number"),
                         ("could not convert string to float", "a number")):  # fmt: skip
        if found := re.match(rf"flag (--\w+=.*): {python}", message):
            return f"{found[1]}: expected {kind}"
    return message.removeprefix("flag ")


def _guarded(main: Callable[[list[str]], Any]) -> Callable[[list[str]], Any]:
    def guarded(arguments: list[str]) -> Any:
        try:
            return main(arguments)
        except UserError as error:
            _fail(error)
        except KeyboardInterrupt:
            _end_interrupted()
        except MemoryError:
            _fail(UserError("memory ran out: free some, or raise the limit (ulimit -v, ulimit -d)"))
        except BrokenPipeError:  # the reader of our output went away, as in `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)

    return guarded


def _end_interrupted() -> None:
    print("interrupted; the same command continues", file=sys.stderr)
    sys.exit(EXIT_INTERRUPTED)


def _fail(error: UserError) -> None:
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)


def refuse_flags_of_others(mode: str, takes: Mapping[str, set[str]]) -> None:
    """Raises UserError for a flag that was given and that the mode does not take.

    Args:
      mode: the flag that asks for it, as "next"; empty for what a program does without.
      takes: of each mode the flags that differ between modes.
    """
    if mode not in takes:
        asked = " and ".join(f"--{name}" for name in takes if name and name in mode)
        raise UserError(f"{asked}: ask for one of them")
    for name in sorted(set().union(*takes.values()) - takes[mode]):
        if flags.FLAGS[name].present:
            others = " or ".join(f"--{other}" for other in takes if name in takes[other] and other)
            of = f"is of {others}" if others else f"is not of --{mode}"
            raise UserError(f"--{name}: {of}")


def positive_numbers(flag: str, texts: Sequence[str]) -> tuple[float, ...]:
    """`1e21,5.76e23` as split by absl.

    Raises:
      UserError: one of them is not a positive finite number.
    """
    return tuple(positive_number(flag, text) for text in texts)


def positive_number(flag: str, text: str) -> float:
    """One of them."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise UserError(f"--{flag}: {text!r} is not a positive number; write it like 5.76e23")
    return value


def once(flag: str, values: Sequence[Any]) -> None:
    """Raises UserError for the first value that stands twice."""
    for i, value in enumerate(values):
        if value in values[:i]:
            shown = f"{value:g}" if isinstance(value, float) else value
            raise UserError(f"--{flag}: {shown} is given twice")


def floats(flag: str, texts: Sequence[str]) -> dict[str, float]:
    """`unique_tokens=25e9,sparsity=0.5` as split by absl.

    Raises:
      UserError: one of them is not name=number.
    """
    found = {}
    for name, text in pairs(flag, texts).items():
        try:
            found[name] = float(text)
        except ValueError:
            raise UserError(f"--{flag}: {name}={text} is not a number") from None
    return found


def pairs(flag: str, texts: Sequence[str]) -> dict[str, str]:
    """`params=N,loss=final_loss` as split by absl.

    Raises:
      UserError: one of them has no `=`, or a name stands twice.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if not (name and equals and value):
            hint = f"; one with a comma in it is quoted: --{flag}='\"name=a,b\"'" * (len(texts) > 1)
            raise UserError(f"--{flag}: {text!r} is not name=value{hint}")
        if name in found:
            raise UserError(f"--{flag}: {name} is given twice")
        found[name] = value
    return found

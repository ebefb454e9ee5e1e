"""How a program runs: its command line, --config with overrides, and errors told in one line."""

import atexit
import contextlib
import io
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

from absl import app, flags
from absl import logging as absl_logging

from chinchilla_jax.experiment.config import Experiment
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.loading import OVERRIDE, load_experiment, split_overrides
from chinchilla_jax.experiment.plans import has_plan
from chinchilla_jax.experiment.schema import nearest

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells report it
CONTINUES = "interrupted; the same command continues"
_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Whose lines are not those of a log of long work.
_BEFORE_WORK = tuple(
    f"chinchilla_jax.{name}"
    for name in ("experiment.grid", "experiment.loading", "experiment.finished", "training.sweep",
                 "formats", "scaling")
)  # fmt: skip

START, START_FIELD = "init_from", "techniques.transfer.start"
_overrides: list[tuple[str, str]] = []


def run(main: Callable[[list[str]], Any], interrupted: str = "interrupted") -> None:
    """Runs `main` with the flags of its module.

    A `UserError` becomes one line on standard error and exit status 2; Ctrl-C and SIGTERM exit
    with 130, also where the program is process 1 of a container, which SIGTERM else passes by. Once
    `main` is over they end the process at once, with its result. `--config.a.b=value` is kept for
    `experiment_from_flags`.

    Args:
      interrupted: what is said then.
    """
    whole = signal.getsignal(signal.SIGINT) is signal.SIG_DFL  # chinchilla_jax/__init__.py: no test
    status = 1  # of a traceback
    if whole:
        atexit.register(_ignore_signals)  # after all that is registered from here on
    try:
        _run(main, interrupted)
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
            end.code = 1
        status = end.code if isinstance(end.code, int) else 0
        raise
    finally:
        if whole:
            _end_at_once(status)


def _run(main: Callable[[list[str]], Any], interrupted: str) -> None:
    logging.getLogger("chinchilla_jax").setLevel(logging.INFO)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):  # a name in a table may be more than a pipe can take
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    # Libraries log through absl and the root; of theirs only warnings are for a person.
    absl_logging.set_verbosity(absl_logging.WARNING)
    absl_logging.get_absl_handler().setFormatter(_Plain())
    try:
        with _interruptible():
            app.run(main, flags_parser=_parse)
    except UserError as error:
        _fail(error)
    except MemoryError:
        _fail(UserError("memory ran out: free some, or raise the limit (ulimit -v, ulimit -d)"))
    except BrokenPipeError:  # the reader of our output went away, as in `| head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        _end_interrupted()


class _Plain(absl_logging.PythonFormatter):
    """Without time and place, what is said of a plan, a table or a folder before the work on it."""

    def format(self, record: logging.LogRecord) -> str:
        if not record.name.startswith(_BEFORE_WORK):
            return str(super().format(record))
        said = logging.Formatter.format(self, record)
        return f"warning: {said}" if record.levelno >= logging.WARNING else said


def _end_interrupted() -> NoReturn:
    """Ends this process, without the interpreter's end where it has JAX.

    That takes from threads of JAX what they still use to compile or compute, which may end in a
    segmentation fault. Several processes part from each other in it.
    """
    if "jax" in sys.modules and _is_alone():
        _exit(EXIT_INTERRUPTED)
    sys.exit(EXIT_INTERRUPTED)


def _is_alone() -> bool:
    several = "chinchilla_jax.training.distributed"
    return several not in sys.modules or sys.modules[several].process_count() == 1


def _exit(status: int) -> NoReturn:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _end_at_once(status: int) -> None:
    """Signals from now on skip the end of the interpreter, but that of several processes."""
    if not _is_alone():
        _ignore_signals()
        return
    for number in _SIGNALS:
        signal.signal(number, lambda *_: _exit(status))


def _ignore_signals() -> None:
    """The interpreter gives signals back to the system before it is at its end."""
    for number in _SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, where by `chinchilla_jax/__init__.py` it does not yet; what
    is said at the end it does not interrupt."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_DFL:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        if before is signal.SIG_DFL:
            _ignore_signals()


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
    for flag in _ours():
        _refuse_two_values(flag)
    try:
        rest: list[str] = flags.FLAGS(others)
    except SystemExit:  # of --help and its like, which absl ends with 1
        sys.stdout.flush()
        sys.exit(0)
    except flags.Error as error:
        raise UserError(_explained(str(error).splitlines()[-1])) from None
    if len(rest) > 1:
        raise UserError(f"{rest[1]}: unexpected; flags are written --name=value")
    known = "config" in flags.FLAGS
    if known and (start := flags.FLAGS[START].value):
        overrides.append((START_FIELD, start if "/" in start else f"./{start}"))
        _overrides[:] = overrides
    for name, values in _by_name(overrides).items():
        if len(values) > 1:
            raise UserError(f"{OVERRIDE}{name}: {_twice(*values)}")
    if overrides and not (known and flags.FLAGS["config"].value):
        changes = "changes a field of --config=FILE"
        why = f"{changes}; give that too" if known else f"{changes}, which this program has not"
        raise UserError(f"{OVERRIDE}{overrides[0][0]}: {why}")
    return rest


def _ours() -> list[flags.Flag[Any]]:
    """The flags of the program, without those of absl."""
    return [
        flag
        for module, defined in flags.FLAGS.flags_by_module_dict().items()
        if module == sys.argv[0] or module.startswith("chinchilla_jax.")
        for flag in defined
    ]


def _refuse_two_values(flag: flags.Flag[Any]) -> None:
    """Of a flag that takes one value: absl would let the last one win."""
    if isinstance(flag, flags.MultiFlag):
        return
    parse, given = flag.parse, list[Any]()

    def once(argument: Any) -> None:
        parse(argument)
        given.append((flag.value, argument))
        (first, said), (last, now) = given[0], given[-1]
        if said != now and first != last:  # the text too: one nan is another number
            two = flag.name == "runs" and "compare" in flags.FLAGS
            hint = f"; to compare two, --compare={said},{now}" * two
            raise UserError(f"--{flag.name}: {_twice(said, now)}{hint}")

    flag.parse = once  # type: ignore[method-assign]


def _twice(first: str, last: str, *_: str) -> str:
    return f"is given twice, as {first} and as {last}; give it once"


def _by_name(overrides: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    """The different values of each override."""
    found: dict[str, list[str]] = {}
    for name, value in overrides:
        values = found.setdefault(name, [])
        if value not in values:
            values.append(value)
    return found


def _explained(message: str) -> str:
    """A message of absl about a flag, for a person."""
    if unknown := re.match(r"Unknown command line flag '(.*?)'", message):
        ours = sorted(flag.name for flag in _ours())
        there = ", ".join(f"--{name}" for name in ours)
        return f"--{unknown[1]}: no such flag{nearest(unknown[1], ours)} (there are {there})"
    if missing := re.match(r"flag (--\w+)=None", message):
        return f"{missing[1]}: is required; see --help"
    for python, kind in (("invalid literal for int", "a whole number"),
                         ("could not convert string to float", "a number")):  # fmt: skip
        if found := re.match(rf"flag (--\w+=.*): {python}", message):
            return f"{found[1]}: expected {kind}"
    return message.removeprefix("flag ")


def _fail(error: UserError) -> None:
    """One line, in which a path keeps its blanks."""
    print(f"error: {' '.join(map(str.strip, str(error).splitlines()))}", file=sys.stderr)
    sys.exit(EXIT_USER_ERROR)

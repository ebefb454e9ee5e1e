"""Calls a program of the package as `python -m` does, without starting a process for it."""

import contextlib
import io
import logging
import runpy
import signal
import subprocess
import sys
import traceback
import warnings
from unittest import mock

from absl import app, flags
from absl import logging as absl_logging

from chinchilla_jax import program as programs

app.define_help_flags()
# What Python does not show by itself.
QUIET = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)


def call(program, *arguments, cwd="."):
    """The CompletedProcess of `python -m chinchilla_jax.PROGRAM ARGUMENTS` run in `cwd`.

    Standard error has warnings and the traceback of an exception, as of a process.
    """
    module = f"chinchilla_jax.{program}"
    command = [module, *map(str, arguments)]
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(record=True, action="always") as told,
        as_in_a_new_process(command),
        mock.patch.object(
            programs, "_end_interrupted", _exit_interrupted
        ),  # not the tests' process
    ):
        try:
            runpy.run_module(module, run_name="__main__", alter_sys=True)
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
            if status and not isinstance(end.code, int):
                print(end.code, file=sys.stderr)
        except BaseException:
            status = 1
            traceback.print_exc()
    for warning in told:
        if not issubclass(warning.category, QUIET):
            err.write(f"{warning.filename}:{warning.lineno}: {warning.message}\n")
    return subprocess.CompletedProcess(command, status or 0, out.getvalue(), err.getvalue())


def _exit_interrupted():
    sys.exit(programs.EXIT_INTERRUPTED)


@contextlib.contextmanager
def as_in_a_new_process(command):
    """No flags but absl's own, and what a program sets for its process set back at its end."""
    known, logger = set(flags.FLAGS), logging.getLogger("chinchilla_jax")
    arguments, handler = sys.argv, signal.getsignal(signal.SIGTERM)
    level, verbosity = logger.level, absl_logging.get_verbosity()
    sys.argv = command
    try:
        yield
    finally:
        sys.argv = arguments
        signal.signal(signal.SIGTERM, handler)
        logger.setLevel(level)
        absl_logging.set_verbosity(verbosity)
        for name in set(flags.FLAGS) - known:
            delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()

"""A stand-in for Windows: `python -X warn_default_encoding
tests/windows.py MODULE ARGUMENTS` runs a program without what
POSIX alone has, and fails where a text file is opened in whatever encoding the system prefers.

What it cannot show: paths with backslashes, and files that cannot be replaced while they are open.
"""

import os
import runpy
import signal
import sys
import warnings
from pathlib import Path

MODULES = ("fcntl", "pwd", "grp", "resource", "termios", "tty", "pty", "syslog")
OF_OS = (
    "O_NONBLOCK", "O_CLOEXEC", "fork", "forkpty", "getuid", "geteuid", "getgid", "killpg", "setsid",
    "getpgid", "sched_getaffinity", "sched_setaffinity", "sysconf", "statvfs", "nice", "mkfifo",
)  # fmt: skip
OF_SIGNAL = ("SIGKILL", "SIGALRM", "SIGCONT", "SIGHUP", "SIGCHLD", "SIGUSR1", "pthread_sigmask")


def main() -> None:
    """Runs the program that the arguments name."""
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]
    for module, names in ((os, OF_OS), (signal, OF_SIGNAL)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)
    warnings.filterwarnings("error", category=EncodingWarning, module="chinchilla_jax")
    opened = Path.iterdir

    def iterdir(path: Path):  # type: ignore[no-untyped-def]
        if path.parts[:2] == ("/", "proc"):
            raise FileNotFoundError(path)
        return opened(path)

    Path.iterdir = iterdir  # type: ignore[method-assign]
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()

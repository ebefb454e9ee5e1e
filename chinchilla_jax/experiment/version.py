"""Which code this is."""

import functools
import subprocess
from pathlib import Path

from chinchilla_jax import __version__


@functools.cache
def code_version() -> str:
    """Version of the package, and the commit where it runs from a checkout."""
    release = __version__
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return release
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return release
    return f"{release}+{described.stdout.strip()}" if described.returncode == 0 else release

"""Which code this is."""

import functools
import subprocess
from pathlib import Path

from chinchilla_jax import __version__

# Raised when the same configuration comes to train another model, so that no run continues as
# another and no sweep holds runs of both. 2: both definitions multiply their embedding by
# sqrt(base). 3: no two layers start from the same matrices. Not for shapes that the recipe chooses:
# they stand in the configuration of each run.
MODEL_VERSION = 3


@functools.cache
def code_version() -> str:
    """Version of the package, and the commit where it runs from a checkout."""
    release = __version__
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return release
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return release
    return f"{release}+{described.stdout.strip()}" if described.returncode == 0 else release

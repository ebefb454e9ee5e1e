"""Which code this is."""

import functools
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


@functools.cache
def code_version() -> str:
    """Version of the package, and the commit where it runs from a checkout."""
    try:
        release = version("chinchilla_jax")
    except PackageNotFoundError:  # a checkout on the path
        release = "not installed"
    checkout = Path(__file__).resolve().parents[2]
    if not (checkout / ".git").exists():
        return release
    command = ["git", "-C", str(checkout), "describe", "--always", "--dirty"]
    try:
        described = subprocess.run(command, capture_output=True, text=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return release
    return f"{release}+{described.stdout.strip()}" if described.returncode == 0 else release

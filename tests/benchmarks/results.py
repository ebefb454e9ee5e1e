"""Figures of a benchmark in a file, which a report can be made of elsewhere."""

import datetime
import importlib.metadata
import json
import platform
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "torch")


def versions() -> dict[str, str]:
    """Of Python and of the packages that are compared; one that is not there is left out."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def save(path: Path | None, **figures: Any) -> None:
    """Writes `figures`, the day and the versions to `path` in one move, never half of them.

    Nothing where `path` is None.
    """
    if path is None:
        return
    stamp = {"date": datetime.date.today().isoformat(), "versions": versions()}
    text = json.dumps(stamp | figures, indent=1, allow_nan=False)
    aside = path.with_name(f"{path.name}.new")
    aside.write_text(text + "\n")
    aside.replace(path)

"""A report in the place of an earlier one, of whose files none stays that the new one has not."""

import contextlib
import re
from pathlib import Path

from chinchilla_jax.experiment import storage
from chinchilla_jax.scaling.report.drawing import CAPTIONS

RECIPE = "recipe.json"  # of laws of hyper-parameters
LEAGUE = "league.csv"
_BESIDE = {"league-table": LEAGUE}  # by the section that tells of it; a recipe stays, to train by


def write_page(path: Path, text: str, *written: str) -> None:
    """Writes a report's page, and removes what the earlier page there was of and this one is not.

    That page names its figures and sections, so that nothing else is touched.

    Args:
      written: the names of the files beside the page that are of this report, but for figures.
    Raises:
      StorageError: the folder cannot be written.
    """
    before: set[str] = set()
    with contextlib.suppress(FileNotFoundError):
        before = _files(storage.read_bytes(path).decode(errors="replace"))
    storage.write_text_atomic(path, text)
    for name in sorted(before - _files(text).difference(_BESIDE.values()) - {*written}):
        storage.remove(path.with_name(name))


def _files(page: str) -> set[str]:
    """The files that a page says are beside it."""
    figures = {name for name in re.findall(r'<figure id="(\w+)">', page) if name in CAPTIONS}
    sections = {name for name in re.findall(r'<h2 id="([\w-]+)">', page) if name in _BESIDE}
    return {f"{name}.{kind}" for name in figures for kind in ("png", "svg")} | {
        _BESIDE[name] for name in sections
    }

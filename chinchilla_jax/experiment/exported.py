"""What the folder of an exported model says of the run that it is of, in its `config.json`.

It is what a run that starts from the folder has to know, and no path of the machine that the run
was trained on. Tools that write the folder anew, as transformers after fine-tuning, keep it.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chinchilla_jax.experiment import faults, json_data, storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.schema import UNLESS_DEFAULT, from_json

CONFIG, WEIGHTS = "config.json", "model.safetensors"
EXACT = "exact.safetensors"  # arrays that those of WEIGHTS do not tell to the bit
SECTION = "chinchilla_jax"  # of CONFIG
DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A finished run, as the files beside it hold it."""

    run: str  # its id
    fingerprint: str
    dtype: str  # of the files
    step: int
    model: ModelConfig
    parametrization: str
    base_width: int
    sequence_length: int
    tokens: int  # that it was trained on, with those of the runs it needs
    flops: int  # of its training (matmul), with those of the runs it needs
    loss: float | None = field(default=None, metadata=UNLESS_DEFAULT)  # of these very weights
    data: str  # fingerprint of its text
    tokenizer: str  # fingerprint
    model_version: int


def section_of(folder: Path) -> Mapping[str, Any] | None:
    """What the `config.json` in a folder says of a run; None where there is none, or of others.

    Raises:
      UserError: it is no JSON.
    """
    if not storage.exists(folder / CONFIG):
        return None
    content = json_data.read_json(folder / CONFIG)
    found = content.get(SECTION) if isinstance(content, Mapping) else None
    return found if isinstance(found, Mapping) else None


def already(target: Path) -> Mapping[str, Any] | None:
    """What the folder at `target` says of a run; None where there is none yet.

    Raises:
      UserError: something else is there.
    """
    if not storage.exists(target) and not target.is_symlink():
        return None
    if not target.is_dir() or (there := section_of(target)) is None:
        raise UserError(
            f"{target}: is there already, and is no exported model; give another folder"
        )
    return there


def digest(folder: Path) -> str:
    """Sixteen hex digits that tell the weights in a folder from others.

    Raises:
      UserError: there are none.
    """
    there = storage.names(folder) & {WEIGHTS, EXACT}
    if WEIGHTS not in there:
        raise UserError(f"{folder}: has no {WEIGHTS}")
    found = hashlib.blake2b(digest_size=8)
    for name in sorted(there):
        with faults.translated(folder / name, "read"), (folder / name).open("rb") as file:
            found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()


def read(folder: Path) -> Exported:
    """The run that an exported folder is of.

    Raises:
      UserError: it is no such folder, or of another version.
    """
    section = section_of(folder)
    if section is None:
        raise UserError(f"{folder}: is no exported model, whose {CONFIG} has a {SECTION}")
    return from_json(Exported, section, f"{folder / CONFIG}: {SECTION}")

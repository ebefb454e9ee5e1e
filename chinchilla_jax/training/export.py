"""A finished run as a folder that other tools open: see `chinchilla_jax/formats/`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from chinchilla_jax.experiment import exported
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.exported import Exported
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.formats import folder, huggingface, vocabulary
from chinchilla_jax.models.module import path_name
from chinchilla_jax.training import techniques, weights
from chinchilla_jax.training.sources import Source
from chinchilla_jax.training.transfers import fetch


@dataclass(frozen=True)
class Outcome:
    """What became of an export."""

    of: Exported
    made: bool  # false where the folder is there, with the same files
    numbers: int  # in all arrays


def export(place: Path, target: Path, dtype: str = "float32") -> Outcome:
    """Writes the run at `place`, as `weights.folder_of` finds it, to the folder `target`.

    Its weights are those that products take part with: pruned ones are zeros, and those of few
    bits have the values of few bits, in an array of `dtype`.

    Raises:
      UserError: there is no such run or it is not whole; no format holds it exactly; the target is
        there and is another, or cannot be written.
    """
    source = weights.finished(weights.folder_of(place))
    of = described(source, dtype)
    _refuse(source.run, of)
    _refuse_another(target, of)
    huggingface.check_installed()
    trained = weights.load(source)
    arrays = numpy_arrays(weights.as_multiplied(trained))

    def fill(made: Path) -> None:
        huggingface.write(made, of, arrays)
        vocabulary.write(made, trained.tokenizer, of.sequence_length)

    made = folder.write(target, fill)
    return Outcome(of, made, sum(array.size for array in arrays.values()))


def numpy_arrays(params: Any) -> dict[str, np.ndarray]:
    """A decoder's parameters on the host, by path."""
    return {path_name(path): fetch(array) for path, array in jax.tree.leaves_with_path(params)}


def described(source: Source, dtype: str) -> Exported:
    """What the folder says of the run."""
    run, other, meta = source.run, source.other, source.record["meta"]
    return Exported(
        run=run.run_id,
        fingerprint=other.fingerprint,
        dtype=dtype,
        step=other.step,
        model=run.model,
        parametrization=other.parametrization,
        base_width=other.base_width,
        sequence_length=run.sequence_length,
        tokens=other.tokens,
        flops=other.flops,
        loss=source.loss if dtype == exported.DTYPES[0] else None,
        data=str(meta["data"]).partition("/")[0],  # whatever was kept of it
        tokenizer=meta["tokenizer"],
        model_version=meta["model_version"],
    )


def _refuse_another(target: Path, of: Exported) -> None:
    """Raises UserError at once where the target is the folder of something else."""
    if (there := exported.section_of(target)) is None:
        return
    ours = to_json(of)
    for name in sorted({*ours, *there}):
        if ours.get(name) != there.get(name):
            difference = f"is of {name} {there.get(name)}, not {ours.get(name)}"
            raise UserError(f"{target}: is there already, and {difference}; give another folder")


def _refuse(run: RunConfig, of: Exported) -> None:
    """Raises UserError for a run that is more than the weights of a class of transformers."""
    reason = huggingface.unfit(of.model) or techniques.beside_weights(run)
    if reason:
        raise UserError(f"{of.run}: cannot be exported: {reason}")

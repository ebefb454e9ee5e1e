"""A finished run as a folder that other tools open: see `chinchilla_jax/formats/`."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from chinchilla_jax.data.store import open_corpus
from chinchilla_jax.experiment import exported
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.exported import Exported
from chinchilla_jax.experiment.loading import cache_folder
from chinchilla_jax.experiment.schema import to_json
from chinchilla_jax.formats import folder, gguf, huggingface, lm_eval, vocabulary
from chinchilla_jax.models.module import path_name
from chinchilla_jax.training import techniques, weights
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.evaluation import evaluate
from chinchilla_jax.training.sources import Source
from chinchilla_jax.training.step import TrainState
from chinchilla_jax.training.transfers import fetch
from chinchilla_jax.training.worker import prepare_jax


@dataclass(frozen=True)
class Outcome:
    """What became of an export."""

    of: Exported
    made: bool  # false where the folder is there, with the same files
    numbers: int  # in all arrays
    windows: int  # of held-out text in the task of lm-eval
    bits_per_byte: float | None  # of the run on them; None where there are none


def export(
    place: Path,
    target: Path,
    dtype: str = "float32",
    windows: int = 0,
    for_llama_cpp: bool = False,
) -> Outcome:
    """Writes the run in the folder `place` to the folder `target`.

    Its weights are those that products take part with: pruned ones are zeros, and those of few
    bits have the values of few bits, in an array of `dtype`.

    Args:
      windows: at most so many of held-out text make a task of lm-eval; 0 for no task.
      for_llama_cpp: whether a GGUF file lies beside.
    Raises:
      UserError: there is no such run or it is not whole; no format holds it exactly; the target is
        there and is another, or cannot be written.
    """
    source = weights.finished(place)
    of = described(source, dtype)
    _refuse(source.run, of, for_llama_cpp)
    _refuse_another(target, of)
    huggingface.check_installed()
    if for_llama_cpp:
        gguf.package()
    prepare_jax(cache_folder())
    trained = weights.load(source)
    arrays = numpy_arrays(weights.as_multiplied(trained))
    text = _held_out(trained, of, windows) if windows else None

    def fill(made: Path) -> None:
        huggingface.write(made, of, arrays)
        vocabulary.write(made, trained.tokenizer, of.sequence_length)
        if for_llama_cpp:
            gguf.write(made, of, arrays, trained.tokenizer)
        if text is not None:
            lm_eval.write(made, text)

    return Outcome(
        of,
        made=folder.write(target, fill),
        numbers=sum(array.size for array in arrays.values()),
        windows=0 if text is None else len(text.windows),
        bits_per_byte=None if text is None else _bits_per_byte(trained, text),
    )


def _held_out(trained: weights.Trained, of: Exported, windows: int) -> lm_eval.HeldOut:
    data = trained.run.data
    corpus = open_corpus(data, cache_folder(data.cache), of.data)
    return lm_eval.held_out(corpus.validation, trained.tokenizer, of.sequence_length, windows)


def _bits_per_byte(trained: weights.Trained, text: lm_eval.HeldOut) -> float | None:
    """By our own evaluation, in float32 on one device."""
    run = replace(
        trained.run,
        execution=Execution(data_parallel=1),
        training=replace(trained.run.training, dtype="float32", layers="unrolled"),
    )
    spelled = int(trained.tokenizer.token_bytes[text.windows[:, 1:]].sum())
    compiled, nothing = compiled_for(run), jnp.float32(0)
    state = TrainState(nothing, trained.params, (), nothing, nothing, trained.carried)
    with jax.set_mesh(compiled.mesh):
        return evaluate(compiled, state, text.windows, spelled)["bits_per_byte"]


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
    if (there := exported.already(target)) is None:
        return
    ours = to_json(of)
    for name in sorted({*ours, *there}):
        if ours.get(name) != there.get(name):
            difference = f"is of {name} {there.get(name)}, not {ours.get(name)}"
            raise UserError(f"{target}: is there already, and {difference}; give another folder")


def _refuse(run: RunConfig, of: Exported, for_llama_cpp: bool) -> None:
    """Raises UserError for a run that is more than the weights of a class of transformers."""
    reason = huggingface.unfit(of.model) or techniques.beside_weights(run)
    reason = reason or (gguf.unfit(of.model) if for_llama_cpp else "")
    if reason:
        raise UserError(f"{of.run}: cannot be exported: {reason}")

"""A finished run as others take it: its configuration, its weights and its tokenizer.

    trained = read(storage.path("runs/quickstart/runs/3e12-48x3-s0"))
    as_multiplied(trained)    # float32, by the names of `Decoder`, of few bits where trained so

Its folder is only read, and may be of a run on other devices or under a scan over layers.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from chinchilla_jax.data.store import tokenizer_of
from chinchilla_jax.data.tokenizers import Tokenizer
from chinchilla_jax.experiment import needs, storage
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.finished import at_end
from chinchilla_jax.experiment.loading import cache_folder
from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.experiment.version import MODEL_VERSION
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.training import sharding, techniques, verified
from chinchilla_jax.training.initial import abstract_params
from chinchilla_jax.training.method import Carried, Method, dense
from chinchilla_jax.training.sources import ANEW, TECHNIQUES, Source


@dataclass(frozen=True)
class Trained:
    """A run at its end.

    Attributes:
      run: its configuration.
      params: float32, as they are stored, in the structure of a `Decoder` with unrolled layers.
      carried: what its techniques carry besides, for `Method.weights` and `Method.forward`.
      tokenizer: of its text.
    """

    run: RunConfig
    params: Any
    carried: Carried
    tokenizer: Tokenizer


def finished(folder: Path) -> Source:
    """The run in a folder with the checkpoint of its end, whose files are checked; none is loaded.

    Raises:
      UserError: it is not there, not done, damaged, without a checkpoint of its end, or trained by
        a version of another model.
    """
    there = RunDirectory(storage.absolute(folder))
    run, result = at_end(folder)
    checkpoint = there.checkpoints / str(run.steps)
    if not storage.children(checkpoint):
        raise UserError(
            f"{folder}: has no checkpoint of its end, step {run.steps} (execution.save_final)"
        )
    record, damage = verified.read_record(checkpoint)
    damage = damage or verified.damaged_file(checkpoint, record["files"])
    if damage:
        raise UserError(f"{checkpoint}: is damaged: {damage}; {ANEW}")
    if (version := record["meta"]["model_version"]) != MODEL_VERSION:
        raise UserError(
            f"{folder}: was trained by another version of chinchilla_jax, as another model "
            f"(model_version {version}, here {MODEL_VERSION}: CHANGELOG.md); use that version"
        )
    if record["meta"]["fingerprint"] != fingerprint(run):
        raise UserError(f"{folder}: its config.json is not that of its checkpoint; {ANEW}")
    known = needs.other_run(str(folder), str(folder), run)
    return Source(known, run, result["loss"], checkpoint, record)


def tokenizer(source: Source) -> Tokenizer:
    """Of the text of a run; raises UserError where it is not to be had."""
    data, known = source.run.data, source.record["meta"]["tokenizer"]
    reason = ""
    for cache in dict.fromkeys((cache_folder(data.cache), cache_folder())):
        try:
            return tokenizer_of(data, cache, known)
        except UserError as error:
            reason = str(error)
    raise UserError(f"{source.other.run}: {reason}")


def method(run: RunConfig, decoder: Decoder, forward: Any = None) -> Method:
    """How `run` makes weights and predictions, by `decoder`; it trains nothing.

    Args:
      decoder: of the shape and the scaling of the run, as in `decoder_of`.
      forward: (model, weights, what is passed) -> (anything, sums) instead of `Method.forward` of
        a dense run, for techniques to change as they change that.
    """

    def plain(model: Decoder, tx: optax.GradientTransformationExtraArgs) -> Method:
        made = dense(model, tx, run.training.loss_chunk_tokens, decoder.layout.parts)
        if forward is None:
            return made
        return replace(made, forward=lambda weights, _, passed: forward(model, weights, passed))

    nothing = optax.with_extra_args_support(optax.identity())
    return techniques.method_of(decoder, nothing, plain, techniques.hooked(run))


def decoder_of(run: RunConfig, **fields: Any) -> Decoder:
    """The decoder of a run with unrolled layers; `fields` are others of `Decoder`."""
    optimizer = run.optimizer
    scaling = Scaling(optimizer.base_width, optimizer.parametrization)
    return Decoder(run.model, scaling=scaling, **fields)


def read(folder: Path, mesh: Mesh | None = None) -> Trained:
    """The run in `folder` with its arrays on `mesh`; default: one device.

    Raises:
      UserError: as `finished` and `tokenizer`, or the mesh does not divide the model.
    """
    return load(finished(folder), mesh)


def load(source: Source, mesh: Mesh | None = None) -> Trained:
    """`read` of a run that is known to be sound."""
    spelled = tokenizer(source)
    mesh = sharding.make_mesh(Execution(data_parallel=1)) if mesh is None else mesh
    plain = method(source.run, decoder_of(source.run))
    params = abstract_params(plain.model)
    # Paths of a state: where a technique's arrays lie follows from theirs.
    wanted = sharding.with_shardings(
        {"params": params, "techniques": jax.eval_shape(plain.begin, params)}, mesh
    )
    return Trained(
        run=source.run,
        params=source.params(wanted["params"]),
        carried=source.part(TECHNIQUES, wanted["techniques"]),
        tokenizer=spelled,
    )


def as_multiplied(trained: Trained, dtype: Any = jnp.float32) -> Any:
    """Its parameters as its products take them: of few bits where it was trained so.

    Args:
      dtype: of what products take part with; embeddings, gains and biases stay float32.
    """
    weights = method(trained.run, decoder_of(trained.run, dtype=dtype)).weights
    places = jax.tree.map(lambda w: w.sharding, trained.params)
    return jax.jit(weights, out_shardings=places)(trained.params, trained.carried)

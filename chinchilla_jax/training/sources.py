"""The weights of the runs that a run needs: checked before anything is allocated, then read.

The other run's folder is only read. Its checkpoint may be of another mesh, of layers under a scan
where ours are unrolled or the reverse, and of another precision than the weights are wanted in. So
may what was exported of it.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from chinchilla_jax import techniques
from chinchilla_jax.data.store import Corpus
from chinchilla_jax.experiment import exported, needs, storage
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.other_run import OtherRun
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.experiment.version import MODEL_VERSION
from chinchilla_jax.formats import huggingface
from chinchilla_jax.training import distributed, verified
from chinchilla_jax.training.transfers import place, unguarded

T = TypeVar("T")

PARAMS, TECHNIQUES = "params.", "techniques."  # what names in a checkpoint begin with


@dataclass(frozen=True)
class Source:
    """Another run, whose checkpoint is sound."""

    other: OtherRun
    run: RunConfig
    loss: float | None  # on the held-out text, where the checkpoint is that of its end
    folder: Path  # of the checkpoint
    record: Mapping[str, Any]

    def params(self, like: T) -> T:
        """Its weights.

        Args:
          like: `jax.ShapeDtypeStruct`s with shardings, in the structure of a decoder's parameters.
        Raises:
          UserError: what was read is not what was written.
        """
        return self.part(PARAMS, like)

    def part(self, part: str, like: T) -> T:
        """The same of another part of its state, of `TECHNIQUES` for example."""
        wanted = {part + name: leaf for name, leaf in verified.flatten(like).items()}
        if not wanted:
            return like
        leaves = self._read(wanted)
        if damage := verified.damaged_leaf(self.record["leaves"], leaves):
            raise UserError(f"{self.folder}: {damage}; {ANEW}")
        return _made(leaves, wanted, like)

    def _read(self, wanted: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The arrays that hold the wanted ones, as they were saved, by their names there."""
        import orbax.checkpoint as ocp

        abstract = {}
        for name, leaf in wanted.items():
            for saved in _saved_names(name, leaf, self.record["layout"]):
                dtype, _, dims = self.record["layout"][saved].partition("[")
                shape = tuple(map(int, filter(None, dims[:-1].split(","))))
                where = _alike(leaf.sharding, len(shape))
                abstract[saved] = jax.ShapeDtypeStruct(shape, dtype, sharding=where)
        with unguarded(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            found = reader.restore(
                self.folder / "default",
                args=ocp.args.PyTreeRestore(
                    item=abstract,
                    restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
                    partial_restore=True,
                ),
            )
        return {name: found[name] for name in abstract}


@dataclass(frozen=True)
class ExportedSource:
    """Another run, as a folder that was exported has it: weights that predict by themselves."""

    other: OtherRun
    loss: float | None  # on the held-out text, of these very weights
    folder: Path
    of: exported.Exported

    def params(self, like: T) -> T:
        """As of `Source`; of a float32 folder they are what was exported, to the bit."""
        wanted = {PARAMS + name: leaf for name, leaf in verified.flatten(like).items()}
        stored = {
            PARAMS + path.replace("/", "."): array
            for path, array in huggingface.read(self.folder, self.of)
        }
        leaves = {
            saved: place(stored[saved], _alike(leaf.sharding, stored[saved].ndim))
            for name, leaf in wanted.items()
            for saved in _saved_names(name, leaf, stored)
        }
        return _made(leaves, wanted, like)


Sources = Mapping[str, Source | ExportedSource]
"""By what the configuration calls them."""

ANEW = "train it anew in another work folder, or name another run"


def opened(run: RunConfig, corpus: Corpus, directory: RunDirectory) -> Sources:
    """The runs that `run`, of this folder, needs.

    Raises:
      UserError: one is not there, not done, damaged, or of another text, tokenizer or model code
        than this run; of another text those may be that a technique takes of any.
    """
    return {other.asked: _opened(run, other, corpus, directory) for other in run.needs}


def _opened(
    run: RunConfig, other: OtherRun, corpus: Corpus, directory: RunDirectory
) -> Source | ExportedSource:
    # Absolute, as Orbax wants a path to be.
    there = RunDirectory(storage.absolute(needs.place(other, directory.path.parent)))
    where = f"{run.run_id} needs {other.run}, which"

    def is_as_planned(found: str) -> None:
        if found != other.fingerprint:
            raise UserError(
                f"{where} is another run by now than it was planned with; plan anew in another "
                "--workdir"
            )

    def known() -> tuple[Mapping[str, Any], float | None, Mapping[str, Any]]:
        """Its text and code, its loss, and its checkpoint's record, which an export has not."""
        if exported.section_of(there.path) is not None:
            of = exported.read(there.path)
            is_as_planned(exported.digest(there.path))
            meta = {"data": of.data, "tokenizer": of.tokenizer, "model_version": of.model_version}
            return meta, of.loss, {}
        found = needs.read_run(there.path / "config.json") if there.begun() else None
        if found is None:
            raise UserError(f"{where} is not there: {there.path} has no config.json")
        is_as_planned(fingerprint(found))
        result = there.result()
        at_end = other.step == found.steps
        if not needs.is_checkpoint(other) and (result is None or result["status"] != "done"):
            how = "is not done; run it first" if result is None else f"has {result['status']}"
            raise UserError(f"{where} {how}")
        record, damage = verified.read_record(there.checkpoints / str(other.step))
        if damage:
            raise UserError(
                f"{where} has no sound checkpoint of step {other.step}: "
                f"{there.checkpoints / str(other.step)}: {damage}; {ANEW}"
            )
        loss = result["loss"] if at_end and result else None
        return record["meta"], loss, record

    def checked() -> tuple[float | None, Mapping[str, Any]]:
        meta, loss, record = known()
        for name, ours in (
            ("data", corpus.data_fingerprint),
            ("tokenizer", corpus.tokenizer_fingerprint),
            ("model_version", MODEL_VERSION),
        ):
            theirs = str(meta[name]).partition("/")[0]  # whatever was kept of the corpus
            any_text = techniques.may_be_of_another_text(run.techniques, other.asked)
            if theirs != str(ours) and not (name == "data" and any_text):
                raise UserError(
                    f"{where} has another {_WHAT[name]} ({meta[name]}, here {ours}): "
                    "take a run of the same"
                )
        return loss, record

    loss, record = distributed.on_writer(checked)
    if not record:
        return ExportedSource(other, loss, there.path, exported.read(there.path))
    folder = there.checkpoints / str(other.step)
    if damage := verified.damaged_file(folder, record["files"]):
        raise UserError(f"{where} has a damaged checkpoint: {folder}: {damage}; {ANEW}")
    return Source(other, needs.read_run(there.path / "config.json"), loss, folder, record)


_WHAT = {"data": "corpus", "tokenizer": "tokenizer", "model_version": "version of the model code"}


def _saved_names(name: str, leaf: Any, layout: Mapping[str, Any]) -> list[str]:
    """Where a checkpoint has a parameter: under its name, in a stack of layers, or by layer."""
    if name in layout:
        return [name]
    if unrolled := re.fullmatch(rf"{PARAMS}layers_\d+\.(.*)", name):
        return [f"{PARAMS}layers.{unrolled[1]}"]
    rest = name.removeprefix(f"{PARAMS}layers.")
    return [f"{PARAMS}layers_{i}.{rest}" for i in range(leaf.shape[0])]


def _alike(sharding: Any, rank: int) -> NamedSharding:
    """The sharding of an array with layers in front, or of a layer's, where the other is wanted."""
    spec = (None,) * rank + tuple(sharding.spec)
    return NamedSharding(sharding.mesh, PartitionSpec(*spec[-rank:]))


def _made(leaves: Mapping[str, jax.Array], wanted: Mapping[str, Any], like: T) -> T:
    """The wanted parameters, in the structure of `like`, of arrays as they are saved."""
    made = jax.jit(
        partial(_in_layout, wanted=wanted),
        out_shardings={name: leaf.sharding for name, leaf in wanted.items()},
    )(leaves)
    return jax.tree.unflatten(jax.tree.structure(like), [made[name] for name in wanted])


def _in_layout(leaves: Mapping[str, jax.Array], wanted: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Saved arrays as the parameters that are wanted, in their precision."""
    made = {}
    for name, leaf in wanted.items():
        saved = [leaves[other] for other in _saved_names(name, leaf, dict.fromkeys(leaves, ""))]
        layer = re.match(rf"{PARAMS}layers_(\d+)\.", name)
        array = saved[0] if len(saved) == 1 else jnp.stack(saved)
        if array.ndim > len(leaf.shape):
            array = array[int(layer[1]) if layer else 0]
        made[name] = array.reshape(leaf.shape).astype(leaf.dtype)
    return made

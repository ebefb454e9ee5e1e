"""Checkpoints of one run: saved atomically, verified when read, refused for another run.

Orbax writes and reads the arrays and decides what is kept; this is the only file that knows it.
What Orbax leaves open is added here: flipped bits restore silently and an empty folder counts as
the latest step. So a record is written last, with a digest of every file and of every leaf
(`verified.py`), and a checkpoint that does not match its record is put aside for the one before it.
"""

import json
from collections.abc import Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import jax
from absl import logging

from chinchilla_jax.data.store import Corpus
from chinchilla_jax.experiment import faults, storage
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.energy import UNKNOWN, Joules, added
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.version import MODEL_VERSION
from chinchilla_jax.training import distributed, verified
from chinchilla_jax.training.transfers import unguarded

State = TypeVar("State")


class Damaged(UserError):
    """A checkpoint is not what was saved."""


class Meta(TypedDict):
    """What has to be the same for a run to continue, the most telling first."""

    horizon: int  # optimizer steps of the whole run, which its schedule is a function of
    batch_size: int  # sequences in a step
    data: str  # fingerprint of the corpus, and of what is kept of it
    tokenizer: str  # fingerprint
    model_version: int  # `experiment.version.MODEL_VERSION`
    fingerprint: str  # of the configuration


def meta(run: RunConfig, corpus: Corpus) -> Meta:
    """Of a run on its text."""
    return {
        "horizon": run.steps,
        "batch_size": run.batch_size,
        "data": corpus.text_fingerprint,
        "tokenizer": corpus.tokenizer_fingerprint,
        "model_version": MODEL_VERSION,
        "fingerprint": fingerprint(run),
    }


class Checkpoints:
    """The checkpoints of one run in `folder`, of which the newest `keep` and all `points` stay.

    At least two stay whatever `keep` is, since the older is there for the day that the newer is
    damaged. The state is a pytree of `jax.Array`. The data position is the step: the first
    step * batch_size examples have been seen. A folder has one writer at a time: a process, or
    several that train the run together and make the same calls. Orbax (0.25 s) is imported by the
    first save, or by the first restore that finds something.

    An asynchronous save returns when the state has been copied to the host and digested; a thread
    does the rest, and the next `save` or `close` waits for it. On CPU it takes as much work of
    the same cores.
    """

    def __init__(
        self,
        folder: Path | str,
        keep: int,
        meta: Meta,
        asynchronous: bool = False,
        points: Collection[int] = (),
    ) -> None:
        self._folder = storage.absolute(folder)
        self._keep = max(keep, 2)
        self._meta = meta.copy()
        self._asynchronous = asynchronous
        self._points = points
        self.joules: Joules = UNKNOWN  # that the run had spent when what was restored was saved
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="record")
        self._unrecorded: Future[None] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(self, step: int, state: Any, joules: Joules = UNKNOWN) -> None:
        """Saves the state after `step` updates; a step that is there already is left as it is.

        All or nothing: without its record, which is written last, a checkpoint does not count.

        Args:
          joules: that the run has spent so far in this process; those of all are added.
        Raises:
          ValueError: a later step is there, so that this one would never be found again.
          StorageError: it cannot be written; the checkpoints before it are as they were.
        """
        import orbax.checkpoint as ocp

        latest = self._manager.latest_step()
        if latest == step:
            return
        if latest is not None and latest > step:
            raise ValueError(f"{self._folder}: step {step} comes after {latest}; restore first")
        self._finish()
        leaves = verified.flatten(state)
        record = {
            "step": step,
            "examples": step * self._meta["batch_size"],
            "meta": self._meta,
            "joules": joules,
            "layout": {path: verified.layout(leaf) for path, leaf in leaves.items()},
        }
        digests = verified.partial_digests(leaves)
        with faults.translated(self._folder / str(step), "written"), unguarded():
            self._manager.save(step, args=ocp.args.StandardSave(leaves))
        if self._asynchronous:
            self._unrecorded = self._thread.submit(self._record, record, digests)
        else:
            self._record(record, digests)

    def restore_latest(self, abstract_state: State) -> tuple[State, int] | None:
        """The newest checkpoint that is intact, and its step; None where there is none.

        Args:
          abstract_state: `jax.ShapeDtypeStruct`s with shardings, in the structure of the state.
            They may be of another mesh than the one that saved.

        A damaged checkpoint is named in one line of the log and renamed to `damaged-<step>-<n>`.

        Raises:
          UserError: the newest sound record is of another run: another horizon, batch, corpus,
            tokenizer or config, or of other arrays.
        """
        if not distributed.on_writer(lambda: bool(storage.children(self._folder))):
            return None
        for step in distributed.agree(sorted(self._manager.all_steps(), reverse=True)):
            state, damage = self._restored(step, abstract_state)
            if not damage:
                return state, step
            aside = distributed.on_writer(partial(self._put_aside, step))
            self._manager.reload()
            logging.warning(
                "checkpoint %s skipped: %s; moved to %s", self._folder / str(step), damage, aside
            )
        return None

    def restore(self, step: int, abstract_state: State) -> State:
        """The checkpoint of one step, for another run that goes on from it; nothing is renamed.

        Raises:
          Damaged: it is, or is not there.
          UserError: as `restore_latest`.
        """
        state, damage = self._restored(step, abstract_state)
        if damage:
            raise Damaged(f"{self._folder / str(step)}: {damage}")
        return state

    def _restored(self, step: int, abstract_state: State) -> tuple[Any, str]:
        """(the state after `step` updates, what is damaged of it, if anything)."""
        record, damage = distributed.agree(verified.read_record(self._folder / str(step)))
        if not damage:
            self._refuse_another_run(step, record, verified.flatten(abstract_state))
            damage = verified.damaged_file(self._folder / str(step), record["files"])
        if not damage:
            leaves = self._read_leaves(step, verified.flatten(abstract_state))
            damage = verified.damaged_leaf(record["leaves"], leaves)
        if damage:
            return None, damage
        self.joules = record.get("joules", UNKNOWN)
        return jax.tree.unflatten(jax.tree.structure(abstract_state), leaves.values()), ""

    def close(self) -> None:
        """Waits until what was saved is durable and frees Orbax's threads."""
        if "_manager" in self.__dict__:
            self._finish()
            self._manager.close()
        self._thread.shutdown()

    @cached_property
    def _manager(self) -> Any:
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import (
            AnyPreservationPolicy,
            CustomSteps,
            LatestN,
        )

        return ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                # max_to_keep together with best_fn would delete the latest.
                preservation_policy=AnyPreservationPolicy(
                    [LatestN(self._keep), CustomSteps([*self._points])]
                ),
                enable_async_checkpointing=self._asynchronous,
                cleanup_tmp_directories=True,  # what a killed save left
                lightweight_initialize=True,  # reads no file of a step that may be damaged
                save_root_metadata=False,
            ),
        )

    def _finish(self) -> None:
        """Waits until the save under way counts."""
        if self._unrecorded is not None:
            self._unrecorded.result()
            self._unrecorded = None

    def _record(self, record: dict[str, Any], digests: dict[str, int]) -> None:
        """Waits until all processes have written, then makes the save count by its record."""
        folder = self._folder / str(record["step"])
        with faults.translated(folder, "written"):
            self._manager.wait_until_finished()
        # Threads of several processes talk here: under names of their own.
        names = distributed.agree(storage.files(folder), "files of a checkpoint")
        of_files = verified.file_digests(folder, distributed.part(names))
        part = (digests, of_files, record["joules"])
        parts = distributed.collect(part, "parts of a checkpoint")
        if distributed.is_writer():
            record["leaves"] = verified.add([leaves for leaves, *_ in parts])
            record["files"] = {
                name: digest for _, files, _ in parts for name, digest in files.items()
            }
            record["joules"] = added(*(joules for *_, joules in parts))
            record["seal"] = verified.seal(record)
            storage.write_text_atomic(folder / verified.RECORD, json.dumps(record))

    def _refuse_another_run(
        self, step: int, record: Mapping[str, Any], leaves: Mapping[str, Any]
    ) -> None:
        saved = {**record["meta"], **record["layout"]}
        asked: dict[str, Any] = {**self._meta} | {
            path: verified.layout(leaf) for path, leaf in leaves.items()
        }
        for name in asked | saved:
            if saved.get(name) != asked.get(name):
                raise UserError(
                    f"{self._folder / str(step)}: the checkpoint has {name} = "
                    f"{saved.get(name, 'absent')}, this run has {asked.get(name, 'absent')}; "
                    f"continue the run as it was begun, or begin another in another folder"
                )

    def _read_leaves(self, step: int, abstract: dict[str, Any]) -> dict[str, jax.Array]:
        import orbax.checkpoint as ocp

        # Its files are sound: what fails now is not damage, and is not skipped.
        with unguarded():
            restored = self._manager.restore(step, args=ocp.args.StandardRestore(abstract))
        return {path: restored[path] for path in abstract}

    def _put_aside(self, step: int) -> str:
        """Renames a damaged checkpoint, so that Orbax neither counts nor prefers it."""
        number = 1
        while storage.exists(aside := self._folder / f"damaged-{step}-{number}"):
            number += 1
        storage.move_folder(self._folder / str(step), aside)
        return aside.name

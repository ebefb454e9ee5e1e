"""Checkpoints of one run: saved atomically, verified when read, refused for another run.

Orbax writes and reads the arrays and decides what is kept; this is the only file that knows it.
What Orbax leaves open is added here: flipped bits restore silently and an empty folder counts as
the latest step. So a record is written last, with a digest of every file and of every leaf, and a
checkpoint that does not match its record is put aside for the one before it.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import jax
import numpy as np
from absl import logging
from jax.experimental import multihost_utils

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError

State = TypeVar("State")

_RECORD = "record.json"
_new_hash = partial(hashlib.blake2b, digest_size=16)


class Meta(TypedDict):
    """What has to be the same for a run to continue, the most telling first."""

    horizon: int  # optimizer steps of the whole run, which its schedule is a function of
    batch_size: int  # sequences in a step
    data: str  # fingerprint of the corpus
    tokenizer: str  # fingerprint
    config: str  # `experiment.config.fingerprint`


class _Damaged(Exception):
    """Why one checkpoint cannot be used."""


class Checkpoints:
    """The checkpoints of one run in `folder`, of which the newest `keep` stay.

    At least two stay whatever `keep` is, since the older is there for the day that the newer is
    damaged. The state is a pytree of `jax.Array`. The data position is the step: the first
    step * batch_size examples have been seen. A folder has one writer at a time. Orbax (0.25 s) is
    imported by the first save, or by the first restore that finds something.

    An asynchronous save returns when the state has been copied to the host and digested, and
    counts from the next `save` or `close` on. On CPU it takes as much work of the same cores.
    """

    def __init__(
        self, folder: Path | str, keep: int, meta: Meta, asynchronous: bool = False
    ) -> None:
        self._folder = storage.absolute(folder)
        self._keep = max(keep, 2)
        self._meta = meta.copy()
        self._asynchronous = asynchronous
        self._unrecorded: dict[str, Any] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(self, step: int, state: Any) -> None:
        """Saves the state after `step` updates; a step that is there already is left as it is.

        All or nothing: without its record, which is written last, a checkpoint does not count.

        Raises:
          ValueError: a later step is there, so that this one would never be found again.
        """
        import orbax.checkpoint as ocp

        latest = self._manager.latest_step()
        if latest == step:
            return
        if latest is not None and latest > step:
            raise ValueError(f"{self._folder}: step {step} comes after {latest}; restore first")
        self._finish()
        leaves = _flatten(state)
        record = {
            "step": step,
            "examples": step * self._meta["batch_size"],
            "meta": self._meta,
            "layout": {path: _layout(leaf) for path, leaf in leaves.items()},
            "leaves": _leaf_digests(leaves),
        }
        self._manager.save(step, args=ocp.args.StandardSave(leaves))
        self._unrecorded = record
        if not self._asynchronous:
            self._finish()

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
        if not storage.children(self._folder):
            return None
        for step in sorted(self._manager.all_steps(), reverse=True):
            try:
                record = self._read_record(step)
                self._refuse_another_run(step, record, _flatten(abstract_state))
                _compare("file", record["files"], _file_digests(self._folder / str(step)))
                return self._read_state(step, record, abstract_state), step
            except (_Damaged, OSError) as reason:
                aside = self._put_aside(step)
                logging.warning(
                    "checkpoint %s skipped: %s; moved to %s",
                    self._folder / str(step),
                    reason,
                    aside.name,
                )
        return None

    def close(self) -> None:
        """Waits until what was saved is durable and frees Orbax's threads."""
        if "_manager" in self.__dict__:
            self._finish()
            self._manager.close()

    @cached_property
    def _manager(self) -> Any:
        import orbax.checkpoint as ocp
        from orbax.checkpoint.checkpoint_managers import AnyPreservationPolicy, LatestN

        return ocp.CheckpointManager(
            self._folder,
            options=ocp.CheckpointManagerOptions(
                # max_to_keep together with best_fn would delete the latest.
                preservation_policy=AnyPreservationPolicy([LatestN(self._keep)]),
                enable_async_checkpointing=self._asynchronous,
                cleanup_tmp_directories=True,  # what a killed save left
                lightweight_initialize=True,  # reads no file of a step that may be damaged
                save_root_metadata=False,
            ),
        )

    def _finish(self) -> None:
        """Waits for the save under way, then makes it count by its record."""
        self._manager.wait_until_finished()
        if self._unrecorded is None:
            return
        record, self._unrecorded = self._unrecorded, None
        if jax.process_index() == 0:
            folder = self._folder / str(record["step"])
            record["files"] = _file_digests(folder)
            record["seal"] = _seal(record)
            storage.write_text_atomic(folder / _RECORD, json.dumps(record))

    def _read_record(self, step: int) -> dict[str, Any]:
        """The record of `step`, as it was written."""
        folder = self._folder / str(step)
        if not storage.children(folder):
            raise _Damaged("its folder is empty")
        try:
            record = json.loads(storage.read_bytes(folder / _RECORD))
            seal = record.pop("seal")
        except FileNotFoundError:
            raise _Damaged(f"it has no {_RECORD}, so its save was cut short") from None
        except (ValueError, TypeError, KeyError, AttributeError):  # not JSON, or not an object
            raise _Damaged(f"its {_RECORD} is not the one that was written") from None
        if seal != _seal(record):
            raise _Damaged(f"its {_RECORD} is not the one that was written")
        if record["step"] != step:
            raise _Damaged(f"its {_RECORD} is that of step {record['step']}")
        return record

    def _refuse_another_run(
        self, step: int, record: Mapping[str, Any], leaves: Mapping[str, Any]
    ) -> None:
        saved = {**record["meta"], **record["layout"]}
        asked: dict[str, Any] = {**self._meta} | {
            path: _layout(leaf) for path, leaf in leaves.items()
        }
        for name in asked | saved:
            if saved.get(name) != asked.get(name):
                raise UserError(
                    f"{self._folder / str(step)}: the checkpoint has {name} = "
                    f"{saved.get(name, 'absent')}, this run has {asked.get(name, 'absent')}; "
                    f"continue the run as it was begun, or begin another in another folder"
                )

    def _read_state(self, step: int, record: Mapping[str, Any], abstract_state: State) -> State:
        import orbax.checkpoint as ocp

        abstract_leaves = _flatten(abstract_state)
        # Its files are sound: what fails now is not damage, and is not skipped.
        restored = self._manager.restore(step, args=ocp.args.StandardRestore(abstract_leaves))
        leaves = {path: restored[path] for path in abstract_leaves}
        _compare("array", record["leaves"], _leaf_digests(leaves))
        return jax.tree.unflatten(jax.tree.structure(abstract_state), list(leaves.values()))

    def _put_aside(self, step: int) -> Path:
        """Renames a damaged checkpoint, so that Orbax neither counts nor prefers it."""
        number = 1
        while storage.exists(aside := self._folder / f"damaged-{step}-{number}"):
            number += 1
        if jax.process_count() > 1:  # nobody renames before everybody has looked
            multihost_utils.sync_global_devices(f"{aside.name} found")
        if jax.process_index() == 0:
            storage.move_folder(self._folder / str(step), aside)
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices(f"{aside.name} renamed")
        self._manager.reload()
        return aside


def _flatten(tree: Any) -> dict[str, Any]:
    """The leaves by path, for example `params.layer_0.query`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _layout(leaf: Any) -> str:
    """Type and shape, for example float32[64,192]."""
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _leaf_digests(leaves: Mapping[str, jax.Array]) -> dict[str, str]:
    """Of each leaf's path, type, shape and values: the same on every mesh."""

    def digest(item: tuple[str, jax.Array]) -> str:
        path, leaf = item
        # A leaf split over hosts is gathered, one at a time.
        whole = leaf.is_fully_addressable or leaf.is_fully_replicated
        array = np.asarray(
            leaf if whole else multihost_utils.process_allgather(leaf, tiled=True), order="C"
        )
        result = _new_hash(f"{path} {_layout(leaf)} ".encode())
        result.update(array.reshape(-1).view(np.uint8).data)
        return result.hexdigest()

    # Between hosts, collectives want the same order everywhere.
    every = map if jax.process_count() > 1 else _threaded_map
    return dict(zip(leaves, every(digest, leaves.items()), strict=True))


def _file_digests(folder: Path) -> dict[str, str]:
    """Of every file that Orbax wrote, by its path in `folder`."""

    def digest(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, _new_hash).hexdigest()

    return {
        name: digest for name, digest in storage.digests(folder, digest).items() if name != _RECORD
    }


def _compare(kind: str, recorded: Mapping[str, str], found: Mapping[str, str]) -> None:
    for name, digest in recorded.items():
        if name not in found:
            raise _Damaged(f"the {kind} {name} is missing")
        if found[name] != digest:
            raise _Damaged(f"the {kind} {name} is not the one that was written")


def _seal(record: Mapping[str, Any]) -> str:
    """Of the record itself, so that a flipped digit in it is not taken for another run."""
    return _new_hash(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _threaded_map(function: Callable[[Any], str], items: Iterable[Any]) -> Iterable[str]:
    """`map` on all cores: copying from devices, reading and hashing release the GIL."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(function, items))

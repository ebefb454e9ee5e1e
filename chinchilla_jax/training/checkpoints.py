"""Checkpoints of one run: saved atomically, verified when read, refused for another run.

Orbax writes and reads the arrays and decides what is kept; this is the only file that knows it.
What Orbax leaves open is added here: flipped bits restore silently and an empty folder counts as
the latest step. So a record is written last, with a digest of every file and of every leaf, and a
checkpoint that does not match its record is put aside for the one before it.

The digests of files name what is damaged, and keep Orbax from reading it; those of leaves hold
from the arrays that were trained to the arrays that were restored, whatever happened between. Both
are split among the processes of a run: each digests the shards that it holds, and its part of the
files, which lie on storage that all of them see.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any, TypedDict, TypeVar

import jax
import numpy as np
from absl import logging

from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.training import distributed
from chinchilla_jax.training.transfers import fetch, unguarded

State = TypeVar("State")
T = TypeVar("T")
R = TypeVar("R")

_RECORD = "record.json"
_new_hash = partial(hashlib.blake2b, digest_size=16)


class Meta(TypedDict):
    """What has to be the same for a run to continue, the most telling first."""

    horizon: int  # optimizer steps of the whole run, which its schedule is a function of
    batch_size: int  # sequences in a step
    data: str  # fingerprint of the corpus
    tokenizer: str  # fingerprint
    model_version: int  # `experiment.version.MODEL_VERSION`
    fingerprint: str  # of the configuration


class Checkpoints:
    """The checkpoints of one run in `folder`, of which the newest `keep` stay.

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
        self, folder: Path | str, keep: int, meta: Meta, asynchronous: bool = False
    ) -> None:
        self._folder = storage.absolute(folder)
        self._keep = max(keep, 2)
        self._meta = meta.copy()
        self._asynchronous = asynchronous
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="record")
        self._unrecorded: Future[None] | None = None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def save(self, step: int, state: Any) -> None:
        """Saves the state after `step` updates; a step that is there already is left as it is.

        All or nothing: without its record, which is written last, a checkpoint does not count.

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
        leaves = _flatten(state)
        record = {
            "step": step,
            "examples": step * self._meta["batch_size"],
            "meta": self._meta,
            "layout": {path: _layout(leaf) for path, leaf in leaves.items()},
        }
        digests = _partial_digests(leaves)
        with storage.faults_of(self._folder / str(step), "written"), unguarded():
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
            record, damage = distributed.agree(self._read_record(step))
            if not damage:
                self._refuse_another_run(step, record, _flatten(abstract_state))
                damage = self._damaged_file(step, record["files"])
            if not damage:
                leaves = self._read_leaves(step, _flatten(abstract_state))
                damage = _damaged_leaf(record["leaves"], leaves)
            if not damage:
                state = jax.tree.unflatten(jax.tree.structure(abstract_state), leaves.values())
                return state, step
            aside = distributed.on_writer(partial(self._put_aside, step))
            self._manager.reload()
            logging.warning(
                "checkpoint %s skipped: %s; moved to %s", self._folder / str(step), damage, aside
            )
        return None

    def close(self) -> None:
        """Waits until what was saved is durable and frees Orbax's threads."""
        if "_manager" in self.__dict__:
            self._finish()
            self._manager.close()
        self._thread.shutdown()

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
        """Waits until the save under way counts."""
        if self._unrecorded is not None:
            self._unrecorded.result()
            self._unrecorded = None

    def _record(self, record: dict[str, Any], digests: dict[str, int]) -> None:
        """Waits until all processes have written, then makes the save count by its record."""
        folder = self._folder / str(record["step"])
        with storage.faults_of(folder, "written"):
            self._manager.wait_until_finished()
        # Threads of several processes talk here: under names of their own.
        names = distributed.agree(storage.files(folder), "files of a checkpoint")
        parts = distributed.collect(
            (digests, _file_digests(folder, distributed.part(names))), "digests of a checkpoint"
        )
        if distributed.is_writer():
            record["leaves"] = _add([leaves for leaves, _ in parts])
            record["files"] = {name: digest for _, files in parts for name, digest in files.items()}
            record["seal"] = _seal(record)
            storage.write_text_atomic(folder / _RECORD, json.dumps(record))

    def _read_record(self, step: int) -> tuple[dict[str, Any], str]:
        """The record of `step` as it was written, or else what is damaged."""
        folder = self._folder / str(step)
        if not storage.children(folder):
            return {}, "its folder is empty"
        try:
            record = json.loads(storage.read_bytes(folder / _RECORD))
            seal = record.pop("seal")
        except FileNotFoundError:
            return {}, f"it has no {_RECORD}, so its save was cut short"
        except (OSError, ValueError, TypeError, KeyError, AttributeError):  # or not an object
            return {}, f"its {_RECORD} is not the one that was written"
        if seal != _seal(record):
            return {}, f"its {_RECORD} is not the one that was written"
        if record["step"] != step:
            return {}, f"its {_RECORD} is that of step {record['step']}"
        return record, ""

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

    def _damaged_file(self, step: int, recorded: Mapping[str, str]) -> str:
        """What is wrong with the files of a step; each process looks at its part."""
        names = distributed.part(sorted(recorded))
        found = _file_digests(self._folder / str(step), names)
        return next(filter(None, distributed.gather(_difference("file", recorded, found))), "")

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


def _flatten(tree: Any) -> dict[str, Any]:
    """The leaves by path, for example `params.layer_0.query`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def _layout(leaf: Any) -> str:
    """Type and shape, for example float32[64,192]."""
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def _partial_digests(leaves: Mapping[str, jax.Array]) -> dict[str, int]:
    """This process's part of the digest of each leaf; those of all processes are to be added.

    The digest of an array is the sum over its elements of bits x key modulo 2**64, where the key
    of an element is the product of an odd random number for its place along each axis. A sum does
    not ask on which device an element lies, so the digest is the same on every mesh and nothing is
    gathered but itself. One changed element always changes it; many, unless by a chance of about
    2**-33 at worst (sign bits alone).
    """

    def sum_here(leaf: jax.Array) -> int:
        shards = (shard for shard in leaf.addressable_shards if shard.replica_id == 0)
        return sum(_weighted_sum(fetch(s.data), s.index) for s in shards) % 2**64

    return dict(zip(leaves, _threaded_map(sum_here, leaves.values()), strict=True))


def _weighted_sum(array: np.ndarray, index: tuple[slice, ...]) -> int:
    bits = array.view(f"u{array.itemsize}").astype(np.uint64)
    for axis in reversed(range(array.ndim)):
        start = index[axis].start or 0
        bits = bits @ _keys(axis, start + array.shape[axis])[start:]
    return int(bits)


@cache
def _keys(axis: int, size: int) -> np.ndarray:
    """The first `size` odd random numbers of an axis, uint64."""
    random = np.random.Generator(np.random.Philox(key=axis))
    return random.integers(2**64, size=size, dtype=np.uint64) | np.uint64(1)


def _add(parts: Iterable[Mapping[str, int]]) -> dict[str, str]:
    """The digests of leaves from the parts of all processes."""
    totals: Counter[str] = Counter()
    for part in parts:
        totals.update(part)
    return {path: f"{total % 2**64:016x}" for path, total in totals.items()}


def _damaged_leaf(recorded: Mapping[str, str], leaves: Mapping[str, jax.Array]) -> str:
    """What is wrong with restored leaves."""
    parts = distributed.collect(_partial_digests(leaves))
    return distributed.agree(_difference("array", recorded, _add(parts)) if parts else "")


def _file_digests(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Of the files of these names; empty for one that cannot be read."""

    def digest(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, _new_hash).hexdigest()

    return storage.digests(folder, names, digest)


def _difference(kind: str, recorded: Mapping[str, str], found: Mapping[str, str]) -> str:
    """The first of `found` that is not as recorded; empty where all are."""
    for name, digest in found.items():
        if digest != recorded.get(name):
            how = "not the one that was written" if digest else "missing or cannot be read"
            return f"the {kind} {name} is {how}"
    return ""


def _seal(record: Mapping[str, Any]) -> str:
    """Of the record itself, so that a flipped digit in it is not taken for another run."""
    return _new_hash(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _threaded_map(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`map` on all cores: copying from devices, reading and hashing release the GIL."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(function, items))

"""What proves that a checkpoint is what was saved: its record, with digests of files and arrays.

The digests of files name what is damaged, and keep Orbax from reading it; those of leaves hold
from the arrays that were trained to the arrays that were restored, whatever happened between. Both
are split among the processes of a run: each digests the shards that it holds, and its part of the
files, which lie on storage that all of them see. Nothing is written here.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from pathlib import Path, PurePath
from typing import Any, TypeVar

import jax
import numpy as np

from chinchilla_jax.experiment import contents, storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.faults import StorageError
from chinchilla_jax.experiment.needs import RECORD
from chinchilla_jax.training import distributed
from chinchilla_jax.training.transfers import fetch

T = TypeVar("T")
R = TypeVar("R")

_new_hash = partial(hashlib.blake2b, digest_size=16)


def read_record(folder: Path) -> tuple[dict[str, Any], str]:
    """The record of the checkpoint in `folder` as it was written, or else what is damaged."""
    if not storage.children(folder):
        return {}, "its folder is empty"
    try:
        record = contents.object_if_there(folder / RECORD)
    except StorageError:
        raise
    except UserError:
        record = {}
    if record is None:
        return {}, f"it has no {RECORD}, so its save was cut short"
    if record.pop("seal", None) != seal(record) or not _is_whole(record):
        return {}, f"its {RECORD} is not the one that was written"
    if str(record["step"]) != folder.name:
        return {}, f"its {RECORD} is that of step {record['step']}"
    return record, ""


def _is_whole(record: Mapping[str, Any]) -> bool:
    """Whether a record has its parts, and names no file outside its folder."""
    parts = {"step": int, "meta": dict, "layout": dict, "leaves": dict, "files": dict}
    if not all(isinstance(record.get(name), kind) for name, kind in parts.items()):
        return False
    return not any(
        PurePath(name).is_absolute() or ".." in name.split("/") for name in record["files"]
    )


def damaged_file(folder: Path, recorded: Mapping[str, str]) -> str:
    """What is wrong with the files of a checkpoint; each process looks at its part."""
    names = distributed.part(sorted(recorded))
    found = file_digests(folder, names)
    return next(filter(None, distributed.gather(_difference("file", recorded, found))), "")


def flatten(tree: Any) -> dict[str, Any]:
    """The leaves by path, for example `params.layer_0.query`."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="."): leaf
        for path, leaf in jax.tree.leaves_with_path(tree)
    }


def layout(leaf: Any) -> str:
    """Type and shape, for example float32[64,192]."""
    return f"{leaf.dtype}[{','.join(map(str, leaf.shape))}]"


def partial_digests(leaves: Mapping[str, jax.Array]) -> dict[str, int]:
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


def add(parts: Iterable[Mapping[str, int]]) -> dict[str, str]:
    """The digests of leaves from the parts of all processes."""
    totals: Counter[str] = Counter()
    for part in parts:
        totals.update(part)
    return {path: f"{total % 2**64:016x}" for path, total in totals.items()}


def damaged_leaf(recorded: Mapping[str, str], leaves: Mapping[str, jax.Array]) -> str:
    """What is wrong with restored leaves."""
    parts = distributed.collect(partial_digests(leaves))
    return distributed.agree(_difference("array", recorded, add(parts)) if parts else "")


def file_digests(folder: Path, names: Sequence[str]) -> dict[str, str]:
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


def seal(record: Mapping[str, Any]) -> str:
    """Of the record itself, so that a flipped digit in it is not taken for another run."""
    return _new_hash(json.dumps(record, sort_keys=True).encode()).hexdigest()


def _threaded_map(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """`map` on all cores: copying from devices, reading and hashing release the GIL."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(function, items))

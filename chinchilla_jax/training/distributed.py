"""Several processes that train one run together, one or more on each host.

JAX's own runtime starts them (`jax.distributed`) and moves arrays between their devices. What it
leaves open is here: who writes, how they agree on what one of them decides, and how the others
end when one dies. Agreements go through the key-value store of JAX's coordination service, not
through devices: they may wait, they carry text, and a background thread may make them.

With a single process everything here is trivial: nothing is started, sent or waited for.
"""

import atexit
import contextlib
import ctypes
import functools
import itertools
import json
import logging
import os
import re
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from chinchilla_jax.experiment.errors import UserError

T = TypeVar("T")

EXIT_PEER_LOST = 75  # EX_TEMPFAIL of sysexits.h: the same command continues
PEER_TIMEOUT = 60.0  # seconds
CONNECT_TIMEOUT = 300.0  # seconds, for the slowest host to start


@dataclass(frozen=True)
class Cluster:
    """How the processes find each other; what is None is found by JAX (TPU)."""

    coordinator: str | None = None  # host:port of process 0
    num_processes: int | None = None
    process_id: int | None = None
    local_device_ids: tuple[int, ...] | None = None  # None: all devices of the host


@dataclass(frozen=True)
class _Group:
    """The processes of this job, once they have met."""

    client: Any  # of JAX's coordination service: a key-value store
    process_id: int
    num_processes: int
    timeout: float


_group: _Group | None = None
_numbers: Any = defaultdict(itertools.count)  # of the agreements under each name
_published = threading.local()  # keys that this thread of process 0 has put for the others to read
_trouble = ""  # why this process cannot go on, while it waits for the others to say so too
_last_words = b""  # printed when C++ aborts the process


def find(
    coordinator: str, num_processes: int | None, process_id: int | None,
    environment: Mapping[str, str] = os.environ,
) -> Cluster | None:  # fmt: skip
    """The job that this process is part of, from flags or else the environment.

    None where it is alone: no flags and no environment of several processes, or just one of them.

    Raises:
      UserError: only some of the flags, or numbers that do not fit.
    """
    if coordinator or num_processes is not None or process_id is not None:
        if num_processes == 1:
            return None
        if not coordinator or num_processes is None or process_id is None:
            raise UserError(
                "--coordinator, --num_processes and --process_id: give all three, for example "
                "--coordinator=host0:8476 --num_processes=4 --process_id=0"
            )
        if not re.fullmatch(r"\S+:\d+", coordinator):
            raise UserError(f"--coordinator={coordinator}: expected HOST:PORT of process 0")
        if not 0 <= process_id < num_processes:
            raise UserError(
                f"--process_id={process_id}: must lie in 0 .. {num_processes - 1}, one below "
                f"--num_processes"
            )
        return Cluster(coordinator, num_processes, process_id)
    return _slurm(environment) or _tpu(environment)


def _slurm(environment: Mapping[str, str]) -> Cluster | None:
    """A step of several tasks. A batch script itself, or a step of one task, is alone."""
    if int(environment.get("SLURM_STEP_NUM_TASKS", 1)) < 2:
        return None
    tasks, nodes, job, step, task, local = (
        int(environment[f"SLURM_{name}"])
        for name in ("STEP_NUM_TASKS", "STEP_NUM_NODES", "JOB_ID", "STEP_ID", "PROCID", "LOCALID")
    )
    # The first of n[07-09,12],m3 is n07; its port tells apart the steps of one allocation.
    name, number = re.match(r"([^,\[]+)(?:\[(\d+))?", environment["SLURM_STEP_NODELIST"]).groups()  # type: ignore[union-attr]
    port = 61440 + (job * 16 + step) % 4096
    # JAX itself would give every task one GPU, also the only task of a node of eight.
    several = tasks > nodes and "," in environment.get("CUDA_VISIBLE_DEVICES", ",")
    return Cluster(f"{name}{number or ''}:{port}", tasks, task, (local,) if several else None)


def _tpu(environment: Mapping[str, str]) -> Cluster | None:
    """A TPU slice of several hosts, or several slices: under GKE told by the environment, on
    TPU VMs by the metadata server. Where JAX finds the rest by itself."""
    import importlib.util

    chips = any(Path("/dev").glob("accel[0-9]*")) or any(Path("/dev/vfio").glob("[0-9]*"))
    if not (chips and importlib.util.find_spec("libtpu")):
        return None
    hosts = environment.get("TPU_PROCESS_ADDRESSES") or environment.get("TPU_WORKER_HOSTNAMES")
    slices = environment.get("MEGASCALE_NUM_SLICES", "1")
    if hosts is None and "TPU_SKIP_MDS_QUERY" not in environment:
        hosts = _metadata("worker-network-endpoints", environment)
        found = re.search(r"MEGASCALE_NUM_SLICES: *'?(\d+)", _metadata("tpu-env", environment))
        slices = found[1] if found else slices
    return Cluster() if "," in (hosts or "") or int(slices) > 1 else None


def _metadata(key: str, environment: Mapping[str, str]) -> str:
    """An attribute of this virtual machine; empty where there is no metadata server."""
    server = environment.get("GCE_METADATA_IP", "metadata.google.internal")
    request = urllib.request.Request(
        f"http://{server}/computeMetadata/v1/instance/attributes/{key}",
        headers={"Metadata-Flavor": "Google"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return str(answer.read().decode())
    except (urllib.error.URLError, OSError):
        return ""


def initialize(
    cluster: Cluster | None,
    timeout: float = PEER_TIMEOUT,
    connect_timeout: float = CONNECT_TIMEOUT,
) -> None:
    """Joins the processes of `cluster`; nothing for None. Before any use of JAX's devices.

    From then on every process sends a sign of life each second, and when one has sent none for
    `timeout` seconds the others print which it was and exit with `EXIT_PEER_LOST`. The loss of
    process 0, which hosts the coordination service, ends them at once.

    Raises:
      UserError: process 0 cannot be reached, or not all came, within `connect_timeout`.
    """
    if cluster is None:
        return
    import jax

    # Gloo is the only one of the CPU's collectives that is built in. Eager reductions over
    # several processes dead-lock if they are dispatched asynchronously.
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_cpu_enable_async_dispatch", False)
    # JAX's own handler of SIGTERM would take the place of ours, `worker.stop_requested`.
    jax.config.update("jax_enable_preemption_service", False)
    if cluster.process_id:
        _await_coordinator(str(cluster.coordinator), cluster.process_id, connect_timeout)
    where = cluster.coordinator or "process 0"
    _install_last_words(
        f"not all {cluster.num_processes or ''} processes came to {where} within "
        f"{connect_timeout:g} seconds; look at the logs of those that are missing"
    )
    try:
        jax.distributed.initialize(
            cluster.coordinator,
            cluster.num_processes,
            cluster.process_id,
            cluster.local_device_ids,
            cluster_detection_method="deactivate" if cluster.coordinator else None,
            initialization_timeout=int(connect_timeout),
            # Later than ours, which is the one that can explain itself.
            heartbeat_timeout_seconds=int(2 * timeout) + 10,
            shutdown_timeout_seconds=int(2 * timeout) + 10,
        )
    except RuntimeError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"the processes cannot meet at {where}: {reason}") from None
    # JAX has no public name for its client; Orbax takes it from here too.
    from jax._src.distributed import global_state

    global _group
    _group = _Group(
        global_state.client, global_state.process_id, global_state.num_processes, timeout
    )
    _install_last_words(f"process 0 ({where}) is gone; the same command continues the run")
    if _group.process_id:  # one voice is enough
        logging.getLogger("chinchilla_jax").setLevel(logging.WARNING)
    stopped = threading.Event()
    watch = threading.Thread(target=_Watch(_group, stopped).run, name="watch", daemon=True)
    watch.start()

    def end_watch() -> None:
        """A thread inside JAX's C++ while the interpreter ends would abort the process."""
        stopped.set()
        watch.join(10)

    atexit.register(end_watch)


def is_writer() -> bool:
    """Whether this process is the one that writes the run directory: process 0."""
    return _group is None or _group.process_id == 0


def process_count() -> int:
    """Processes that work together, 1 where this one is alone."""
    return _group.num_processes if _group else 1


def part(items: list[T]) -> list[T]:
    """The part of a common list that is this process's work."""
    return items[_group.process_id :: _group.num_processes] if _group else items


def collect(value: Any, name: str = "collect") -> list[Any]:
    """The value of every process by its number, in process 0; empty in the others.

    Args:
      value: of JSON.
      name: agreements of one name follow each other in the same order in all processes; threads
        use names of their own.
    """
    if _group is None:
        return [value]
    number = next(_numbers[name])
    if _group.process_id:
        _put(f"{name}/{number}/{_group.process_id}", value)
        return []
    values = [value]
    keys = [f"{name}/{number}/{i}" for i in range(1, _group.num_processes)]
    values += [_get(key) for key in keys]
    # Who came here has read what was agreed before. So the store does not grow with the run.
    for key in keys + _published.__dict__.pop("keys", []):
        _group.client.key_value_delete(_PREFIX + key)
    return values


def agree(value: T, name: str = "agree") -> T:
    """The value of process 0, which is of JSON, in all of them."""
    if _group is None:
        return value
    key = f"{name}/{next(_numbers[name])}"
    if _group.process_id:
        result: T = _get(key)
        return result
    _put(key, value)
    _published.__dict__.setdefault("keys", []).append(key)
    return value


def gather(value: T, name: str = "gather") -> list[T]:
    """The value of every process, by its number, in all of them."""
    return agree(collect(value, f"{name} collect"), f"{name} agree")


def any_process(flag: bool) -> bool:
    """Whether the flag is true in some process."""
    return any(gather(flag))


def in_all_processes(function: Callable[[], T]) -> T:
    """Calls `function` in all processes; what fails in one of them fails in all.

    A process in which it fails waits for the others. Where they wait for it in turn, in the
    middle of a step say, nobody can go on, and all end as for a process that is lost.

    Raises:
      UserError: that of another process.
      Exception: its own.
    """
    if _group is None:
        return function()
    global _trouble
    try:
        result = function()
    except Exception as error:
        _trouble = _one_line(error)
        gather(_trouble, "in_all_processes")
        _trouble = ""
        raise
    for number, trouble in enumerate(gather("", "in_all_processes")):
        if trouble:
            raise UserError(f"process {number}: {trouble}")
    return result


def on_writer(function: Callable[[], T]) -> T:
    """What `function` returns in process 0, the only one to call it, in all of them: of JSON.

    Raises:
      UserError: of process 0, in all of them.
    """
    if _group is None:
        return function()
    outcome: Any = None
    if is_writer():
        try:
            outcome = {"value": function()}
        except UserError as error:
            outcome = {"error": str(error)}
    outcome = agree(outcome, "on_writer")
    if "error" in outcome:
        raise UserError(outcome["error"])
    result: T = outcome["value"]
    return result


def agree_that_same(what: str, value: str) -> None:
    """
    Raises:
      UserError: a process has another value than process 0; the same error in all.
    """
    values = gather(value)
    for number, other in enumerate(values):
        if other != values[0]:
            raise UserError(
                f"{what} of process {number} is {other}, of process 0 {values[0]}; "
                "they must be the same"
            )


class Ballot:
    """What the processes want next, agreed upon between two dispatches without waiting.

    A vote is a maximum over all devices of `mesh`, enqueued behind the dispatch just sent and
    read one call later, when that dispatch is over anyway: the host stays ahead of the devices,
    and since all processes enqueue the same calls, all read the same votes at the same step. One
    reduction of a few bytes a dispatch is its price. (JAX's `reached_preemption_sync_point`
    agrees on a step too, but knows only SIGTERM, and only once in a process.)
    """

    def __init__(self, mesh: Any) -> None:
        self._mesh = mesh
        self._pending: Any = None

    def __call__(self, *wishes: int) -> tuple[int, ...]:
        """The largest wish of any process, each, at the call before; at the first call, now.

        With a single process its wishes, as they are.
        """
        if _group is None:
            return wishes
        import numpy as np
        from jax.sharding import NamedSharding, PartitionSpec

        from chinchilla_jax.training import transfers

        late = self._pending
        where = NamedSharding(self._mesh, PartitionSpec(self._mesh.axis_names))
        shape = (self._mesh.size, len(wishes))

        def row(_: Any) -> np.ndarray:  # of one device
            return np.array([wishes], np.int32)

        votes = transfers.from_shards(shape, where, row)
        self._pending = _maximum(self._mesh)(votes)
        return tuple(int(wish) for wish in transfers.fetch(self._pending if late is None else late))


@functools.cache
def _maximum(mesh: Any) -> Any:
    import jax
    from jax.sharding import NamedSharding, PartitionSpec

    everywhere = NamedSharding(mesh, PartitionSpec())
    return jax.jit(lambda votes: votes.max(axis=0), out_shardings=everywhere)


class _Watch:
    """The thread in every process that sends signs of life and looks for those of the others.

    Process 0 judges; the others look at its verdict, and at its own signs.
    """

    def __init__(self, group: _Group, stopped: threading.Event) -> None:
        self._group = group
        self._stopped = stopped
        self._pause = min(1.0, group.timeout / 10)
        self._heard: dict[int, tuple[int, float]] = {}  # beat and when it was new
        self._troubled: dict[int, float] = {}  # since when
        self._hosts: dict[int, str] = {}

    def run(self) -> None:
        for number in itertools.count():
            if self._stopped.wait(self._pause):
                return
            try:
                self._beat(number)
            except RuntimeError:  # the service is gone: JAX aborts the process, see _last_words
                continue

    def _beat(self, number: int) -> None:
        group = self._group
        _put(f"life/{group.process_id}", [number, socket.gethostname(), _trouble], again=True)
        if group.process_id == 0:
            entries = group.client.key_value_dir_get(f"{_PREFIX}life/")
            lives = {int(key.rpartition("/")[2]): json.loads(value) for key, value in entries}
            if verdict := self._judge(lives, range(group.num_processes)):
                _put("end", verdict)
                time.sleep(3 * self._pause)  # the store ends with us: let the others read it
                _end(verdict)
        else:
            with contextlib.suppress(RuntimeError):  # there is none yet
                _end(json.loads(group.client.key_value_try_get(f"{_PREFIX}end")))
            life = json.loads(group.client.key_value_try_get(f"{_PREFIX}life/0"))
            if verdict := self._judge({0: life}, range(1)):
                _end(verdict)

    def _judge(self, lives: dict[int, Any], numbers: range) -> str:
        """Why the job must end; empty while all is well."""
        now, timeout = time.monotonic(), self._group.timeout
        for i in numbers:
            beat, host, trouble = lives.get(i, (-1, "", ""))
            self._hosts[i] = host
            if self._heard.get(i, (None, 0))[0] != beat:
                self._heard[i] = (beat, now)
            if not trouble:
                self._troubled.pop(i, None)
            self._troubled.setdefault(i, now) if trouble else None
        for i in numbers:
            if now - self._heard[i][1] > timeout:
                return (
                    f"process {i} ({self._hosts[i] or 'unknown host'}) has given no sign of life "
                    f"for {timeout:g} seconds; the same command continues the run"
                )
        for i, since in self._troubled.items():
            if now - since > timeout:
                return f"process {i} ({self._hosts[i]}): {lives[i][2]}"
        return ""


def _end(verdict: str) -> NoReturn:
    """Ends this process, whatever its threads wait for."""
    print(f"error: {verdict}", file=sys.stderr, flush=True)
    os._exit(EXIT_PEER_LOST)


_PREFIX = "chinchilla_jax/"


def _put(key: str, value: Any, again: bool = False) -> None:
    assert _group is not None
    _group.client.key_value_set(_PREFIX + key, json.dumps(value), allow_overwrite=again)


def _get(key: str) -> Any:
    """The value that another process puts there, however long it takes: the watch ends us if
    that one is lost."""
    assert _group is not None
    while True:
        try:
            return json.loads(_group.client.blocking_key_value_get(_PREFIX + key, 60_000))
        except RuntimeError as error:
            if "DEADLINE_EXCEEDED" not in str(error):
                raise


def _await_coordinator(address: str, process_id: int, timeout: float) -> None:
    """JAX's client aborts the process when it cannot connect; this says it in a line."""
    host, _, port = address.rpartition(":")
    deadline = time.monotonic() + timeout
    while True:
        try:
            socket.create_connection((host.strip("[]"), int(port)), 5).close()
            return
        except OSError as error:
            if time.monotonic() > deadline:
                raise UserError(
                    f"process {process_id} cannot reach process 0 at {address} for {timeout:g} "
                    f"seconds: {error.strerror or error}"
                ) from None
        time.sleep(0.2)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _on_abort(_: int) -> None:
    """JAX's C++ aborts the process when the coordination service is gone, from a thread of its
    own and with a stack of its calls: the last line, and the status, are ours."""
    os.write(2, _last_words)
    os._exit(EXIT_PEER_LOST)


def _install_last_words(text: str) -> None:
    global _last_words
    _last_words = f"error: {text}\n".encode()
    ctypes.CDLL(None).signal(signal.SIGABRT, _on_abort)


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text[:300]}"

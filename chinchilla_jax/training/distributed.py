"""Several processes that train one run together, one or more on each host.

JAX's own runtime starts them (`jax.distributed`) and moves arrays between their devices. What it
leaves open is here: who writes, and how they agree on what one of them decides; `cluster.py` is how
they find each other, `peers.py` how the others end when one dies. Agreements go through the
key-value store of JAX's coordination service, not through devices: they may wait, they carry text,
and a background thread may make them.

With a single process everything here is trivial: nothing is started, sent or waited for.
"""

import atexit
import itertools
import logging
import threading
from collections import defaultdict
from collections.abc import Callable
from typing import Any, TypeVar

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.training import peers
from chinchilla_jax.training.cluster import Cluster
from chinchilla_jax.training.peers import Group, Watch

T = TypeVar("T")

PEER_TIMEOUT = 60.0  # seconds
CONNECT_TIMEOUT = 300.0  # seconds, for the slowest host to start


_group: Group | None = None
_numbers: Any = defaultdict(itertools.count)  # of the agreements under each name
_published = threading.local()  # keys that this thread of process 0 has put for the others to read
_trouble = ""  # why this process cannot go on, while it waits for the others to say so too


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
        peers.await_coordinator(str(cluster.coordinator), cluster.process_id, connect_timeout)
    where = cluster.coordinator or "process 0"
    peers.install_last_words(
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
    _group = Group(
        global_state.client, global_state.process_id, global_state.num_processes, timeout
    )
    peers.install_last_words(f"process 0 ({where}) is gone; the same command continues the run")
    if _group.process_id:  # one voice is enough
        logging.getLogger("chinchilla_jax").setLevel(logging.WARNING)
    stopped = threading.Event()
    look = Watch(_group, stopped, lambda: _trouble).run
    watch = threading.Thread(target=look, name="watch", daemon=True)
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
        _group.put(f"{name}/{number}/{_group.process_id}", value)
        return []
    values = [value]
    keys = [f"{name}/{number}/{i}" for i in range(1, _group.num_processes)]
    values += [_group.get(key) for key in keys]
    # Who came here has read what was agreed before. So the store does not grow with the run.
    for key in keys + _published.__dict__.pop("keys", []):
        _group.delete(key)
    return values


def agree(value: T, name: str = "agree") -> T:
    """The value of process 0, which is of JSON, in all of them."""
    if _group is None:
        return value
    key = f"{name}/{next(_numbers[name])}"
    if _group.process_id:
        result: T = _group.get(key)
        return result
    _group.put(key, value)
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


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return text if isinstance(error, UserError) else f"{type(error).__name__}: {text[:300]}"

"""What processes that train together want next: a vote that no step waits for."""

import functools
from typing import Any

from chinchilla_jax.training import distributed


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
        if distributed.process_count() == 1:
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

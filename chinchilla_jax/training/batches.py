"""What the devices need for a dispatch, by the numbers of its updates."""

import functools
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from chinchilla_jax.data.store import Corpus
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.training import devices, sharding
from chinchilla_jax.training.compiled import Compiled
from chinchilla_jax.training.schedules import learning_rates
from chinchilla_jax.training.transfers import from_shards, place


class Batches:
    """The inputs of a run's dispatches, of which each has up to `most` updates."""

    def __init__(self, run: RunConfig, corpus: Corpus, compiled: Compiled) -> None:
        self.most = devices.steps_per_dispatch(run.execution)
        self._run = run
        self._corpus = corpus
        self._split = NamedSharding(compiled.mesh, sharding.TRAIN_BATCH)
        self._everywhere = NamedSharding(compiled.mesh, PartitionSpec())
        self._decay = place(np.float32(run.optimizer.weight_decay), self._everywhere)
        self._count = functools.cache(lambda count: place(np.int32(count), self._everywhere))

    def of(self, step: int, count: int) -> tuple[jax.Array, ...]:
        """Inputs of updates `step` .. `step + count - 1`, on their way to the devices.

        Returns:
          tokens [most, B, S + 1] and rates [most], zeros after the last update; weight decay [];
          count [].
        """
        run = self._run
        rates = np.zeros(self.most, np.float32)
        rates[:count] = learning_rates(run.optimizer, run.steps, step, count)
        shape = (self.most, run.batch_size, run.sequence_length + 1)

        @functools.cache  # devices that share rows, along the tensor axis
        def rows(first: int, last: int) -> np.ndarray:
            """Examples `first` .. `last - 1` of each batch."""
            batch = np.arange(first, last)
            examples = (step + np.arange(count))[:, None] * run.batch_size + batch
            windows = np.zeros((self.most, len(batch), shape[2]), np.int32)
            windows[:count] = self._corpus.examples(run.seed, examples, run.sequence_length)
            return windows

        # Asked for the devices of this process alone: nobody reads the rows of another.
        def shard(index: Any) -> np.ndarray:
            return rows(*index[1].indices(run.batch_size)[:2])

        tokens = from_shards(shape, self._split, shard)
        return tokens, place(rates, self._everywhere), self._decay, self._count(count)

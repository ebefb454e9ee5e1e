"""Text from a trained run, token by token.

A model is never asked for more than it was trained for: the context of a token is at most as long
as its training sequences, W tokens. A text that grows longer goes on from its newest part: each
time it has filled W tokens, the older half of them is forgotten (`forgotten`). That is a rule of
the text alone, so that no token depends on the cache, on other prompts or on devices.

With a cache the prompts are computed once and then a token at a time (`models/decoding.py`);
without, the whole context of each token, by the training forward itself.

Shapes: B prompts, P tokens that they are filled up to, W of a training sequence, N of a dispatch.
"""

import contextlib
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from chinchilla_jax.data.tokenizers import SEPARATOR
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.loading import cache_folder
from chinchilla_jax.experiment.sampling import Sampling
from chinchilla_jax.models import decoding
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.models.products import einsum32
from chinchilla_jax.training import devices, kernels, sharding, threads, transfers, weights
from chinchilla_jax.training.prompts import Printer, encoded
from chinchilla_jax.training.sampling import draw, noise, values
from chinchilla_jax.training.weights import Trained
from chinchilla_jax.training.worker import prepare_jax

log = logging.getLogger(__name__)

MOST = 64  # N
_NOISE = 1 << 24  # random numbers of a dispatch, at most
_DISPATCH_SECONDS = 0.1  # about as long as one may take, so that a reader sees the text grow
_SHORTEST = 16  # tokens that a prompt is filled up to, then powers of two: few programs


def forgotten(length: int, window: int) -> int:
    """How many of a text's first tokens the one after them is predicted without."""
    stride = window - window // 2
    return max(0, -(-(length - window) // stride)) * stride


def uncached(run: RunConfig) -> str:
    """Why a run always computes whole contexts; empty where it need not."""
    if run.model.expert_capacity:
        return (
            "which of a sequence's tokens an expert takes depends on all before (expert_capacity)"
        )
    return ""


class Texts:
    """Texts that grow together, and what of each the next token is predicted from.

    One ends with its document, whose separator is its last token; after `most` new tokens; or,
    where that is None, with the window: no context is ever shortened then.
    """

    def __init__(self, prompts: Sequence[np.ndarray], window: int, most: int | None) -> None:
        self.new = 0  # tokens of each that has not ended
        self._window = window
        self._texts = [[int(token) for token in prompt] for prompt in prompts]
        self._left = [window + 1 - len(t) if most is None else most for t in self._texts]

    def contexts(self) -> list[list[int]]:
        """Of each text; of one that has ended a token, since rows are computed together."""
        return [
            text[forgotten(len(text), self._window) :] if left else text[-1:]
            for text, left in zip(self._texts, self._left, strict=True)
        ]

    def left(self) -> int:
        """Tokens until all have ended, at most."""
        return max(self._left)

    def room(self) -> int:
        """Tokens, with the next one, until a context is shortened or all have ended."""
        pairs = zip(self.contexts(), self._left, strict=True)
        return min(self.left(), *(self._window + 1 - len(c) for c, left in pairs if left))

    def add(self, tokens_BxN: np.ndarray) -> list[np.ndarray]:
        """What of the next tokens belongs to each text."""
        found = []
        for row, tokens in enumerate(tokens_BxN):
            kept = tokens[: self._left[row]]
            ends = np.flatnonzero(kept == SEPARATOR)
            kept = kept[: ends[0] + 1] if len(ends) else kept
            self._left[row] = 0 if len(ends) else self._left[row] - len(kept)
            self._texts[row] += kept.tolist()
            found.append(kept)
        self.new += tokens_BxN.shape[1]
        return found


class Program(NamedTuple):
    """What XLA says of a compiled program; None where it does not."""

    bytes_accessed: float | None  # by all its operations; of a loop by one round
    peak_bytes: int | None  # of its arguments, results and temporaries, on each device


class Generator:
    """The programs of one model, each compiled when it is first called.

    Args:
      trained: with its arrays on `mesh`, which splits the prompts over data.
      cached: whether keys and values are kept.
    """

    def __init__(
        self, trained: Trained, mesh: Mesh, sampling: Sampling, cached: bool = True
    ) -> None:
        run, vocabulary = trained.run, trained.tokenizer.vocab_size
        self._run, self._mesh, self._sampling, self._vocabulary = run, mesh, sampling, vocabulary
        self._dtype = devices.compute_dtype(run.training)
        self.window, self.cached = run.sequence_length, cached and not uncached(run)
        with jax.set_mesh(mesh):
            self._weights = weights.as_multiplied(trained, self._dtype), trained.carried
        self._scalars = tuple(map(self._placed, values(sampling, vocabulary)))
        options = devices.compiler_options(mesh.size, run.model.width)
        self.begin = jax.jit(self._begin, static_argnames="slots", compiler_options=options)
        # Products with a row or a few are not worth sharing among threads.
        options = devices.compiler_options(mesh.size, width=0)
        self.advance = jax.jit(self._advance, donate_argnums=2, compiler_options=options)

    def stream(
        self, prompts: Sequence[np.ndarray], most: int | None = None
    ) -> Iterator[list[np.ndarray]]:
        """New tokens of each text, dispatch by dispatch, as `Texts` ends them.

        Args:
          prompts: token ids of each, at least one.
        """
        texts = Texts(prompts, self.window, most)
        while texts.left():
            room = texts.room()
            token_B, cache = self.prompted(texts.contexts(), texts.new, room - 1)
            yield texts.add(transfers.fetch(token_B)[:, None])
            done, count = 1, 1
            while self.cached and done < room and texts.left():
                began = time.perf_counter()
                count = min(count, room - done)
                tokens_BxN, token_B, cache = self.continued(token_B, cache, texts.new, count)
                count = min(count, tokens_BxN.shape[1])
                yield texts.add(transfers.fetch(tokens_BxN)[:, :count])
                done += count
                if time.perf_counter() - began < _DISPATCH_SECONDS:
                    count *= 2

    def prompted(self, contexts: Sequence[Sequence[int]], number: int, more: int) -> Any:
        """(the next token of each, [B], the cache with room for `more` after it).

        Args:
          number: of the next token among the new ones.
        """
        arguments = self._prompt(contexts, number)
        slots = arguments[2].shape[1] + _power(more) if self.cached else 0
        with jax.set_mesh(self._mesh):
            return self.begin(*arguments, slots=slots)

    def _prompt(self, contexts: Sequence[Sequence[int]], number: int) -> tuple[Any, ...]:
        """What `begin` takes."""
        longest = max(map(len, contexts))
        filled = min(_power(longest), self.window) if self.cached else self.window
        tokens_BxP = np.zeros((len(contexts), filled), np.int32)
        for row, context in enumerate(contexts):
            tokens_BxP[row, : len(context)] = context
        lengths_B = np.array([len(context) for context in contexts], np.int32)
        rows = PartitionSpec(sharding.BATCH)
        return (
            *self._weights,
            transfers.place(tokens_BxP, NamedSharding(self._mesh, sharding.EVAL_BATCH)),
            transfers.place(lengths_B, NamedSharding(self._mesh, rows)),
            self._placed(np.int32(number)),
            self._scalars,
        )

    def continued(self, token_B: Any, cache: Any, number: int, count: int) -> Any:
        """(up to `count` tokens after `token_B`, [B, N], the last one of each, [B], the cache)."""
        numbers = (self._placed(np.int32(n)) for n in (number, count))
        with jax.set_mesh(self._mesh):
            return self.advance(*self._weights, (token_B, cache), *numbers, self._scalars)

    def program(self, length: int, more: int) -> Program:
        """What XLA says of the program that writes `more` tokens after a context of `length`."""
        token_B, cache = self.prompted([[1] * length], 0, more)
        if self.cached:
            scalars = (self._placed(np.int32(n)) for n in (1, more))
            arguments = (*self._weights, (token_B, cache), *scalars, self._scalars)
            with jax.set_mesh(self._mesh):
                compiled = self.advance.lower(*arguments).compile()
        else:
            with jax.set_mesh(self._mesh):
                compiled = self.begin.lower(*self._prompt([[1] * length], 0), slots=0).compile()
        memory, costs = compiled.memory_analysis(), compiled.cost_analysis()
        return Program(
            bytes_accessed=costs.get("bytes accessed") if isinstance(costs, dict) else None,
            peak_bytes=memory
            and memory.argument_size_in_bytes
            + memory.output_size_in_bytes
            - memory.alias_size_in_bytes
            + memory.temp_size_in_bytes,
        )

    @property
    def number_bytes(self) -> int:
        """Of a key or a value that is kept."""
        return int(self._dtype.itemsize)

    def _placed(self, value: np.generic) -> jax.Array:
        return transfers.place(value, NamedSharding(self._mesh, PartitionSpec()))

    def _decoder(self, sequence: int) -> Decoder:
        run, mesh = self._run, self._mesh
        fused = kernels.fused_attention(devices.platform(), mesh, run.model, self._dtype, sequence)
        layout = sharding.layout(mesh)
        return weights.decoder_of(run, dtype=self._dtype, layout=layout, fused=fused)

    def _noise(self, first: jax.Array, count: int, rows: int, scalars: Any) -> jax.Array:
        return noise(first, count, (rows, self._vocabulary), self._sampling, scalars)

    def _drawn(
        self, model: Decoder, used: Any, x_BxD: jax.Array, noise_BxV: jax.Array, scalars: Any
    ) -> jax.Array:
        readout_DxV: Any = model.apply({"params": used}, method="readout_DxV")
        logits_BxV = einsum32("bd,dv->bv", x_BxD, readout_DxV)[:, : self._vocabulary]
        return draw(logits_BxV, noise_BxV, self._sampling, scalars)

    def _begin(
        self,
        used: Any,
        carried: Any,
        tokens_BxP: jax.Array,
        lengths_B: jax.Array,
        number: jax.Array,
        scalars: Any,
        slots: int,
    ) -> Any:
        def forward(model: Decoder, used: Any, tokens: jax.Array) -> Any:
            keeping, kept = decoding.keeping(model) if slots else (model, [])
            passed: Any = keeping.apply({"params": used}, tokens, method="hidden_and_sums")
            x_TxD, sums = passed
            x_BxPxD = x_TxD.reshape(*tokens.shape, -1)
            x_BxD = jnp.take_along_axis(x_BxPxD, lengths_B[:, None, None] - 1, axis=1)[:, 0]
            cache = decoding.begun(model, used, kept, lengths_B, slots, self.window)
            return (x_BxD, cache), sums

        ours = weights.method(self._run, self._decoder(tokens_BxP.shape[1]), forward)
        passed: Any = ours.forward(used, carried, tokens_BxP)
        x_BxD, cache = passed[0]
        noise_BxV = self._noise(number, 1, lengths_B.shape[0], scalars)[0]
        return self._drawn(ours.model, used, x_BxD, noise_BxV, scalars), cache

    def _advance(
        self,
        used: Any,
        carried: Any,
        state: tuple[jax.Array, decoding.Cache],
        number: jax.Array,
        count: jax.Array,
        scalars: Any,
    ) -> Any:
        def forward(model: Decoder, used: Any, state: Any) -> Any:
            token_B, cache = state
            x_BxD, cache, sums = decoding.step(model, used, cache, token_B)
            return (x_BxD, cache), sums

        ours = weights.method(self._run, self._decoder(1), forward)

        def one(i: jax.Array, all_: Any) -> Any:
            tokens_NxB, state = all_
            passed: Any = ours.forward(used, carried, state)
            x_BxD, cache = passed[0]
            token_B = self._drawn(ours.model, used, x_BxD, noise_NxBxV[i], scalars)
            return tokens_NxB.at[i].set(token_B), (token_B, cache)

        rows = state[0].shape[0]
        most = max(1, min(MOST, _NOISE // (rows * self._vocabulary)))
        noise_NxBxV = self._noise(number, most, rows, scalars)
        none = jnp.zeros((most, rows), jnp.int32)
        count = jnp.minimum(count, most)
        tokens_NxB, (token_B, cache) = jax.lax.fori_loop(0, count, one, (none, state))
        return tokens_NxB.T, token_B, cache


def write(
    folder: Path,
    prompts: Sequence[str],
    most: int | None,
    sampling: Sampling,
    cached: bool,
    tensor: int,
    show: Callable[[str], object],
) -> None:
    """Texts of the run in `folder`, shown as they grow.

    Raises:
      UserError: it is no finished run, a prompt cannot be one, or `tensor` does not fit.
    """
    source = weights.finished(folder)
    run, tokenizer = source.run, weights.tokenizer(source)
    tokens = [encoded(prompt, tokenizer, run.sequence_length) for prompt in prompts]
    threads.use(threads.serving([run.model.width]))
    prepare_jax(cache_folder())
    with asked_by_flag(tensor):
        mesh = sharding.make_mesh(Execution(tensor=tensor), len(prompts))
        trained = weights.load(source, mesh)
    generator = Generator(trained, mesh, sampling, cached)
    log.info("%s: loss %.4f at its end", run.run_id, source.loss)
    if cached and (why := uncached(run)):
        log.info("no cache: %s", why)
    window = run.sequence_length
    if max(len(t) + (most or 0) for t in tokens) > window + 1:
        log.info(
            "trained on sequences of %d tokens: beyond, a token is predicted from the newest "
            "%d to %d", window, window // 2 + 1, window,
        )  # fmt: skip
    printer = Printer(prompts, tokenizer, show)
    with transfers.guards():
        for new in generator.stream(tokens, most):
            for row, row_tokens in enumerate(new):
                printer.add(row, row_tokens)
    printer.ended()


@contextlib.contextmanager
def asked_by_flag(tensor: int) -> Iterator[None]:
    """What a mesh of so many devices does not fit, as a fault of the flag --tensor."""
    try:
        yield
    except UserError as error:
        where, _, why = str(error).partition(": ")
        if where.startswith("execution"):
            raise UserError(f"--tensor={tensor}: {why}") from None
        raise


def _power(n: int) -> int:
    return max(_SHORTEST, 1 << (n - 1).bit_length())

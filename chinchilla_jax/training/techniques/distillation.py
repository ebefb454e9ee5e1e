"""How a student is trained: by its teacher's next-token distributions, computed on line.

Shapes: T tokens, D and U widths of student and teacher, V vocabulary. The logits of both exist for
a chunk of tokens at a time (`models/loss.py`).
"""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.ledger import facts
from chinchilla_jax.experiment.mup import Scaling
from chinchilla_jax.models.decoder import Decoder
from chinchilla_jax.models.loss import CROSS_ENTROPY, Sums, TokenLoss
from chinchilla_jax.models.module import in_compute_dtype
from chinchilla_jax.models.products import einsum32
from chinchilla_jax.techniques.distillation import Distillation, compared, layers_taken
from chinchilla_jax.techniques.technique import Facts
from chinchilla_jax.training import devices, given
from chinchilla_jax.training.initial import abstract_params
from chinchilla_jax.training.method import Carried, Inputs, Method
from chinchilla_jax.training.sharding import EVAL_BATCH, batch_divisor, with_shardings
from chinchilla_jax.training.sources import Sources
from chinchilla_jax.training.step import TrainState
from chinchilla_jax.training.techniques.hooks import Evaluate, Given, Hooks
from chinchilla_jax.training.transfers import place

NAME = "distillation"
WINDOWS, REPEATS = 8, 10  # of each device, and how often: to measure the time of a token


def _teachers_logits(targets: Any, readout_UxV: jax.Array) -> jax.Array:
    _, x_TxU = targets
    return einsum32("...u,uv->...v", x_TxU, readout_UxV)


@functools.cache
def token_loss(weight: float, temperature: float) -> TokenLoss:
    """(1 - weight) cross-entropy + weight temperature^2 KL(teacher || student) of each token.

    Its targets are (next tokens [T], hidden states of the teacher [T, U]), its constant the
    teacher's readout [U, V]. Cross-entropy by itself is beside it. Hinton et al. 2015, section 2.
    """

    def value(logits: jax.Array, targets: Any, readout_UxV: jax.Array) -> jax.Array:
        log_teacher = jax.nn.log_softmax(_teachers_logits(targets, readout_UxV) / temperature)
        log_student = jax.nn.log_softmax(logits / temperature)
        kl = jnp.sum(jnp.exp(log_teacher) * (log_teacher - log_student), axis=-1)
        nats = CROSS_ENTROPY.value(logits, targets[0], ())
        return (1 - weight) * nats + weight * temperature**2 * kl

    def gradient(logits: jax.Array, targets: Any, readout_UxV: jax.Array) -> jax.Array:
        teacher = jax.nn.softmax(_teachers_logits(targets, readout_UxV) / temperature)
        apart = jax.nn.softmax(logits / temperature) - teacher
        from_text = CROSS_ENTROPY.gradient(logits, targets[0], ())
        return (1 - weight) * from_text + weight * temperature * apart

    def beside(logits: jax.Array, targets: Any, readout_UxV: jax.Array) -> Sums:
        return {"loss": CROSS_ENTROPY.value(logits, targets[0], ())}

    return TokenLoss(value, gradient, beside)


def _teacher(method: Method, config: Distillation, known: Facts) -> Decoder:
    other = known.other(config.teacher)
    assert other is not None
    return method.decoder(other.model, Scaling(other.base_width, other.parametrization))


def _distilled(method: Method, config: Distillation, known: Facts) -> Method:
    """The method with the teacher in its loss; as it is where the teacher has no weight in it."""
    if not config.weight:
        return method
    teacher = _teacher(method, config, known)
    of = token_loss(config.weight, config.temperature)

    def loss(inputs: Inputs, carried: Carried, tokens_BxS1: jax.Array) -> tuple[jax.Array, Sums]:
        variables = {"params": given.of(carried, NAME)}
        x_TxU: Any = teacher.apply(variables, tokens_BxS1[:, :-1], method="hidden")
        readout_UxV: Any = teacher.apply(variables, method="readout_DxV")
        targets = inputs.targets_T, jax.lax.stop_gradient(x_TxU)
        return method.total_loss(
            inputs.x_TxD, inputs.readout_DxV, targets, of=of, constants=readout_UxV
        )

    return dataclasses.replace(method, loss=loss)


def _shapes(method: Method, config: Distillation, known: Facts) -> Any:
    """The teacher's parameters as its products take them; none where it has no weight."""
    if not config.weight:
        return {}
    return _as_multiplied(_teacher(method, config, known))


def _as_multiplied(teacher: Decoder) -> Any:
    """Shapes and dtypes of its parameters, in the precision of products."""
    cast = functools.partial(in_compute_dtype, dtype=teacher.dtype)
    return jax.eval_shape(cast, abstract_params(teacher))


def _arrays(like: Any, config: Distillation, sources: Sources) -> Any:
    return sources[config.teacher].params(like) if like else like


def _start(state: TrainState, config: Distillation, run: RunConfig, sources: Sources) -> TrainState:
    """The student begins with every n-th layer of its teacher and all that is no layer."""
    if config.start != "teacher":
        return state
    source = sources[config.teacher]
    scanned = "layers" in state.params
    teacher = Decoder(source.other.model, scaling=Scaling(), scan=scanned)
    where: Any = state.step.sharding
    params = source.params(with_shardings(abstract_params(teacher), where.mesh))
    taken = layers_taken(run.model, source.other.model)
    started = {name: params[name] for name in state.params if not name.startswith("layers")}
    if scanned:
        every = jax.jit(
            lambda layers: jax.tree.map(lambda w: w[jnp.array(taken)], layers),
            out_shardings=jax.tree.map(lambda w: w.sharding, state.params["layers"]),
        )
        started["layers"] = every(params["layers"])
    else:
        started |= {f"layers_{i}": params[f"layers_{layer}"] for i, layer in enumerate(taken)}
    return state.replace(params=started)


def _finish(
    state: TrainState, config: Distillation, run: RunConfig, evaluate: Evaluate
) -> dict[str, Any]:
    """How much of its teacher the student is: see `techniques.distillation.compared`."""
    source, method = evaluate.sources[config.teacher], evaluate.method
    known = facts(run)
    teacher = _teacher(method, config, known)
    where: Any = state.step.sharding
    if config.weight:
        held = given.of(state.techniques, NAME)
    else:
        held = source.params(with_shardings(_as_multiplied(teacher), where.mesh))
    windows = np.zeros((WINDOWS * batch_divisor(where.mesh), run.sequence_length + 1), np.int32)
    tokens = place(windows, NamedSharding(where.mesh, EVAL_BATCH))

    def student_loss(weights: Any, carried: Carried, tokens_BxS1: jax.Array) -> jax.Array:
        return method.total_loss(*method.forward(weights, carried, tokens_BxS1)[0])[0]

    def teacher_loss(weights: Any, tokens_BxS1: jax.Array) -> jax.Array:
        variables = {"params": weights}
        x_TxU: Any = teacher.apply(variables, tokens_BxS1[:, :-1], method="hidden")
        readout_UxV: Any = teacher.apply(variables, method="readout_DxV")
        return method.total_loss(x_TxU, readout_UxV, tokens_BxS1[:, 1:].reshape(-1))[0]

    weights = jax.jit(method.weights)(state.params, state.techniques)
    seconds = _fastest(
        functools.partial(jax.jit(student_loss), weights, state.techniques, tokens),
        functools.partial(jax.jit(teacher_loss), held, tokens),
    )
    per_token = [each / windows[:, 1:].size for each in seconds]
    loss = evaluate.outcomes["loss"]
    return compared(known, config, loss, source.loss, *per_token)


def _fastest(*calls: Callable[[], jax.Array]) -> list[float]:
    """Seconds of each call, the least of some, in turns: what else goes on slows all alike.

    On a CPU those of its processors, which others want too: a longer call would wait more often.
    """
    clock = time.process_time if devices.on_cpu() else time.perf_counter
    taken: list[list[float]] = [[] for _ in calls]
    for _ in range(1 + REPEATS):  # the first one compiles
        for seconds, call in zip(taken, calls, strict=True):
            begun = clock()
            jax.block_until_ready(call())
            seconds.append(clock() - begun)
    return [min(seconds[1:]) for seconds in taken]


HOOKS = Hooks(method=_distilled, given=Given(_shapes, _arrays), start=_start, finish=_finish)

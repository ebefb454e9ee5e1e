"""What a run holds and costs, from its configuration: the ledger, each figure a column."""

import functools

from chinchilla_jax import techniques
from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.counting import (
    attention_flops,
    backward_flops,
    flops_per_step,
    forward_flops,
    product_flops,
)
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.parameters import (
    FLOAT32,
    Parameter,
    active,
    parameters,
    products,
    stored,
)
from chinchilla_jax.techniques.technique import Facts, Ledger, Weights


def ledger(run: RunConfig) -> Ledger:
    """The ledger of a run, exactly."""
    known = facts(run)
    return techniques.changed_ledger(dense(known), run.techniques, known)


def facts(run: RunConfig) -> Facts:
    """What techniques may know of a run."""
    return Facts(
        model=run.model,
        batch_size=run.batch_size,
        sequence_length=run.sequence_length,
        steps=run.steps,
        needs=run.needs,
    )


def dense(facts: Facts) -> Ledger:
    """The ledger of a dense run: every weight is kept in float32, is not 0 and does its work.

    Inference is counted at the context that the run trains with.
    """
    model, batch, sequence = facts.model, facts.batch_size, facts.sequence_length

    def total(convention: str) -> int:
        return facts.steps * flops_per_step(model, batch, sequence, convention)

    return Ledger(
        weights=_all_weights(model),
        training={
            "forward": facts.steps * forward_flops(model, batch, sequence),
            "backward": facts.steps * backward_flops(model, batch, sequence),
        },
        flops_chinchilla=total("chinchilla"),
        flops_six_nd=total("six_nd"),
        attention=attention_flops(model, sequence),
        context=sequence,
        needs=facts.needs,
    )


@functools.lru_cache(maxsize=1024)
def _all_weights(model: ModelConfig) -> tuple[Weights, ...]:
    return tuple(_weights(p, model) for p in parameters(model))


def _weights(p: Parameter, model: ModelConfig) -> Weights:
    numbers = stored(p, model)
    flops = product_flops(p, model) if p in products(model) else 0
    return Weights(
        name=p.name,
        group=p.group,
        kind=p.kind,
        stored=numbers,
        nonzero=numbers,
        average=numbers,
        active=active(p, model),
        bytes_at_rest=FLOAT32 * numbers,
        prefill=flops,
        # Projected distances are the same for every token: they are kept.
        decode=0 if p.product == "distance" else flops,
    )

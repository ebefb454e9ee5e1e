"""Distillation: a student learns the next-token distributions of a teacher, another run.

The loss is (1 - weight) cross-entropy + weight temperature^2 KL(teacher || student), both softened
by the temperature (Hinton et al. 2015, arXiv 1503.02531, section 2). Busbridge et al. 2025 (arXiv
2502.08606, section 4 and appendix G) find weights over .5 alike, temperature 1 best, and the whole
distribution better than its largest entries; the teacher computes it on line, for the student's
own tokens. A student may also start from evenly spaced layers of its teacher, with or without its
distributions (Sanh et al. 2019, DistilBERT, arXiv 1910.01108, section 3: every second layer).

What the teacher costs is told in parts, to be charged as asked (Busbridge et al., equation 9):
`flops_teacher` is its forward pass on the student's tokens, `needs_flops` and `needs_tokens` its
own training. Both FLOPs are counted by `matmul`, whatever the convention of the student's own.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from chinchilla_jax.experiment.counting import count_params, forward_flops
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.parameters import FLOAT32
from chinchilla_jax.experiment.schema import one_of, positive, require
from chinchilla_jax.techniques.teachers import STUDENTS
from chinchilla_jax.techniques.technique import Facts, Ledger, Technique, listed

_WHERE = "techniques.distillation"
STARTS = ("random", "teacher")


@dataclass(frozen=True, kw_only=True)
class Distillation:
    """Whom a student learns from, and how."""

    # Another run: `3e12-48x3` (that budget and size, the student's seed), a run id, or the path of
    # a run's folder or of one of its checkpoints. Empty: none of it.
    teacher: str = field(default="", metadata={"short": "T"})
    weight: float = 0.9  # of the teacher's distributions in the loss; the rest is of the text
    temperature: float = 1.0
    start: str = "random"  # teacher: from evenly spaced layers of the teacher, of equal width

    def __post_init__(self) -> None:
        require(0 <= self.weight <= 1, f"{_WHERE}.weight", self.weight, "must lie between 0 and 1")
        positive(_WHERE, temperature=self.temperature)
        one_of(f"{_WHERE}.start", self.start, STARTS)


def layers_taken(student: ModelConfig, teacher: ModelConfig) -> tuple[int, ...]:
    """Of which layer of the teacher each of the student's starts: every n-th, from the first."""
    return tuple(range(0, teacher.depth, teacher.depth // student.depth))


def _reduced(config: Distillation) -> Distillation:
    return config if config.teacher else Distillation()


def _needs(config: Distillation) -> Mapping[str, str]:
    return {"teacher": config.teacher}


def _misfit(config: Distillation, facts: Facts) -> str:
    """Why the student cannot start from its teacher.

    Raises:
      UserError: a teacher of another vocabulary.
    """
    teacher = facts.other(config.teacher)
    if teacher is None:
        return ""
    if teacher.model.vocab_size != facts.model.vocab_size:
        raise UserError(
            f"{_WHERE}.teacher: {teacher.run} has a vocabulary of {teacher.model.vocab_size}, and "
            f"the student {facts.model.vocab_size}; a teacher has the student's tokenizer"
        )
    if config.start == "teacher":
        if replace(facts.model, depth=teacher.model.depth) != teacher.model:
            return f"cannot start from {teacher.run}: only its depth may differ from the teacher's"
        if teacher.model.depth % facts.model.depth:
            return (
                f"cannot start from {teacher.run}: {facts.model.depth} layers are not every "
                f"n-th of {teacher.model.depth}"
            )
    return ""


def _ledger(ledger: Ledger, config: Distillation, facts: Facts) -> Ledger:
    """With the teacher's forward pass on the student's tokens."""
    teacher = facts.other(config.teacher)
    if teacher is None or not config.weight:
        return ledger
    step = forward_flops(teacher.model, facts.batch_size, facts.sequence_length)
    return ledger.add("teacher", facts.steps * step)


def words(fields: Mapping[str, str]) -> str:
    """`distilled from 3e12-48x3`, with what else differs behind it."""
    rest = {name: value for name, value in fields.items() if name not in ("teacher", "start")}
    if "teacher" not in fields:
        return f"distillation {listed(fields)}"
    layers = "begun from its layers" if fields.get("start") == "teacher" else ""
    return ", ".join(filter(None, [f"distilled from {fields['teacher']}", layers, listed(rest)]))


MEASURES = tuple(
    f"distillation_{name}"
    for name in (
        "quality", "size", "time", "teacher_loss", "seconds_per_token", "teacher_seconds_per_token",
    )
)  # fmt: skip


def compared(
    facts: Facts,
    config: Distillation,
    loss: float,
    teacher_loss: float | None,
    seconds: float,
    teacher_seconds: float,
) -> dict[str, float | None]:
    """How much of its teacher a student is, as DistilBERT is told of (Sanh et al. 2019, section 4).

    Its quality is the share of what the teacher saves against a uniform guess, in nats per token;
    the time is that of a token in a forward pass, as measured side by side.

    Args:
      loss: on the held-out text, nats per token; the teacher's is None where it is not known.
    """
    teacher = facts.other(config.teacher)
    assert teacher is not None
    guess = math.log(facts.model.vocab_size)
    quality = None if teacher_loss is None else (guess - loss) / (guess - teacher_loss)
    size = count_params(facts.model).total / count_params(teacher.model).total
    values = (quality, size, seconds / teacher_seconds, teacher_loss, seconds, teacher_seconds)
    return dict(zip(MEASURES, values, strict=True))


def told(means: Mapping[str, float]) -> str:
    """`it has 97 % of its teacher's quality at 60 % of its size and 61 % of its time per token`."""
    quality, size, time = (means.get(name) for name in MEASURES[:3])
    if quality is None or size is None or time is None:
        return ""
    return (
        f"it has {100 * quality:.1f} % of its teacher's quality (nats saved against a uniform "
        f"guess) at {100 * size:.0f} % of its size and {100 * time:.0f} % of its time per token"
    )


def teacher_bytes(config: Distillation, facts: Facts) -> int:
    """Of the weights that it computes with, in float32 at most."""
    teacher = facts.other(config.teacher)
    if teacher is None or not config.weight:
        return 0
    return FLOAT32 * count_params(teacher.model).total


TECHNIQUE = Technique(
    name="distillation",
    off=Distillation(),
    reduced=_reduced,
    needs=_needs,
    misfit=_misfit,
    ledger=_ledger,
    words=words,
    carried=teacher_bytes,
    measures=MEASURES,
    told=told,
    laws=(STUDENTS,),
)

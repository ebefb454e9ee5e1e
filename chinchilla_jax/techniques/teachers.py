"""Laws of distillation: a student's loss from its size, its tokens and the loss of its teacher.

Busbridge et al. 2025 (arXiv 2502.08606): a teacher enters only by its loss L_T. A better one helps
until it is so much better than the student can be that it hurts: the capacity gap, a bend where L_T
falls under d1 times the loss L of the student trained without it. Parameters are without embedding
and readout; losses in nats per token of C4 in a vocabulary of 32168.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from chinchilla_jax.techniques.law import DENSE_LOSS, Array, Law, Values, power_terms

# Published constants: supervised training (equation 1, 73 runs), students (equation 8, 697 runs).
SUPERVISED = {
    "E": 1.220, "A": 3355.0, "B": 18186.0, "alpha": 0.408, "beta": 0.431, "gamma": 0.452,
}  # fmt: skip
STUDENT = {
    "A": 2243.0, "B": 24181.0, "alpha": 0.321, "beta": 0.637, "gamma": 0.764,
    "c0": 2.549, "c1": 522.6, "f1": 0.090, "d1": 1.315,
}  # fmt: skip


def _resources(params: Array, tokens: Array, p: Mapping[str, float]) -> Array:
    """(A/N^alpha + B/D^beta)^gamma."""
    return np.asarray(
        (p["A"] * params ** -p["alpha"] + p["B"] * tokens ** -p["beta"]) ** p["gamma"]
    )


def supervised_loss(params: Array | float, tokens: Array | float) -> Array:
    """Nats per token of a model that is trained on text alone (their equation 1)."""
    return SUPERVISED["E"] + _resources(np.asarray(params), np.asarray(tokens), SUPERVISED)


def student_loss(
    params: Array | float, tokens: Array | float, teacher_loss: Array | float
) -> Array:
    """Nats per token of a student after `tokens` of pure distillation (their equation 8)."""
    alone = supervised_loss(params, tokens)
    columns = {"params": params, "tokens": tokens, "dense_loss": alone}
    return STUDENTS.predict(STUDENT, teacher_loss=teacher_loss, **columns)


def _help(p: Values, x: Values) -> Array:
    """What is left to learn beside the teacher's loss, without the student's resources."""
    teacher = x["teacher_loss"]
    bend = 1 + (teacher / (x["dense_loss"] * p["d1"])) ** (1 / p["f1"])
    return np.asarray(teacher ** -p["c0"] * bend ** (-p["c1"] * p["f1"]))


def _form(p: Values, x: Values) -> Array:
    """Between two limits: an endless student reaches its teacher, and a teacher that knows nothing
    teaches nothing."""
    resources = p["A"] * x["params"] ** -p["alpha"] + p["B"] * x["tokens"] ** -p["beta"]
    return np.asarray(x["teacher_loss"] + _help(p, x) * resources ** p["gamma"])


def _linear(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    rest = _help(p, x) ** (1 / p["gamma"])
    return (rest * x["params"] ** -p["alpha"], rest * x["tokens"] ** -p["beta"]), p["gamma"]


STUDENTS = Law(
    name="students",
    formula="L = T + T^-c0 [1 + (T/(d1 L0))^(1/f1)]^(-c1 f1) (A/N^alpha + B/D^beta)^gamma, T the "
    "teacher's loss, L0 that of the same run without it",
    source="Busbridge et al. 2025, arXiv 2502.08606, equation 8",
    columns=("params", "tokens", "teacher_loss", DENSE_LOSS),
    parameters=tuple(STUDENT),
    form=_form,
    ranges={
        "alpha": (0.1, 0.9), "beta": (0.2, 1.0), "gamma": (0.3, 1.2), "c0": (0.5, 5.0),
        "c1": (50.0, 2000.0), "f1": (0.03, 0.3), "d1": (1.05, 1.6),
    },
    linear=_linear,
    natural=power_terms("A", "B"),
    offset=lambda x: x["teacher_loss"],
    aliases={"teacher_loss": ("distillation_teacher_loss",)},
    apart=("distillation_weight", "distillation_temperature", "distillation_start"),
    gap=("teacher_loss", "d1"),
)  # fmt: skip

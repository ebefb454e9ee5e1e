"""Laws of distillation: a student's loss from its size, its tokens and the loss of its teacher.

Busbridge et al. 2025 (arXiv 2502.08606): a teacher enters only by its loss L_T. A better one helps
until it is so much better than the student can be that it hurts: the capacity gap, a bend where L_T
falls under d1 times the loss L of the student trained without it. Parameters are without embedding
and readout; losses in nats per token of C4 in a vocabulary of 32168.
"""

from collections.abc import Mapping

import numpy as np

from chinchilla_jax.techniques.law import Array

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
    """Nats per token of a student after `tokens` of pure distillation (their equation 8).

    Between two limits: an endless student reaches its teacher, and a teacher that knows nothing
    teaches nothing.
    """
    p, teacher = STUDENT, np.asarray(teacher_loss)
    alone = supervised_loss(params, tokens)
    bend = 1 + (teacher / (alone * p["d1"])) ** (1 / p["f1"])
    taught = teacher ** -p["c0"] * bend ** (-p["c1"] * p["f1"])
    return teacher + taught * _resources(np.asarray(params), np.asarray(tokens), STUDENT)

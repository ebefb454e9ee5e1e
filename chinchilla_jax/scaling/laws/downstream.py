"""From size and tokens to accuracy on a task, in two steps or at once.

Two steps: the task's loss by the surface E + A/N^alpha + B/D^beta, and accuracy by a sigmoid of it
(Bhagia et al. 2412.04403); where the table has no loss of the task, the run's own loss stands for
it, and error falls off it exponentially (Gadre et al. 2403.08540, equation 5). Direct: minus the
logarithm of accuracy over chance follows the same surface (Krajewski et al. 2512.08894).

Array suffixes: R rows, B resamples of them, K places (sizes and tokens) to predict at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from chinchilla_jax.scaling.arrays import Bools, Floats, Ints
from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.fitting.surface import Surface, SurfaceFit, fit_surface, refit
from chinchilla_jax.scaling.laws.draws import refits
from chinchilla_jax.scaling.laws.fit import LawFit, fit
from chinchilla_jax.techniques.law import Array, Law, Values

TASK_LOSS = "task_loss"
LEAST_SQUARES = Objective("huber", 1.0)  # of accuracies: no residual is beyond 1
TWO_STEP, DIRECT = "two_step", "direct"
_STARTS = 8
_ABOVE_CHANCE = 0.02  # of what chance leaves; below, the logarithm is noise


def _sigmoid_of(p: Values, x: Values) -> Array:
    return (1 - np.tanh(p["k"] * (x[TASK_LOSS] - p["m"]) / 2)) / 2  # exp would overflow


def _sigmoid(p: Values, x: Values) -> Array:
    return p["c"] + p["a"] * _sigmoid_of(p, x)


def _sigmoid_terms(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    term = _sigmoid_of(p, x)
    return (np.ones_like(term), term), np.ones(())


def _exponential(p: Values, x: Values) -> Array:
    return p["eps"] - p["k"] * np.exp(-p["gamma"] * x[TASK_LOSS])


def _exponential_terms(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    term = np.exp(-p["gamma"] * x[TASK_LOSS])
    return (np.ones_like(term), -term), np.ones(())


SIGMOID = Law(
    name="sigmoid",
    formula="accuracy = c + a / (1 + exp(k (x - m)))",
    source="Bhagia et al. 2024, arXiv 2412.04403, equation 2",
    columns=(TASK_LOSS,),
    parameters=("c", "a", "k", "m"),
    form=_sigmoid,
    ranges={"k": (0.3, 50.0), "m": (0.05, 10.0)},
    linear=_sigmoid_terms,
    natural=lambda x, c: {**x, "c": c[0], "a": c[1]},
    outcome="accuracy",
)
EXPONENTIAL = Law(
    name="exponential",
    formula="error = eps - k exp(-gamma x)",
    source="Gadre et al. 2024, arXiv 2403.08540, equation 5",
    columns=(TASK_LOSS,),
    parameters=("eps", "k", "gamma"),
    form=_exponential,
    ranges={"gamma": (0.05, 10.0)},
    linear=_exponential_terms,
    natural=lambda x, c: {**x, "eps": c[0], "k": c[1]},
    outcome="error",
)

_LINKS = {law.name: law for law in (SIGMOID, EXPONENTIAL)}


@dataclass(frozen=True)
class TaskRows:
    """Runs with a measured accuracy, [R] each.

    `loss_R` is the task's where `own_loss`, else the run's; `chance` is 0 where it is not known.
    """

    params_R: Floats
    tokens_R: Floats
    flops_R: Floats
    loss_R: Floats
    accuracy_R: Floats
    own_loss: bool
    chance: float = 0.0
    trunk_R: Ints | None = None

    def __len__(self) -> int:
        return len(self.accuracy_R)

    def select(self, keep_R: Bools) -> TaskRows:
        """The rows of `keep_R`."""
        names = ("params_R", "tokens_R", "flops_R", "loss_R", "accuracy_R")
        trunk_R = None if self.trunk_R is None else self.trunk_R[keep_R]
        kept = {name: getattr(self, name)[keep_R] for name in names}
        return replace(self, trunk_R=trunk_R, **kept)

    @property
    def link(self) -> Law:
        """The second step's law."""
        return SIGMOID if self.own_loss else EXPONENTIAL

    @property
    def above_chance_R(self) -> Floats:
        """What of the way from chance to 1 a run has gone."""
        return (self.accuracy_R - self.chance) / (1 - self.chance)


Predictor = Callable[[Floats, Floats], Floats]
"""(params_K, tokens_K) -> accuracy [K], or [B, K] of resamples."""


def accuracy(
    surface: Surface,
    link: LawFit | None,
    chance: float,
    params: Floats | float,
    tokens: Floats | float,
) -> Floats:
    """The share that is right, by a fitted law: of the direct form without a link."""
    given = {} if link is None else {k: np.asarray(v) for k, v in link.parameters.items()}
    name = None if link is None else link.law
    return _accuracy(name, given, chance, surface.loss(params, tokens))


def _accuracy(link: str | None, parameters: Values, chance: float, loss: Floats) -> Floats:
    if link is None:
        return chance + (1 - chance) * np.exp(-loss)
    law = _LINKS[link]
    value = law.form(parameters, {TASK_LOSS: loss})
    return 1 - value if law.outcome == "error" else value


@dataclass(frozen=True)
class AccuracyLaw:
    """One form, fitted. `redrawn` fits it to resamples, [B, R] counts of the rows."""

    form: str
    surface: SurfaceFit
    link: LawFit | None
    chance: float
    redrawn: Callable[[Floats], Predictor]

    def predict(self, params_K: Floats, tokens_K: Floats) -> Floats:
        """Accuracy, [K]."""
        return accuracy(self.surface.surface, self.link, self.chance, params_K, tokens_K)


def two_step(rows: TaskRows) -> AccuracyLaw:
    """Loss by a surface, accuracy by a law of it.

    Raises:
      UserError: too few different runs.
    """
    first = fit_surface(rows.params_R, rows.tokens_R, rows.loss_R, count=_STARTS)
    columns, outcome = _linked(rows)
    law = rows.link
    second = fit(law, columns, outcome, LEAST_SQUARES, count=8, searched=512)

    def redrawn(count_BxR: Floats) -> Predictor:
        drawn = refit(first, count_BxR).surface
        more = len(outcome) - len(rows)
        weights = np.concatenate([count_BxR, np.ones((len(count_BxR), more))], axis=1)
        problem, z_BxP = refits(law, columns, outcome, second, LEAST_SQUARES, weights)
        values = {name: value[:, None] for name, value in problem.parameters(z_BxP).items()}
        return lambda params, tokens: _accuracy(law.name, values, 0, _losses(drawn, params, tokens))

    return AccuracyLaw(TWO_STEP, first, second, rows.chance, redrawn)


def _linked(rows: TaskRows) -> tuple[dict[str, Floats], Floats]:
    """Columns and outcome of the second step. The sigmoid also goes through (0, 1): whoever finds
    the answers certain has them right."""
    if rows.link is EXPONENTIAL:
        return {TASK_LOSS: rows.loss_R}, 1 - rows.accuracy_R
    return {TASK_LOSS: np.append(rows.loss_R, 0.0)}, np.append(rows.accuracy_R, 1.0)


def direct(rows: TaskRows) -> AccuracyLaw:
    """-ln((accuracy - chance) / (1 - chance)) by a surface; runs at chance are left out."""
    told_R = rows.above_chance_R > _ABOVE_CHANCE
    outcome_R = -np.log(np.where(told_R, np.minimum(rows.above_chance_R, 1 - 1e-6), 0.5))
    columns = rows.params_R, rows.tokens_R, outcome_R
    fitted = fit_surface(*columns, told_R.astype(float), count=_STARTS)

    def redrawn(count_BxR: Floats) -> Predictor:
        drawn = refit(fitted, count_BxR * told_R).surface
        return lambda params, tokens: _accuracy(
            None, {}, rows.chance, _losses(drawn, params, tokens)
        )

    return AccuracyLaw(DIRECT, fitted, None, rows.chance, redrawn)


FORMS: dict[str, Callable[[TaskRows], AccuracyLaw]] = {TWO_STEP: two_step, DIRECT: direct}


def _losses(surfaces: Surface, params_K: Floats, tokens_K: Floats) -> Floats:
    """[B, K] of B surfaces."""
    each = {name: np.asarray(value)[..., None] for name, value in vars(surfaces).items()}
    return Surface(**each).loss(params_K, tokens_K)

"""What each approach gives: the surface, the minima of iso-FLOP profiles, the envelope."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from chinchilla_jax.scaling.approaches import Approaches
from chinchilla_jax.scaling.arrays import Floats, known
from chinchilla_jax.scaling.doubt import diagnosis
from chinchilla_jax.scaling.fits import (
    Bootstrap,
    BudgetMinimum,
    ComputeLaw,
    EnvelopeLaws,
    FrontierLaws,
    IsoFlop,
    LossNoise,
    LowestRun,
    MethodBias,
    MethodMinimum,
    Parametric,
    RunnerUp,
    TriedEstimator,
)
from chinchilla_jax.scaling.fitting.bias import Bias
from chinchilla_jax.scaling.fitting.envelope import Envelope
from chinchilla_jax.scaling.fitting.estimators import Trial
from chinchilla_jax.scaling.fitting.intervals import interval, standard_error
from chinchilla_jax.scaling.fitting.isoflop import PowerLaws, Profile
from chinchilla_jax.scaling.fitting.minima import MinimaFit
from chinchilla_jax.scaling.fitting.surface import CHINCHILLA, Surface
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.curves import Curve


def parametric(each: Approaches, settings: Settings) -> Parametric:
    """The surface on all runs, its interval and its certificate."""
    runs, fit, draws, refusal = each.runs, each.fit, each.surface_draws, each.refusal
    certificate = ("objective", "gradient_norm", "starts", "starts_agreeing")
    refused = Parametric(
        status="refused",
        reason=None if refusal is None else refusal.sentence,
        loss=settings.objective,
        delta=settings.delta if settings.objective.endswith("huber") else None,
        tied=settings.tied,
        **dict.fromkeys((*certificate, *CHINCHILLA, "a", "b", "G")),
        runner_up=(),
        at_bound=(),
        runs=len(runs),
        noise=None,
        correlation_ln_params_ln_tokens=diagnosis.correlation(runs),
        interval={},
        standard_error={},
        bootstrap=None,
        weights="equal",
        selection="all",
    )
    if fit is None:
        return refused
    surface = fit.surface
    a = b = scale = None  # no exponent of the frontier where a bound was reached
    columns: dict[str, Floats] = {}
    if draws is not None:
        columns = {name: np.asarray(getattr(draws.surface, name)) for name in CHINCHILLA}
    if fit.identified:
        a, b = (float(x) for x in surface.exponents(each.flops_model))
        with np.errstate(divide="ignore", over="ignore"):
            ratio = np.float64(surface.alpha * surface.A) / np.float64(surface.beta * surface.B)
            scale = known(float(ratio ** (1 / (surface.alpha + surface.beta))))
        if draws is not None:
            columns["a"], columns["b"] = draws.frontier.exponents(each.flops_model)
    given = "column" if "weight" in runs.columns else "noise"
    return replace(
        refused,
        status="ok",
        objective=known(fit.value),
        **_parameters(surface),
        a=a,
        b=b,
        G=scale,
        gradient_norm=known(fit.gradient_norm),
        starts=fit.starts,
        starts_agreeing=fit.starts_agreeing,
        runner_up=tuple(
            RunnerUp(objective=other.value, **_parameters(other.surface), starts=other.starts)
            for other in fit.runner_up
            if np.isfinite(other.value)
        ),
        at_bound=fit.at_bound,
        noise=known(fit.noise),
        interval={name: interval(x) for name, x in columns.items()},
        standard_error={name: standard_error(x) for name, x in columns.items()},
        bootstrap=None
        if draws is None
        else Bootstrap(len(draws) - draws.failed, draws.failed, draws.audited, draws.improved),
        weights="equal" if np.ptp(fit.weights_R) == 0 else given,
    )


def _parameters(surface: Surface) -> dict[str, Any]:
    return {name: float(getattr(surface, name)) for name in CHINCHILLA}


def _laws(fit: MinimaFit) -> FrontierLaws:
    refused = FrontierLaws(
        status="refused",
        reason=fit.refusal.sentence if fit.refusal else None,
        **dict.fromkeys(("a", "b", "params_at_1", "tokens_at_1", "loss_law")),
        budgets=int(fit.good_G.sum()),
        weights=fit.weighted_by,
        interval={},
        standard_error={},
    )
    if fit.laws is None:
        return refused
    drawn = {} if fit.draws is None else {"a": fit.draws.laws.a, "b": fit.draws.laws.b}
    law = fit.loss_law
    return replace(
        refused,
        status="ok",
        **_power_laws(fit.laws),
        interval={name: interval(x) for name, x in drawn.items()},
        standard_error={name: standard_error(x) for name, x in drawn.items()},
        loss_law=None
        if law is None
        else ComputeLaw(float(law.E[0]), float(law.A[0]), float(law.exponent[0])),
    )


def _power_laws(laws: PowerLaws) -> dict[str, Any]:
    with np.errstate(over="ignore"):
        at_1 = np.exp([laws.log_params_1[0], laws.log_tokens_1[0]])
    return {
        "a": known(laws.a[0]),
        "b": known(laws.b[0]),
        "params_at_1": known(at_1[0]),
        "tokens_at_1": known(at_1[1]),
    }


def isoflop(each: Approaches, bias: Mapping[str, Bias | None]) -> IsoFlop:
    """The minima of every budget by every method, and the laws through them."""
    choice, noise = each.choice, each.noise
    laws = {name: _laws(fit) for name, fit in each.minima.items()}
    head = _laws(each.head)
    return IsoFlop(
        status=head.status,
        reason=head.reason,
        minima=choice.estimator.method,
        sizes=choice.estimator.sizes,
        chosen_because=choice.reason,
        left_out=choice.left_out,
        tried=tuple(_tried(trial, each) for trial in choice.trials),
        a=head.a,
        b=head.b,
        chosen=head,
        **laws,
        budgets=tuple(_budget(profile, g, each) for g, profile in enumerate(each.profiles)),
        expected_bias=None if all(b is None for b in bias.values()) else MethodBias(**bias),
        noise=LossNoise(
            noise.log_loss,
            noise.source,
            noise.freedom,
            noise.trend,
            noise.middle if noise.trend else None,
            noise.shared if noise.trunk_R is not None else None,
            noise.range if noise.trend else None,
        ),
        interval=head.interval,
    )


def _tried(trial: Trial, each: Approaches) -> TriedEstimator:
    fit = (
        each.head if trial.estimator == each.head.estimator else each.by_estimator[trial.estimator]
    )
    return TriedEstimator(
        method=trial.estimator.method,
        sizes=trial.estimator.sizes,
        left_out_rms=trial.error,
        votes=trial.votes,
        a=None if fit.laws is None else known(fit.laws.a[0]),
        b=None if fit.laws is None else known(fit.laws.b[0]),
    )


def _minimum(fit: MinimaFit, g: int) -> MethodMinimum:
    return MethodMinimum(
        status="ok" if fit.reason_G[g] is None else "refused",
        reason=fit.reason_G[g],
        params=known(fit.params_G[g]),
        tokens=known(fit.tokens_G[g]),
        loss=known(fit.loss_G[g]),
        curvature=known(fit.curvature_G[g]),
        log_params_se=known(fit.errors.log_params_G[g]),
    )


def _budget(profile: Profile, g: int, each: Approaches) -> BudgetMinimum:
    lowest = int(profile.row_S[profile.loss_S.argmin()])
    found = {name: _minimum(fit, g) for name, fit in each.minima.items()}
    head = _minimum(each.head, g)
    middle = profile.log_params_S[[0, -1]].mean()
    return BudgetMinimum(
        flops=profile.flops,
        runs=len(profile.loss_S),
        sizes=profile.sizes,
        status=head.status,
        reason=head.reason,
        params=head.params,
        tokens=head.tokens,
        loss=head.loss,
        log_params_se=head.log_params_se,
        lowest=LowestRun(
            float(each.runs.params[lowest]),
            float(each.runs.tokens[lowest]),
            float(each.runs.loss[lowest]),
        ),
        grid_width=profile.width,
        centre_drift=known(np.log(each.head.params_G[g]) - middle),
        **found,
    )


def envelope(
    found: Envelope | None, drawn: PowerLaws | None, curves: Sequence[Curve]
) -> EnvelopeLaws:
    """The laws along the lower envelope of training curves."""
    few = f"{len(curves)} curves: three sizes that overlap in FLOPs are needed on the envelope"
    refused = EnvelopeLaws(
        status="refused",
        reason=few if curves else "no training curves",
        **dict.fromkeys(("a", "b", "params_at_1", "tokens_at_1", "last_15_percent")),
        curves=len(curves),
        points=0,
        interval={},
    )
    if found is None:
        return refused
    return replace(
        refused,
        status="ok",
        reason=None,
        **_power_laws(found.laws),
        last_15_percent=found.last_share,
        points=int(found.used_F.sum()),
        interval={} if drawn is None else {"a": interval(drawn.a), "b": interval(drawn.b)},
    )

"""The sections of the record that say what was read and what each approach gives."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from chinchilla_jax.scaling.arrays import Floats, known
from chinchilla_jax.scaling.doubt import diagnosis
from chinchilla_jax.scaling.doubt.uncertainty import SurfaceDraws
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
    Ranges,
    RunnerUp,
    RunTable,
)
from chinchilla_jax.scaling.fitting.envelope import Envelope
from chinchilla_jax.scaling.fitting.intervals import interval, standard_error
from chinchilla_jax.scaling.fitting.isoflop import Bias, PowerLaws, Profile
from chinchilla_jax.scaling.fitting.minima import MinimaFit
from chinchilla_jax.scaling.fitting.noise import Noise
from chinchilla_jax.scaling.fitting.refusal import Refusal
from chinchilla_jax.scaling.fitting.surface import PARAMETERS, FlopsModel, Surface, SurfaceFit
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.curves import Curve
from chinchilla_jax.scaling.table.runs import Runs

_ASIDE_SHOWN = 200


def table(tried: Runs, runs: Runs, given: Runs, cost: FlopsModel) -> RunTable:
    """Of all that was tried, of the runs fitted, and of these as the file counts them."""
    columns = ("params", "tokens", "flops", "loss", "tokens_per_param")
    ends = {c: (float(getattr(runs, c).min()), float(getattr(runs, c).max())) for c in columns}
    return RunTable(
        source=runs.source,
        rows=len(tried) + len(runs.aside),
        fitted=len(runs),
        beaten=len(tried) - len(runs),
        aside=dict(Counter(aside.status for aside in runs.aside)),
        aside_rows=runs.aside[:_ASIDE_SHOWN],
        params_convention=runs.params_convention,
        flops_convention=runs.flops_convention,
        budgets_from=runs.budgets_from,
        axes=tuple(
            name
            for name, column in given.columns.items()
            if name not in columns and len(np.unique(column[~np.isnan(column)])) > 1
        ),
        range=Ranges(**ends),
        vocab_size=_vocab_size(given),
        columns=tuple(runs.kinds.values()),
        condition=dict(runs.picked),
        flops_model=cost,
    )


def _vocab_size(runs: Runs) -> int | None:
    """The vocabulary that all runs share: their embedding tables over their widths."""
    tables, widths = (runs.columns.get(name) for name in ("params_embedding", "width"))
    if tables is None or widths is None:
        return None
    sizes = np.unique(tables / widths)
    return int(sizes[0]) if len(sizes) == 1 and np.isfinite(sizes[0]) else None


def parametric(
    fit: SurfaceFit | None,
    draws: SurfaceDraws | None,
    cost: FlopsModel,
    refusal: Refusal | None,
    settings: Settings,
    runs: Runs,
) -> Parametric:
    certificate = ("objective", "gradient_norm", "starts", "starts_agreeing")
    refused = Parametric(
        status="refused",
        reason=None if refusal is None else refusal.sentence,
        loss=settings.objective,
        delta=settings.delta if settings.objective.endswith("huber") else None,
        tied=settings.tied,
        **dict.fromkeys((*certificate, *PARAMETERS, "a", "b", "G")),
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
        columns = dict(zip(PARAMETERS, map(np.asarray, draws.surface.columns()), strict=True))
    if fit.identified:
        a, b = (float(x) for x in surface.exponents(cost))
        with np.errstate(divide="ignore", over="ignore"):
            ratio = np.float64(surface.alpha * surface.A) / np.float64(surface.beta * surface.B)
            scale = known(float(ratio ** (1 / (surface.alpha + surface.beta))))
        if draws is not None:
            columns["a"], columns["b"] = draws.frontier.exponents(cost)
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
            RunnerUp(objective=other.value, **_parameters(other.surface), starts=other.share)
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
    return {name: float(x) for name, x in zip(PARAMETERS, surface.columns(), strict=True)}


def drifts(found: Sequence[Profile], fit: MinimaFit) -> Floats:
    """ln(minimum / geometric middle of the grid) of the budgets that have a minimum."""
    middle = np.array([profile.log_params_S[[0, -1]].mean() for profile in found])
    return np.asarray((np.log(fit.params_G) - middle)[fit.good_G])


def noise_of_minimum(fit: MinimaFit) -> float:
    """Typical standard error of ln loss at a minimum; 0 where it is not known."""
    errors = fit.errors.log_loss_G[fit.good_G]
    return float(np.median(errors)) if len(errors) else 0.0


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


def isoflop(
    found: Sequence[Profile],
    minima: dict[str, MinimaFit],
    method: str,
    noise: Noise,
    bias: dict[str, Bias | None],
) -> IsoFlop:
    laws = {name: _laws(fit) for name, fit in minima.items()}
    head = laws[method]
    return IsoFlop(
        status=head.status,
        reason=head.reason,
        minima=method,
        a=head.a,
        b=head.b,
        **laws,
        budgets=tuple(_budget(profile, g, minima, method) for g, profile in enumerate(found)),
        expected_bias=None if all(b is None for b in bias.values()) else MethodBias(**bias),
        noise=LossNoise(noise.log_loss, noise.source, noise.freedom),
        interval=head.interval,
    )


def _budget(profile: Profile, g: int, minima: dict[str, MinimaFit], method: str) -> BudgetMinimum:
    lowest = int(profile.loss_S.argmin())
    each = {
        name: MethodMinimum(
            status="ok" if fit.reason_G[g] is None else "refused",
            reason=fit.reason_G[g],
            params=known(fit.params_G[g]),
            tokens=known(fit.tokens_G[g]),
            loss=known(fit.loss_G[g]),
            curvature=known(fit.curvature_G[g]),
            log_params_se=known(fit.errors.log_params_G[g]),
        )
        for name, fit in minima.items()
    }
    head = each[method]
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
        lowest=LowestRun(
            float(np.exp(profile.log_params_S[lowest])),
            float(np.exp(profile.log_tokens_S[lowest])),
            float(profile.loss_S[lowest]),
        ),
        grid_width=profile.width,
        centre_drift=known(np.log(minima[method].params_G[g]) - middle),
        **each,
    )


def envelope(
    found: Envelope | None, drawn: PowerLaws | None, curves: Sequence[Curve]
) -> EnvelopeLaws:
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

"""`analyse(runs, settings, laws)`: every approach, its uncertainty and its doubts, as one record.

    fits, arrays = analyse(read_runs("results.csv"), Settings())

`fits` is what the report's fits.json holds: `fits.Fits` says it field by field. `arrays` is what
figures need besides.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling import outlook, sections
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.doubt import diagnosis, holdout
from chinchilla_jax.scaling.doubt.holdout import FORECASTERS, SELECTIONS, Forecaster, HeldOut
from chinchilla_jax.scaling.doubt.uncertainty import (
    SurfaceDraws,
    influence,
    surface_draws,
)
from chinchilla_jax.scaling.fits import VERSION, Choices, Convention, Fits
from chinchilla_jax.scaling.fitting.envelope import Envelope, envelope, envelope_draws
from chinchilla_jax.scaling.fitting.envelope import doubts as envelope_doubts
from chinchilla_jax.scaling.fitting.isoflop import METHODS, PowerLaws, Profile, profiles
from chinchilla_jax.scaling.fitting.minima import MinimaFit, bias_of, fit_minima
from chinchilla_jax.scaling.fitting.noise import Noise, noise_model, run_weights
from chinchilla_jax.scaling.fitting.separable import Objective
from chinchilla_jax.scaling.fitting.surface import FlopsModel, SurfaceFit, fit_surface
from chinchilla_jax.scaling.laws.further import fit_laws
from chinchilla_jax.scaling.prediction import MinimaForecast, Source, SurfaceForecast
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import choice, conditions
from chinchilla_jax.scaling.table.conventions import available, under
from chinchilla_jax.scaling.table.runs import Runs
from chinchilla_jax.techniques.law import Law

_CONVENTION_DRAWS = 400


@dataclass(frozen=True)
class Arrays:
    """What figures draw besides `fits`; None where a part was refused or not asked for."""

    runs: Runs  # that are fitted, as counted under Settings.params and Settings.flops
    tried: Runs  # and those at worse settings of their cells
    flops_model: FlopsModel
    profiles: tuple[Profile, ...]
    minima: dict[str, MinimaFit]  # by method
    fit: SurfaceFit | None
    residual_R: Floats | None  # ln(predicted) - ln(observed) of the surface, in the order of runs
    surface_draws: SurfaceDraws | None
    envelope: Envelope | None
    envelope_laws: PowerLaws | None  # bootstrap draws
    sources: tuple[Source, ...]  # every forecast, the chosen one first


def analyse(
    runs: Runs, settings: Settings | None = None, laws: Sequence[Law] = ()
) -> tuple[Fits, Arrays]:
    """All of it, `laws` fitted beside; see the module's docstring for what comes back.

    The best settings of every cell are fitted; all that was tried is there for laws in settings.

    Raises:
      UserError: the runs are of several conditions, or the table lacks a column for the
        conventions or the laws asked for.
    """
    settings = settings or Settings()
    if len(conditions(runs)) > 1:
        raise UserError(choice(runs))
    given = runs.best()
    tried, runs = (under(each, settings.params, settings.flops) for each in (runs, given))

    def stream(part: int) -> np.random.Generator:
        return np.random.default_rng([settings.seed, part])  # parts do not disturb each other

    cost = FlopsModel.of(runs.params, runs.tokens, runs.flops)
    found = profiles(runs.group_R, runs.budget_G, runs.params, runs.tokens, runs.loss)
    noise = noise_model(found, runs.cell_R(), runs.loss)
    objective = Objective(settings.objective, settings.delta)
    weights_R = run_weights(
        noise, found, len(runs), objective.loss == "squared", runs.columns.get("weight")
    )
    refusal = diagnosis.surface_refusal(runs, settings.tied)
    fit = draws = None
    if refusal is None:
        columns = (runs.params, runs.tokens, runs.loss)
        fit = fit_surface(*columns, weights_R, objective, settings.tied)
        draws = surface_draws(fit, settings.bootstrap, stream(0)) if settings.bootstrap else None
    minima = {
        method: fit_minima(method, found, noise, settings.bootstrap, stream(1 + i))
        for i, method in enumerate(METHODS)
    }
    head = minima[settings.minima]
    at = np.array(settings.budgets or (10 * float(runs.flops.max()),))
    bias = {
        method: None
        if fit is None or not fit.identified
        else bias_of(minima[method], found, fit.surface, cost, at)
        for method in METHODS
    }
    curves = list(runs.curves)
    lower = envelope(curves) if curves else None
    lower_laws = None
    if lower is not None and settings.bootstrap:
        lower_laws = envelope_draws(lower, curves, min(settings.bootstrap, 1000), stream(3))
    held = _hold_out(runs, fit, cost, found, head)
    ranking = holdout.scores(held)
    chosen, why = holdout.best(ranking, sections.noise_of_minimum(head))
    sources = _sources(runs, fit, draws, cost, noise, head, chosen, settings, stream(4))
    checked = None
    if settings.holdout_above is not None:
        checked = _hold_out(runs, fit, cost, found, head, settings.holdout_above)
    variants = [] if fit is None else influence(fit, runs.group_R, runs.budget_G)
    refusals = [r for r in (refusal, head.refusal) if r is not None]
    refusals += [] if fit is None else diagnosis.surface_limits(fit, runs)
    parametric = sections.parametric(fit, draws, cost, refusal, settings, runs)
    forecasts = tuple(outlook.forecast(sources, float(c), runs, stream(5)) for c in at)
    isoflop = sections.isoflop(found, minima, settings.minima, noise, bias)
    warnings = [
        *(refusal.sentence for refusal in refusals),
        *runs.warnings,
        *(diagnosis.surface_doubts(fit, runs, cost, parametric.interval.get("a")) if fit else ()),
        *diagnosis.open_intervals(parametric, isoflop, forecasts),
        *diagnosis.minima_doubts(sections.drifts(found, head), bias),
        *(envelope_doubts(lower, curves) if lower else ()),
        *filter(None, (diagnosis.extrapolation(float(flops), runs) for flops in at)),
        *filter(None, [diagnosis.cost_doubt(cost)]),
    ]
    fits = Fits(
        version=VERSION,
        settings=Choices(**vars(settings)),
        table=sections.table(tried, runs, given, cost),
        parametric=parametric,
        isoflop=isoflop,
        envelope=sections.envelope(lower, lower_laws, curves),
        holdout=outlook.held_out(held, ranking, chosen, why, settings.minima),
        forecast=forecasts,
        forecast_check=None if checked is None else outlook.checked(checked),
        influence=outlook.influences(variants, cost, float(at.max())),
        conventions=_conventions(given, runs, fit, draws, minima, settings),
        laws=fit_laws(laws, tried, objective, settings.bootstrap, settings.seed),
        sources=outlook.sources(sources),
        draws=outlook.draws(sources),
        warnings=tuple(warnings),
        refusals=tuple(refusals),
    )
    arrays = Arrays(
        runs=runs,
        tried=tried,
        flops_model=cost,
        profiles=tuple(found),
        minima=minima,
        fit=fit,
        residual_R=None if fit is None else fit.residual_R,
        surface_draws=draws,
        envelope=lower,
        envelope_laws=lower_laws,
        sources=tuple(sources),
    )
    return fits, arrays


def _hold_out(
    runs: Runs,
    fit: SurfaceFit | None,
    cost: FlopsModel,
    found: list[Profile],
    head: MinimaFit,
    above: float | None = None,
) -> list[HeldOut]:
    return holdout.hold_out(
        runs, fit, cost, found, np.log(head.params_G), head.loss_G, head.good_G, above
    )


def _sources(
    runs: Runs,
    fit: SurfaceFit | None,
    draws: SurfaceDraws | None,
    cost: FlopsModel,
    noise: Noise,
    head: MinimaFit,
    chosen: Forecaster,
    settings: Settings,
    rng: np.random.Generator,
) -> list[Source]:
    """Every forecast these runs allow, the chosen one first; draws for it and for all runs."""
    found: list[Source] = []
    for forecaster in FORECASTERS:
        if forecaster.form == "loss_law":
            if head.laws is not None and head.loss_law is not None:
                found.append(MinimaForecast(forecaster, head, noise.log_loss))
            continue
        if fit is None or not fit.identified:
            continue
        if forecaster.selection == holdout.ALL:
            found.append(SurfaceForecast(forecaster, fit.surface, fit.noise, cost, draws))
            continue
        kept = runs.select(SELECTIONS[forecaster.selection](runs))
        if len(kept) < len(runs) and diagnosis.surface_refusal(kept, settings.tied) is None:
            mask = SELECTIONS[forecaster.selection](runs)
            part = fit_surface(
                kept.params, kept.tokens, kept.loss, fit.weights_R[mask], fit.objective, fit.tied
            )
            if not part.identified:
                continue
            wanted = settings.bootstrap if forecaster == chosen else 0
            drawn = surface_draws(part, wanted, rng) if wanted else None
            found.append(SurfaceForecast(forecaster, part.surface, part.noise, cost, drawn))
    return sorted(found, key=lambda source: source.forecaster != chosen)


def _conventions(
    given: Runs,
    chosen: Runs,
    chosen_fit: SurfaceFit | None,
    chosen_draws: SurfaceDraws | None,
    chosen_minima: dict[str, MinimaFit],
    settings: Settings,
) -> tuple[Convention, ...]:
    """The exponent a under every count of parameters and FLOPs that the table allows."""
    rows = []
    rng = np.random.default_rng([settings.seed, 6])
    objective = Objective(settings.objective, settings.delta)
    for params, flops, runs in available(given):
        same = np.array_equal(runs.params, chosen.params)
        same &= np.array_equal(runs.flops, chosen.flops)
        cost = FlopsModel.of(runs.params, runs.tokens, runs.flops)
        refusal = diagnosis.surface_refusal(runs, settings.tied)
        fit, drawn, minima = chosen_fit, chosen_draws, chosen_minima
        if not same:
            fit = drawn = None
            if refusal is None:
                columns = (runs.params, runs.tokens, runs.loss)
                fit = fit_surface(*columns, None, objective, settings.tied, count=8)
                count = min(settings.bootstrap, _CONVENTION_DRAWS)
                drawn = surface_draws(fit, count, rng) if count else None
            found = profiles(runs.group_R, runs.budget_G, runs.params, runs.tokens, runs.loss)
            noise = noise_model(found, runs.cell_R(), runs.loss)
            minima = {method: fit_minima(method, found, noise, 0, rng) for method in METHODS}
        laws = {method: each.laws for method, each in minima.items()}
        rows.append(outlook.convention(params, flops, runs, refusal, fit, drawn, cost, laws, same))
    return tuple(rows)

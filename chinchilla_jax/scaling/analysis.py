"""`analyse(runs, settings)`: every approach, its uncertainty and its doubts, as one record.

    fits, arrays = analyse(read_runs("results.csv"), Settings())

`fits` is what `report/fits.json` holds: plain dicts, lists, str, float, int, bool, None. Numbers
are unrounded; what is missing or refused is None, never NaN, never 0. `arrays` is what figures
need besides. Intervals are [low, high], 95 % percentile bootstrap unless said otherwise.
Units: params (count), tokens (count), flops (FLOPs), loss (nats per token, or as given).

Schema of `fits`, version 1
---------------------------
version          1
settings         {params, flops, objective, delta, tied, minima, bootstrap, seed, budgets,
                  holdout_above, level: 0.95}
table            {source, rows, fitted, aside: {status: count},
                  aside_rows: [{row, run_id, status, reason}] (the first 200),
                  params_convention, flops_convention, budgets_from: "column"|"grouped"|None,
                  axes: [numeric columns besides params, tokens, flops, loss that vary],
                  range: {params, tokens, flops, loss, tokens_per_param: [lo, hi]},
                  vocab_size (that all runs share) or None,
                  flops_model: {kappa, exponent, spread}}
                  # flops = kappa * params^exponent * tokens; 6 and 1 when C = 6ND holds.
parametric       {status: "ok"|"refused", reason,
                  loss, delta, tied, objective, E, A, B, alpha, beta, a, b, G,
                  gradient_norm, starts, starts_agreeing (share, 0..1),
                  runner_up: [{objective, E, A, B, alpha, beta, starts}],   # other local optima
                  at_bound: ["E", ...], runs, noise (rms of the log residuals),
                  correlation_ln_params_ln_tokens,
                  interval: {E, A, B, alpha, beta, a, b}, standard_error: {same keys},
                  bootstrap: {draws, failed, audited, improved} or None,
                  weights: "equal"|"noise"|"column", selection: "all"}
                  # audited draws were fitted again from a grid of their own; improved is the
                  # share of them that found a better optimum than the draw's own fit.
                  # when refused every number is None and `reason` is a sentence; a, b and G are
                  # also None when A, B, alpha or beta is in at_bound.
isoflop          {status, reason, minima: "akima"|"parabola", a, b,
                  parabola: LAWS, akima: LAWS,
                  budgets: [{flops, runs, sizes, status: "ok"|"refused", reason,
                             params, tokens, loss,              # the minimum by the chosen method
                             lowest: {params, tokens, loss},     # the best run as it is
                             grid_width,    # largest/smallest params of the budget
                             centre_drift,  # ln(minimum / geometric middle of the grid)
                             parabola: MINIMUM, akima: MINIMUM}],
                  expected_bias: {parabola: BIAS, akima: BIAS} or None,
                  noise: {log_loss: float, from: "seeds"|"parabola residuals"|"none", freedom},
                  interval: {a, b}}
  MINIMUM        {status: "ok"|"refused", reason, params, tokens, loss, curvature,
                  log_params_se} (numbers None when refused)
  LAWS           {status, reason, a, b, params_at_1, tokens_at_1, budgets (count used),
                  weights: "equal"|"noise",
                  interval: {a, b}, standard_error: {a, b},
                  loss_law: {E, A, exponent} | None}
                  # params = params_at_1 * flops^a; tokens = tokens_at_1 * flops^b;
                  # loss = E + A / flops^exponent.
  BIAS           {a, b, at: [{flops, params, tokens}]}  # relative errors (-.05 is 5 % low) that
                  # the method makes without noise if the fitted surface were the truth
envelope         {status, reason, a, b, params_at_1, tokens_at_1, curves, points (fitted),
                  last_15_percent (share of points), interval: {a, b}}
holdout          {status, reason, minima: "akima"|"parabola" (whose minima were predicted),
                  folds: [{fitted_up_to, held_out: [flops]}],
                  errors: [{form: "surface"|"loss_law", selection: NAME, fitted_up_to, runs,
                            minima: [{flops, predicted, observed, error}],  # error of ln loss
                            params_rms,    # of ln params at the predicted optimum
                            cells_rms, cells_bias}],   # errors of ln loss of runs beyond
                  summary: [{form, selection, minima_rms, minima_bias, cells_rms, forecasts}],
                  best: {form, selection, reason}}
  NAME           "all", "tokens per parameter 2-300", "within 8 % of the budget's best", or
                 "minima" for the form "loss_law"
forecast         [{flops, form, selection, minima, params, tokens, tokens_per_param, loss,
                   decades (beyond the largest flops fitted; <= 0 inside),
                   interval: {params, tokens, tokens_per_param, loss, new_run},
                   every: [{form: "surface"|"loss_law", selection, minima: None|"akima"|"parabola",
                            params, tokens, tokens_per_param, loss,
                            interval: {same keys} or None}]}]
                  # new_run: where the loss of one more run at that N and D would fall
forecast_check   [{flops, form, selection, predicted, observed, error, params_error,
                   fitted_up_to, runs}] or None
                  # Settings.holdout_above: every form fitted at or below it, compared above it
influence        {leave_one_budget_out: [ROW + {budget}], drop_top: [ROW + {dropped}],
                  delta: [ROW + {delta}]}   # a list is empty where it makes no sense
  ROW            {a, alpha, beta, E, objective, params, tokens_per_param, at_flops}
conventions      [{params, flops, runs, status, reason, surface_a, surface_b, interval: {a} or None,
                   parabola_a, akima_a, chosen: bool}]
sources          {surface: {selection, E, A, B, alpha, beta, noise} or None,
                  minima: {method, a, ln_params_at_1, b, ln_tokens_at_1, E, A, exponent, noise}
                  or None}     # the fits that `draws` belong to
draws            {surface: {columns: [E, A, B, alpha, beta, noise], rows: [[...]]} or None,
                  minima: {columns: [a, ln_params_at_1, b, ln_tokens_at_1, E, A, exponent],
                           rows: [[... or null]]} or None}
                  # one row per bootstrap draw, of the fits the forecast rests on, so that
                  # `forecast` can give intervals at any flops from fits.json alone
warnings         [str, ...]   # one sentence each, most important first
refusals         [{what, reason, remedy}]   # what cannot be known, and which runs would fix it

`arrays`: see `Arrays`.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling import outlook, sections
from chinchilla_jax.scaling.arrays import Floats
from chinchilla_jax.scaling.doubt import diagnosis, holdout
from chinchilla_jax.scaling.doubt.holdout import FORECASTERS, SELECTIONS, Forecaster, HeldOut
from chinchilla_jax.scaling.doubt.uncertainty import SurfaceDraws, influence, surface_draws
from chinchilla_jax.scaling.fitting.envelope import Envelope, envelope, envelope_draws
from chinchilla_jax.scaling.fitting.envelope import doubts as envelope_doubts
from chinchilla_jax.scaling.fitting.intervals import LEVEL
from chinchilla_jax.scaling.fitting.isoflop import METHODS, PowerLaws, Profile, profiles
from chinchilla_jax.scaling.fitting.minima import MinimaFit, bias_of, fit_minima
from chinchilla_jax.scaling.fitting.noise import Noise, noise_model, run_weights
from chinchilla_jax.scaling.fitting.separable import Objective
from chinchilla_jax.scaling.fitting.surface import FlopsModel, SurfaceFit, fit_surface
from chinchilla_jax.scaling.prediction import MinimaForecast, Source, SurfaceForecast
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import choice, conditions
from chinchilla_jax.scaling.table.conventions import available, under
from chinchilla_jax.scaling.table.runs import Runs

VERSION = 1
_CONVENTION_DRAWS = 400


@dataclass(frozen=True)
class Arrays:
    """What figures draw besides `fits`; None where a part was refused or not asked for."""

    runs: Runs  # as counted under Settings.params and Settings.flops
    flops_model: FlopsModel
    profiles: tuple[Profile, ...]
    minima: dict[str, MinimaFit]  # by method
    weights_R: Floats  # of runs in an objective
    fit: SurfaceFit | None
    residual_R: Floats | None  # ln(predicted) - ln(observed) of the surface, in the order of runs
    surface_draws: SurfaceDraws | None
    envelope: Envelope | None
    envelope_laws: PowerLaws | None  # bootstrap draws
    sources: tuple[Source, ...]  # every forecast, the chosen one first


def plain(value: Any) -> Any:
    """JSON's own types; what is not finite becomes None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        # Tables of draws are long: only those with gaps are walked entry by entry.
        whole = value.dtype.kind == "f" and bool(np.isfinite(value).all())
        return value.tolist() if whole else plain(value.tolist())
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if np.isfinite(value) else None
    return value


def analyse(runs: Runs, settings: Settings | None = None) -> tuple[dict[str, Any], Arrays]:
    """All of it; see the module's docstring for what comes back.

    Raises:
      UserError: the table lacks a column for the conventions asked for.
    """
    settings = settings or Settings()
    if len(conditions(runs)) > 1:
        raise UserError(choice(runs))
    runs = runs.best()
    given, runs = runs, under(runs, settings.params, settings.flops)

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
    warnings = [
        *(refusal.sentence for refusal in refusals),
        *runs.warnings,
        *(diagnosis.surface_doubts(fit, runs, parametric["interval"].get("a")) if fit else ()),
        *diagnosis.minima_doubts(sections.drifts(found, head), bias),
        *(envelope_doubts(lower, curves) if lower else ()),
        *filter(None, (diagnosis.extrapolation(float(flops), runs) for flops in at)),
        *filter(None, [diagnosis.cost_doubt(cost)]),
    ]
    fits = {
        "version": VERSION,
        "settings": {**asdict(settings), "level": LEVEL},
        "table": sections.table(runs, given, cost),
        "parametric": parametric,
        "isoflop": sections.isoflop(found, minima, settings.minima, noise, bias),
        "envelope": sections.envelope(lower, lower_laws, curves),
        "holdout": outlook.held_out(held, ranking, chosen, why, settings.minima),
        "forecast": [outlook.forecast(sources, float(c), runs, stream(5)) for c in at],
        "forecast_check": None if checked is None else outlook.checked(checked),
        "influence": outlook.influences(variants, cost, float(at.max())),
        "conventions": _conventions(given, runs, fit, draws, minima, settings),
        "sources": outlook.sources(sources),
        "draws": outlook.draws(sources),
        "warnings": warnings,
        "refusals": [asdict(r) for r in refusals],
    }
    arrays = Arrays(
        runs=runs,
        flops_model=cost,
        profiles=tuple(found),
        minima=minima,
        weights_R=weights_R,
        fit=fit,
        residual_R=None if fit is None else fit.residual_R,
        surface_draws=draws,
        envelope=lower,
        envelope_laws=lower_laws,
        sources=tuple(sources),
    )
    return plain(fits), arrays


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
) -> list[dict[str, Any]]:
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
    return rows

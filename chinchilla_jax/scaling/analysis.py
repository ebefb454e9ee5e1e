"""`analyse(runs, settings, laws)`: every approach, its uncertainty and its doubts, as one record.

    fits, arrays = analyse(read_runs("results.csv"), Settings())

`fits` is what the report's fits.json holds: `fits.Fits` says it field by field. `arrays` is what
figures need besides.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.approaches import Approaches, approaches
from chinchilla_jax.scaling.arrays import silent
from chinchilla_jax.scaling.beside import beside
from chinchilla_jax.scaling.doubt import diagnosis
from chinchilla_jax.scaling.doubt.lack_of_fit import lack_of_fit
from chinchilla_jax.scaling.doubt.lack_of_fit import sentence as misfit
from chinchilla_jax.scaling.fits import VERSION, Choices, Convention, Fits, Influences
from chinchilla_jax.scaling.fitting.envelope import Envelope, envelope, envelope_draws
from chinchilla_jax.scaling.fitting.envelope import doubts as envelope_doubts
from chinchilla_jax.scaling.fitting.estimators import METHODS
from chinchilla_jax.scaling.fitting.isoflop import PowerLaws
from chinchilla_jax.scaling.fitting.minima import bias_of
from chinchilla_jax.scaling.fitting.newton import Objective
from chinchilla_jax.scaling.forecast.candidates import candidates
from chinchilla_jax.scaling.forecast.source import Source
from chinchilla_jax.scaling.laws.further import fit_laws
from chinchilla_jax.scaling.sections import approaches as approach
from chinchilla_jax.scaling.sections import outlook, variants
from chinchilla_jax.scaling.sections.downstream import downstream
from chinchilla_jax.scaling.sections.surfaces import Surfaces, surfaces
from chinchilla_jax.scaling.sections.table import run_table
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.accuracies import left_out
from chinchilla_jax.scaling.table.conditions import choice, conditions
from chinchilla_jax.scaling.table.conventions import under
from chinchilla_jax.scaling.table.runs import Runs
from chinchilla_jax.scaling.tuning.records import Tuning
from chinchilla_jax.techniques.law import Law


@dataclass(frozen=True)
class Arrays(Approaches):
    """What figures draw besides `fits`; None where a part was refused or not asked for."""

    tried: Runs  # `runs` and those that another setting of their cell beat
    envelope: Envelope | None
    envelope_laws: PowerLaws | None  # bootstrap draws
    sources: tuple[Source, ...]  # what forecasts rest on, the chosen one first


@silent()
def analyse(
    runs: Runs,
    settings: Settings | None = None,
    laws: Sequence[Law] = (),
    tuned: Sequence[str] = (),
) -> tuple[Fits, Arrays]:
    """All of it, `laws` and those of the settings `tuned` fitted beside; see the module's docstring
    for what comes back.

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

    def stream(*part: int) -> np.random.Generator:
        return np.random.default_rng([settings.seed, *part])  # parts do not disturb each other

    each = approaches(runs, settings, stream)
    fit, cost = each.fit, each.flops_model
    at = settings.budgets or (10 * float(runs.flops.max()),)
    bias = {
        method: None
        if fit is None or not fit.identified
        else bias_of(each.minima[method], each.near, fit.surface, cost, np.array(at))
        for method in METHODS
    }
    curves = list(runs.curves)
    lower = envelope(curves) if curves else None
    lower_laws = None
    if lower is not None and settings.draws:
        count, trunk_C = min(settings.draws, 1000), runs.trunks_of([c.run_id for c in curves])
        lower_laws = envelope_draws(lower, curves, count, stream(3), trunk_C)

    def varied() -> tuple[Surfaces, Influences, tuple[Convention, ...]]:
        family = surfaces(each, settings, stream(8))
        here = variants.influences(each, float(max(at)))
        return family, here, variants.conventions(given, each, settings)

    with beside(varied) as variations:
        found = candidates(each, settings, stream(4))
        family, influences, conventions = variations()
    sources, draws = outlook.kept(found, family)
    parametric, isoflop = approach.parametric(each, settings), approach.isoflop(each, bias)
    forecasts = tuple(outlook.forecast(found.sources, float(c), runs, stream(5)) for c in at)
    checked = None
    if settings.holdout_above is not None:
        checked = outlook.checked(each, settings, lambda part: stream(7, part))
    missed = None if fit is None else lack_of_fit(fit, runs)
    refusals = [r for r in (each.refusal, each.head.refusal) if r is not None]
    refusals += [] if fit is None else diagnosis.surface_limits(fit, runs)
    warnings = [
        *(refusal.sentence for refusal in refusals),
        *runs.warnings,
        *left_out(runs),
        *(diagnosis.surface_doubts(fit, runs, cost, parametric.interval.get("a")) if fit else ()),
        *filter(None, [misfit(missed)]),
        *diagnosis.open_intervals(parametric, isoflop, forecasts),
        *diagnosis.outlying_runs(each.profiles, each.near),
        *diagnosis.minima_doubts(each.profiles, each.head, bias),
        *(envelope_doubts(lower, curves) if lower else ()),
        *filter(None, (diagnosis.extrapolation(float(flops), runs) for flops in at)),
        *(
            diagnosis.form_doubt(source.error, float(flops), source.best(np.array([flops])))
            for source in found.sources[:1]
            if source.drawn is not None
            for flops in at
        ),
        *filter(None, [diagnosis.cost_doubt(cost), diagnosis.nothing_checked(checked, settings)]),
        *filter(None, [diagnosis.few_draws(settings)]),
    ]
    fits = Fits(
        version=VERSION,
        settings=Choices(**vars(settings)),
        table=run_table(tried, runs, given, cost),
        parametric=parametric,
        lack_of_fit=missed,
        forms=family.forms,
        isoflop=isoflop,
        envelope=approach.envelope(lower, lower_laws, curves),
        holdout=outlook.held_out(found, each.head.method),
        forecast=forecasts,
        forecast_check=checked,
        influence=influences,
        conventions=conventions,
        laws=fit_laws(
            laws, tried, Objective(settings.objective, settings.delta), settings.draws,
            settings.seed,
        ),
        sources=sources,
        draws=draws,
        warnings=tuple(warnings),
        refusals=tuple(refusals),
        tasks=downstream(runs, forecasts, settings, stream(8)),
        tuning=tuning(tried, settings, tuned),
    )  # fmt: skip
    arrays = Arrays(
        **vars(each),
        tried=tried,
        envelope=lower,
        envelope_laws=lower_laws,
        sources=found.sources,
    )
    return fits, arrays


def tuning(tried: Runs, settings: Settings, tuned: Sequence[str]) -> Tuning | None:
    """The laws of the settings `tuned` of the runs of one condition; None where none is asked for.

    Raises:
      UserError: the table lacks a setting, or varies none inside cells.
    """
    if not tuned:
        return None
    from chinchilla_jax.scaling.tuning.laws import fit_tuning  # few ask for it
    from chinchilla_jax.scaling.tuning.recipe import no_recipe

    found = fit_tuning(tuned, tried, settings.draws, settings.seed)
    if why := no_recipe(found, tried):
        found = replace(found, warnings=(*found.warnings, f"no recipe.json is written: {why}"))
    return found

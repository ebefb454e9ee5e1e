"""Registers a forecast: the prediction, what it rests on, and the configuration that checks it."""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from chinchilla_jax.experiment import results, source, storage
from chinchilla_jax.experiment.commands import command
from chinchilla_jax.experiment.config import Experiment
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.fingerprint import fingerprint
from chinchilla_jax.experiment.numbers import between, count, flops, loss, percentage
from chinchilla_jax.experiment.schema import require, to_json
from chinchilla_jax.experiment.version import code_version
from chinchilla_jax.scaling.arrays import silent
from chinchilla_jax.scaling.comparison import read
from chinchilla_jax.scaling.fits import Fits
from chinchilla_jax.scaling.forecast.frontier import from_fits, source_of
from chinchilla_jax.scaling.forecast.questions import Answer, at_flops
from chinchilla_jax.scaling.forecast.runs import noise_of_seeds, run_forecast
from chinchilla_jax.scaling.forecast.source import Source
from chinchilla_jax.scaling.register import runs as check
from chinchilla_jax.scaling.register import table as tables
from chinchilla_jax.scaling.register.registration import (
    VERSION,
    Basis,
    Corpus,
    Predicted,
    RegisteredRun,
    Registration,
    digest,
    digest_of,
    text,
)
from chinchilla_jax.scaling.register.registration import read as read_registration
from chinchilla_jax.scaling.register.runs import Sweep
from chinchilla_jax.scaling.table.conditions import where as picked
from chinchilla_jax.scaling.table.read import read_runs

# How the minimum of the new budget is found: five sizes about it want a curve of three parameters.
_MINIMA = "parabola"
BEYOND = 1.01  # of the largest run's FLOPs: nearer than that nothing is forecast


def register(
    fits: Path | str,
    flops: float,
    file: Path | str,
    config: Path | str | None = None,
    seeds: int = 1,
    form: str = "",
    where: Mapping[str, str] | None = None,
    like: Experiment | None = None,
) -> Registration:
    """Freezes the forecast of a report's fits.json at `flops` in `file`, which must not exist.

    Where it was interrupted between the two files, the same call writes the one that lacks.

    Args:
      fits: the file, or the folder of the report.
      config: where to write the configuration that trains N* and its neighbours, `seeds` times
        each; None for the forecast alone.
      form: surface or loss_law; by default the one that hold-out prefers.
      where: the condition of a report that compares several.
      like: an experiment whose way of running (mesh, checkpoints) the configuration takes; its
        corpus, recipe and evaluation must be those of the runs behind the fits.
    Raises:
      UserError: the fits were refused, have no intervals or are of other runs than there are now;
        `flops` is not beyond the runs; the runs cannot be trained; or a file is there already.
    """
    _check(fits=fits, flops=flops, file=file, config=config, seeds=seeds, form=form, where=where)
    right = like is None or isinstance(like, Experiment)
    require(right, "like", like, "an experiment is needed, as a config file defines it")
    fits_file, file = storage.path(fits), storage.path(file)
    if fits_file.is_dir():
        fits_file = fits_file / "fits.json"
    config = None if config is None else source.new_file(config)
    found = read(fits_file, where)
    if storage.exists(file):
        made = _begun(file, config, found, flops, seeds)
    else:
        made = _registration(found, fits_file, flops, file, config, seeds, form, like)
        if not storage.create(file, text(made).encode()):
            raise UserError(f"{file}: is there already; give another name")
    if config is not None:
        assert made.experiment is not None
        experiment = replace(made.experiment, forecast=digest_of(made))
        written = source.source(experiment, _docstring(made, file, config))
        storage.write_text_atomic(config, written)
    return made


def _check(**given: Any) -> None:
    """Raises UserError for an argument that is not of its kind: a notebook takes any."""
    flops, where = given["flops"], given["where"]
    for name in ("fits", "file", "config"):
        right = isinstance(given[name], str | PurePath) or (name == "config" and not given[name])
        require(right, name, given[name], "a path is needed")
    number = isinstance(flops, Real) and not isinstance(flops, bool)
    require(number and 0 < flops < math.inf, "flops", flops, "a positive number is needed")
    seeds = given["seeds"]
    whole = isinstance(seeds, Integral) and not isinstance(seeds, bool)
    require(whole and seeds >= 1, "seeds", seeds, "a whole number from 1 up is needed")
    require(isinstance(given["form"], str), "form", given["form"], "the name of a form is needed")
    pairs = isinstance(where, Mapping) and all(
        isinstance(x, str) for x in (*where, *where.values())
    )
    require(where is None or pairs, "where", where, "a dict of texts is needed: {'bits': '4'}")


def _begun(file: Path, config: Path | None, fits: Fits, budget: float, seeds: int) -> Registration:
    """The registration that is there, if its configuration alone is still to be written."""
    made = read_registration(file)
    asked = None if made.experiment is None else made.experiment.name
    same = made.basis.fits == digest(to_json(fits)) and made.flops == budget
    same = same and len({run.seed for run in made.runs}) == seeds
    if config is None or asked != config.stem or not same:
        raise UserError(
            f"{file}: is there already, and a registered forecast is never changed; give another "
            "name"
        )
    return made


@silent()
def _registration(
    fits: Fits,
    fits_file: Path,
    budget: float,
    file: Path,
    config: Path | None,
    seeds: int,
    form: str,
    like: Experiment | None,
) -> Registration:
    rests = source_of(fits, form)
    answer = at_flops(from_fits(fits, form), budget)
    _must_forecast(fits, rests, answer, budget)
    sweep = check.sweep_of(fits.table.source, fits_file)
    rows = [] if sweep is None else results.collect(sweep.folder)
    if sweep is not None:
        _must_be_of(fits, rows, sweep.folder, fits_file)
    corpus, experiment = Corpus(None, None), None
    basis = _basis(fits, rests, rows, budget, foreign=sweep is None)
    runs: tuple[RegisteredRun, ...] = ()
    if sweep is None:
        _must_be_new(basis, budget)
        runs = _sizes(fits, form, answer)
    if config is not None:
        if sweep is None:
            raise UserError(
                f"--write_config: {fits.table.source} is no work folder of ours, so that nothing "
                "tells the corpus and the recipe of its runs; register without it, train sizes "
                f"about N* as they were, and {command('verify', forecast=file, runs='TABLE.csv')}"
            )
        experiment = _experiment(fits, sweep, config.stem, answer, seeds, like)
        runs = _runs(fits, form, sweep, experiment, answer.params)
        corpus = sweep.corpus(experiment)
    return Registration(
        version=VERSION,
        name=file.stem,
        date=datetime.date.today().isoformat(),
        code_version=code_version(),
        basis=basis,
        flops=budget,
        decades=math.log10(budget / rests.largest),
        params=Predicted(answer.params, answer.interval["params"]),
        tokens=Predicted(answer.tokens, answer.interval["tokens"]),
        tokens_per_param=Predicted(answer.tokens_per_param, answer.interval["tokens_per_param"]),
        loss=Predicted(answer.loss or math.nan, answer.interval["loss"]),
        slope=_slope(rests, budget),
        corpus=corpus,
        experiment=experiment,
        runs=runs,
    )


def _basis(
    fits: Fits, rests: Source, rows: Sequence[Mapping[str, Any]], budget: float, foreign: bool
) -> Basis:
    columns, kinds = tables.columns_of(fits.table) if foreign else (None, {})
    place = storage.path(fits.table.source or ".")
    return Basis(
        source=fits.table.source,
        runs=fits.table.fitted,
        digest=runs_digest(rows) if rows else tables.file_digest(place),
        fits=digest(to_json(fits)),
        form=rests.forecaster.form,
        selection=rests.forecaster.selection,
        condition=dict(fits.table.condition),
        params_convention=fits.table.params_convention,
        flops_convention=fits.table.flops_convention,
        largest=rests.largest,
        minima=_MINIMA,
        noise=noise_of_seeds(fits, budget) or float(rests.fit.noise),
        columns=columns,
        kinds=kinds,
    )


def _must_be_new(basis: Basis, budget: float) -> None:
    """Raises UserError where the table behind a forecast has runs of its budget already."""
    place = storage.path(basis.source or ".")
    if not basis.digest:
        return
    try:
        here = tables.at_budget(tables.read(place, basis), budget)
    except UserError:  # changed since, or read with factors that fits.json does not tell
        return
    if here is not None:
        raise UserError(
            f"--flops={flops(budget)}: {place} has {len(here)} run{'s' * (len(here) > 1)} within "
            f"{percentage(tables.WITHIN)} of it, row {here.row_R[0]} first: what is registered "
            "after the results is no forecast; give another budget"
        )


def _must_forecast(fits: Fits, rests: Source, answer: Answer, budget: float) -> None:
    """Raises UserError where there is nothing to register."""
    if budget < BEYOND * rests.largest:
        raise UserError(
            f"--flops={flops(budget)}: the fits have runs of {flops(rests.largest)} FLOPs, and a "
            "forecast is of what lies beyond; give a larger budget"
        )
    if not answer.is_run or answer.loss is None:
        raise UserError(f"at {flops(budget)} FLOPs the fits give no optimum")
    if rests.drawn is None:
        form, best = rests.forecaster.form, fits.holdout.best.form
        draws = "run evaluate with --bootstrap=4000"
        raise UserError(
            f"{fits.table.source}: its fits have no bootstrap draws of form {form}, and a forecast "
            "without intervals can be neither right nor wrong; "
            f"{draws if form == best else f'take --form={best}, which hold-out prefers'}"
        )
    open_ends = [name for name in ("params", "tokens", "loss") if answer.interval[name] is None]
    if open_ends:
        raise UserError(
            f"at {flops(budget)} FLOPs the 95 % interval of {', '.join(open_ends)} is open: these "
            "runs do not tell enough to register a forecast"
        )
    if not rests.error.known:
        raise UserError(
            "no held-out budget and no second form shows the error of this law's form, so that its "
            "intervals are of chance alone and not of 95 %; add a budget, then register"
        )


def _must_be_of(fits: Fits, rows: Sequence[Mapping[str, Any]], folder: Path, file: Path) -> None:
    """Raises UserError where the work folder has other runs than the fits were made of."""
    names = {name: [row.get(name) for row in rows] for name in rows[0]}
    runs = picked(read_runs(names, derived=bool(fits.table.condition)), fits.table.condition).best()
    loss_range = (float(runs.loss.min()), float(runs.loss.max()))
    if len(runs) != fits.table.fitted or loss_range != tuple(fits.table.range.loss):
        raise UserError(
            f"{file}: was made of {fits.table.fitted} runs, and {folder} has {len(runs)} now, or "
            "others: run evaluate again"
        )


def runs_digest(rows: Sequence[Mapping[str, Any]]) -> str:
    """Of runs that are over: what each was, and its loss."""
    return digest(
        sorted(
            [str(row["run_id"]), str(row["config_fingerprint"]), row["loss"]]
            for row in rows
            if row["status"] in ("done", "diverged")
        )
    )


def _slope(rests: Source, budget: float) -> float:
    """d ln L* / d ln C."""
    step = 0.05
    found = rests.best(budget * np.exp(np.array([-step, step]))).loss
    assert found is not None
    return float(np.diff(np.log(found))[0] / (2 * step))


def _experiment(
    fits: Fits, sweep: Sweep, name: str, answer: Answer, seeds: int, like: Experiment | None
) -> Experiment:
    """That which checks the forecast."""
    table = fits.table
    experiment = check.checking(sweep, table.condition, like, name, answer.flops, seeds)
    if table.flops_convention != "as_given":
        experiment = replace(experiment, flops_convention=table.flops_convention)
    return check.with_sizes(sweep, experiment, answer.params, table.params_convention)


def _runs(
    fits: Fits, form: str, sweep: Sweep, experiment: Experiment, best: float
) -> tuple[RegisteredRun, ...]:
    """Its runs, with the loss that each is forecast to have."""
    found = []
    for cell in sweep.planned(experiment):
        if cell.status != "planned":
            continue
        params, tokens = check.size_of(cell, fits.table.params_convention), float(cell.tokens)
        shape = f"{cell.run.model.width}x{cell.run.model.depth}"
        setting = cell.run.run_id.partition(f"-{shape}-")[2].rpartition("s")[0].rstrip("-")
        found.append(
            RegisteredRun(
                run_id=cell.run.run_id,
                fingerprint=fingerprint(cell.run),
                size=params / best,
                setting=setting,
                seed=cell.run.seed,
                params=params,
                tokens=tokens,
                flops=float(cell.flops),
                loss=_loss_of(fits, form, params, tokens),
            )
        )
    return tuple(found)


def _sizes(fits: Fits, form: str, answer: Answer) -> tuple[RegisteredRun, ...]:
    """Sizes about N* for a table of others: nobody plans their runs, and the loss is forecast."""
    found = []
    for size in check.SIZES:
        params = size * answer.params
        tokens = float(fits.table.flops_model.tokens(answer.flops, params))
        found.append(
            RegisteredRun(
                run_id=f"{count(params)} on {count(tokens)} tokens",
                fingerprint="",
                size=size,
                setting="",
                seed=0,
                params=params,
                tokens=tokens,
                flops=answer.flops,
                loss=_loss_of(fits, form, params, tokens),
            )
        )
    return tuple(found)


def _loss_of(fits: Fits, form: str, params: float, tokens: float) -> Predicted | None:
    """Of one more run; None without a surface, as nothing tells what a size off N* loses."""
    if fits.sources.surface is None:
        return None
    row = run_forecast(fits, params, tokens, form or fits.holdout.best.form)
    return Predicted(row.loss, row.interval)


def _docstring(registration: Registration, file: Path, config: Path) -> str:
    """What a config's first lines say: what it is, the commands, what to expect."""
    known, basis = registration, registration.basis
    workdir = f"runs/{config.stem}"
    seeds = len({run.seed for run in known.runs})
    times = f", {seeds} seeds each" if seeds > 1 else ""
    return (
        f"Checks the forecast {file}: its best size at {flops(known.flops)} FLOPs, and "
        "neighbours.\n\n"
        f"    {command('sweep', config=config, workdir=workdir)}\n"
        f"    {command('verify', forecast=file, runs=workdir)}\n\n"
        f"Registered on {known.date}, from {basis.runs} runs of {basis.source} up to "
        f"{flops(basis.largest)} FLOPs:\n"
        f"{count(known.params.value)} parameters ({between(known.params.interval, count)}), a loss "
        f"of {loss(known.loss.value)} ({between(known.loss.interval, loss)}).\n"
        f"{len({run.params for run in known.runs})} sizes from N*/2 to 2 N*{times}, on the corpus "
        "and by the recipe of those runs. The\n"
        "digest names the forecast in every run: change neither it nor the forecast's file."
    )

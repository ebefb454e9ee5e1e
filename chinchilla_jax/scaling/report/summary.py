"""What the fits say, as sentences and tables; the terminal and the page show the same ones."""

from __future__ import annotations

from chinchilla_jax.experiment import numbers
from chinchilla_jax.experiment.numbers import (
    between,
    count,
    exponent,
    loss,
    percent,
    ratio,
)
from chinchilla_jax.scaling.fits import (
    EnvelopeLaws,
    Fits,
    FrontierLaws,
    IsoFlop,
    Parametric,
    Trunks,
)
from chinchilla_jax.scaling.fitting.bias import Bias
from chinchilla_jax.scaling.fitting.estimators import ALL_SIZES, METHODS, TITLES
from chinchilla_jax.scaling.fitting.forms import FORMS as SURFACES
from chinchilla_jax.scaling.report import forecasts
from chinchilla_jax.scaling.report.table import Rows, Table, estimate
from chinchilla_jax.scaling.table.conventions import in_print

_OBJECTIVES = {
    "log_huber": "log-Huber",
    "huber": "Huber",
    "squared": "squared log residuals",
    "least_absolute": "absolute log residuals",
}


def answer(fits: Fits) -> list[str]:
    """The question's answer in a few sentences, the forecast first."""
    sentences = [forecasts.sentence(row) for row in fits.forecast if row.params]
    iso, surface = fits.isoflop, fits.parametric
    grown = []
    if iso.a is not None:
        grown.append(
            f"the minima of the iso-FLOP profiles ({_chosen(iso)}) grow as N* ~ C^a with a = "
            f"{estimate(iso.a, iso.interval, 'a', exponent)}"
        )
    if surface.a is not None:
        grown.append(
            f"the fitted loss surface gives a = "
            f"{estimate(surface.a, surface.interval, 'a', exponent)}"
        )
    if grown:
        text = "; ".join(grown)
        sentences.append(f"{text[0].upper()}{text[1:]}.")
    else:
        sentences.append("No compute-optimal size can be stated from these runs.")
        sentences += [part.reason for part in (surface, iso) if part.reason]
    best = fits.holdout.best
    if any(row.params for row in fits.forecast):
        sentences.append(
            f"Forecasts rest on the {forecasts.FORMS[best.form]}, runs: {best.selection} "
            f"({best.reason})."
        )
    return sentences


def optima(fits: Fits) -> Table:
    """The measured minimum of every budget, then the forecasts."""
    head = ("FLOPs C", "parameters N*", "tokens D*", "D*/N*", "loss L*", "from")
    rows: Rows = []
    marks: dict[int, str] = {}
    keys = [f"optimum {g}" for g in range(len(fits.isoflop.budgets))]
    for row in fits.isoflop.budgets:
        if row.status != "ok":
            marks[len(rows)] = "aside"
        tokens_per_param = row.tokens / row.params if row.params and row.tokens else None
        rows.append(
            (
                numbers.flops(row.flops), count(row.params), count(row.tokens),
                ratio(tokens_per_param), loss(row.loss),
                f"minimum of {row.sizes} sizes"
                if row.status == "ok" else f"{row.status}: {row.reason}",
            )
        )  # fmt: skip
    for i, forecast in enumerate(fits.forecast):
        if not forecast.params or forecast.form is None:
            continue
        spread = forecast.interval
        marks[len(rows)] = "forecast"
        keys.append(f"forecast {i}")
        rows.append(
            (
                numbers.flops(forecast.flops),
                estimate(forecast.params, spread, "params", count),
                estimate(forecast.tokens, spread, "tokens", count),
                estimate(forecast.tokens_per_param, spread, "tokens_per_param", ratio),
                estimate(forecast.loss, spread, "loss", loss),
                f"forecast, {forecasts.FORMS[forecast.form]}",
            )
        )
    return Table("Compute-optimal models", head, rows, "", marks, keys, {"FLOPs C": "budget"})


def exponents(fits: Fits) -> Table:
    """a and b by every approach, and what bias the method has on such a surface."""
    rows: Rows = []
    iso, biases = fits.isoflop, fits.isoflop.expected_bias
    approaches: list[tuple[str, EnvelopeLaws | FrontierLaws | Parametric, Bias | None]] = [
        ("training-curve envelope (approach 1)", fits.envelope, None),
        (f"iso-FLOP minima, {_chosen(iso)} (approach 2)", iso.chosen, None),
    ]
    for method in METHODS:
        bias = None if biases is None else biases.by(method)
        name = f"the same, {TITLES[method]}, all sizes"
        if (method, iso.sizes) == (iso.minima, ALL_SIZES):
            approaches[1] = (approaches[1][0], iso.by(method), bias)
        else:
            approaches.append((name, iso.by(method), bias))
    approaches.append(("surface E + A/N^alpha + B/D^beta (approach 3)", fits.parametric, None))
    for name, found, bias in approaches:
        at = bias.at[-1] if bias and bias.at else None
        rows.append(
            (
                name,
                estimate(found.a, found.interval, "a", exponent),
                estimate(found.b, found.interval, "b", exponent),
                f"N* {percent(at.params, 1)} at {numbers.flops(at.flops)}" if at else "",
                (found.reason or "").split(". ")[0],
            )
        )
    note = (
        "Intervals are 95 %, by percentile bootstrap. The bias is what the method would get wrong, "
        "without noise, if the fitted surface were the truth."
    )
    if fits.table.trunks is not None:
        note += f" {_trunks_told(fits.table.trunks, iso.noise.shared)}"
    head = ("approach", "a, N* ~ C^a", "b, D* ~ C^b", "expected bias", "remark")
    return Table("Exponents of the frontier", head, rows, note)


def _trunks_told(found: Trunks, shared: float | None) -> str:
    spent = ""
    if found.flops is not None:
        share = percent(found.flops / found.flops_apart, 0).lstrip("+")
        spent = f" They cost {numbers.flops(found.flops)} FLOPs, {share} of the same runs apart."
    of_noise = "" if shared is None else f", {percent(shared, 0).lstrip('+')} of its variance"
    return (
        f"{found.branches} runs are branches of {found.trunks} trunks: those of one trunk share "
        f"its noise{of_noise}, so that trunks are resampled, and not runs.{spent}"
    )


def _chosen(iso: IsoFlop) -> str:
    sizes = "" if iso.sizes == ALL_SIZES else f", {iso.sizes}"
    return TITLES[iso.minima] + sizes


def estimators(fits: Fits) -> Table | str:
    """What every way of finding minima predicts of sizes left out, and its exponents."""
    iso = fits.isoflop
    if len(iso.tried) < 2:
        return f"Minima by {_chosen(iso)}: {iso.chosen_because}."
    rows: Rows = []
    marks: dict[int, str] = {}
    for tried in iso.tried:
        error = tried.left_out_rms
        if (tried.method, tried.sizes) == (iso.minima, iso.sizes):
            marks[len(rows)] = "forecast"
        rows.append(
            (
                TITLES[tried.method], tried.sizes,
                percent(error).lstrip("+") if error is None or error < 1 else "over 100 %",
                exponent(tried.a), exponent(tried.b), percent(tried.votes, 0).lstrip("+"),
            )
        )  # fmt: skip
    head = ("curve", "through", "error of sizes left out", "a", "b", "draws")
    note = (
        f"Chosen: {_chosen(iso)}, {iso.chosen_because}. Errors are of ln loss; draws are the share "
        "of those behind the intervals, by how often resampled errors choose a curve."
    )
    return Table("How the minima are found", head, rows, note, marks)


def surface(fits: Fits) -> Table:
    """Parameters of the loss surface with interval and standard error, and its certificate."""
    p = fits.parametric
    if p.status != "ok":
        return Table("Loss surface", ("refused",), [(p.reason or "no surface",)])
    values = {"E": p.E, "A": p.A, "B": p.B, "alpha": p.alpha, "beta": p.beta, "a": p.a, "b": p.b}
    rows = [
        (
            name,
            numbers.coefficient(value),
            "open"
            if p.interval.get(name, ()) is None
            else between(p.interval.get(name), numbers.coefficient),
            numbers.coefficient(error) if (error := p.standard_error.get(name)) is not None else "",
        )
        for name, value in values.items()
    ]
    delta = f" (delta {p.delta:g})" if p.delta is not None else ""
    certificate = (
        f"Sum over {p.runs} runs of {_OBJECTIVES[p.loss]}{delta}: "
        f"{numbers.coefficient(p.objective, 10)}; "
        f"gradient norm {numbers.coefficient(p.gradient_norm, 2)}; "
        f"{100 * (p.starts_agreeing or 0.0):.0f} % of {p.starts} starts agree; "
        f"rms of log residuals {percent(p.noise).lstrip('+')}."
    )
    others = [f"{r.objective:.6g} (alpha {r.alpha:.3f}, beta {r.beta:.3f})" for r in p.runner_up]
    if others:
        certificate += f" Other local optima: {', '.join(others)}."
    return Table("Loss surface L = E + A/N^alpha + B/D^beta", ("", "value", "95 %", "s.e."), rows,
                 certificate)  # fmt: skip


def forms(fits: Fits) -> Table | None:
    """Every form of surface: how it did on runs that it had not seen, and what it weighs."""
    source = fits.sources.runs
    if source is None:
        return None
    frontier = {form.form: form for form in fits.forms}
    rows = [
        (
            SURFACES[m.form].title, m.selection, str(m.runs), f"{100 * m.weight:.1f} %",
            percent(m.rms).lstrip("+"), percent(m.bias), numbers.coefficient(m.E),
            numbers.coefficient(m.alpha), numbers.coefficient(m.beta),
            numbers.coefficient(m.gamma),
            exponent(frontier[m.form].a) if m.selection == "all" else "",
        )
        for m in source.members
    ]  # fmt: skip
    head = (
        "form", "runs", "fitted", "weight", "rms beyond", "bias", "E", "alpha", "beta", "gamma", "a"
    )  # fmt: skip
    note = (
        f"The loss of a run of any size and length is {source.reason}: each form is fitted up to "
        "quantiles of FLOPs, a run by the square root of its FLOPs, and asked for all runs "
        "beyond; errors of ln loss. A weight falls with the square of the error."
    )
    return Table("Forms of the surface", head, rows, note, {0: "forecast"})


def conventions(fits: Fits) -> Table:
    """Exponent a under every way of counting."""
    rows: Rows = []
    marks: dict[int, str] = {}
    for row in fits.conventions:
        if row.chosen:
            marks[len(rows)] = "forecast"
        rows.append(
            (
                in_print(row.params), in_print(row.flops), str(row.runs),
                estimate(row.surface_a, row.interval, "a", exponent),
                *(exponent(getattr(row, f"{method}_a")) for method in METHODS), row.reason or "",
            )
        )  # fmt: skip
    by_minima = (f"a, {TITLES[method]}" for method in METHODS)
    head = ("parameters", "FLOPs", "runs", "a, surface", *by_minima, "remark")
    return Table("The same runs counted otherwise", head, rows, "", marks)


def doubts(fits: Fits) -> list[str]:
    """Warnings, and the refusals that they do not tell already."""
    refused = [
        f"{r.what}: {r.reason} {r.remedy}"
        for r in fits.refusals
        if not any(r.reason in warning for warning in fits.warnings)
    ]
    return [*fits.warnings, *refused]

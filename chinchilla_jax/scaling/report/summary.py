"""What the fits say, as sentences and tables; the terminal and the page show the same ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from chinchilla_jax.experiment import numbers
from chinchilla_jax.experiment.numbers import (
    between,
    count,
    exponent,
    loss,
    percent,
    ratio,
    with_interval,
)
from chinchilla_jax.scaling.table.conventions import in_print
from chinchilla_jax.scaling.table.runs import Aside, Runs

Fits = dict[str, Any]
Rows = list[tuple[str, ...]]
_LISTED_RUNS = 400
_FORMS = {"surface": "surface", "loss_law": "L(C) through the minima"}
_METHODS = {"akima": "Akima", "parabola": "parabola"}
_OBJECTIVES = {
    "log_huber": "log-Huber",
    "huber": "Huber",
    "squared": "squared log residuals",
    "least_absolute": "absolute log residuals",
}


@dataclass(frozen=True)
class Table:
    """Rows of text under a head; `marks` names rows that stand out (index -> kind)."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    marks: dict[int, str] = field(default_factory=dict)

    def without_empty_columns(self) -> Table:
        """The columns that say something in some row."""
        if not self.rows:
            return self
        columns = enumerate(zip(*self.rows, strict=True))
        keep = [i for i, cells in columns if set(cells) - {"", numbers.MISSING}]
        rows = [[row[i] for i in keep] for row in self.rows]
        return replace(self, head=[self.head[i] for i in keep], rows=rows)


def answer(fits: Fits) -> list[str]:
    """The question's answer in a few sentences, the forecast first."""
    sentences = [_forecast_sentence(row) for row in (fits.get("forecast") or []) if row["params"]]
    iso, surface = fits["isoflop"], fits["parametric"]
    grown = []
    if iso.get("a") is not None:
        grown.append(
            f"the minima of the iso-FLOP profiles grow as N* ~ C^a with a = "
            f"{with_interval(iso['a'], (iso.get('interval') or {}).get('a'), exponent)}"
        )
    if surface.get("a") is not None:
        grown.append(
            f"the fitted loss surface gives a = "
            f"{with_interval(surface['a'], (surface.get('interval') or {}).get('a'), exponent)}"
        )
    if grown:
        text = "; ".join(grown)
        sentences.append(f"{text[0].upper()}{text[1:]}.")
    else:
        sentences.append("No compute-optimal size can be stated from these runs.")
        sentences += [part["reason"] for part in (surface, iso) if part.get("reason")]
    best = (fits.get("holdout") or {}).get("best") or {}
    if best.get("form") and any(row["params"] for row in fits.get("forecast") or []):
        sentences.append(
            f"Forecasts rest on the {_FORMS[best['form']]}, runs: {best['selection']} "
            f"({best['reason']})."
        )
    return sentences


def _forecast_sentence(row: dict[str, Any]) -> str:
    spread = row.get("interval") or {}
    text = (
        f"For {numbers.flops(row['flops'])} FLOPs train "
        f"{with_interval(row['params'], spread.get('params'), count)} parameters on "
        f"{with_interval(row['tokens'], spread.get('tokens'), count)} tokens, "
        f"{ratio(row['tokens_per_param'])} tokens per parameter; expect a loss of "
        f"{with_interval(row['loss'], spread.get('loss'), loss)}"
    )
    beyond = row.get("decades") or 0.0
    return text + (f", {beyond:.1f} decades beyond the runs." if beyond > 0.05 else ".")


def optima(fits: Fits) -> Table:
    """The measured minimum of every budget, then the forecasts."""
    head = ("FLOPs C", "parameters N*", "tokens D*", "D*/N*", "loss L*", "from")
    rows: Rows = []
    marks: dict[int, str] = {}
    for row in fits["isoflop"].get("budgets") or []:
        if row["status"] != "ok":
            marks[len(rows)] = "aside"
        share = row["tokens"] / row["params"] if row["params"] and row["tokens"] else None
        rows.append(
            (
                numbers.flops(row["flops"]), count(row["params"]), count(row["tokens"]),
                ratio(share), loss(row["loss"]),
                f"minimum of {row['sizes']} sizes"
                if row["status"] == "ok" else f"{row['status']}: {row['reason']}",
            )
        )  # fmt: skip
    for row in fits.get("forecast") or []:
        if not row["params"]:
            continue
        spread = row.get("interval") or {}
        marks[len(rows)] = "forecast"
        rows.append(
            (
                numbers.flops(row["flops"]),
                with_interval(row["params"], spread.get("params"), count),
                with_interval(row["tokens"], spread.get("tokens"), count),
                with_interval(row["tokens_per_param"], spread.get("tokens_per_param"), ratio),
                with_interval(row["loss"], spread.get("loss"), loss),
                f"forecast, {_FORMS.get(row['form'], row['form'])}",
            )
        )
    return Table("Compute-optimal models", head, rows, "", marks)


def exponents(fits: Fits) -> Table:
    """a and b by every approach, and what bias the method has on such a surface."""
    rows: Rows = []
    iso, surface, envelope = fits["isoflop"], fits["parametric"], fits.get("envelope")
    biases = iso.get("expected_bias") or {}
    approaches = [
        ("iso-FLOP minima, Akima (approach 2)", iso.get("akima"), biases.get("akima")),
        ("iso-FLOP minima, parabola (approach 2)", iso.get("parabola"), biases.get("parabola")),
        ("surface E + A/N^alpha + B/D^beta (approach 3)", surface, None),
    ]
    if envelope:
        approaches.insert(0, ("training-curve envelope (approach 1)", envelope, None))
    for name, found, bias in approaches:
        if not found:
            continue
        spread = found.get("interval") or {}
        at = (bias or {}).get("at") or []
        rows.append(
            (
                name,
                with_interval(found.get("a"), spread.get("a"), exponent),
                with_interval(found.get("b"), spread.get("b"), exponent),
                f"N* {percent(at[-1]['params'], 1)} at {numbers.flops(at[-1]['flops'])}"
                if at
                else "",
                (found.get("reason") or "").split(". ")[0],
            )
        )
    note = (
        "Intervals are 95 %, by percentile bootstrap. The bias is what the method would get wrong, "
        "without noise, if the fitted surface were the truth."
    )
    head = ("approach", "a, N* ~ C^a", "b, D* ~ C^b", "expected bias", "remark")
    return Table("Exponents of the frontier", head, rows, note)


def surface(fits: Fits) -> Table:
    """Parameters of the loss surface with interval and standard error, and its certificate."""
    p = fits["parametric"]
    names = ("E", "A", "B", "alpha", "beta", "a", "b")
    spread, error = p.get("interval") or {}, p.get("standard_error") or {}
    rows = [
        (
            name,
            numbers.coefficient(p.get(name)),
            between(spread.get(name), numbers.coefficient),
            numbers.coefficient(error.get(name)) if error.get(name) is not None else "",
        )
        for name in names
    ]
    if p.get("E") is None:
        return Table("Loss surface", ("refused",), [(p.get("reason") or "no surface",)])
    delta = f" (delta {p['delta']:g})" if p.get("delta") is not None else ""
    certificate = (
        f"Sum over {p['runs']} runs of {_OBJECTIVES[p['loss']]}{delta}: {p['objective']:.10g}; "
        f"gradient norm {p['gradient_norm']:.1e}; "
        f"{100 * p['starts_agreeing']:.0f} % of {p['starts']} starts agree; "
        f"rms of log residuals {100 * p['noise']:.2f} %."
    )
    others = [f"{r['objective']:.6g} (alpha {r['alpha']:.3f}, beta {r['beta']:.3f})"
              for r in p.get("runner_up") or []]  # fmt: skip
    if others:
        certificate += f" Other local optima: {', '.join(others)}."
    return Table("Loss surface L = E + A/N^alpha + B/D^beta", ("", "value", "95 %", "s.e."), rows,
                 certificate)  # fmt: skip


def forecasts(fits: Fits) -> Table | None:
    """Every form and selection at every asked budget."""
    rows: Rows = []
    marks: dict[int, str] = {}
    for row in fits.get("forecast") or []:
        for other in row.get("every") or []:
            if (other["form"], other["selection"]) == (row["form"], row["selection"]) and other.get(
                "minima"
            ) in (None, fits["isoflop"].get("minima")):
                marks[len(rows)] = "forecast"
            spread = other.get("interval") or {}
            method = f", {_METHODS[other['minima']]}" if other.get("minima") else ""
            rows.append(
                (
                    numbers.flops(row["flops"]),
                    f"{_FORMS.get(other['form'], other['form'])}{method}",
                    other["selection"] or "",
                    with_interval(other["params"], spread.get("params"), count),
                    ratio(other["tokens_per_param"]),
                    with_interval(other["loss"], spread.get("loss"), loss),
                )
            )
    head = ("FLOPs C", "form", "runs", "N*", "D*/N*", "loss")
    return Table("Every forecast", head, rows, "", marks) if rows else None


def holdout(fits: Fits) -> Table | None:
    """Error of every forecast on minima and cells that it had not seen."""
    found = fits.get("holdout") or {}
    best = found.get("best") or {}
    rows: Rows = []
    marks: dict[int, str] = {}
    for row in found.get("summary") or []:
        if (row["form"], row["selection"]) == (best.get("form"), best.get("selection")):
            marks[len(rows)] = "forecast"
        rows.append(
            (
                _FORMS.get(row["form"], row["form"]), row["selection"], str(row["forecasts"]),
                percent(row["minima_bias"]), percent(row["minima_rms"]).lstrip("+"),
                percent(row["cells_rms"]).lstrip("+"),
            )
        )  # fmt: skip
    head = ("form", "runs", "held-out minima", "bias", "rms", "rms of single runs")
    note = (
        "Fitted up to a budget, compared with the minima and the runs beyond it; errors of ln loss."
    )
    return Table("Which forecast to believe", head, rows, note, marks) if rows else None


def check(fits: Fits) -> Table | None:
    """Forecast against measurement above --holdout_above."""
    rows = [
        (
            numbers.flops(row["flops"]), loss(row["predicted"]), loss(row["observed"]),
            percent(row["error"]),
            {True: "yes", False: "no", None: numbers.MISSING}[row.get("inside_interval")],
            numbers.flops(row["fitted_up_to"]),
        )
        for row in fits.get("forecast_check") or []
    ]  # fmt: skip
    head = ("FLOPs C", "predicted loss", "observed", "error", "inside its interval", "fitted up to")
    return Table("The forecast checked", head, rows) if rows else None


def conventions(fits: Fits) -> Table | None:
    """Exponent a under every way of counting."""
    rows: Rows = []
    marks: dict[int, str] = {}
    for row in fits.get("conventions") or []:
        if row.get("chosen"):
            marks[len(rows)] = "forecast"
        spread = (row.get("interval") or {}).get("a")
        rows.append(
            (
                in_print(row["params"]), in_print(row["flops"]), str(row["runs"]),
                with_interval(row["surface_a"], spread, exponent),
                exponent(row["parabola_a"]), exponent(row["akima_a"]), row.get("reason") or "",
            )
        )  # fmt: skip
    head = ("parameters", "FLOPs", "runs", "a, surface", "a, parabola", "a, Akima", "remark")
    return Table("The same runs counted otherwise", head, rows, "", marks) if rows else None


def further_laws(fits: Fits) -> Table | None:
    """Laws of --laws fitted to the same rows."""
    rows = [
        (
            row["law"], row["formula"],
            ", ".join(
                f"{k} {with_interval(v, row['interval'].get(k), numbers.coefficient)}"
                for k, v in row["parameters"].items()
            ),
            f"{row['objective']:.6g}", f"{100 * row['rms']:.2f} %", str(row["runs"]),
            "; ".join(row["warnings"]),
        )
        for row in fits.get("laws") or []
    ]  # fmt: skip
    head = ("law", "form", "parameters", "objective", "rms of ln loss", "runs", "remark")
    return Table("Further laws on the same runs", head, rows) if rows else None


def runs(table: Runs, fits: Fits, residual_R: Any) -> Table:
    """All runs of the table: what went wrong or is missing first, what was never planned last."""
    wrong, rejected = (
        [run for run in table.aside if (run.status == "rejected") == never][:_LISTED_RUNS]
        for never in (False, True)
    )
    rows: Rows = [_aside(run) for run in wrong]
    for i in range(min(len(table), _LISTED_RUNS)):
        budget = table.budget_G[table.group_R[i]] if table.group_R[i] >= 0 else None
        miss = None if residual_R is None else float(residual_R[i])
        rows.append(
            (
                table.run_id_R[i] or f"row {table.row_R[i]}", "done", numbers.flops(budget),
                numbers.flops(table.flops[i]), count(table.params[i]), count(table.tokens[i]),
                ratio(table.tokens_per_param[i]), f"{table.loss[i]:.4f}", percent(miss), "",
            )
        )  # fmt: skip
    marks = dict.fromkeys(range(len(wrong)), "aside")
    marks |= dict.fromkeys(range(len(rows), len(rows) + len(rejected)), "aside")
    rows += [_aside(run) for run in rejected]
    left = len(table) + len(table.aside) - len(rows)
    note = f"{left} more rows are in the table." if left else ""
    head = (
        "run",
        "status",
        "budget",
        "FLOPs",
        "N",
        "D",
        "D/N",
        "loss",
        "surface's error",
        "reason",
    )
    return Table("All runs", head, rows, note, marks)


def _aside(run: Aside) -> tuple[str, ...]:
    return (run.run_id or f"row {run.row}", run.status, *[""] * 7, run.reason)


def doubts(fits: Fits) -> list[str]:
    """Warnings, and the refusals that they do not tell already."""
    warnings = list(fits.get("warnings") or [])
    refused = [
        f"{r['what']}: {r['reason']} {r['remedy']}"
        for r in fits.get("refusals") or []
        if not any(r["reason"] in warning for warning in warnings)
    ]
    return warnings + refused

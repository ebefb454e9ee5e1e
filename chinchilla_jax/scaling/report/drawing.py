"""Figures to files, in two processes where that is possible.

A figure is independent of the others and Matplotlib holds Python's lock, so a forked process draws
some of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from chinchilla_jax.experiment import storage
from chinchilla_jax.scaling.beside import beside
from chinchilla_jax.scaling.report.page import Absence, Picture

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Drawn = dict[str, Picture | Absence]

OF_LAWS = ("layout", "choice", "excess", "gap")  # figures of further laws
CAPTIONS = {
    "isoflop": "Iso-FLOP profiles. Loss against model size at equal training FLOPs, a colour per "
    "budget. Diamonds mark the minimum of each profile, grey bars its 95 % interval under the "
    "noise of the runs.",
    "frontier": "Compute-optimal frontier. Best parameters, tokens and loss against FLOPs by each "
    "approach, with 95 % bands. Diamonds are measured minima; stars are forecasts, on the law that "
    "hold-out prefers (dashed).",
    "surface": "Loss surface. Contours of the fitted loss over FLOPs and model size, the runs it "
    "was fitted on, and the compute-optimal frontier with its 95 % band.",
    "curves": "Training curves. Smoothed loss along every run against FLOPs spent, pale for small "
    "models and strong for large ones; the black line is their lower envelope.",
    "holdout": "Forecasts checked on held-out budgets. Each dot is a minimum beyond the runs "
    "fitted; the form used for the forecast is in bold.",
    "residuals": "Residuals of the loss surface. Grey is plus and minus one standard deviation; "
    "triangles lie outside the frame. A trend means that the form misses something.",
    "misfit": "What the surface misses. A dot is a run, blue where the surface is too low and red "
    "where it is too high; regions of one colour are no chance: the form misses something there.",
    "bootstrap": "Bootstrap. Each dot is the surface fitted to a resample of the runs; bars are "
    "95 % of each coordinate, the cross is the fit to all runs.",
    "influence": "Influence. The exponent when a budget is left out, the highest losses are "
    "dropped, or the objective's delta is changed; often more than the interval admits.",
    "frontiers": "Compute-optimal frontiers. Best parameters, tokens and loss against FLOPs under "
    "each condition, on the law that its forecast rests on, with 95 % bands. Diamonds are measured "
    "minima, stars forecasts with their intervals.",
    "forest": "League table. How many times as much dense runs need for a technique's loss, a "
    "panel a currency, with 95 % intervals: right of the line it pays (blue), left of it it costs "
    "(red); grey: these runs cannot tell. Arrows are open ends; an open diamond is the product of "
    "a stack's parts.",
    "speed_up": "Speed-up. How many times the FLOPs the first side needs for the loss that the "
    "second reaches, by both laws, with its 95 % band; dashed, the one number for all runs.",
    "points": "Against the dense runs. Left, the line is the best dense run of every budget; "
    "beside it, 0 is the dense law at as much of the currency and as many tokens. A dot under the "
    "line beats the dense runs.",
    "layout": "Shape. Loss against the layout of parameters at equal size and tokens, a curve per "
    "size by the law; dots are runs, at the curve plus what the law misses of them.",
    "choice": "Best by length of training. What a law of the technique holds best, with its 95 % "
    "intervals; grey are the runs it was fitted to. Away from them it is extrapolated.",
    "excess": "Rise of the loss. What a technique adds to the loss of a finished run against how "
    "long that was trained, by the law (lines, at the middle size); dots are runs, at the line and "
    "what the law misses of them.",
    "gap": "Capacity gap. A student's loss over that of the same run without its teacher, against "
    "the teacher's loss over it: better teachers on the left, a curve per size by the law, dots "
    "are runs, at the curve and what the law misses of them. Under 0 the teacher helps.",
    "accuracy": "Accuracy on tasks. Against FLOPs, black is measured, red what the smaller runs "
    "alone say of the largest, blue the forecast; bars are 95 %, the dotted line is chance.",
    "tuning": "Hyper-parameters. Left, the share of the loss that missing the best value costs, by "
    "one curvature for all cells; beside it the best values of each size and length by their own "
    "runs, with standard errors, and the laws (lines), a colour per size.",
    "outcome": "Forecast and outcome. Loss against model size at the budget that was forecast: "
    "what was said of each run before it (blue bars, 95 %) and what came out (dots); the star is "
    "the forecast of N* and L* with its intervals, the diamond the minimum through the runs.",
    "calibration": "Calibration of all registered forecasts. Left, errors in standard deviations "
    "of the forecast, which should lie in the grey band 95 times in 100; right, how large they are "
    "against how far beyond the runs the forecast was.",
    "conventions": "Counting. The exponent from the same runs when parameters and FLOPs are "
    "counted in other ways; bold is the one used on this page.",
}


def draw(out: Path, drawers: Mapping[str, Callable[[], Figure | str]]) -> Drawn:
    """Draws and writes figures by name; where there is nothing to draw, why."""
    from chinchilla_jax.scaling.report.plots import style  # brings Matplotlib

    names = list(drawers)
    queue, end = os.pipe()
    os.write(end, bytes(range(len(names))))  # whoever is free takes the next
    os.close(end)

    def some() -> Drawn:
        drawn = {}
        while taken := os.read(queue, 1):
            name = names[taken[0]]
            drawn[name] = _drawn(out, name, drawers[name]())
        return drawn

    try:
        with style.styled(), beside(some) as second:
            drawn = some()
            drawn |= second()
            # What a copy took and did not draw is drawn here, where its error is seen.
            lost = [name for name in names if name not in drawn]
            drawn |= {name: _drawn(out, name, drawers[name]()) for name in lost}
    finally:
        os.close(queue)
    return {name: drawn[name] for name in names}


def _drawn(out: Path, name: str, figure: Figure | str) -> Picture | Absence:
    from chinchilla_jax.scaling.report.plots import style

    if isinstance(figure, str):
        return Absence(CAPTIONS[name].split(".")[0], figure)
    text = style.svg(figure)
    storage.write_bytes_atomic(out / f"{name}.png", style.png(figure))
    storage.write_text_atomic(out / f"{name}.svg", text)
    return Picture(name, text, CAPTIONS[name])

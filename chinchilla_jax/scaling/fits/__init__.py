"""What an evaluation found, as one typed record: the report's `fits.json`.

    fits, arrays = analyse(read_runs("results.csv"), Settings())
    write("report/fits.json", fits)
    read("report/fits.json").parametric.alpha

A class is a section of the file and a field its key; each file here holds the sections that its
name says. Numbers are unrounded; what is missing or refused is None (null), never NaN and never 0,
and a sentence in `reason` says why. Units: params (count), tokens (count), flops (FLOPs), loss
(nats per token, or as given).
"""

from chinchilla_jax.scaling.fits.accuracy import AccuracyCheck, AccuracyFit, AccuracyForecast, Task
from chinchilla_jax.scaling.fits.file import VERSION, Fits, check_version, read, text, write
from chinchilla_jax.scaling.fits.forecasts import (
    FORMS,
    BestForecast,
    Check,
    Fold,
    FoldErrors,
    Forecast,
    ForecastScore,
    HeldOutMinimum,
    Holdout,
    Prediction,
)
from chinchilla_jax.scaling.fits.minima import (
    BudgetMinimum,
    ComputeLaw,
    EnvelopeLaws,
    FrontierLaws,
    IsoFlop,
    LossNoise,
    LowestRun,
    MethodBias,
    MethodMinimum,
    TriedEstimator,
)
from chinchilla_jax.scaling.fits.sources import (
    Draws,
    DrawTable,
    HeldOutError,
    HeldOutRuns,
    MinimaSource,
    RunMember,
    RunSource,
    Sources,
    SurfaceSource,
)
from chinchilla_jax.scaling.fits.surface import (
    Bootstrap,
    FormFit,
    LackOfFit,
    MissedRegion,
    Parametric,
    RunnerUp,
)
from chinchilla_jax.scaling.fits.table import Choices, Ranges, RunTable, Trunks
from chinchilla_jax.scaling.fits.variations import (
    BudgetLeftOut,
    Convention,
    Influences,
    OtherDelta,
    TopDropped,
    Variant,
)

__all__ = [
    "FORMS",
    "VERSION",
    "AccuracyCheck",
    "AccuracyFit",
    "AccuracyForecast",
    "BestForecast",
    "Bootstrap",
    "BudgetLeftOut",
    "BudgetMinimum",
    "Check",
    "Choices",
    "ComputeLaw",
    "Convention",
    "DrawTable",
    "Draws",
    "EnvelopeLaws",
    "Fits",
    "Fold",
    "FoldErrors",
    "Forecast",
    "ForecastScore",
    "FormFit",
    "FrontierLaws",
    "HeldOutError",
    "HeldOutMinimum",
    "HeldOutRuns",
    "Holdout",
    "Influences",
    "IsoFlop",
    "LackOfFit",
    "LossNoise",
    "LowestRun",
    "MethodBias",
    "MethodMinimum",
    "MinimaSource",
    "MissedRegion",
    "OtherDelta",
    "Parametric",
    "Prediction",
    "Ranges",
    "RunMember",
    "RunSource",
    "RunTable",
    "RunnerUp",
    "Sources",
    "SurfaceSource",
    "Task",
    "TopDropped",
    "TriedEstimator",
    "Trunks",
    "Variant",
    "check_version",
    "read",
    "text",
    "write",
]

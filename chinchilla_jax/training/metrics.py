"""What a run writes while it trains, and the judgement that it has diverged."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from chinchilla_jax.experiment.config import RunConfig
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.records import RunDirectory
from chinchilla_jax.training import sinks
from chinchilla_jax.training.schedules import learning_rates
from chinchilla_jax.training.step import METRICS


class MetricsWriter:
    """Lines of `metrics.jsonl` of one run, which the sinks that it asks for get too.

    Args:
      begun: when the run would have begun, had it not been interrupted, by `time.perf_counter`.
    """

    def __init__(self, run: RunConfig, directory: RunDirectory, begun: float) -> None:
        self._run = run
        self._begun = begun
        self._file = directory.metrics_writer()
        self._flops = ledger(run).training_flops(run.flops_convention)
        self._sinks = sinks.opened(run, directory)

    def write(
        self, first: int, metrics: dict[str, np.ndarray], now: float, steps_per_second: float
    ) -> None:
        """Logs every `log_every`-th update, and the last one, of a dispatch.

        Args:
          first: updates done before it.
          metrics: loss, grad_norm, smoothed_loss of each update, [count], and what techniques
            log besides.
          now: the time, by the clock of `begun`.
        """
        run = self._run
        count = len(metrics["loss"])
        rates = learning_rates(run.optimizer, run.steps, first, count)
        beside = [name for name in metrics if name not in METRICS]
        rows = []
        for i in range(count):
            step = first + i + 1
            if step % run.execution.log_every and step != run.steps:
                continue
            rows.append(
                {
                    "step": step,
                    "tokens": step * run.batch_size * run.sequence_length,
                    "flops": step * self._flops // run.steps,
                    "loss": float(metrics["loss"][i]),
                    "smoothed_loss": float(metrics["smoothed_loss"][i]),
                    "learning_rate": float(rates[i]),
                    "grad_norm": float(metrics["grad_norm"][i]),
                    "tokens_per_second": steps_per_second * run.batch_size * run.sequence_length,
                    "seconds": now - self._begun,
                    **{name: float(metrics[name][i]) for name in beside},
                }
            )
        self._file.append(rows)
        for sink in self._sinks:
            sink.write(rows)

    def flush(self) -> None:
        """Makes what was written durable: before the checkpoint that it leads to."""
        self._file.flush()
        for sink in self._sinks:
            sink.flush()

    def end(self, outcome: Mapping[str, Any]) -> None:
        """The run is over, with its status and what was measured of it."""
        for sink in self._sinks:
            sink.end(outcome)

    def stopped(self, kind: type[BaseException] | None, *_: object) -> None:
        """At the end of training: where it stopped by an error, this process may try again."""
        if kind is not None:
            for sink in self._sinks:
                sink.end(None)


def divergence(
    first: int,
    metrics: dict[str, np.ndarray],
    factor: float,
    fault: Callable[[Mapping[str, float]], str] = lambda metrics: "",
) -> str:
    """Why the run has diverged within a dispatch; empty when it has not.

    What `Method.fault` says of a step, a loss or gradient that is not finite, or a smoothed loss
    `factor` times its own lowest.
    """
    finite = np.isfinite(metrics["loss"]) & np.isfinite(metrics["grad_norm"])
    high = metrics["smoothed_loss"] > factor * metrics["lowest_loss"]
    of_steps = zip(*metrics.values(), strict=True)
    faults = [fault(dict(zip(metrics, map(float, values), strict=True))) for values in of_steps]
    bad = np.flatnonzero(~finite | high | np.array(list(map(bool, faults))))
    if not len(bad):
        return ""
    i = int(bad[0])
    step = first + i + 1
    if faults[i]:
        return f"{faults[i]} at step {step}"
    if not finite[i]:
        what = "loss" if not math.isfinite(metrics["loss"][i]) else "gradient"
        return f"the {what} is not finite at step {step}"
    return (
        f"at step {step} the smoothed loss {metrics['smoothed_loss'][i]:.4g} is over {factor:g} "
        f"times its lowest, {metrics['lowest_loss'][i]:.4g}"
    )

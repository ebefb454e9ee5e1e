"""What a technique adds to a step: its run against the dense run of equal shapes, side by side.

    python tests/benchmarks/techniques_overhead.py
    python tests/benchmarks/techniques_overhead.py --width 128 --steps 400 --only sparsity

Both train from first to last step, in turns of one dispatch each, so that whatever else the
machine does meets both alike and work that is due only here and there (masks along a ramp) counts
as often as in a run. Milliseconds are those of the whole run; the ratio is theirs, then the middle
half of the turns' ratios. `work` is the ratio of the host's processor seconds, which on a busy
machine tells more. `FLOPs` is the ratio of what both are counted to do (`flops_matmul`).
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from peers import DISPATCH, windows

from chinchilla_jax.experiment import config, recipe
from chinchilla_jax.experiment.execution import Execution
from chinchilla_jax.experiment.ledger import ledger
from chinchilla_jax.experiment.needs import other_run
from chinchilla_jax.techniques import Techniques, trained_shape
from chinchilla_jax.techniques.distillation import Distillation
from chinchilla_jax.techniques.experts import Experts
from chinchilla_jax.techniques.quantisation import Quantisation
from chinchilla_jax.techniques.sparsity import Sparsity
from chinchilla_jax.training import techniques
from chinchilla_jax.training.compiled import compiled_for
from chinchilla_jax.training.initial import initial_state
from chinchilla_jax.training.transfers import place

# Teachers by name: how many times as wide as the student. What they say takes the same time before
# they are trained.
TEACHERS = {"as large": 1, "twice as wide": 2}

# By name: the technique of a run.
SETTINGS: dict[str, Callable[[config.RunConfig], Techniques]] = {
    "the same again": lambda run: Techniques(),
    "sparsity .5": lambda run: Techniques(sparsity=Sparsity(level=0.5)),
    "sparsity .875": lambda run: Techniques(sparsity=Sparsity(level=0.875)),
    "sparsity 2:4": lambda run: Techniques(sparsity=Sparsity(level=0.5, group_size=4)),
    "sparsity .75, tables": lambda run: Techniques(
        sparsity=Sparsity(level=0.75, table_exponent=0.5)
    ),
    "quantisation 4": lambda run: Techniques(quantisation=Quantisation(bits=4.0)),
    "quantisation 1.58": lambda run: Techniques(quantisation=Quantisation(bits=1.58)),
    "distillation, as large": lambda run: Techniques(distillation=Distillation(teacher="as large")),
    "distillation, twice as wide": lambda run: Techniques(
        distillation=Distillation(teacher="twice as wide")
    ),
    # Of as many active parameters as the dense run.
    "experts 1 of 4": lambda run: Techniques(experts=Experts(routed=4)),
    "experts 1 of 8": lambda run: Techniques(experts=Experts(routed=8)),
    "experts 2 of 8": lambda run: Techniques(experts=Experts(routed=8, per_token=2)),
    "experts 1 of 8, 1 shared": lambda run: Techniques(experts=Experts(routed=8, shared=1)),
}


def run_of(arguments: argparse.Namespace) -> config.RunConfig:
    """The dense run."""
    rules = config.RecipeConfig(definition=arguments.definition, optimizer=arguments.optimizer)
    return config.RunConfig(
        run_id="benchmark",
        experiment="benchmark",
        budget=1.0,
        flops_convention="matmul",
        model=recipe.shape_for_width(arguments.width, rules, 256),
        data=config.DataConfig(),
        optimizer=recipe.optimizer_for(arguments.steps, 1e-3, rules),
        execution=Execution(data_parallel=1, steps_per_dispatch=arguments.dispatch),
        batch_size=arguments.batch,
        sequence_length=arguments.sequence,
        steps=arguments.steps,
    )


def with_teacher(run: config.RunConfig) -> config.RunConfig:
    """The run, knowing its teacher where it has one."""
    name = run.techniques.distillation.teacher
    if not name:
        return run
    rules = config.RecipeConfig(definition=run.model.definition)
    model = recipe.shape_for_width(TEACHERS[name] * run.model.width, rules, 256)
    teacher = replace(run, model=model, techniques=Techniques())
    return replace(run, needs=(other_run(name, name, teacher),))


class Untrained:
    """A source whose weights are random."""

    def params(self, like: Any) -> Any:
        random = np.random.default_rng(0)
        return jax.tree.map(
            lambda x: place(0.1 * random.standard_normal(x.shape).astype(x.dtype), x.sharding), like
        )


class Training:
    """A run that is trained a dispatch at a time."""

    def __init__(self, run: config.RunConfig, tokens_NxBxS1: np.ndarray) -> None:
        self._compiled, self._tokens = compiled_for(run), tokens_NxBxS1
        self._rates = np.full(len(tokens_NxBxS1), run.optimizer.learning_rate, np.float32)
        self._decay = np.float32(run.optimizer.weight_decay)
        self._state = self._start(run)
        self.seconds(1)  # compiles, and loads what a step runs
        self._state = self._start(run)

    def _start(self, run: config.RunConfig) -> Any:
        with jax.set_mesh(self._compiled.mesh):
            state = initial_state(self._compiled.method, self._compiled.shardings, run.seed)
            sources: Any = {other.asked: Untrained() for other in run.needs}
            state = techniques.started(run, state, sources)
            return techniques.completed(run, state, self._compiled.abstract_state, sources)

    def seconds(self, steps: int) -> tuple[float, float]:
        """Of so many more steps: by the clock, and of processors."""
        begin, work = time.perf_counter(), time.process_time()
        with jax.set_mesh(self._compiled.mesh):
            self._state, _ = self._compiled.train(
                self._state, self._tokens, self._rates, self._decay, np.int32(steps)
            )
            jax.block_until_ready(self._state)
        return time.perf_counter() - begin, time.process_time() - work


def compare(run: config.RunConfig, changed: config.RunConfig, dispatch: int) -> np.ndarray:
    """Seconds of each turn, [turns, 2, 2]: dense and changed, by the clock and of processors."""
    tokens = windows(dispatch, run.batch_size, run.sequence_length, seed=0).astype(np.int32)
    both = Training(run, tokens), Training(changed, tokens)
    turns = []
    for first in range(0, run.steps, dispatch):
        steps = min(dispatch, run.steps - first)
        order = both if first // dispatch % 2 else both[::-1]  # neither is always the second
        taken = {training: training.seconds(steps) for training in order}
        turns.append([taken[training] for training in both])
    return np.array(turns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--width", type=int, default=48)
    parser.add_argument("--definition", default="modern")
    parser.add_argument("--optimizer", default="adamw")
    parser.add_argument("--batch", type=int, default=8, help="sequences a step")
    parser.add_argument("--sequence", type=int, default=64, help="tokens a sequence")
    parser.add_argument("--steps", type=int, default=1000, help="of each run")
    parser.add_argument("--dispatch", type=int, default=min(10, DISPATCH), help="steps of a turn")
    parser.add_argument("--only", default="", help="settings whose name begins so")
    arguments = parser.parse_args()
    run = run_of(arguments)
    dense_flops = ledger(run).flops_matmul
    print(f"{run.model.width}x{run.model.depth}, {run.batch_size} x {run.sequence_length} tokens, "
          f"{run.steps} steps, {jax.devices()[0].device_kind}")  # fmt: skip
    print("setting                    ms a step: dense   changed    ratio (half of turns)"
          "     work   FLOPs")  # fmt: skip
    for name, setting in SETTINGS.items():
        if not name.startswith(arguments.only):
            continue
        wanted = setting(run)
        model = trained_shape(run.model, wanted)
        changed = with_teacher(replace(run, techniques=wanted, model=model))
        turns = compare(run, changed, arguments.dispatch)
        (plain, plain_work), (other, work) = 1000 * turns.sum(axis=0) / run.steps
        low, high = np.quantile(turns[:, 1, 0] / turns[:, 0, 0], (0.25, 0.75))
        flops = ledger(changed).flops_matmul / dense_flops
        print(f"{name:26s} {plain:16.2f} {other:9.2f} {other / plain:8.3f} "
              f"({low:.3f} to {high:.3f}) {work / plain_work:8.3f} {flops:7.3f}",
              flush=True)  # fmt: skip


if __name__ == "__main__":
    main()

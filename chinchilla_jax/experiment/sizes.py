"""A shape at a budget: its tokens, batch and whole steps, and why it is not run.

D is solved first, from the exact FLOPs per token of the shape; batch follows from D, and whole
steps from the budget.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from chinchilla_jax import techniques
from chinchilla_jax.experiment import recipe as rules
from chinchilla_jax.experiment import trunks
from chinchilla_jax.experiment.config import DataConfig, Experiment
from chinchilla_jax.experiment.counting import count_params, flops_per_step, flops_per_token
from chinchilla_jax.experiment.epochs import epochs
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.numbers import percentage

BUDGET_TOLERANCE = 0.01  # of the budget, by which the FLOPs of whole steps may miss it


@dataclass(frozen=True)
class Size:
    """A shape at a budget: its tokens, batch and whole steps."""

    budget: float
    model: ModelConfig
    params: int  # that a token meets
    batch: int
    steps: int
    flops: int
    tokens: int
    reason: str = ""  # why it is not run
    lengths: tuple[int, ...] = ()  # tokens of the runs that share a trunk, its own among them

    @property
    def tokens_per_param(self) -> float:
        return self.tokens / self.params


def _tokens(experiment: Experiment, budget: float, model: ModelConfig) -> float:
    """What a budget buys."""
    sequence = experiment.recipe.sequence_length
    return budget / flops_per_token(model, sequence, experiment.flops_convention)


def _size(experiment: Experiment, budget: float, model: ModelConfig, batch: int = 0) -> Size:
    """With a batch by the tokens of the run where none is given."""
    sequence, convention = experiment.recipe.sequence_length, experiment.flops_convention
    tokens = _tokens(experiment, budget, model)
    params = count_params(model).active
    batch = batch or rules.batch_size(tokens, experiment.recipe, params)
    step = flops_per_step(model, batch, sequence, convention)
    steps = max(1, round(budget / step))
    return Size(budget, model, params, batch, steps, steps * step, steps * batch * sequence)


def single(
    experiment: Experiment,
    budget: float,
    model: ModelConfig,
    train_tokens: int | Mapping[DataConfig, int] | None,
    trunk: Collection[Size] = (),
) -> Size:
    """A shape at any budget, whatever other sizes there are.

    Args:
      trunk: the runs of that shape which share a trunk, whose batch a budget among theirs has too:
        it is one more of them.
    """
    text = _trained_text(experiment, train_tokens)
    budgets = [size.budget for size in trunk]
    if not (budgets and min(budgets) <= budget <= max(budgets)):
        return _with_reason(experiment, _size(experiment, budget, model), text)
    like = next(iter(trunk))
    size = _with_reason(experiment, _size(experiment, budget, model, like.batch), text)
    return replace(size, lengths=like.lengths)


def at_budget(
    experiment: Experiment,
    number: int,
    shapes: Sequence[ModelConfig],
    train_tokens: int | Mapping[DataConfig, int] | None,
) -> list[Size]:
    """Every shape at the experiment's budget of this number.

    Args:
      train_tokens: of the corpus, or of each, where they are known (`grid.plan`).
    """
    budget, counts = experiment.budgets[number], experiment.ladder.sizes_per_budget
    count = counts[0] if len(counts) == 1 else counts[number]
    text = _trained_text(experiment, train_tokens)
    sizes = [_with_reason(experiment, _size(experiment, budget, s), text) for s in shapes]
    chosen = _nearest_sizes(experiment, [size for size in sizes if not size.reason], count)
    far = _far(experiment, count)
    return [size if size.reason or size in chosen else replace(size, reason=far) for size in sizes]


def on_trunks(
    experiment: Experiment,
    sizes: Mapping[tuple[int, int], Size],
    train_tokens: int | Mapping[DataConfig, int] | None,
) -> dict[tuple[int, int], Size]:
    """Sizes by the numbers of budget and shape, those of one shape with the batch of their trunk.

    Which budgets a shape has is decided by the batches that its runs would have by themselves.
    """
    text = _trained_text(experiment, train_tokens)
    found = dict(sizes)
    for place in {place for _, place in sizes}:
        mine = {key: size for key, size in sizes.items() if key[1] == place and not size.reason}
        if not mine:
            continue
        tokens = [_tokens(experiment, size.budget, size.model) for size in mine.values()]
        params = next(iter(mine.values())).params
        batch = rules.batch_size(trunks.middle(tokens), experiment.recipe, params)
        for key, size in mine.items():
            one = _size(experiment, size.budget, size.model, batch)
            mine[key] = _with_reason(experiment, one, text)
        lengths = tuple(size.tokens for size in mine.values() if not size.reason)
        found |= {key: replace(size, lengths=lengths) for key, size in mine.items()}
    return found


def _trained_text(
    experiment: Experiment, train_tokens: int | Mapping[DataConfig, int] | None
) -> int | None:
    """Tokens of text that a run is trained on; None where they are not known."""
    if isinstance(train_tokens, Mapping):
        train_tokens = train_tokens[experiment.data]
    if train_tokens is None and experiment.data.max_megabytes is not None:
        train_tokens = int(1e6 * experiment.data.max_megabytes)  # a token spells a byte or more
    if train_tokens is None:
        return None
    return techniques.trained_text(train_tokens, experiment.techniques)


def _nearest_sizes(experiment: Experiment, sizes: Sequence[Size], count: int) -> list[Size]:
    """Which of the fit sizes a budget trains: `count` around the expected optimum, or all."""
    centre = math.log(experiment.ladder.tokens_per_param)
    order = sorted(sizes, key=lambda size: abs(math.log(size.tokens_per_param) - centre))
    return order[: count or len(sizes)]


def _far(experiment: Experiment, count: int) -> str:
    ratio = experiment.ladder.tokens_per_param
    return f"not among the {count} sizes nearest to {ratio:g} tokens per parameter"


def _with_reason(experiment: Experiment, size: Size, train_tokens: int | None) -> Size:
    """With why the cell is outside the sensible range; none where it is not."""
    spec = experiment.ladder
    ratio, tokens = size.tokens_per_param, size.tokens_per_param * size.params
    limit = experiment.data.max_epochs
    repeats = 0.0
    if train_tokens is not None:
        repeats = epochs(tokens, train_tokens, experiment.recipe.sequence_length)
    rules_broken = (
        (
            ratio < spec.min_tokens_per_param,
            f"{ratio:.3g} tokens per parameter, under {spec.min_tokens_per_param:g}",
        ),
        (
            ratio > spec.max_tokens_per_param,
            f"{ratio:.3g} tokens per parameter, over {spec.max_tokens_per_param:g}",
        ),
        (size.steps < spec.min_steps, f"{size.steps} steps, under {spec.min_steps}"),
        (
            abs(size.flops / size.budget - 1) > BUDGET_TOLERANCE,
            f"whole steps miss the budget by {percentage(abs(size.flops / size.budget - 1), 1)}",
        ),
        (
            repeats > limit,
            f"needs {repeats:.2g} epochs of the corpus, over {limit:g}",
        ),
    )
    return replace(size, reason=next((why for broken, why in rules_broken if broken), ""))

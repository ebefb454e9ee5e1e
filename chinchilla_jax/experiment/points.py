"""Single cells beside the grid: where a design asks for a run that no product of budgets and sizes
has.

    points=(Point(budget=3e12, width=64, seed=1), Point(budget=1e13, width=96))

A point is run as the experiment's other cells are, with every value of what varies but the seed,
which it has itself. `plan --next` writes them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.schema import positive, require


@dataclass(frozen=True, kw_only=True)
class Point:
    """A cell by its budget, its shape and its seed.

    On a ladder of widths any width is a shape, by the recipe's rule; else it is one of the
    ladder's, told by its depth where several have the width.
    """

    budget: float  # FLOPs
    width: int
    depth: int = 0  # any
    seed: int = 0

    def __post_init__(self) -> None:
        positive("points", budget=self.budget, width=self.width)
        require(self.depth >= 0, "points.depth", self.depth, "is a number of layers, or 0 for any")
        require(0 <= self.seed < 2**31, "points.seed", self.seed, "must lie in [0, 2**31)")


def check(points: Sequence[Point]) -> None:
    """Raises a one-line `UserError` for a point that stands twice."""
    for place, point in enumerate(points):
        if point in points[:place]:
            raise UserError(
                f"points: {point.budget:g} FLOPs, width {point.width}, seed {point.seed} is given "
                "twice"
            )


def shape_of(point: Point, shapes: Sequence[ModelConfig]) -> ModelConfig:
    """Which of a ladder's shapes a point has.

    Raises:
      UserError: none, or more than one.
    """
    found = [s for s in shapes if s.width == point.width and point.depth in (0, s.depth)]
    if len(found) == 1:
        return found[0]
    said = f"points: width {point.width}" + f", depth {point.depth}" * (point.depth > 0)
    if found:
        depths = ", ".join(str(shape.depth) for shape in found)
        raise UserError(f"{said}: {len(found)} shapes of the ladder have it (depths {depths})")
    widths = ", ".join(str(w) for w in sorted({shape.width for shape in shapes}))
    raise UserError(f"{said}: is none of the ladder's ({widths})")

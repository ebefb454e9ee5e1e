"""Settings that are run beside the plain experiment, each with a name: a union, where `vary` is a
product.

    panel={
        "sparse": Setting(values={"techniques.sparsity.level": 0.75}, widths=(32, 48)),
        "four_bits": Setting(values={"techniques.quantisation.bits": 4}),
    }

makes the grid three times over, plain, sparse and in four bits, the second for two of its widths.
Whatever varies does so in each: a setting has the seeds of the plain experiment.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.schema import require

_PLAIN_WORD = re.compile(r"[a-z]\w{0,39}", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Values of fields by path, set all at once, and the cells of the grid that are run so."""

    values: Mapping[str, Any] = field(default_factory=dict)
    budgets: tuple[float, ...] = ()  # of the experiment's, all where none is named
    widths: tuple[int, ...] = ()  # of the ladder's, before a technique changes shapes

    def at_budget(self, budget: float) -> bool:
        """Whether cells of this budget are run so."""
        return not self.budgets or budget in self.budgets

    def at_width(self, width: int) -> bool:
        """Whether cells of this width of the ladder are run so."""
        return not self.widths or width in self.widths


PLAIN = Setting()


def check(where: str, name: str, setting: Setting, budgets: Sequence[float]) -> None:
    """What can be said of a setting without its values.

    Raises:
      UserError: a name that is no plain word, a budget that the grid lacks, nothing to set.
    """
    require(
        bool(_PLAIN_WORD.fullmatch(name)),
        "panel",
        name,
        "a name stands in run ids: a small letter, then letters, digits and _",
    )
    if not setting.values:
        raise UserError(f"{where}.values: sets nothing, and the plain experiment is run anyway")
    for budget in setting.budgets:
        require(
            budget in budgets,
            f"{where}.budgets",
            budget,
            f"is none of the grid's ({', '.join(f'{b:g}' for b in budgets)})",
        )


def check_widths(settings: Mapping[str, Setting], widths: Sequence[int]) -> None:
    """Raises a one-line `UserError` for a width of a setting that is none of the ladder's."""
    for name, setting in settings.items():
        for width in setting.widths:
            require(
                width in widths,
                f"panel.{name}.widths",
                width,
                f"is none of the ladder's ({', '.join(map(str, widths))})",
            )

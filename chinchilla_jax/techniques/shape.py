"""Shape: the same parameters laid out wider, deeper or with another feed-forward network.

From a shape of the ladder to another whose total parameters are nearest to its own, in ratio. One
of width and depth is given by its multiplier and the other follows: depth where a width is asked
for, else width. The feed-forward size has its ratio to the width, times its multiplier, up to the
third by which it makes up for what whole layers and heads leave over. Heads are as large as in the
ladder's shape where that divides the width, else the largest even size that does, down to half of
it; groups of key and value heads stay as large, unless a number of these is given (grouped-query
attention: Ainslie et al. 2023, arXiv 2305.13245), whose parameters the feed-forward network has
then.

Width multipliers are MobileNet's (Howard et al. 2017, arXiv 1704.04861, section 3.3), here at equal
parameters, where the question is the aspect ratio (Kaplan et al. 2020, figure 5; Tay et al. 2021,
arXiv 2109.10686; McLeish et al. 2025, arXiv 2502.06857).
"""

import bisect
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

import numpy as np

from chinchilla_jax.experiment.counting import count_params
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.model import ModelConfig
from chinchilla_jax.experiment.schema import positive, require
from chinchilla_jax.techniques.law import Array, Law, Values, power_terms
from chinchilla_jax.techniques.technique import Technique

_WHERE = "techniques.shape"
_FF_STEP = 4  # feed-forward sizes are multiples of it
MOST_APART = 1.1  # parameters of two shapes that are called equal


@dataclass(frozen=True, kw_only=True)
class Shape:
    """How much wider, or deeper, than the ladder's shapes, at equal parameters."""

    width_multiplier: float = field(default=1.0, metadata={"short": "w"})
    depth_multiplier: float = field(default=1.0, metadata={"short": "d"})
    ff_multiplier: float = field(default=1.0, metadata={"short": "ff"})  # of its ratio to the width
    # Heads of keys and values, which query heads share; 0: as many as the ladder's shapes have.
    kv_heads: int = field(default=0, metadata={"short": "kv"})

    def __post_init__(self) -> None:
        positive(
            _WHERE,
            width_multiplier=self.width_multiplier,
            depth_multiplier=self.depth_multiplier,
            ff_multiplier=self.ff_multiplier,
        )
        require(self.kv_heads >= 0, f"{_WHERE}.kv_heads", self.kv_heads, "must be 0 or more")
        require(
            1.0 in (self.width_multiplier, self.depth_multiplier),
            f"{_WHERE}.depth_multiplier",
            self.depth_multiplier,
            f"beside width_multiplier = {self.width_multiplier:g}: give one of them, the other "
            "follows from equal parameters",
        )


def shaped(planned: ModelConfig, config: Shape) -> ModelConfig:
    """The shape whose total parameters are nearest to those of `planned`.

    Raises:
      UserError: a width that no head size fits, a depth that rounds to the one there was, or no
        shape within a tenth of the parameters.
    """
    total = count_params(planned).total

    def distance(model: ModelConfig) -> float:
        return abs(math.log(count_params(model).total / total))

    if config.width_multiplier != 1.0:
        wide = _widened(planned, config)
        one, two = (count_params(replace(wide, depth=depth)).total for depth in (1, 2))
        found = [replace(wide, depth=d) for d in _around(total, one, two - one)]
    elif config == Shape(kv_heads=config.kv_heads):
        found = [planned]
    else:
        deep = replace(planned, depth=_deepened(planned, config))
        wider = (_of_width(width, deep, config.ff_multiplier) for width in _widths())
        found = [model for model in wider if model is not None]
        # Parameters rise with the width.
        place = bisect.bisect_left(found, total, key=lambda model: count_params(model).total)
        found = found[max(0, place - 1) : place + 1]
    nearest = _with_kv_heads(min(found, key=distance), config.kv_heads)
    one, two = (count_params(replace(nearest, ff_size=n * _FF_STEP)).total for n in (1, 2))
    lowest, highest = _rounded(nearest.ff_size * 3 / 4), _rounded(nearest.ff_size * 4 / 3)
    sizes = (_FF_STEP * n for n in _around(total, one, two - one))
    best = min(
        (replace(nearest, ff_size=min(max(size, lowest), highest)) for size in sizes), key=distance
    )
    if distance(best) > math.log(MOST_APART):
        raise UserError(
            f"{_WHERE}: {_asked(config)} of {planned.width}x{planned.depth}: the nearest shape, "
            f"{best.width}x{best.depth}, has {count_params(best).total / total:.2f} times its "
            f"{total} parameters; larger models come nearer"
        )
    return best


def _asked(config: Shape) -> str:
    """The multipliers that are not 1, for a message."""
    values = {f.name: (getattr(config, f.name), f.default) for f in fields(config)}
    return ", ".join(f"{name} = {value:g}" for name, (value, off) in values.items() if value != off)


def _with_kv_heads(model: ModelConfig, kv_heads: int) -> ModelConfig:
    """The shape with so many heads of keys and values.

    Raises:
      UserError: its heads cannot share them evenly, or it has as many.
    """
    if kv_heads == model.kv_heads:
        raise UserError(
            f"{_WHERE}.kv_heads = {kv_heads}: {model.width}x{model.depth} with {model.heads} "
            f"head{'s' * (model.heads > 1)} has as many; name other widths"
        )
    if kv_heads and model.heads % kv_heads:
        sizes = (n for n in range(1, model.heads + 1) if model.heads % n == 0)
        raise UserError(
            f"{_WHERE}.kv_heads = {kv_heads}: does not divide the {model.heads} heads of "
            f"{model.width}x{model.depth}; {', '.join(map(str, sizes))} do"
        )
    return replace(model, kv_heads=kv_heads or model.kv_heads)


def _around(total: int, first: int, step: int) -> tuple[int, int]:
    """The whole n, at least 1, on either side of first + (n - 1) step = total."""
    below = max(1, 1 + (total - first) // step)
    return below, below + 1


def _rounded(ff_size: float) -> int:
    return _FF_STEP * max(1, round(ff_size / _FF_STEP))


def _of_width(width: int, planned: ModelConfig, ff_multiplier: float) -> ModelConfig | None:
    """`planned` at another width, None where no head size fits."""
    group, largest = planned.heads // planned.kv_heads, planned.head_size
    sizes = range(largest - largest % 2, (largest - 1) // 2, -2)
    head_size = next((k for k in sizes if width % (k * group) == 0), None)
    if head_size is None:
        return None
    heads = planned.heads if width == planned.width else width // head_size
    ff_size = planned.ff_size
    if width != planned.width or ff_multiplier != 1.0:
        ff_size = _rounded(ff_multiplier * planned.ff_size * width / planned.width)
    return replace(
        planned,
        width=width,
        heads=heads,
        kv_heads=heads // group,
        head_size=planned.head_size if width == planned.width else head_size,
        ff_size=ff_size,
    )


def _widened(planned: ModelConfig, config: Shape) -> ModelConfig:
    """`planned` at the width asked for."""
    wanted = planned.width * config.width_multiplier
    width = round(wanted)
    whole = math.isclose(width, wanted, rel_tol=1e-6)
    wide = _of_width(width, planned, config.ff_multiplier) if whole else None
    if wide is None:
        fitting = [w for w in _widths(2) if _of_width(w, planned, 1.0)]
        near = sorted(fitting, key=lambda w: abs(w - wanted))[:2]
        named = " and ".join(f"{w / planned.width:.6g} ({w})" for w in sorted(near))
        raise UserError(
            f"{_WHERE}.width_multiplier = {config.width_multiplier:g}: {planned.width} x "
            f"{config.width_multiplier:g} = {wanted:g} is no width that heads of "
            f"{planned.head_size // 2} to {planned.head_size} divide; near it are {named}"
        )
    return wide


def _deepened(planned: ModelConfig, config: Shape) -> int:
    """The depth asked for, to a whole layer."""
    wanted = planned.depth * config.depth_multiplier
    depth = max(1, math.floor(wanted + 0.5))
    if depth == planned.depth and config.depth_multiplier != 1.0:
        raise UserError(
            f"{_WHERE}.depth_multiplier = {config.depth_multiplier:g}: {planned.depth} layers x "
            f"{config.depth_multiplier:g} = {wanted:g}, which is {depth} again"
        )
    return depth


def _widths(finest: int = 0) -> Iterator[int]:
    """Widths to choose from, steps of 3 % or finer: even, then multiples of 8, 64, 128."""
    for first, last, step in ((2, 256, 2), (256, 2048, 8), (2048, 4096, 64), (4096, 65537, 128)):
        yield from range(first, last, finest or step)


_AXES = {"width": "alpha", "depth": "beta", "params": "gamma", "tokens": "zeta"}
_COEFFICIENTS = ("A", "B", "G", "Z")


def _terms(p: Values, x: Values) -> tuple[Array, ...]:
    return tuple(x[axis] ** -p[exponent] for axis, exponent in _AXES.items())


def _form(p: Values, x: Values) -> Array:
    terms = zip(_COEFFICIENTS, _terms(p, x), strict=True)
    return sum((p[name] * term for name, term in terms), start=p["E"])


def _linear(p: Values, x: Values) -> tuple[Sequence[Array], Array]:
    terms = _terms(p, x)
    return (np.ones_like(terms[0]), *terms), np.ones(())


WIDTH_DEPTH = Law(
    name="width_depth",
    formula="L = E + A/width^alpha + B/depth^beta + G/N^gamma + Z/D^zeta",
    source="McLeish et al. 2025 (Gemstones), arXiv 2502.06857, approach 3 with width and depth",
    columns=("width", "depth", "params", "tokens"),
    parameters=("E", *_COEFFICIENTS, *_AXES.values()),
    form=_form,
    ranges=dict.fromkeys(_AXES.values(), (0.05, 1.2)),
    linear=_linear,
    natural=power_terms("E", *_COEFFICIENTS),
    layout=("width", "depth"),
)

_WORDS = {
    "width_multiplier": "{} x width",
    "depth_multiplier": "{} x depth",
    "ff_multiplier": "{} x feed-forward ratio",
    "kv_heads": "{} key-value head{s}",
}


def words(given: Mapping[str, str]) -> str:
    """`2 x depth, 1 key-value head`."""
    return ", ".join(
        _WORDS[name].format(value, s="s" * (value != "1")) for name, value in given.items()
    )


TECHNIQUE = Technique(name="shape", off=Shape(), model=shaped, laws=(WIDTH_DEPTH,), words=words)

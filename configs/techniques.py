"""Can a smaller model beat a bigger one, or one that is built or fed differently? One league table.

    ./launch/local.sh --config=configs/techniques.py

A grid of dense runs, two seeds each, is the ruler. Settings of seven techniques are run on six of
its cells, with the seeds, the text and the budgets of the dense runs there, and are measured by it.
Dense runs are also measured in fewer bits after training, which costs no run, and some others in
four. The teacher is the dense run of 48x3 at 3e12 FLOPs of the same seed. The other text, to mix in
and to begin from, is the C that comes with Python's packages; the runs that others begin from stand
in no table. 250 runs and 1.94e14 FLOPs.

Expected, as measured on 2026-11-28 (README has the table; models 16 to 32 wide had one head then,
and have two): in parameters a teacher is worth 1.5 dense models, weights of C to begin from 1.3,
sparsity 1.3; in bytes four bits 4.7; in training FLOPs experts and the start 1.5, half the depth
1.2, a quarter of noise .76, the rest at most 1.1.
"""

from typing import Any

from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.quantisation import Quantisation

_WIDTHS = (16.0, 8.0, 5.0, 4.0, 3.0)  # bits of dense runs after training
_AFTER = {"techniques.quantisation.after": (4.0,)}
_NOT_AFTER: dict[str, Any] = {"techniques.quantisation.after": ()}
_LEVEL, _BITS = "techniques.sparsity.level", "techniques.quantisation.bits"
_TEACHER = {"techniques.distillation.teacher": "3e12-48x3"}
_ROUTED, _PER_TOKEN = "techniques.experts.routed", "techniques.experts.per_token"
_SHAPE = "techniques.shape"
_QUALITY, _KEEP = "techniques.data.quality", "techniques.data.keep"
_LIBRARY = {_QUALITY: "classifier", _KEEP: 0.5, "techniques.data.curated": "standard_library"}
_HALF_C = {"data.mixed_with": ("c_source",), "data.weights": (1.0, 1.0)}

_SETTINGS: dict[str, dict[str, Any]] = {
    "sparse_50": {_LEVEL: 0.5},
    "sparse_75": {_LEVEL: 0.75},
    "distilled": {**_TEACHER, **_AFTER},
    "four_bits": {_BITS: 4.0},
    "sparse_75_four_bits": {_LEVEL: 0.75, _BITS: 4.0},
    "distilled_four_bits": {**_TEACHER, _BITS: 4.0},
    "one_of_four": {_ROUTED: 4, **_AFTER},
    "two_of_eight": {_ROUTED: 8, _PER_TOKEN: 2},
    "wider": {f"{_SHAPE}.depth_multiplier": 0.5},
    "deeper": {f"{_SHAPE}.depth_multiplier": 2.0},
    "one_kv_head": {f"{_SHAPE}.kv_heads": 1},
    "feed_forward": {f"{_SHAPE}.ff_multiplier": 2.0},
    "curated": _LIBRARY,
    "random": {_QUALITY: "random", _KEEP: 0.5},
    "repeated": {"techniques.data.unique_tokens": 262144, "data.max_epochs": 32.0},
    "noise": {"techniques.data.noise": 0.25},
    "mixed": _HALF_C,
    "begun": {"techniques.transfer.start": "c_source"},
}
_BUDGETS, _AT = (3e11, 1e12), (24, 32, 48)


def get_config() -> Experiment:
    settings = {
        name: Setting(values=_NOT_AFTER | values, budgets=_BUDGETS, widths=_AT)
        for name, values in _SETTINGS.items()
    }
    starts = Setting(
        values=_NOT_AFTER | {"data.builder": "c_source"}, budgets=_BUDGETS[-1:], widths=_AT
    )
    return Experiment(
        name="techniques",
        budgets=(*_BUDGETS, 3e12),
        ladder=LadderConfig(
            widths=(16, 24, 32, 48, 64), sizes_per_budget=(0,), min_tokens_per_param=0.5
        ),
        vary={"seed": (0, 1)},
        techniques=Techniques(quantisation=Quantisation(after=_WIDTHS)),
        panel={"c_source": starts, **settings},
    )

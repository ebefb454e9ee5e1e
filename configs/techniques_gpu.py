"""The panel of `configs/techniques.py` on one large GPU: 1e17 to 1e18 FLOPs, 250 runs.

    python -m chinchilla_jax.plan --config=configs/techniques_gpu.py --devices=1 --hardware=h200
    python -m chinchilla_jax.sweep --config=configs/techniques_gpu.py --workdir=runs/techniques_gpu
    python -m chinchilla_jax.evaluate --runs=runs/techniques_gpu --by=technique

Expected, not measured: 6.2e19 FLOPs, the teachers' forward passes among them, take 44 hours at 40 %
of an H100's or H200's dense bf16 peak of 989e12 FLOP/s; with one seed (`--config.vary.seed=0`) half
of that. What pruning, fake quantisation, routing and loading add to a step comes on top
(tests/benchmarks/techniques_overhead.py measures it).

The texts are your own. The first is named by `--config.data.path`, the others here: one to mix in
and to begin from, and files that the classifier holds good. 8.1e9 bytes are met by the longest
dense run, so 2 GB of text keep every cell at four epochs. The teacher is the dense run of 768x13 at
1e18 FLOPs of the same seed.
"""

from typing import Any

from chinchilla_jax.experiment.config import DataConfig, Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.quantisation import Quantisation

_OTHER = "/data/other/*.jsonl.zst"
_CURATED = "/data/curated/*.jsonl.zst"
_WIDTHS = (16.0, 8.0, 5.0, 4.0, 3.0)  # bits of dense runs after training
_AFTER = {"techniques.quantisation.after": (4.0,)}
_NOT_AFTER: dict[str, Any] = {"techniques.quantisation.after": ()}
_LEVEL, _BITS = "techniques.sparsity.level", "techniques.quantisation.bits"
_TEACHER = {"techniques.distillation.teacher": "1e18-768x13"}
_ROUTED, _PER_TOKEN = "techniques.experts.routed", "techniques.experts.per_token"
_SHAPE = "techniques.shape"
_QUALITY, _KEEP = "techniques.data.quality", "techniques.data.keep"
_LIBRARY = {_QUALITY: "classifier", _KEEP: 0.5, "techniques.data.curated": _CURATED}
_HALF = {"data.mixed_with": (_OTHER,), "data.weights": (1.0, 1.0)}

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
    "repeated": {"techniques.data.unique_tokens": 2**26, "data.max_epochs": 32.0},
    "noise": {"techniques.data.noise": 0.25},
    "mixed": _HALF,
    "begun": {"techniques.transfer.start": "other"},
}
_BUDGETS, _AT = (1e17, 3e17), (512, 640, 768)


def get_config() -> Experiment:
    settings = {
        name: Setting(values=_NOT_AFTER | values, budgets=_BUDGETS, widths=_AT)
        for name, values in _SETTINGS.items()
    }
    starts = Setting(values=_NOT_AFTER | {"data.path": _OTHER}, budgets=_BUDGETS[-1:], widths=_AT)
    return Experiment(
        name="techniques_gpu",
        budgets=(*_BUDGETS, 1e18),
        ladder=LadderConfig(widths=(384, 512, 640, 768, 1024), sizes_per_budget=(0,)),
        vary={"seed": (0, 1)},
        recipe=RecipeConfig(
            sequence_length=1024,
            base_lr=1.6e-2,
            lr_batch_tokens=65536,
            base_batch_tokens=65536,
            batch_data_tokens=8e8,
            batch_exponent=0.5,
            warmup_fraction=0.1,
        ),
        data=DataConfig(builder="local_text", path="/data/shards/*.jsonl.zst"),
        techniques=Techniques(quantisation=Quantisation(after=_WIDTHS)),
        panel={"other": starts, **settings},
    )

"""The panel of `configs/techniques.py` on one large GPU: 1e17 to 1e18 FLOPs, 112 runs.

    python -m chinchilla_jax.plan --config=configs/techniques_gpu.py --devices=1 --hardware=h200
    python -m chinchilla_jax.sweep --config=configs/techniques_gpu.py --workdir=runs/techniques_gpu
    python -m chinchilla_jax.evaluate --runs=runs/techniques_gpu --by=technique

Expected, not measured: 3.4e19 FLOPs, the teachers' forward passes among them, take 24 hours at 40 %
of an H100's or H200's dense bf16 peak of 989e12 FLOP/s, 19 at 50 %; with one seed
(`--config.vary.seed=0`) half of that. What pruning, fake quantisation and loading add to a step
comes on top (tests/benchmarks/techniques_overhead.py measures it).

The text is your own: name it by `--config.data.path`. 8.1e9 bytes are met by the longest dense run,
so 2 GB of text keep every cell at four epochs; runs that would see it more often are left out with
that reason. The teacher is the dense run of 768x13 at 1e18 FLOPs of the same seed.
"""

from chinchilla_jax.experiment.config import DataConfig, Experiment, LadderConfig, RecipeConfig
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.quantisation import Quantisation

_LEVEL, _BITS = "techniques.sparsity.level", "techniques.quantisation.bits"
_TEACHER = {"techniques.distillation.teacher": "1e18-768x13"}
_WIDTHS = (16.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.0)  # bits of dense runs after training
_AFTER = {"techniques.quantisation.after": (4.0,)}


def _setting(values: dict[str, object]) -> Setting:
    return Setting(values=values, budgets=(1e17, 3e17), widths=(512, 640, 768))


def get_config() -> Experiment:
    return Experiment(
        name="techniques_gpu",
        budgets=(1e17, 3e17, 1e18),
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
        panel={
            "sparse_50": _setting({_LEVEL: 0.5, **_AFTER}),
            "sparse_75": _setting({_LEVEL: 0.75, **_AFTER}),
            "distilled": _setting({**_TEACHER, **_AFTER}),
            "four_bits": _setting({_BITS: 4.0}),
            "two_bits": _setting({_BITS: 2.0}),
            "sparse_75_four_bits": _setting({_LEVEL: 0.75, _BITS: 4.0}),
            "distilled_four_bits": _setting({**_TEACHER, _BITS: 4.0}),
        },
    )

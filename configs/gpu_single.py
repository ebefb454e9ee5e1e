"""Iso-FLOP curves on one large GPU in under an hour: 1e16 to 3e17 FLOPs, 18 runs.

    python -m chinchilla_jax.plan --config=configs/gpu_single.py --devices=1 --hardware=h200
    python -m chinchilla_jax.sweep --config=configs/gpu_single.py --workdir=runs/gpu_single
    python -m chinchilla_jax.evaluate --runs=runs/gpu_single --out=runs/gpu_single/report

Expected, not measured: 1.04e18 FLOPs at 40 % of an H100's or H200's dense bf16 peak, 989e12 FLOP/s,
take 2,630 s, 44 minutes; at 30 % it is 58 minutes. Compiling nine shapes adds some minutes. Curves
come from 1e16, 3e16 and 1e17. 3e17, where a run takes as long as a third of all others, has one
run: what the curves say of it, `forecast --fits=runs/gpu_single/report --flops=3e17`, is checked
by it. Six sizes there too (`--config.ladder.sizes_per_budget=6`) make 2.6e18 FLOPs, 1 h 50 min.

The text is the Python source of all packages installed, in bytes: 150 MB where PyTorch, JAX and
their usual company are, which the longest run sees 5.4 times (up to some four times repetition
costs almost nothing, and little at eight: Muennighoff et al. 2023). Runs that would see it more
than `max_epochs` times are left out with that reason. Local shards, with the same command:

    --config.data.builder=local_text --config.data.path='/data/shards/*.jsonl.zst'
"""

from chinchilla_jax.experiment.config import DataConfig, Experiment, LadderConfig, RecipeConfig


def get_config() -> Experiment:
    return Experiment(
        name="gpu_single",
        budgets=(1e16, 3e16, 1e17, 3e17),
        ladder=LadderConfig(
            widths=(128, 192, 256, 320, 384, 448, 512, 576, 640, 704, 768, 896),
            sizes_per_budget=(6, 6, 5, 1),
            tokens_per_param=15.0,  # bytes; 15 to 18 at the quickstart's minima
        ),
        recipe=RecipeConfig(
            sequence_length=1024,
            # An estimate, far from where the default rule was tuned: a quarter of what it would
            # give, 2e-3 at width 512. At the smallest budget
            # `--config.vary.recipe.lr_multiplier=0.5,1,2` tells.
            base_lr=1.6e-2,
            lr_batch_tokens=65536,
            base_batch_tokens=65536,  # large enough to fill the device, at 8e8 bytes
            batch_data_tokens=8e8,
            batch_exponent=0.5,
            warmup_fraction=0.1,
        ),
        data=DataConfig(packages="installed", max_epochs=8.0),
    )

"""The paper's grid: nine budgets from 6e18 to 3e21 FLOPs over the fifty shapes of Table A9.

    python -m chinchilla_jax.plan --config=configs/chinchilla.py
    python -m chinchilla_jax.plan --config=configs/chinchilla.py --devices=256 --hardware=h200

Prints 450 cells in about a second, of which 223 are planned, 1.2e23 FLOPs in all: 84,000 hours of
one H100 or H200 at 40 % of its dense bf16 peak, 989e12 FLOP/s; none of it was run. The second
command adds the mesh, the memory and the hours of every cell on 256 devices. At each budget
the runs lie around 20 tokens per parameter and span two decades of it, 1.5 to 250, as those of
the paper's figure 3 do; at 3e21 that reaches the largest shape of the table, 16.2B. Runs take
1.2e9 to 3.15e11 tokens; the paper's, read off its figure 4 by Besiroglu et al. 2024, 2.5e8 to
3.18e11.

The text is C4 in English (Raffel et al. 2020), in place of MassiveText, which is not public: the
shards en/*.json.gz of huggingface.co/datasets/allenai/c4 in data/c4, or any other shards
(`--config.data.path=...`). Its 156e9 tokens are seen at most twice here. The
smallest budget alone, `--config.budgets=6e18`, needs 11e9 tokens, four epochs of 2.7e9.

Everything is Hoffmann et al. 2022 (arXiv 2203.15556) but for what the paper does not print: the
batch and the rate between its published points, the warm-up and the weight decay.
"""

from chinchilla_jax.experiment.config import DataConfig, Experiment, LadderConfig, RecipeConfig


def get_config() -> Experiment:
    return Experiment(
        name="chinchilla",
        budgets=(6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21),
        flops_convention="chinchilla",  # appendix F
        ladder=LadderConfig(
            table="chinchilla_table_a9",
            sizes_per_budget=(0,),
            min_tokens_per_param=1.5,
            max_tokens_per_param=250.0,
        ),
        recipe=RecipeConfig(
            definition="chinchilla",
            sequence_length=2048,
            # D.4: 2.8B, of width 2560, on 6e10 tokens had a batch of 0.5M tokens and a rate of
            # 1.5e-4, which is 6e-3 at muP's base width of 64. From there 1/width, the square
            # root of the batch, and the batch as the square root of D give the 70B of Table 4
            # 2.4M tokens (1.5M to 3M there) and a rate of 1.0e-4 (1e-4), and the 280B's rate at
            # its 3M tokens 5.7e-5 (4e-5).
            base_width=64,
            base_lr=6e-3,
            lr_batch_tokens=0.5e6,
            base_batch_tokens=0.5e6,
            batch_data_tokens=6e10,
            batch_exponent=0.5,
            max_batch_tokens=3e6,
            schedule="cosine",  # to the run's own horizon, decaying ten-fold
            final_fraction=0.1,
            warmup_fraction=0.02,  # Gopher's 1,500 steps (Rae et al. 2021) of 75,000
        ),
        data=DataConfig(
            builder="local_text",
            path="data/c4/en/c4-train.*.json.gz",
            tokenizer="sentencepiece",
            vocab_size=32000,
        ),
    )

"""One of four, one of eight and two of eight smaller experts for each token, beside dense runs.

    python -m chinchilla_jax.sweep --config=configs/experts.py --workdir=runs/experts
    python -m chinchilla_jax.evaluate --runs=runs/experts --by=technique --laws=joint_experts

A token meets as many parameters as in the dense run of its cell, beside the router, and sees the
same text in the same order; a model holds up to five times as many. The league table measures
experts by dense runs in active parameters and in bytes at rest. Ludziejewski et al. 2025 (arXiv
2502.05172) find eight experts worth a dense model of 1.8 times their active parameters at 20
tokens a parameter.

Not run as a whole yet. Seen on 2026-11-27 in two cells at 3e10 FLOPs, one seed, whose noise is
about 1 %: one of four experts 2.3 % lower in loss than the dense run at 16x2 and 25 tokens a
parameter, 1.1 % higher at 24x3 and 4; largest mean loads 1.1 and 1.3 of an equal split.
"""

from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.panel import Setting

_ROUTED, _PER_TOKEN = "techniques.experts.routed", "techniques.experts.per_token"


def get_config() -> Experiment:
    return Experiment(
        name="experts",
        budgets=(1e11, 3e11),
        ladder=LadderConfig(
            widths=(16, 24, 32, 48), sizes_per_budget=(0,), min_tokens_per_param=0.5
        ),
        panel={
            "one_of_four": Setting(values={_ROUTED: 4}, widths=(24, 32, 48)),
            "one_of_eight": Setting(values={_ROUTED: 8}, widths=(24, 32, 48)),
            "two_of_eight": Setting(values={_ROUTED: 8, _PER_TOKEN: 2}, widths=(24, 32, 48)),
        },
    )

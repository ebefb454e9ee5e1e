"""One of four, one of eight and two of eight smaller experts for each token, beside dense runs.

    python -m chinchilla_jax.sweep --config=configs/experts.py --workdir=runs/experts
    python -m chinchilla_jax.evaluate --runs=runs/experts --by=technique --laws=joint_experts

A token meets as many parameters as in the dense run of its cell, beside the router, and sees the
same text in the same order; a model holds up to five times as many. The league table measures
experts by dense runs in active parameters and in bytes at rest. Ludziejewski et al. 2025 (arXiv
2502.05172) find eight experts worth a dense model of 1.8 times their active parameters at 20
tokens a parameter.
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

"""Can a smaller model beat a bigger one? Sparsity, distillation and few bits in one league table.

    ./launch/local.sh --config=configs/techniques.py

A grid of dense runs, two seeds each, is the ruler; seven settings are run on six of its cells, with
the seeds, the text and the steps of the dense runs there, and are measured by it. Dense runs are
also measured in fewer bits after training, which costs no run, sparse and distilled ones in four.
The teacher is the dense run of 48x3 at 3e12 FLOPs of the same seed. 112 runs and 1.02e14 FLOPs,
five quickstarts and the overhead of the techniques.

Expected from a prototype: non-zero weights worth more than dense ones, a teacher worth most where
text is short, four bits the best of the widths in bytes, nothing better than dense in training
FLOPs. Seen on 2026-11-27, on two cores in 20 minutes, multipliers of dense models: a teacher 1.5 in
size and 1.8 in tokens, 1.02 (.90 to 1.10) in training FLOPs; 50 and 75 % sparse 1.23 and 1.27 in
non-zero weights, .79 and .58 in training FLOPs; four bits 4.8 in bytes, where bfloat16 is 2.0 and
two bits 3.7; a teacher and four bits 6.8. README.md has the table.
"""

from chinchilla_jax.experiment.config import Experiment, LadderConfig
from chinchilla_jax.experiment.panel import Setting
from chinchilla_jax.techniques import Techniques
from chinchilla_jax.techniques.quantisation import Quantisation

_LEVEL, _BITS = "techniques.sparsity.level", "techniques.quantisation.bits"
_TEACHER = {"techniques.distillation.teacher": "3e12-48x3"}
_WIDTHS = (16.0, 8.0, 6.0, 5.0, 4.0, 3.0, 2.0)  # bits of dense runs after training
_AFTER = {"techniques.quantisation.after": (4.0,)}


def _setting(values: dict[str, object]) -> Setting:
    return Setting(values=values, budgets=(3e11, 1e12), widths=(24, 32, 48))


def get_config() -> Experiment:
    return Experiment(
        name="techniques",
        budgets=(3e11, 1e12, 3e12),
        ladder=LadderConfig(
            widths=(16, 24, 32, 48, 64), sizes_per_budget=(0,), min_tokens_per_param=0.5
        ),
        vary={"seed": (0, 1)},
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

"""Half of the data, curated, against all of it; with noise and repetition as what is known.

    python -m chinchilla_jax.sweep --config=configs/data_quality.py --workdir=runs/data_quality
    python -m chinchilla_jax.evaluate --runs=runs/data_quality --by=technique
    python -m chinchilla_jax.evaluate --runs=runs/data_quality --laws=repetition

The text is the embedded one, 69 MB of Python. Curated is the half of it that a classifier finds
most like the standard library, 500 of whose modules it has learnt from; beside it the half that
chance picks, which is all that "half" alone costs, and what Gopher's rules for English leave.

All of it is measured on the same text: windows of documents that a hash holds out of the whole
corpus, which no filter touches. That is honest towards "all of it", whose kind of text it is, and
hard on the curated half: a filter that only brings the text nearer to its own taste is worse here,
however clean. What curation is worth on text of the curated kind alone is another question, which
one held-out text cannot answer beside this one.

Expected: at these lengths, .5M tokens at most, nothing is repeated by half of 69 MB, so the random
half is worth as much as all of it; the curated half less, by what it lacks of the packages' text;
noise in a quarter of the rows three quarters of the tokens at most, the control of all this; 32,768
unique tokens, read three to fourteen times, a good deal of them (Muennighoff et al. 2023, arXiv
2305.16264).

Run once (2026-11-27; eleven minutes at low priority on two busy cores, two seeds, four cells each).
Loss against all of it at equal tokens and seed, and the tokens of it that reach the same loss:

    random half       -.6 % +- .5    1.06 (1.02 to 1.12)
    curated half     +1.6 % +- 1.0    .91 (.88 to .94), +2.6 % at the longer of two lengths
    32,768 tokens    +3.7 % +- 3.0    .83 (.79 to .89), 0, 1, 6 and 8 % at 3, 4, 9 and 14 epochs
    Gopher's rules   +3.9 % +- .5     .75 (.71 to .77)
    25 % noise       +4.2 % +- .9     .71 (.65 to .77)

So half of the data, curated, did not beat all of it here, and the rules, which were made for
English on the web, cost far more. The control holds its known answer. That the random half comes
out above 1, where nothing is repeated, says how far the choice of documents reaches: some 6 % in
tokens, which the intervals do not hold. One of the noisy runs ended as diverged, with a batch of
one sequence, whose smoothed loss the noise lifts. An eighth of the held-out passages occur word for
word in the training text.
"""

from typing import Any

from chinchilla_jax.experiment.config import DataConfig, Experiment, LadderConfig
from chinchilla_jax.experiment.panel import Setting

_QUALITY, _KEEP = "techniques.data.quality", "techniques.data.keep"


def get_config() -> Experiment:
    settings: dict[str, dict[str, Any]] = {
        "curated": {
            _QUALITY: "classifier", _KEEP: 0.5, "techniques.data.curated": "standard_library",
        },
        "random": {_QUALITY: "random", _KEEP: 0.5},
        "gopher": {_QUALITY: "gopher"},
        "noise": {"techniques.data.noise": 0.25},
        "repeated": {"techniques.data.unique_tokens": 32768},
    }  # fmt: skip
    return Experiment(
        name="data_quality",
        budgets=(3e10, 1e11),
        ladder=LadderConfig(
            widths=(16, 24, 32, 48), sizes_per_budget=(0,), min_tokens_per_param=0.5
        ),
        vary={"seed": (0, 1)},
        data=DataConfig(max_epochs=32.0),
        panel={name: Setting(values=values, widths=(24, 32)) for name, values in settings.items()},
    )

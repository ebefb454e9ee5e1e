"""Asks a fitted or published law: the best run of a budget, and the question turned round.

    python -m chinchilla_jax.forecast --fits=report/fits.json --flops=1e21,5.76e23
    python -m chinchilla_jax.forecast --law=hoffmann --loss=2.0
    python -m chinchilla_jax.forecast --law=replication --params=7e9 --inference_tokens=1e12
    python -m chinchilla_jax.forecast --law=steplaw --params=1e9 --tokens=1e11
    python -m chinchilla_jax.forecast --fits=report/fits.json --flops=1e13 \\
        --register=forecasts/NAME.json --write_config=configs/NAME.py

--flops asks for the compute-optimal run of budgets, --loss for the cheapest run that reaches it,
--params or --tokens for the run in which they are compute-optimal, both together for the loss of
that very run, or its rate and batch; --register keeps a forecast to be verified. --law=list names
the published laws.
"""

from absl import flags

from chinchilla_jax import flag_values, program, shared_flags
from chinchilla_jax.experiment import storage
from chinchilla_jax.experiment.config import RecipeConfig
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.comparison import read
from chinchilla_jax.scaling.forecast.frontier import Frontier, from_fits, named
from chinchilla_jax.scaling.register.register import register
from chinchilla_jax.scaling.report import answers, outcome

_CONFIG = shared_flags.define_config(required=False)
_FITS = flags.DEFINE_string("fits", "", "The fits.json of a report that evaluate wrote.")
_WHERE = flags.DEFINE_list(
    "where", [], "Which condition, of a --fits that compares several: optimizer=adamw,bits=4."
)
_LAW = flags.DEFINE_string("law", "", "A published law, not --fits, by name; list shows them all.")
_FORM = flags.DEFINE_string("form", "", "One of surface, loss_law. Default: what hold-out prefers.")
_ASKED = (
    flags.DEFINE_list("flops", [], "Budgets in training FLOPs, as 1e21,5.76e23."),
    flags.DEFINE_list("loss", [], "Losses to reach, in the unit of the law."),
    flags.DEFINE_list("params", [], "Sizes in parameters, as 7e9."),
    flags.DEFINE_list("tokens", [], "Training tokens, as 1.4e12."),
)
_INFERENCE = flags.DEFINE_string("inference_tokens", "", "Tokens the model is to serve, as 1e12.")
_FIXED = flags.DEFINE_list(
    "fixed", [], "Further columns of a published law: unique_tokens=25e9,sparsity=0.5."
)
_VOCAB = flags.DEFINE_integer(
    "vocab_size", None, "Vocabulary of shapes. Default: --config's, the runs', else 32000.", 1
)
_REGISTER = flags.DEFINE_string("register", "", "Freeze the forecast in this file, before runs.")
_WRITE_CONFIG = flags.DEFINE_string(
    "write_config", "", "With --register: a config that trains its best size and the neighbours."
)
_SEEDS = flags.DEFINE_integer("seeds", 1, "Seeds of each run of --write_config.", lower_bound=1)


def _frontier() -> Frontier:
    if bool(_FITS.value) == bool(_LAW.value):
        raise UserError("give either --fits=FILE or --law=NAME (--law=list shows the names)")
    if _LAW.value:
        return named(_LAW.value, flag_values.floats("fixed", _FIXED.value))
    path = storage.path(_FITS.value)
    picked = flag_values.pairs("where", _WHERE.value)
    fits = read(path / "fits.json" if path.is_dir() else path, picked)
    return from_fits(fits, _FORM.value)


def _registered() -> str:
    budgets = flag_values.positive_numbers("flops", _ASKED[0].value)
    others = (*_ASKED[1:], _LAW, _INFERENCE, _FIXED)
    if not (_FITS.value and _REGISTER.value and len(budgets) == 1) or any(f.value for f in others):
        raise UserError("to register give --fits=FILE, one --flops and --register=FILE, no more")
    like = program.experiment_from_flags(_CONFIG.value) if _CONFIG.value else None
    where, config = flag_values.pairs("where", _WHERE.value), _WRITE_CONFIG.value or None
    file, seeds, form = _REGISTER.value, _SEEDS.value, _FORM.value
    made = register(_FITS.value, *budgets, file, config, seeds, form, where, like)
    return outcome.registered(made, file, config)


def main(_: list[str]) -> None:
    if _LAW.value == "list":
        print(answers.listed())
        return
    if _REGISTER.value or _WRITE_CONFIG.value:
        print(_registered())
        return
    frontier = _frontier()
    asked = {flag.name: flag_values.positive_numbers(flag.name, flag.value) for flag in _ASKED}
    runs = asked["params"] and asked["tokens"]  # to predict: two may be of one size
    for name in ("flops", "loss") if runs else asked:
        flag_values.once(name, asked[name])
    recipe, vocab = RecipeConfig(), frontier.vocab_size or 32000
    if _CONFIG.value:
        experiment = program.experiment_from_flags(_CONFIG.value)
        recipe, vocab = experiment.recipe, experiment.data.vocab_size
    served = _INFERENCE.value and flag_values.positive_number("inference_tokens", _INFERENCE.value)
    print(answers.text(frontier, asked, served or None, recipe, _VOCAB.value or vocab))


if __name__ == "__main__":
    program.run(main)

"""Text from a finished run, or how fast it is written.

    python -m chinchilla_jax.generate --run=runs/quickstart --prompt="def main("
    python -m chinchilla_jax.generate --run=runs/quickstart/runs/3e12-48x3-s0 --prompt=A --prompt=B
    python -m chinchilla_jax.generate --run=runs/quickstart --measure

A text ends with its document, after --tokens new tokens, or else when it is as long as the
sequences that the run was trained on. With more --tokens it goes on from its newest part: a token
is never predicted from more than such a sequence, and each time that is full its older half is
forgotten. The same seed writes the same text, with the cache and without, whatever is beside it.

--measure adds to the results of the run, or of each finished run of a work folder, what it takes to
write by it here: `evaluate` then has seconds (and joules where they are counted) per generated
token as a currency.

Exit status: 0 all is done; 1 a run was not measured; 2 a mistake in the call; 130 interrupted.
"""

import sys

from absl import flags

from chinchilla_jax import flag_values, program
from chinchilla_jax.experiment import finished, storage
from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.experiment.sampling import Sampling

_RUN = flags.DEFINE_string(
    "run", None, "Folder of a finished run, or a work folder: its run of the lowest loss.",
    required=True,
)  # fmt: skip
_PROMPT = flags.DEFINE_multi_string("prompt", [], "Beginning of a text")
_TOKENS = flags.DEFINE_integer(
    "tokens", None, "New tokens of each text. Default: up to the length trained on.", lower_bound=1
)
_TEMPERATURE = flags.DEFINE_float(
    "temperature", 0.8, "Temperature of the draw; 0 takes the likeliest token."
)
_TOP_K = flags.DEFINE_integer("top_k", 0, "Draw from this many likeliest tokens. Default: all.")
_TOP_P = flags.DEFINE_float(
    "top_p", 1.0, "Draw from the likeliest tokens that together have this probability."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the draw.")
_CACHE = flags.DEFINE_bool("cache", True, "Keep keys and values, or compute all for each token.")
_TENSOR = flags.DEFINE_integer(
    "tensor", 1, "Devices over which each layer is split.", lower_bound=1
)
_MEASURE = flags.DEFINE_bool("measure", False, "Write no text: measure speed, memory and bytes.")


def main(_: list[str]) -> None:
    place = storage.path(_RUN.value)
    if bool(_PROMPT.value) == _MEASURE.value:
        raise UserError("give either --prompt=TEXT, the beginning of a text, or --measure")
    texts = {"tokens", "temperature", "top_k", "top_p", "seed", "cache"}
    takes: dict[str, set[str]] = {"": texts, "measure": set()}
    flag_values.refuse_flags_of_others("measure" * _MEASURE.value, takes)
    if _MEASURE.value:
        from chinchilla_jax.training.serving import measure

        outcome = measure(place, _TENSOR.value)
        for name, reason in outcome.left.items():
            print(f"{name}: not measured: {reason}", file=sys.stderr)
        print(outcome.text())
        sys.exit(1 if outcome.left else 0)
    sampling = Sampling(
        temperature=_TEMPERATURE.value, top_k=_TOP_K.value, top_p=_TOP_P.value, seed=_SEED.value
    )
    run = finished.done_at(place)
    from chinchilla_jax.training.generation import write  # after the mistakes that need no JAX

    try:
        write(run, _PROMPT.value, _TOKENS.value, sampling, _CACHE.value, _TENSOR.value, _show)
    except KeyboardInterrupt:
        print()  # the line that the text broke off in ends
        raise


def _show(text: str) -> None:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), end="", flush=True)


if __name__ == "__main__":
    program.run(main)

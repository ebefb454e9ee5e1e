"""Exports a finished run to a folder that transformers, vLLM and lm-eval open.

    python -m chinchilla_jax.export --run=runs/quickstart --to=exported/best
    python -m chinchilla_jax.export --run=runs/quickstart/runs/3e12-48x3-s0 --to=one --gguf

The modern definition is a Qwen3, and one whose feed-forward networks are experts a Qwen3Moe:
`chinchilla_jax/formats/huggingface.py` says how, and what is refused. The folder is complete or
absent. Runs start from it by --init_from=DIR. --gguf puts a model.gguf into it, for llama.cpp.

--lm_eval=512 puts held-out text of the run beside it, as a task of lm-eval, and says what our own
evaluation finds on it:

    lm_eval --model hf --model_args pretrained=DIR --tasks held_out --include_path DIR/lm_eval

Exit status: 0 the folder is there; 2 a mistake in the call; 130 interrupted.
"""

import shlex

from absl import flags

from chinchilla_jax import program
from chinchilla_jax.experiment import exported, finished, storage
from chinchilla_jax.formats import folder

_RUN = flags.DEFINE_string(
    "run",
    None,
    "Folder of a finished run, or a work folder: its run of the lowest loss.",
    required=True,
)
_TO = flags.DEFINE_string("to", None, "The folder to make.", required=True)
_DTYPE = flags.DEFINE_enum(
    "dtype", exported.DTYPES[0], exported.DTYPES, "Type of the weights that are written."
)
_GGUF = flags.DEFINE_bool("gguf", False, "Also write a model.gguf, for llama.cpp.")
_WINDOWS = flags.DEFINE_integer(
    "lm_eval",
    0,
    "Also write a task of lm-eval, of so many windows of held-out text.",
    lower_bound=0,
)


def main(_: list[str]) -> None:
    place, target = storage.path(_RUN.value), storage.path(_TO.value)
    folder.refuse_remote(target)
    exported.already(target)
    run = finished.done_at(place)
    from chinchilla_jax.training.export import export  # after the mistakes that need no JAX

    found = export(run, target, _DTYPE.value, _WINDOWS.value, _GGUF.value)
    what = f"{found.of.run}, {found.numbers:,} parameters in {found.of.dtype}"
    print(f"exported {what}: {target}" if found.made else f"{target}: is there already: {what}")
    if found.bits_per_byte is not None:
        on = f"{found.windows} windows of {found.of.sequence_length} tokens held out"
        print(f"bits per byte by our evaluation: {found.bits_per_byte:.6f}, on {on}")
        words = ("--model_args", f"pretrained={target}", "--tasks", "held_out",
                 "--include_path", f"{target / 'lm_eval'}")  # fmt: skip
        print(shlex.join(("lm_eval", "--model", "hf", *words)))


if __name__ == "__main__":
    program.run(main)

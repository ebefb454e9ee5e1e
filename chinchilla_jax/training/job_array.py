"""Which part of the cells is a task's, by what its scheduler tells it."""

from collections.abc import Mapping

from chinchilla_jax.experiment.errors import UserError


def part(environ: Mapping[str, str]) -> str:
    """`i/n` for task i of a job array of n: `--cells=auto`.

    SLURM numbers tasks from SLURM_ARRAY_TASK_MIN by SLURM_ARRAY_TASK_STEP. Kubernetes gives an
    Indexed Job's pod its JOB_COMPLETION_INDEX but not how many there are: its manifest repeats
    `completions` as JOB_COMPLETIONS (launch/gke.yaml).

    Raises:
      UserError: this is no task of an array, or the array has gaps.
    """
    if "SLURM_ARRAY_TASK_ID" in environ:
        names = ("ID", "MIN", "STEP", "COUNT")
        defaults = (None, "0", "1", None)
        task, first, step, count = (
            _whole(environ, f"SLURM_ARRAY_TASK_{name}", default)
            for name, default in zip(names, defaults, strict=True)
        )
        index, rest = divmod(task - first, max(step, 1))
        where = f"SLURM_ARRAY_TASK_ID={task}"
    elif "JOB_COMPLETION_INDEX" in environ:
        index, rest = _whole(environ, "JOB_COMPLETION_INDEX"), 0
        count = _whole(environ, "JOB_COMPLETIONS")
        where = f"JOB_COMPLETION_INDEX={index}"
    else:
        raise UserError(
            "--cells=auto: neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX is set, so this "
            "is no task of a job array; give --cells=i/n"
        )
    if rest or not 0 <= index < count:
        raise UserError(
            f"--cells=auto: {where} is not one of {count} tasks in a row; where the array has "
            "gaps, give --cells=i/n"
        )
    return f"{index}/{count}"


def _whole(environ: Mapping[str, str], name: str, default: str | None = None) -> int:
    text = environ.get(name, default)
    if text is None or not text.isdecimal():
        raise UserError(f"--cells=auto: {name} is {text or 'not set'}; expected a whole number")
    return int(text)

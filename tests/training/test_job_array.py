"""A task's part of the cells, from the scheduler's own variables."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.training.job_array import part


def slurm(task, first=None, step=None, count=None):
    values = {"ID": task, "MIN": first, "STEP": step, "COUNT": count}
    return {f"SLURM_ARRAY_TASK_{k}": str(v) for k, v in values.items() if v is not None}


@given(st.integers(0, 50), st.integers(1, 7), st.integers(1, 20))
def test_the_tasks_of_a_slurm_array_are_parts_0_to_n(first, step, count):
    tasks = range(first, first + step * count, step)
    parts = [part(slurm(task, first, step, count)) for task in tasks]
    assert parts == [f"{i}/{count}" for i in range(count)]


def test_an_indexed_job():
    assert part({"JOB_COMPLETION_INDEX": "3", "JOB_COMPLETIONS": "8"}) == "3/8"


@pytest.mark.parametrize(
    "environ,words",
    [
        ({}, "neither SLURM_ARRAY_TASK_ID nor JOB_COMPLETION_INDEX"),
        ({"JOB_COMPLETION_INDEX": "3"}, "JOB_COMPLETIONS is not set"),
        ({"JOB_COMPLETION_INDEX": "x", "JOB_COMPLETIONS": "8"}, "JOB_COMPLETION_INDEX is x"),
        ({"JOB_COMPLETION_INDEX": "8", "JOB_COMPLETIONS": "8"}, "not one of 8 tasks"),
        (slurm(7, 1, 1, 3), "SLURM_ARRAY_TASK_ID=7 is not one of 3 tasks in a row"),  # 1,3,7
        (slurm(4, 1, 2, 3), "not one of 3 tasks"),
        (slurm(0), "SLURM_ARRAY_TASK_COUNT is not set"),
    ],
)
def test_what_is_no_part_is_one_line(environ, words):
    with pytest.raises(UserError, match=words) as caught:
        part(environ)
    assert "\n" not in str(caught.value) and str(caught.value).startswith("--cells=auto")

"""`forecast` as a person calls it."""

import pytest

from .command import call
from .scaling.sweeps import write_sweep


def test_from_a_report(tmp_path):
    write_sweep(tmp_path)
    made = call("evaluate", f"--runs={tmp_path}", "--nofigures", "--bootstrap=100")
    assert made.returncode == 0, made.stderr
    done = call(
        "forecast", f"--fits={tmp_path}/report/fits.json", "--flops=1e13,1e14", "--loss=1.3",
        "--inference_tokens=1e9", "--config=configs/quickstart.py",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert " to " in done.stdout and "heads" in done.stdout and "served" in done.stdout
    assert f"{tmp_path}" in done.stdout  # what answers is named


def test_published_laws():
    done = call("forecast", "--law=replication_huber", "--flops=5.76e23")
    assert "73.2B" in done.stdout and "1.31T" in done.stdout
    names = call("forecast", "--law=list").stdout
    assert all(name in names for name in ("hoffmann ", "kaplan ", "frantar_t5", "muennighoff"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("--fits", "--law")),
        (("--law=hoffmann", "--fits=x"), ("either",)),
        (("--law=hoffmann",), ("nothing is asked", "--flops")),
        (("--law=hofmann", "--flops=1e21"), ("did you mean hoffmann?",)),
        (("--law=hoffmann", "--flops=1e21;2"), ("--flops", "1e21;2")),
        (("--law=hoffmann", "--loss=1.2"), ("out of reach", "1.693")),
        (("--law=llama3", "--loss=2"), ("sizes, not a loss",)),
        (("--law=gemstones", "--flops=1e21"), ("width",)),
        (("--fits=/nonexistent.json", "--flops=1e21"), ("/nonexistent.json",)),
        (("--fits=setup.cfg", "--flops=1e21"), ("setup.cfg", "not JSON")),
    ],
)
def test_a_mistake_is_one_line_and_status_2(arguments, words):
    done = call("forecast", *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    for word in words:
        assert word in done.stderr

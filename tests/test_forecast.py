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


def test_after_a_refused_fit_the_refusal_is_told(tmp_path):
    rows = "".join(f"{n:g},{1e17 / 6 / n},{2 + 1e4 / n}\n" for n in (1e6, 2e6, 4e6, 8e6, 16e6))
    (tmp_path / "one.csv").write_text(f"params,tokens,loss\n{rows}")
    out = f"--out={tmp_path}/report"
    assert call("evaluate", f"--runs={tmp_path}/one.csv", out, "--nofigures").returncode == 0
    done = call("forecast", f"--fits={tmp_path}/report", "--flops=1e18")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "5 different runs for 5 parameters" in done.stderr and "--form" not in done.stderr


def test_published_laws():
    done = call("forecast", "--law=replication_huber", "--flops=5.76e23")
    assert "73.2B" in done.stdout and "1.31T" in done.stdout
    names = call("forecast", "--law=list").stdout
    assert all(name in names for name in ("hoffmann ", "kaplan ", "frantar_t5", "muennighoff"))


@pytest.mark.parametrize(
    ("plain", "said"),
    [
        (("tian", "--flops=1e21"), ("ling", "--flops=1e21")),
        (("tian", "--flops=1e21"), ("Ling", "--flops=1e21")),
        (("hoffmann", "--params=1e9,3.3e4"), ("Chinchilla, Approach 3", "--params=1B,33k")),
        (("deepseek", "--tokens=1.5e6"), ("DeepSeek LLM", "--tokens=1.5M")),
        (
            ("bergsma", "--params=1e9", "--tokens=2e10"),
            ("power lines", "--params=1B", "--tokens=20B"),
        ),
    ],
)
def test_laws_go_by_their_titles_and_counts_as_they_are_shown(plain, said):
    one, other = (call("forecast", f"--law={law}", *more) for law, *more in (plain, said))
    assert one.returncode == 0, one.stderr
    assert (other.returncode, other.stdout) == (0, one.stdout), other.stderr


def test_published_laws_of_hyper_parameters():
    """As Li et al. and DeepSeek-AI print them."""
    done = call("forecast", "--law=steplaw", "--params=1e9,7e9", "--tokens=1e11,1.4e12")
    assert done.returncode == 0, done.stderr
    for words in ("0.001632", "1.108M", "0.0009166", "4.999M", "1.1 decades"):
        assert words in done.stdout
    done = call("forecast", "--law=deepseek", "--flops=1e20")  # sizes, and settings below
    assert "0.000986" in done.stdout and "1.017M" in done.stdout and "875M" in done.stdout
    names = call("forecast", "--law=list").stdout
    assert all(name in names for name in ("steplaw ", "bergsma ", "porian "))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), ("--fits", "--law")),
        (("--law=hoffmann", "--fits=x"), ("either",)),
        (("--law=hoffmann",), ("nothing is asked", "--flops")),
        (("--law=hofmann", "--flops=1e21"), ("did you mean hoffmann?",)),
        (("--law=lingg", "--flops=1e21"), ("did you mean Ling?",)),
        (("--law=Hofman", "--flops=1e21"), ("did you mean hoffmann?",)),
        (("--law=hoffmann", "--params=1Q"), ("--params: '1Q'", "5.76e23 or 1.5M")),
        (("--law=hoffmann", "--flops=1e21;2"), ("--flops", "1e21;2")),
        (("--law=hoffmann", "--flops=1e22,1e22"), ("--flops: 1e+22 is given twice",)),
        (("--law=hoffmann", "--loss=1.2"), ("out of reach", "1.693")),
        (("--law=llama3", "--loss=2"), ("sizes, not a loss",)),
        (("--law=gemstones", "--flops=1e21"), ("width",)),
        (("--law=steplaw", "--flops=1e21"), ("give --params and --tokens",)),
        (("--law=stelaw", "--flops=1e21"), ("did you mean steplaw?",)),
        (("--law=bjorck", "--params=1e9", "--tokens=1e10"), ("exponents and no constant",)),
        (("--law=steplaw", "--params=1e9,2e9", "--tokens=1e10"), ("2 values and --tokens 1",)),
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

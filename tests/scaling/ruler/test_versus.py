"""Two conditions against each other: the speed-up that made them, and what stands in its way."""

import math

import numpy as np
import pytest

from chinchilla_jax.experiment.errors import UserError
from chinchilla_jax.scaling.comparison import oppose
from chinchilla_jax.scaling.report import comparison as report
from chinchilla_jax.scaling.report.plots import style
from chinchilla_jax.scaling.report.plots.versus import speed_up
from chinchilla_jax.scaling.ruler.sides import sides
from chinchilla_jax.scaling.ruler.versus import versus
from chinchilla_jax.scaling.settings import Settings
from chinchilla_jax.scaling.table.conditions import Condition
from chinchilla_jax.scaling.table.read import read_runs
from tests.scaling.conditions import SURFACES, three_optimizers

ROWS = three_optimizers(sizes=6, seeds=3)
SETTINGS = Settings(bootstrap=200)


def faster(rows, times, noise=0.001, seed=1):
    """The rows of adamw, and of muon at losses of `times` the FLOPs on adamw's frontier."""
    s, rng = SURFACES["adamw"], np.random.default_rng(seed)
    gamma = s.alpha * s.beta / (s.alpha + s.beta)
    kept = [row for row in rows if row["optimizer"] == "adamw"]
    made = []
    for row in kept:
        loss = s.E + (s.loss(row["params"], row["tokens"]) - s.E) * times**-gamma
        loss = float(loss) * math.exp(noise * rng.standard_normal())
        made.append(row | {"optimizer": "muon", "loss": loss})
    return kept + made


def both(rows, first="adamw", second="muon"):
    return sides([first, second], "table", lambda _: read_runs(rows))


def test_one_speed_up_for_all_runs_and_along_the_frontiers():
    found = versus(*both(faster(ROWS, 1.4)), SETTINGS)
    assert found.overall.low < 1.4 < found.overall.high and found.overall.pays
    assert found.overall.high / found.overall.low < 1.15
    assert len(found.at) == 5
    assert all(one.low < 1.41 and one.high > 1.39 and one.high < 1.1 * one.low for one in found.at)
    assert [one.flops for one in found.at] == pytest.approx(np.geomspace(1e18, 1e20, 5), rel=1e-3)
    other = versus(*both(faster(ROWS, 1.4), "muon", "adamw"), SETTINGS)
    assert other.overall.value == pytest.approx(1 / found.overall.value, rel=0.03)
    assert other.overall.pays is False


def test_a_speed_up_that_grows_is_read_off_both_laws():
    found = versus(*both(ROWS), SETTINGS)
    for one in found.at:
        wanted = float(SURFACES["muon"].loss(*SURFACES["muon"].optimum(one.flops)))
        low, high = 1e16, 1e28
        for _ in range(200):
            middle = math.sqrt(low * high)
            loss = float(SURFACES["adamw"].loss(*SURFACES["adamw"].optimum(middle)))
            low, high = (middle, high) if loss > wanted else (low, middle)
        assert one.low < low / one.flops < one.high
    assert found.at[-1].low > found.at[0].high
    assert any(t.told for t in found.overall.trends)


def test_the_same_runs_under_two_names_are_worth_the_same():
    kept = [row for row in ROWS if row["optimizer"] == "adamw"]
    twice = kept + [row | {"optimizer": "muon"} for row in kept]
    found = versus(*both(twice), SETTINGS)
    for one in (found.overall, *found.at):
        assert one.value == pytest.approx(1.0) and one.low <= 1 + 1e-9 and one.high >= 1 - 1e-9


def test_lack_of_fit_is_told_from_seeds():
    fine = versus(*both(faster(ROWS, 1.4)), SETTINGS)
    assert all(one.lack_of_fit > 0.01 for one in fine.fitness)
    assert not any("lack of fit" in text for text in fine.warnings)
    bent = [row | {"loss": row["loss"] * (1 + 0.01 * math.sin(3 * math.log(row["params"])))}
            for row in faster(ROWS, 1.4)]  # fmt: skip
    found = versus(*both(bent), SETTINGS)
    assert all(one.lack_of_fit < 1e-6 for one in found.fitness)
    assert sum("lack of fit: its law misses runs" in text for text in found.warnings) == 2
    alone = [row for row in faster(ROWS, 1.4) if row["seed"] == 0]
    assert "cannot be told" in versus(*both(alone), SETTINGS).warnings[0]


def with_unit(rows, name, one, other):
    return [row | {name: one if row["optimizer"] == "adamw" else other} for row in rows]


def test_units_are_checked():
    rows = faster(ROWS, 1.4)
    bytewise = read_runs([{"val_bpb": row["loss"]} | row for row in rows])
    nats, bits = (sides(["adamw", "muon"], "table", lambda _, r=r: r)[0]
                  for r in (read_runs(rows), bytewise))  # fmt: skip
    with pytest.raises(UserError, match=r"in nats per token in .* and in bits per byte in"):
        versus(nats, bits, SETTINGS)
    with pytest.raises(UserError, match=r"vocab_size is 256 in .* two tokenizers are not of one"):
        versus(*both(with_unit(rows, "vocab_size", 256, 32000)), SETTINGS)
    with pytest.raises(UserError, match=r"counted as 6ND in .* and as matmul in"):
        versus(*both(with_unit(rows, "flops_convention", "six_nd", "matmul")), SETTINGS)
    texts = versus(*both(with_unit(rows, "data_fingerprint", "a1", "b2")), SETTINGS)
    assert "only where both are of one held-out text" in texts.warnings[0]
    dear = [
        row | {"flops": row["flops"] * (2 if row["optimizer"] == "muon" else 1)} for row in rows
    ]
    found = versus(*both(dear), SETTINGS)
    assert "cost 6 FLOPs in optimizer=adamw and 12 in optimizer=muon" in found.warnings[0]
    assert found.overall.low < 0.7 < found.overall.high and found.seconds is None


def test_seconds_are_told_where_both_ran_on_one_device():
    rows = [row | {"wall_seconds": row["flops"] / (1e15 if row["optimizer"] == "adamw" else 5e14),
                   "device_kind": "chip"} for row in faster(ROWS, 1.4)]  # fmt: skip
    first, second = both(rows)
    assert versus(first, second, SETTINGS).seconds == pytest.approx(0.5)
    said = " ".join(report.answer(oppose(first, second, SETTINGS)[0]))
    assert "does 0.5 times as many FLOPs a second" in said and "times in seconds" in said
    other = with_unit(rows, "device_kind", "chip", "other")
    assert versus(*both(other), SETTINGS).seconds is None


def test_sides_are_named_by_value_column_or_path(tmp_path):
    rows = [row | {"bits": bits} for row in ROWS for bits in (4, 16)]
    first, second = both(rows, "optimizer=adamw+bits=4", "optimizer=muon+bits=16")
    assert (first.title, second.title) == ("optimizer=adamw, bits=4", "optimizer=muon, bits=16")
    assert len(first.runs) == 90
    for asked, words in (
        (["adamw"], "two are compared"),
        (["adamw", "adamw"], "is given twice"),
        (["optimizer=adamw+bits=4", "lion"], "lion is no table and no condition"),
        (["adamw", "bits=4"], "is several conditions"),
        (["optimizer=lion", "optimizer=adamw"], "no run has it"),
    ):
        with pytest.raises(UserError, match=words):
            sides(asked, "table", lambda _: read_runs(rows))
    seen = []

    def read(path):
        seen.append(path)
        return read_runs([row for row in ROWS if row["optimizer"] == path.split(".")[0]])

    one, other = sides(["adamw.csv", "muon.csv"], None, read)
    assert seen == ["adamw.csv", "muon.csv"] and one.title == "table=adamw.csv"
    assert len(other.runs) == 90 and isinstance(other, Condition)


def test_the_report_has_the_speed_up_first(tmp_path):
    found, arrays = oppose(*both(faster(ROWS, 1.4)), SETTINGS)
    path = report.write(tmp_path, found, arrays, read_runs(ROWS))
    text = report.terminal(found, path)
    assert text.startswith("FLOPs of optimizer=muon ")
    assert "A training FLOP under optimizer=muon is worth 1." in text and "it is faster" in text
    page = path.read_text()
    assert page.index("Speed-up") < page.index("The optima") and 'id="speed_up"' in page
    with style.styled():
        figure = speed_up(found.versus)
    line = next(line for line in figure.axes[0].lines if len(line.get_xdata()) == 5)
    assert list(line.get_ydata()) == [pytest.approx(one.value) for one in found.versus.at]


def test_a_side_without_a_law_is_said():
    few = [row for row in ROWS if row["optimizer"] == "adamw"] + [
        row for row in ROWS if row["optimizer"] == "muon" and row["flops"] < 2e18
    ]
    found, _ = oppose(*both(few), Settings(bootstrap=0))
    assert "6 different runs" in found.versus.refusal and found.versus.overall is None
    assert report.answer(found)[0].startswith("No speed-up can be stated: optimizer=muon")
    with style.styled():
        assert "6 different runs" in speed_up(found.versus)

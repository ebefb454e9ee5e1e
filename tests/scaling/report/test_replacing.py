"""A report in the place of another: what stays of the other, and what of a person's own."""

import pytest

from chinchilla_jax.scaling.report.page import Picture, Section, page
from chinchilla_jax.scaling.report.replacing import write_page

OURS = {"report.html", "fits.json", "surface.png", "surface.svg"}


def page_of(*names, sections=()):
    pictures = [
        Picture(name, '<svg width="9pt" height="9pt" viewBox="0 0 9 9"></svg>', "A figure.")
        for name in names
    ]
    some = [Section(title, ("Said.",)) for title in sections]
    return page("t", "m", ["a"], [Section("Figures", (), (), pictures), *some])


@pytest.mark.parametrize(
    ("names", "sections", "written", "left"),
    [
        (("surface",), (), (), set()),
        (("surface", "tuning"), ("Hyper-parameters",), ("recipe.json",),
         {"tuning.png", "tuning.svg"}),
        (("surface",), ("League table",), ("league.csv",), {"league.csv"}),
    ],
)  # fmt: skip
def test_what_the_earlier_report_wrote_and_this_one_did_not_goes(
    names, sections, written, left, tmp_path
):
    theirs = {"layout.png", "mine.svg", "accuracy.svg"}  # no report was here with such figures
    recipe = "recipe.json"  # configs train by it: what wrote it may not take it away
    for name in {*OURS, *theirs, recipe, "tuning.png", "tuning.svg", "league.csv"}:
        (tmp_path / name).write_text("")
    earlier = page_of("surface", "tuning", sections=("Hyper-parameters", "League table"))
    (tmp_path / "report.html").write_text(earlier)
    write_page(tmp_path / "report.html", page_of(*names, sections=sections), *written)
    assert {p.name for p in tmp_path.iterdir()} == {*OURS, *theirs, recipe, *left}


@pytest.mark.parametrize("earlier", [None, b"", b"\xff", b'<figure id="mine"><h2 id="more">'])
def test_where_no_report_was_nothing_goes(earlier, tmp_path):
    for name in ("recipe.json", "mine.png", "tuning.svg"):
        (tmp_path / name).write_text("")
    if earlier is not None:
        (tmp_path / "report.html").write_bytes(earlier)
    write_page(tmp_path / "report.html", page_of("surface"))
    assert len(list(tmp_path.iterdir())) == 4

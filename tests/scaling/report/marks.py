"""What the points of a figure say they are."""

import xml.etree.ElementTree as ElementTree

_SVG = "{http://www.w3.org/2000/svg}"


def named_points(svg):
    """(kind, numbers) of every group of points, of which each mark has its number."""
    found = []
    for group in ElementTree.fromstring(svg).iter(f"{_SVG}g"):
        if "data-points" not in group.attrib:
            continue
        kind, *numbers = group.attrib["data-points"].split(" ")
        defined = {path for defs in group.iter(f"{_SVG}defs") for path in defs.iter()}
        marks = list(group.iter(f"{_SVG}use")) or [
            path for path in group.iter(f"{_SVG}path") if path not in defined
        ]
        assert len(marks) == len(numbers), (kind, numbers, len(marks))
        found.append((kind, [*map(int, numbers)]))
    return found


def assert_points_are_listed(folder, figure):
    """The points of a figure in a report's folder are rows of a table of its page."""
    page = (folder / "report.html").read_text()
    named = named_points((folder / f"{figure}.svg").read_text())
    assert any(numbers for _, numbers in named)
    for kind, numbers in named:
        for number in numbers:
            assert f'<tr id="{kind}-{number}"' in page, (kind, number)

#!/usr/bin/env bash
# Matplotlib 3.11.2: scatter takes url=, a property of every artist, and the SVG has no link of it,
# without a word; the same on a line makes one. Points of a collection take set_urls, a link each.
# Met where points of a figure were to lead to the rows of a table.
#
# Output:
#   links in the SVG: plot(url=...) 1, scatter(url=...) 0, scatter().set_urls([..., ...]) 2
#
# Exits non-zero when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check matplotlib==3.11.2 numpy==2.4.6
MPLCONFIGDIR=$folder "$folder/venv/bin/python" - <<'PYTHON' | tee "$folder/seen"
import io

from matplotlib.figure import Figure


def links(draw):
    """How many the SVG of a figure has."""
    figure, file = Figure(), io.StringIO()
    draw(figure.subplots())
    figure.savefig(file, format="svg")
    return file.getvalue().count('xlink:href="#row"')


line = links(lambda axes: axes.plot([1, 2], [1, 2], url="#row"))
points = links(lambda axes: axes.scatter([1, 2], [1, 2], url="#row"))
each = links(lambda axes: axes.scatter([1, 2], [1, 2]).set_urls(["#row", "#row"]))
print(
    f"links in the SVG: plot(url=...) {line}, scatter(url=...) {points}, "
    f"scatter().set_urls([..., ...]) {each}"
)
PYTHON
diff "$folder/seen" <(sed -n 's/^#   //p' "$0")

#!/usr/bin/env bash
# NumPy 2.4.6: a Philox key given as a list of two whole numbers loses the low bits of both where one
# of them is 2^63 or more, without a word: the list becomes float64 before it becomes uint64. Streams
# that should differ are then the same. Each entry is a valid 64-bit key word ("array_like[uint64]" in
# the documentation), and with both below 2^63, or as an array of uint64, nothing is lost. Met where
# weights were drawn by key (seed, hash << 32 | layer): every layer got the matrix of the first.
#
# Output:
#   list,  words 5 and 2^62 + 1 against 5 and 2^62 + 2: streams differ
#   list,  words 5 and 2^63 + 1 against 5 and 2^63 + 2: streams are the same
#   array, words 5 and 2^63 + 1 against 5 and 2^63 + 2: streams differ
#
# Exits non-zero when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check numpy==2.4.6
"$folder/venv/bin/python" - <<'PY' | tee "$folder/seen"
import numpy as np


def first(key):
    return np.random.Generator(np.random.Philox(key=key)).integers(0, 2**32, 4).tolist()


cases = (("list, ", list, 62), ("list, ", list, 63), ("array,", lambda k: np.array(k, np.uint64), 63))
for name, make, power in cases:
    one, two = (first(make([5, 2**power + n])) for n in (1, 2))
    same = "are the same" if one == two else "differ"
    print(f"{name} words 5 and 2^{power} + 1 against 5 and 2^{power} + 2: streams {same}")
PY
diff "$folder/seen" <(sed -n 's/^#   //p' "$0")

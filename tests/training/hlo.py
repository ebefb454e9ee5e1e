"""Reads the collectives out of a compiled program's text.

Only what these tests need of HLO's grammar: computations, the shapes of results, who calls whom,
how often a loop runs, and which devices take part.
"""

import re
from dataclasses import dataclass

import numpy as np

KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4, "f32": 4, "f64": 8}


@dataclass(frozen=True)
class Collective:
    """One collective operation: the arrays it leaves on a device and how often it runs a step."""

    kind: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]  # (dtype, shape) of each result
    groups: tuple[tuple[int, ...], ...]
    times: int
    name: str  # where in the Python program it comes from

    @property
    def bytes(self) -> int:
        """Of all results together, once."""
        return sum(_BYTES[dtype] * int(np.prod(shape)) for dtype, shape in self.shapes)


def collectives(text):
    """Every collective of an optimized HLO module, each with its number of runs."""
    computations, entry = _computations(text)
    found = []

    def visit(name, count):
        for line in computations[name]:
            kind = re.search(r"= (\S.*?) (" + "|".join(KINDS) + r")(-start)?\(", line)
            if kind:
                found.append(_collective(kind, line, count))
            body = re.search(r"body=%?([\w.\-]+)", line)
            if body:
                trips = re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
                assert trips, f"a loop of unknown length: {line}"
                visit(body[1], count * int(trips[1]))
            for callee in re.findall(
                r"(?:to_apply|calls|branch_computations)=\{?%?([\w.\-]+)", line
            ):
                if not kind:
                    visit(callee, count)

    visit(entry, 1)
    return found


def _computations(text):
    computations, entry, name = {}, None, None
    for line in text.splitlines():
        start = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{", line)
        if start:
            name = start[2]
            computations[name] = []
            entry = name if start[1] else entry
        elif name and line.startswith("  "):
            computations[name].append(line)
    return computations, entry


def _collective(kind, line, count):
    shapes = tuple(
        (dtype, tuple(int(n) for n in dims.split(",") if n))
        for dtype, dims in re.findall(r"(\w+)\[([\d,]*)\]", kind[1])
    )
    source = re.search(r'op_name="([^"]*)"', line)
    return Collective(kind[2], shapes, _groups(line), count, source[1] if source else "")


def _groups(line):
    """The devices that talk to each other, in whichever of its ways XLA writes them."""
    text = re.search(r"(?:replica_groups|source_target_pairs)=(.*)", line)[1]
    if text.startswith("mesh["):
        # mesh['a'=2,'b'=4], device_ids=([4,2]T(1,0)) {'a'}: groups along the axes named last.
        form = r"mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?\))? \{([^}]*)\}"
        axes, dims, order, chosen = re.match(form, text).groups()
        sizes = {name: int(size) for name, size in re.findall(r"'(\w+)'=(\d+)", axes)}
        chosen = re.findall(r"'(\w+)'(?=,|$)", chosen)
        ids = _iota(dims or ",".join(map(str, sizes.values())), order).reshape(*sizes.values())
        last = [list(sizes).index(name) for name in chosen]
        ids = np.moveaxis(ids, last, range(-len(last), 0))
        return _tuples(ids.reshape(-1, int(np.prod([sizes[name] for name in chosen]))))
    if text.startswith("["):  # [2,4]<=[2,2,2]T(1,0,2): an iota, transposed and reshaped
        shape, dims, order = re.match(
            r"\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?", text
        ).groups()
        return _tuples(_iota(dims, order).reshape([int(n) for n in shape.split(",")]))
    listed = re.match(r"\{((?:\{[\d,]+\},?)+)\}", text)
    assert listed, f"a collective without groups: {line}"
    return _tuples([map(int, g.split(",")) for g in re.findall(r"\{([\d,]+)\}", listed[1])])


def _iota(dims, order):
    dims = [int(n) for n in dims.split(",")]
    ids = np.arange(int(np.prod(dims))).reshape(dims)
    return ids.transpose([int(n) for n in order.split(",")]) if order else ids


def _tuples(groups):
    return tuple(sorted(tuple(int(n) for n in group) for group in groups))

"""Published laws of techniques, as their papers print them, and panels of runs that follow them.

Independent of the code: losses in closed form, multipliers by bisection on the dense law.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """A technique at one setting: its law beside the dense one, by its paper.

    `loss` and `dense` take parameters as the paper counts them and tokens; `counted` gives the
    amounts of a technique's row by column of a table.
    """

    name: str
    dense: Callable[[float, float], float]
    loss: Callable[[float, float], float]
    measure: str  # in which the paper gives the multiplier
    sizes: tuple[float, ...]  # of the smallest budget; four times the FLOPs, twice the size
    per_param: float  # tokens per parameter in the middle of the grid

    def multiplier(self, params: float, tokens: float) -> float:
        """m with dense(m N, D) = loss(N, D), or on the tokens."""
        wanted = self.loss(params, tokens)
        low, high = math.log(1e-4), math.log(1e4)
        for _ in range(200):
            middle = (low + high) / 2
            m = math.exp(middle)
            at = (params, m * tokens) if self.measure == "tokens" else (m * params, tokens)
            low, high = (middle, high) if self.dense(*at) > wanted else (low, middle)
        return math.exp((low + high) / 2)


# Frantar et al. 2023, equation 1 with table 2 for T5 on C4.
def frantar(n, d, s=0.0):
    return (16.8 * (1 - s) ** 0.722 + 45.0) * n**-0.245 + (6.90e8 / d) ** 0.203 + 0.651


# Busbridge et al. 2025, equations 1 and 8 with table 2.
def busbridge(n, d):
    return 1.220 + (3355 * n**-0.408 + 18186 * d**-0.431) ** 0.452


def student(n, d, teacher):
    """`teacher` is the loss of the teacher."""
    turn = (1 + (teacher / (busbridge(n, d) * 1.315)) ** (1 / 0.090)) ** (-522.6 * 0.090)
    return teacher + teacher**-2.549 * turn * (2243 * n**-0.321 + 24181 * d**-0.637) ** 0.764


# Kumar et al. 2024, table 2; weights alone at `bits`, with the fitted offsets.
def kumar(n, d, bits=None):
    share = 1.0 if bits is None else 1 - math.exp(-bits / 2.6745 + 0.3037)
    return 4.299e3 * (n * share) ** -0.4965 + 1.806e4 * d**-0.4965 + 2.7648


def kumar_after(n, d, bits):
    """Quantised after training: grows with D/N."""
    degraded = 0.0598 * d**0.5068 / n**0.3439 * math.exp(-bits / 0.5907)
    return kumar(n, d) + degraded


# Ludziejewski et al. 2025, equation 6 with table 3; N are active parameters.
def ludziejewski(n, d, experts=1):
    smallest, largest = 2.0732, 290.4521
    grown = experts - 1 + 1 / (1 / smallest - 1 / largest)
    e = 1 / (1 / grown + 1 / largest)
    size = 35.91 * e**-0.2285 * n ** (-0.1889 + 0.0098 * math.log(e))
    data = 35.98 * e**0.5529 * d ** (-0.1775 - 0.0259 * math.log(e))
    return size + data + 1.3637


# Clark et al. 2022, equation 6 with 7 and S-BASE of table 3, at their one length; N are active
# parameters. What more tokens give is Hoffmann et al.'s term.
def clark(n, d, experts=1):
    grown = experts - 1 + 1 / (1 / 1.847 - 1 / 314.478)
    e = math.log10(1 / (1 / grown + 1 / 314.478))
    size = 10 ** (1.104 - 0.082 * math.log10(n) - 0.108 * e + 0.009 * e * math.log10(n))
    return size + 410.7 * d**-0.28


# McLeish et al. 2025 (Gemstones, arXiv 2502.06857), their fit of width, depth, parameters and
# tokens to the runs of up to 100B tokens; N = 12 layers of width^2.
def gemstones(n, d, aspect=64.0):
    depth = (n / 12 / aspect**2) ** (1 / 3)
    size = sum(
        math.exp(c) * value**-x
        for c, value, x in (
            (1.4520106404, aspect * depth, 0.2446914313), (-0.0781020281, depth, 0.3871516764),
            (7.9700333376, n, 0.5000838843),
        )
    )  # fmt: skip
    return math.exp(0.39245797) + size + math.exp(10.0594263846) * d**-0.4761055541


# Muennighoff et al. 2023, equations 5 and 6, for models below what the unique tokens feed.
def muennighoff(n, d, epochs=1.0):
    unique = d / epochs
    seen = unique * (1 + 15.387756 * (1 - math.exp(-(epochs - 1) / 15.387756)))
    exponent = 0.3526596
    return (
        math.exp(0.6254804)
        + math.exp(6.255414) * n**-exponent
        + math.exp(7.3049974) * seen**-exponent
    )


# Hernandez et al. 2021, equation 1.1 from text to Python, in a surface of Hoffmann et al.'s.
def hernandez(n, d, pretrained=False):
    gained = 1.9e4 * d**0.18 * n**0.38 if pretrained else 0.0
    return 1.69 + 406.4 * n**-0.34 + 410.7 * (d + gained) ** -0.28


_TEACHER = busbridge(7.75e9, 20 * 7.75e9)
CASES = {
    case.name: case
    for case in (
        Case("frantar", frantar, lambda n, d: frantar(n, d, 0.75), "params", (1e7, 3e8), 40.0),
        Case("busbridge", busbridge, lambda n, d: student(n, d, _TEACHER), "tokens",
             (3e8, 3e9), 80.0),
        Case("kumar", kumar, lambda n, d: kumar(n, d, 4), "params", (1e7, 1.6e8), 60.0),
        Case("kumar_after", kumar, lambda n, d: kumar_after(n, d, 4), "params", (1e7, 1.6e8), 60.0),
        Case("ludziejewski", ludziejewski, lambda n, d: ludziejewski(n, d, 8), "params",
             (1e8, 1.6e9), 20.0),
        Case("clark", clark, lambda n, d: clark(n, d, 8), "params", (2.5e7, 4e8), 20.0),
        Case("gemstones", gemstones, lambda n, d: gemstones(n, d, 256.0), "params",
             (1e8, 1.6e9), 20.0),
        Case("muennighoff", muennighoff, lambda n, d: muennighoff(n, d, 8.0), "tokens",
             (1e8, 1.6e9), 20.0),
    )
}  # fmt: skip

# In one cell at a time: what a start is worth varies too much between cells for one multiplier.
PRETRAINED = Case("hernandez", hernandez, lambda n, d: hernandez(n, d, True), "tokens",
                  (1e7, 1.6e8), 20.0)  # fmt: skip


def panel_of(case, seed=0, noise=0.005, shared=0.7, budgets=4, sizes=5, seeds=2, cells=None):
    """Rows of dense runs and of one technique: `budgets` x `sizes` cells, `seeds` runs a cell.

    Noise is that of ln loss; the share `shared` of its variance belongs to the seed and is the same
    with the technique and without. The technique is run in the inner cells, or in `cells` of them.
    """
    rng = np.random.default_rng(seed)
    rows, inner = [], 0
    middle = math.sqrt(case.sizes[0] * case.sizes[1])
    for b in range(budgets):
        flops = 6 * case.per_param * (middle * 2 ** (b - (budgets - 1) / 2)) ** 2
        centre = math.sqrt(flops / 6 / case.per_param)
        for k in range(sizes):
            params = round(centre * 1.9 ** (k - (sizes - 1) / 2))
            tokens = round(flops / 6 / params)
            inside = 0 < k < sizes - 1 and (cells is None or inner < cells)
            inner += 0 < k < sizes - 1
            for s in range(seeds):
                common = noise * math.sqrt(shared) * rng.standard_normal()
                for name in ("dense", case.name)[: 1 + inside]:
                    own = noise * math.sqrt(1 - shared) * rng.standard_normal()
                    law = case.dense if name == "dense" else case.loss
                    rows.append(
                        {"technique": name, "params": float(params), "tokens": float(tokens),
                         "flops": 6.0 * params * tokens, "seed": s,
                         "loss": law(params, tokens) * math.exp(common + own)}
                    )  # fmt: skip
    return rows

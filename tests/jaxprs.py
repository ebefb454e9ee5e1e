"""Looking into traced programs."""

import jax
from jax.extend import core as jex


def equations(function, *arguments):
    """Every equation of its jaxpr, those of loops, branches and recomputations included."""
    return inner_equations(jax.make_jaxpr(function)(*arguments).jaxpr)


def inner_equations(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for inner in jex.jaxprs_in_params(equation.params):
            yield from inner_equations(inner)

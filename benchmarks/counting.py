"""Floating-point operations and bytes of a function, counted from shapes.

What is counted is every matrix product and convolution in the program that JAX traces, loops multiplied out. (XLA's own
`cost_analysis` counts the body of a loop once, so it cannot speak of a map that is worked on tile by tile.)
A product of [M, K] and [K, N] counts 2 M N K operations, and as bytes its operands and its result, each moved once.
What lies between the products, softmax and the like, is left out: the bytes are of a program that fuses all of that.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Work:
    """Operations (a multiplication and an addition are two) and bytes moved."""

    flops: int = 0
    bytes: int = 0

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times: int) -> "Work":
        return Work(self.flops * times, self.bytes * times)


def count(function: Callable[..., Any], *arguments: Any) -> Work:
    """Counts without running anything.

    Where a program chooses between branches, the one with more operations is counted.

    Args:
        function: of arrays.
        arguments: arrays, or `jax.ShapeDtypeStruct`.

    Raises:
        ValueError: there are products in a loop of unknown length.
    """
    return _of_program(jax.make_jaxpr(function)(*arguments).jaxpr)


def _of_program(program: Any) -> Work:
    return sum((_of_step(step) for step in program.eqns), Work())


def _of_step(step: Any) -> Work:
    kind = step.primitive.name
    if kind == "dot_general":
        (contracted, _), _ = step.params["dimension_numbers"]
        left = step.invars[0].aval.shape
        return _product(step, math.prod(left[axis] for axis in contracted))
    if kind == "conv_general_dilated":
        _, inner, *window = step.params["dimension_numbers"].rhs_spec
        kernel = step.invars[1].aval.shape
        # Zeros that a transposed convolution puts between the pixels are not worked on.
        terms = math.prod(kernel[axis] for axis in (inner, *window)) / math.prod(step.params["lhs_dilation"])
        return _product(step, terms)
    inside = [_of_program(program) for value in step.params.values() for program in _programs(value)]
    if kind == "cond":
        return max(inside, key=lambda work: work.flops, default=Work())
    whole = sum(inside, Work())
    if kind == "while" and whole.flops:
        raise ValueError("How often a while loop with products runs cannot be counted.")
    return whole * step.params["length"] if kind == "scan" else whole


def _product(step: Any, terms: float) -> Work:
    """Of which every result is a sum of so many products."""
    (result,) = step.outvars
    moved = sum(part.aval.size * part.aval.dtype.itemsize for part in (*step.invars, result))
    return Work(round(2 * terms * result.aval.size), moved)


def _programs(value: Any) -> Iterator[Any]:
    """The programs in a parameter of a step: jit, scan, cond and others hold one or several."""
    if isinstance(value, tuple | list):
        for part in value:
            yield from _programs(part)
    elif hasattr(value, "eqns"):
        yield value
    elif hasattr(value, "jaxpr"):
        yield from _programs(value.jaxpr)

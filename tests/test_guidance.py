"""Edges of a result against the lines that it was to follow."""

import math

import numpy as np
import pytest

from inpaint_jax.evaluation.guidance import Agreement, edge_agreement


def slow_agreement(edges, lines, hole, tolerance):
    """By all pairs of pixels."""

    def near(pixels, others):
        others = np.argwhere(others)
        return sum(
            any(math.dist(pixel, other) <= tolerance for other in others) for pixel in np.argwhere(pixels & hole)
        )

    return Agreement(int((edges & hole).sum()), near(edges, lines), int((lines & hole).sum()), near(lines, edges))


@pytest.mark.parametrize("tolerance", [0, 1, 3])
def test_agrees_with_all_pairs(tolerance):
    rng = np.random.default_rng(0)
    edges, lines = (rng.random((20, 24)) < 0.05 for _ in range(2))
    hole = rng.random((20, 24)) < 0.6
    assert edge_agreement(edges, lines, hole, tolerance) == slow_agreement(edges, lines, hole, tolerance)


def test_shifted_line_is_found_within_the_tolerance():
    lines = np.zeros((32, 32), bool)
    lines[16] = True
    hole = np.zeros((32, 32), bool)
    hole[:, 8:24] = True
    for shift, share in ((0, 1.0), (3, 1.0), (4, 0.0)):
        agreement = edge_agreement(np.roll(lines, shift, axis=0), lines, hole)
        assert (agreement.precision, agreement.recall, agreement.f1) == (share,) * 3
        assert agreement.drawn == 16


def test_half_the_lines_and_as_many_edges_elsewhere():
    hole = np.ones((40, 40), bool)
    lines, edges = np.zeros((2, 40, 40), bool)
    lines[5] = lines[35] = True
    edges[5] = edges[20] = edges[28] = True
    agreement = edge_agreement(edges, lines, hole)
    assert (agreement.precision, agreement.recall) == (pytest.approx(1 / 3), 0.5)
    assert agreement.f1 == pytest.approx(0.4)


def test_sums_and_empty_ones():
    empty = np.zeros((8, 8), bool)
    nothing = edge_agreement(empty, empty, ~empty)
    assert math.isnan(nothing.precision)
    assert math.isnan(nothing.recall)
    assert math.isnan(nothing.f1)
    assert nothing + Agreement(4, 2, 8, 6) == Agreement(4, 2, 8, 6)
    assert sum([Agreement(1, 1, 1, 0)] * 3, Agreement()) == Agreement(3, 3, 3, 0)
    assert edge_agreement(empty, ~empty, ~empty).f1 == 0
    with pytest.raises(ValueError, match="one shape"):
        edge_agreement(empty, empty, empty[:4])

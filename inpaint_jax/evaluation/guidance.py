"""How closely a result follows its sketch (§IV-F): its edges against the lines, inside the hole."""

import dataclasses

import cv2
import numpy as np


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Counts of edge and line pixels inside holes; + sums over images.

    Attributes:
        found: Edge pixels of the results.
        found_near: Edge pixels near a line.
        drawn: Pixels of the lines.
        drawn_near: Line pixels near an edge.
    """

    found: int = 0
    found_near: int = 0
    drawn: int = 0
    drawn_near: int = 0

    def __add__(self, other: "Agreement") -> "Agreement":
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other))
        return Agreement(*(one + another for one, another in pairs))

    @property
    def precision(self) -> float:
        """Share of the edge pixels that lie near a line; NaN without edges."""
        return self.found_near / self.found if self.found else float("nan")

    @property
    def recall(self) -> float:
        """Share of the line pixels that lie near an edge; NaN without lines."""
        return self.drawn_near / self.drawn if self.drawn else float("nan")

    @property
    def f1(self) -> float:
        """2 P R / (P + R); NaN with neither edges nor lines."""
        total = self.found + self.drawn
        if not total:
            return float("nan")
        if not (self.found_near and self.drawn_near):
            return 0.0
        return 2 * self.precision * self.recall / (self.precision + self.recall)


def edge_agreement(edges: np.ndarray, lines: np.ndarray, hole: np.ndarray, tolerance: float = 3.0) -> Agreement:
    """Compares the edges of a result with the lines of its sketch.

    Only pixels inside the hole are counted, but they may be near pixels outside: an edge that continues from the known
    part into the hole is not split there.

    Args:
        edges: bool [H, W], thin edges of the completed image (see `data.sketches.sketch_from_edges`).
        lines: bool [H, W], lines of the whole sketch.
        hole: bool [H, W], True = missing.
        tolerance: Largest distance that counts as near, in pixels (Euclidean).

    Returns:
        Agreement of this image.

    Raises:
        ValueError: the shapes differ.
    """
    if not edges.shape == lines.shape == hole.shape:
        raise ValueError(f"Edges, lines and hole must have one shape, not {edges.shape}, {lines.shape}, {hole.shape}.")
    found, drawn = edges & hole, lines & hole
    return Agreement(
        found=int(found.sum()),
        found_near=int((found & _near(lines, tolerance)).sum()),
        drawn=int(drawn.sum()),
        drawn_near=int((drawn & _near(edges, tolerance)).sum()),
    )


def _near(marked: np.ndarray, tolerance: float) -> np.ndarray:
    """bool [H, W], True within `tolerance` pixels of a marked one."""
    if not marked.any():
        return np.zeros_like(marked)
    return cv2.distanceTransform((~marked).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) <= tolerance

"""Texture for wide holes: what a network leaves smooth gets the detail of similar places of the same photo.

A network that learned by a distance fills the middle of a wide hole with the mean of what might be there, which is
smooth. Its colours and outlines are right, so they say where in the photo to look: every patch of the hole attends to
the known patch that is most like it (the paper's attention between patches at temperature 0, on pixels instead of
features), and takes over what stands out there against its surroundings, unless even that patch is too unlike. Patches
overlap; what they make is matched anew a few times, as in Wexler et al. 2007, "Space-time completion of video", and
neighbours prefer to copy from neighbours. Large photos are matched at a reduced size, and the same patches then carry
over what was lost by it, as in Yi et al. 2020, "Contextual residual aggregation for ultra high-resolution image
inpainting".
"""

import dataclasses
from collections.abc import Mapping

import cv2
import numpy as np

# All in cells, of which there are about so many along the longer side of a photo.
_CELLS = 128
_PATCH = 8
_STEP = 2  # between patches of the hole
_BLUR = 2.0  # what is finer than that is detail

_ROUNDS = 3
_COHERENT = 0.7  # the cost of a patch that lies beside the neighbour's, relative to any other's
_DETAIL = 0.3  # weight of detail in comparisons, where that of the smooth image is 1
_MAX_GAIN = 1.6  # overlapping patches dampen each other
# A patch is trusted up to this mismatch of the smooth images, relative to the detail nearby, and not from that one on:
# on a glossy cup the grain of the table would be a scratch.
_TRUSTED, _UNLIKE = 0.5, 1.0
_NEARBY = 16  # standard deviation of what is nearby

_NARROW = 5
"""Pixels: a part of a hole is left to the network if none of its pixels is further from a given one."""


@dataclasses.dataclass(frozen=True)
class Matches:
    """Which known patch each patch of the hole takes its detail from.

    Attributes:
        corners: int [N, 2], row and column of the upper left pixels of the hole's patches.
        sources: int [N, 2], the same of the known patches.
        trust: float32 [N], the share of its detail that comes from there, in [0, 1].
        side: of all patches, in pixels.
        blur: standard deviation in pixels: what is finer is detail.
    """

    corners: np.ndarray
    sources: np.ndarray
    trust: np.ndarray
    side: int
    blur: float

    def enlarged(self, old: tuple[int, ...], new: tuple[int, ...]) -> "Matches":
        """The same for the image at a larger size, [height, width]; what had one shift before has one afterwards."""
        factors = new[0] / old[0], new[1] / old[1]
        side = int(np.ceil(self.side * max(factors)))
        last = np.array(new) - side
        corners = np.clip(np.round(self.corners * factors).astype(int), 0, last)
        shifts = np.round((self.sources - self.corners) * factors).astype(int)
        sources = np.clip(corners + shifts, 0, last)
        return Matches(corners, sources, self.trust, side, self.blur * max(factors))


def match(completed: np.ndarray, hole: np.ndarray) -> Matches | None:
    """Finds the patches.

    Args:
        completed: uint8 [H, W, 3].
        hole: bool [H, W].

    Returns:
        Matches; None if there is no hole, or nothing known is as large as a patch.
    """
    scale = max(1, round(max(hole.shape) / _CELLS))
    height, width = (max(1, round(side / scale)) for side in hole.shape)
    if min(height, width) < _PATCH:
        return None

    def cells(pixels: np.ndarray) -> np.ndarray:
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)

    image = completed.astype(np.float32) / 255
    smooth = cv2.GaussianBlur(image, (0, 0), _BLUR * max(hole.shape[0] / height, hole.shape[1] / width))
    missing = cells(hole.astype(np.float32)) > 0
    sources = np.argwhere(~_patches(missing).any(axis=(-2, -1)))
    grid = np.stack(np.meshgrid(_starts(height), _starts(width), indexing="ij"), axis=-1).reshape(-1, 2)
    corners = grid[_patches(missing)[*grid.T].any(axis=(-2, -1))]
    if not len(sources) or not len(corners):
        return None

    # |a - b|^2 = |a|^2 - 2ab + |b|^2, with weights of a's pixels, as one product of matrices. Of the smooth image every
    # second pixel says all; of details, brightness is enough.
    lows, details = 2 * cells(smooth), _brightness(cells(image - smooth))
    key_low, key_detail = _vectors(lows, sources, every=2), _vectors(details, sources)
    table = np.concatenate([key_low, key_detail, key_detail**2], axis=1).T
    squares = np.sum(key_low**2, axis=1)
    low = _vectors(lows, corners, every=2)
    known = ~_patches(missing)[*corners.T].reshape(len(corners), -1)
    nearby = _nearby(cells(np.abs(image - smooth).mean(axis=-1)), missing)[*(corners + _PATCH // 2).T]
    number = np.full((height, width), -1)
    number[*sources.T] = np.arange(len(sources))
    places = {(y, x): i for i, (y, x) in enumerate(corners.tolist())}
    chosen = np.full(len(corners), -1)
    for turn in range(_ROUNDS):
        weights = np.where(known | (turn > 0), np.float32(_DETAIL), 0)
        detail = _vectors(details, corners)
        query = np.concatenate([-2 * low, -2 * weights * detail, weights], axis=1)
        own = np.sum(low**2, axis=1) + np.sum(weights * detail**2, axis=1)
        for first in range(0, len(corners), 256):
            rows = np.arange(first, min(first + 256, len(corners)))
            costs = np.maximum(query[rows] @ table + squares + own[rows, None], 0)
            _choose(chosen, rows, costs, corners, places, sources, number)
        mismatch = np.sqrt(np.mean((low - key_low[chosen]) ** 2, axis=1)) / 2
        trust = np.clip((_UNLIKE - mismatch / nearby) / (_UNLIKE - _TRUSTED), 0, 1)
        found = Matches(corners, sources[chosen], trust, _PATCH, _BLUR).enlarged((height, width), hole.shape)
        if turn < _ROUNDS - 1:
            details = _brightness(cells(_details(image - smooth, hole, found)))
    return found


def add_texture(completed: np.ndarray, hole: np.ndarray, matches: Matches) -> np.ndarray:
    """Gives the wide parts of a filled hole the detail of the known patches.

    Args:
        completed: uint8 [H, W, 3].
        hole: bool [H, W].
        matches: of this image.

    Returns:
        uint8 [H, W, 3]; as given outside the hole and in its narrow parts.
    """
    image = completed.astype(np.float32)
    smooth = cv2.GaussianBlur(image, (0, 0), matches.blur)
    textured = smooth + _details(image - smooth, hole, matches)
    # Narrow parts fade into wide ones; these have texture up to the hole's border.
    share = cv2.GaussianBlur(_around_wide(hole).astype(np.float32), (0, 0), 2) * hole
    return _in_hole(completed, hole, image + share[..., None] * (textured - image))


def to_full_size(completed: np.ndarray, photo: np.ndarray, hole: np.ndarray, matches: Matches | None) -> np.ndarray:
    """Brings a hole that was filled at a reduced size back to full size, with the detail that only this size has.

    Args:
        completed: uint8 [h, w, 3], the photo at the reduced size, filled.
        photo: uint8 [H, W, 3], at its full size.
        hole: bool [H, W].
        matches: of `completed`; the detail that reducing took from the known patches goes where they were matched.

    Returns:
        uint8 [H, W, 3]; the photo outside the hole.
    """
    large = cv2.resize(completed.astype(np.float32), hole.shape[::-1], interpolation=cv2.INTER_CUBIC)
    if matches is not None:
        lost = np.where(hole[..., None], 0, photo - large)
        large += _details(lost, hole, matches.enlarged(completed.shape[:2], hole.shape))
    return _in_hole(photo, hole, large)


def wide_part(hole: np.ndarray) -> np.ndarray:
    """The parts of a hole that are wider than twice `_NARROW` pixels, up to their borders: bool [H, W]."""
    return hole & _around_wide(hole)


def _around_wide(hole: np.ndarray) -> np.ndarray:
    """The wide parts of a hole, and six pixels around them."""
    core = (cv2.distanceTransform(hole.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5) > _NARROW).astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * (_NARROW + 6) + 1,) * 2)
    return cv2.dilate(core, disc).astype(bool)


def _in_hole(known: np.ndarray, hole: np.ndarray, filled: np.ndarray) -> np.ndarray:
    return np.where(hole[..., None], np.clip(np.round(filled), 0, 255), known).astype(np.uint8)


def _choose(
    chosen: np.ndarray,
    rows: np.ndarray,
    costs: np.ndarray,
    corners: np.ndarray,
    places: Mapping[tuple[int, int], int],
    sources: np.ndarray,
    number: np.ndarray,
) -> None:
    """Chooses the source of least cost, with a discount for those that lie beside the source of a neighbour.

    Args:
        chosen: int [N], the number of each patch's source, -1 before the first choice; those of `rows` are written.
        rows: int [R], which patches to choose for.
        costs: [R, M], of all sources; changed.
        corners: int [N, 2], of the hole's patches, in cells.
        places: corner -> its number.
        sources: int [M, 2], likewise.
        number: int [h, w], which source begins at a cell; -1 where none does.
    """
    for i, cost in zip(rows.tolist(), costs):
        y, x = corners[i].tolist()
        beside = set()
        for down, right in ((0, -_STEP), (-_STEP, 0), (0, _STEP), (_STEP, 0)):
            other = places.get((y + down, x + right))
            if other is None or chosen[other] < 0:
                continue
            row, column = sources[chosen[other]] - (down, right)
            if 0 <= row < number.shape[0] and 0 <= column < number.shape[1]:
                beside.add(int(number[row, column]))
        for source in beside - {-1}:
            cost[source] *= _COHERENT
        chosen[i] = cost.argmin()


def _details(details: np.ndarray, hole: np.ndarray, matches: Matches) -> np.ndarray:
    """The details of an image, float32 [H, W, 3], with those of trusted sources in the hole; as strong as there."""
    side = matches.side
    window = np.hanning(side + 2)[1:-1].astype(np.float32)
    window = (window[:, None] * window)[..., None]
    sums, power = np.zeros_like(details), np.zeros_like(details[..., :1])
    weights = np.zeros_like(power)
    for (y, x), (row, column), trust in zip(matches.corners.tolist(), matches.sources.tolist(), matches.trust):
        here = np.s_[y : y + side, x : x + side]
        patch = trust * details[row : row + side, column : column + side] + (1 - trust) * details[here]
        sums[here] += window * patch
        power[here] += window * np.sum(patch**2, axis=-1, keepdims=True)
        weights[here] += window
    inside = hole[..., None] & (weights > 0)
    weights = np.maximum(weights, 1e-6)
    mean = np.where(inside, sums / weights, 0)

    reach = 2 * round(2 * matches.blur) + 1

    def around(x: np.ndarray) -> np.ndarray:
        return np.maximum(cv2.blur(np.where(inside, x, 0), (reach, reach)), 0)[..., None]  # rounding may go below 0

    wanted, given = around(power / weights), around(np.sum(mean**2, axis=-1, keepdims=True))
    gain = np.sqrt(wanted / np.maximum(given, 1e-12))
    return np.where(inside, mean * np.clip(gain, 1, _MAX_GAIN), details)


def _nearby(amounts: np.ndarray, missing: np.ndarray) -> np.ndarray:
    """The mean of what is known around each cell, [h, w], and a little more, so that it can divide."""
    known = (~missing).astype(np.float32)
    sums, weights = (cv2.GaussianBlur(x, (0, 0), _NEARBY) for x in (amounts * known, known))
    return sums / np.maximum(weights, 1e-6) + 0.005


def _patches(cells: np.ndarray) -> np.ndarray:
    """[h, w] -> [h - _PATCH + 1, w - _PATCH + 1, _PATCH, _PATCH], a view."""
    return np.lib.stride_tricks.sliding_window_view(cells, (_PATCH, _PATCH))


def _vectors(cells: np.ndarray, corners: np.ndarray, every: int = 1) -> np.ndarray:
    """Every n-th cell, down and right, of the patches of [h, w, C] that begin at [N, 2]: [N, C * (_PATCH / n)**2]."""
    windows = np.lib.stride_tricks.sliding_window_view(cells, (_PATCH, _PATCH), axis=(0, 1))
    return windows[*corners.T][..., every // 2 :: every, every // 2 :: every].reshape(len(corners), -1)


def _brightness(details: np.ndarray) -> np.ndarray:
    """[h, w, 3] -> [h, w, 1]; for grey details, squares are the same sum as over three channels."""
    return 3**0.5 * details.mean(axis=-1, keepdims=True)


def _starts(side: int) -> np.ndarray:
    """Where patches begin, from border to border."""
    return np.unique([*range(0, side - _PATCH + 1, _STEP), side - _PATCH])
